//! alluvium lays change streams down as immutable Delta Lake history, exactly once.
//!
//! A source is **rows, and now and then a mark**: everything up to these positions has been handed over. A sink stages rows and, at a
//! mark, publishes them with the mark as one version. There is **one way to start**: read the marks from the Delta logs, and open the
//! source there. First start, restart, crash, lost connection, moved partition and second writer are all that one way.
//!
//! ```text
//!             rows + marks             rows + marks                 Parquet, vectors       actions + txn
//!  Kafka    ┐                ┌ reader ─────────────────┐ writer: orders ──────────► sink ────────────────► log
//!  Postgres ┴──► source ──►  │ one task, routes by     │ writer: users                                      │
//!                   ▲        │ table, bounded queues   │ one task per table                                 │
//!                   │        └─────────────────────────┘      │ safe (watch)                               │
//!                   └───────── release(min over tables) ◄─────┘            resume = marks in the log ◄──────┘
//! ```
//!
//! Imports go one way; `tests/architecture.rs` is the judge:
//!
//! ```text
//! main ─► cli ─► pipeline ─► sources ─┐
//!                   │                 ├─► the core (imports nothing above it)
//!                   └────► sinks ─────┤
//!                            └► log ──┘
//! ```
//!
//! It also says where tasks and threads may begin: in the pipelines, at the connections to a source, where a database is copied and its
//! progress told, and in the HTTP server. Whatever begins there ends with what began it.

pub mod batch;
pub mod budget;
pub mod cadence;
pub mod cli;
pub mod config;
pub mod error;
pub mod log;
pub mod pipeline;
pub mod position;
pub mod query;
pub mod reject;
pub mod serve;
pub mod shell;
pub mod sinks;
pub mod sources;
pub mod status;
pub mod table;
pub mod telemetry;
pub mod widening;
