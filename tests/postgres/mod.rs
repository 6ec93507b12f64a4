//! Postgres as a source, against real servers.

mod changes;
mod connection;
mod copies;
mod letters;
mod moments;
mod patience;
mod pgbench;
mod preflight;
mod printed;
mod refusals;
mod servers;
mod slots;
mod stream;
mod two_phase;
mod values;
mod widening;
