//! Sinks: one table, written by one task.

pub mod delta;
pub mod memory;
pub mod null;

use std::future::Future;
use std::pin::Pin;

use crate::batch::{ChangeBatch, Gap};
use crate::error::Result;
use crate::position::Checkpoint;
use crate::table::{TableId, Version};

/// Work that may follow a commit, off its path: a checkpoint of the log, for example. It may be dropped at any moment.
pub struct Upkeep {
    pub table: TableId,
    pub work: Pin<Box<dyn Future<Output = Result<()>> + Send>>,
}

/// One table, written by one task. The contract, which `tests/conformance.rs` holds every sink to:
/// - What `write` took is seen by no reader before `commit`, and forgotten by a crash.
/// - `commit` publishes all staged rows and the mark as one version, or nothing.
/// - A sink keeps no more permits than its share of the budget: beyond it, it writes rows out and drops their permits.
/// - After an error the sink is dropped: only the log can tell what happened.
pub trait Sink: Send {
    /// What the table holds: the marks of its newest version that this sink knows.
    fn checkpoint(&self) -> &Checkpoint;

    /// The newest version that this sink knows; None of a table that is made by the first commit, or where nobody asks.
    fn version(&self) -> Option<Version> {
        None
    }

    /// Stages rows.
    fn write(&mut self, batch: ChangeBatch) -> impl Future<Output = Result<()>> + Send;

    /// Keeps a gap on record: the next commit tells of it.
    fn note(&mut self, gap: Gap);

    /// Publishes all staged rows and `mark` as one version. With nothing staged it publishes the mark alone.
    fn commit(&mut self, mark: &Checkpoint) -> impl Future<Output = Result<Version>> + Send;

    /// Ends in peace, with nothing staged that matters: what makes the next start quicker may be saved.
    fn close(self)
    where
        Self: Sized,
    {
    }

    /// Asked after each commit: what is to be done now and then beside the writing.
    fn upkeep(&mut self) -> Option<Upkeep> {
        None
    }

    /// Does what [`Self::upkeep`] would ask for, where no later commit will: the source has ended. Nothing is staged.
    fn tidy(&mut self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }
}
