//! A sink that keeps nothing: for benches of everything before it.

use crate::batch::{ChangeBatch, Gap};
use crate::error::Result;
use crate::position::Checkpoint;
use crate::sinks::Sink;
use crate::table::Version;

#[derive(Debug, Default)]
pub struct NullSink {
    checkpoint: Checkpoint,
    version: Version,
    pub rows: u64,
}

impl NullSink {
    pub fn new(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint,
            ..Self::default()
        }
    }
}

impl Sink for NullSink {
    fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    async fn write(&mut self, batch: ChangeBatch) -> Result<()> {
        self.rows += batch.rows.num_rows() as u64;
        Ok(())
    }

    fn note(&mut self, _gap: Gap) {}

    async fn commit(&mut self, mark: &Checkpoint) -> Result<Version> {
        self.checkpoint = mark.clone();
        self.version += 1;
        Ok(self.version)
    }
}
