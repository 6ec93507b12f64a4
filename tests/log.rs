//! The Delta log: creation, commits, vectors, time travel; and what it does when the store or other programs misbehave.

mod cleanup;
mod commits;
mod creation;
mod faults;
mod others;
mod travel;
