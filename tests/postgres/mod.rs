//! Postgres as a source, against real servers.

mod changes;
mod connection;
mod copies;
mod keys;
mod letters;
mod locks;
mod moments;
mod names;
mod patience;
mod pgbench;
mod preflight;
mod printed;
mod publications;
mod publishing;
mod refusals;
mod relations;
mod rights;
mod servers;
mod slots;
mod stream;
mod timelines;
mod two_phase;
mod types;
mod values;
mod widening;
