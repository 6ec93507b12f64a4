//! One binary for all integration tests: they link once and share their support.

mod accounts;
mod architecture;
mod buckets;
mod cli;
mod conformance;
mod crash;
mod decode;
mod disk;
mod fuzz;
mod growth;
mod kafka;
mod letters;
mod log;
mod postgres;
mod query;
mod readers;
mod simulate;
mod sink;
mod stores;
mod support;
mod terminal;
mod waiting;
mod watching;
