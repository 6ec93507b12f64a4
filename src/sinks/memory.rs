//! A table in memory: what the tests compare other sinks with, and what they put below a misbehaving one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;

use crate::batch::{ChangeBatch, Gap, Op};
use crate::error::{Error, Result};
use crate::position::Checkpoint;
use crate::sinks::Sink;
use crate::table::Version;

/// One published version: the marks that it holds, and the changes that it added.
#[derive(Clone, Debug)]
pub struct Published {
    pub mark: Checkpoint,
    pub changes: Vec<(RecordBatch, Vec<Op>)>,
    pub gaps: Vec<Gap>,
}

/// The log of a table. Version n is the n-th published one, counted from 1; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryTable(Arc<Mutex<Vec<Published>>>);

impl MemoryTable {
    fn lock(&self) -> MutexGuard<'_, Vec<Published>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn versions(&self) -> Vec<Published> {
        self.lock().clone()
    }

    pub fn checkpoint(&self) -> Checkpoint {
        self.lock().last().map(|version| version.mark.clone()).unwrap_or_default()
    }

    /// Publishes as version `base + 1` if that is not there yet, as a log does.
    fn put_if_absent(&self, base: usize, version: Published) -> bool {
        let mut versions = self.lock();
        let free = versions.len() == base;
        if free {
            versions.push(version);
        }
        free
    }
}

pub struct MemorySink {
    table: MemoryTable,
    base: usize,
    checkpoint: Checkpoint,
    staged: Vec<(RecordBatch, Vec<Op>)>,
    gaps: Vec<Gap>,
}

impl MemorySink {
    pub fn open(table: &MemoryTable) -> Self {
        let (base, checkpoint) = (table.versions().len(), table.checkpoint());
        Self {
            table: table.clone(),
            base,
            checkpoint,
            staged: Vec::new(),
            gaps: Vec::new(),
        }
    }
}

impl Sink for MemorySink {
    fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    async fn write(&mut self, batch: ChangeBatch) -> Result<()> {
        self.staged.push((batch.rows, batch.ops));
        Ok(())
    }

    fn note(&mut self, gap: Gap) {
        self.gaps.push(gap);
    }

    async fn commit(&mut self, mark: &Checkpoint) -> Result<Version> {
        let (changes, gaps) = (std::mem::take(&mut self.staged), std::mem::take(&mut self.gaps));
        let mark = self.checkpoint.clone().join(mark);
        let version = Published {
            mark: mark.clone(),
            changes,
            gaps,
        };
        if !self.table.put_if_absent(self.base, version) {
            return Err(Error::fenced("another writer has published first"));
        }
        self.base += 1;
        self.checkpoint = mark;
        Ok(self.base as Version)
    }
}
