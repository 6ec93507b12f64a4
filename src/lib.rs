//! alluvium lays change streams down as immutable Delta Lake history, exactly once.
pub mod batch;
pub mod budget;
pub mod cli;
pub mod config;
pub mod error;
pub mod log;
pub mod position;
pub mod reject;
pub mod serve;
pub mod sources;
pub mod status;
pub mod table;
pub mod telemetry;
