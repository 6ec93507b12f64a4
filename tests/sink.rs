//! The Delta sink against a model: whatever is staged, spilled, replaced, deleted and truncated, and whoever else writes to the table, each
//! version is what a fold of the changes says, as an independent reader sees it.

mod age;
mod append;
pub mod bed;
mod changes;
mod compaction;
mod faults;
mod growth;
mod restart;
mod rivals;
mod upsert;
mod widening;
