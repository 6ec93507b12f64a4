//! One binary for all integration tests: they link once and share their support.

mod architecture;
mod conformance;
mod decode;
mod kafka;
mod log;
mod query;
mod simulate;
mod sink;
mod stores;
mod support;
