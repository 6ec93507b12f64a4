//! The Delta transaction log of one table: versions, positions, commits, time travel.
