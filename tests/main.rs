//! One binary for all integration tests: they link once and share their support.

mod decode;
mod support;
