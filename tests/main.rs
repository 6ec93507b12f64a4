//! One binary for all integration tests: they link once and share their support.

mod architecture;
mod conformance;
mod decode;
mod simulate;
mod support;
