//! What is staged for the next commit of an upsert table: first rows in memory, then, beyond the share, files that no version names yet.
//!
//! Each time rows leave memory they are folded, the winners are written to a file, and `pending` learns where each key now stands. A row
//! that was written before and is replaced now is marked in its file's vector, with which the file is then born. So a transaction of any
//! size needs the memory of its keys.

use arrow::array::{BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use roaring::RoaringTreemap;

use super::files::{FileWriter, Files};
use super::fit::arrange;
use super::fold::{Folded, Run, fold};
use super::keys::{Address, Key, KeyTable, Shape};
use crate::batch::{ChangeBatch, Op, Unchanged};
use crate::budget::Permit;
use crate::error::{Error, Result};
use crate::log::NewFile;

/// In place of a file's number: the last staged change of the key is its deletion.
pub const DELETED: u32 = u32::MAX - 1;
/// Rows handed to the encoder at once. Sources may stage a few rows at a time; encoders want more.
const WRITE_ROWS: usize = 8 << 10;

/// A batch in memory.
#[derive(Debug)]
pub struct Staged {
    pub rows: RecordBatch,
    pub ops: Vec<Op>,
    pub keys: Vec<Key>,
    pub unchanged: Option<Unchanged>,
    /// Held for as long as the rows are in memory.
    _permit: Option<Permit>,
}

impl Staged {
    /// Whether the source did not send some cell of a row that is put.
    pub fn lacks_cells(&self, row: usize) -> bool {
        let lacks = |unchanged: &Unchanged| unchanged.0.values().any(|cells| cells.value(row));
        self.unchanged.as_ref().is_some_and(lacks)
    }
}

/// A file that no version names yet.
#[derive(Debug)]
pub struct Spilled {
    /// None while it is being written, and where a truncation has made it void.
    pub file: Option<NewFile>,
    /// Rows that later changes have replaced.
    pub deleted: RoaringTreemap,
}

/// Changes that have left memory.
#[derive(Debug)]
pub struct Pending {
    /// Where each changed key stands: its file (a place in `spilled`) and row, or [`DELETED`].
    pub keys: KeyTable,
    pub spilled: Vec<Spilled>,
    /// All rows of the table go away with the commit, before anything that stands here.
    pub truncated: bool,
}

/// The changes of the next commit.
pub struct Stage {
    files: Files,
    batches: Vec<Staged>,
    /// What the batches in memory weigh.
    bytes: usize,
    pending: Pending,
    /// Writes the last of the spilled files.
    writer: Option<FileWriter>,
}

impl Pending {
    fn new(shape: Shape) -> Self {
        Self {
            keys: KeyTable::new(shape, 0),
            spilled: Vec::new(),
            truncated: false,
        }
    }

    /// The key now stands there; the row where it stood before is replaced.
    fn stand(&mut self, key: Key, at: Address) {
        if let Some(before) = self.keys.insert(key, at)
            && before.file != DELETED
        {
            self.spilled[before.file as usize].deleted.insert(u64::from(before.row));
        }
    }

    /// Nothing that was staged before counts any more.
    fn truncate(&mut self) {
        // The files' places stay taken, so that addresses stay unique within the commit.
        self.spilled.iter_mut().for_each(|spilled| spilled.file = None);
        self.keys = KeyTable::new(self.keys.shape(), 0);
        self.truncated = true;
    }
}

impl Stage {
    pub fn new(files: Files, shape: Shape) -> Self {
        Self {
            files,
            batches: Vec::new(),
            bytes: 0,
            pending: Pending::new(shape),
            writer: None,
        }
    }

    /// Takes rows with their keys. The key of a truncation is not read.
    pub fn push(&mut self, batch: ChangeBatch, keys: Vec<Key>) {
        // A permit says what the rows weigh in all; arrays that share a buffer would count it once each.
        let rows = batch
            .permit
            .as_ref()
            .map_or_else(|| batch.rows.get_array_memory_size(), Permit::bytes);
        self.bytes += rows + size_of_val(keys.as_slice()) + size_of_val(batch.ops.as_slice());
        self.batches.push(Staged {
            rows: batch.rows,
            ops: batch.ops,
            keys,
            unchanged: batch.unchanged,
            _permit: batch.permit,
        });
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// Rows are of other columns from now on. The file in the making is whole: it only lacks the new ones.
    pub async fn grow(&mut self, files: Files, columns: &SchemaRef) -> Result<()> {
        self.finish_file().await?;
        self.files = files;
        let mut staged = self.batches.iter_mut();
        staged.try_for_each(|batch| arrange(&mut batch.rows, &mut batch.unchanged, columns))
    }

    /// Takes the batches out of memory, folded. Whoever takes them gives them back to [`Stage::spill`].
    pub async fn take(&mut self) -> Result<(Vec<Staged>, Folded)> {
        let batches = std::mem::take(&mut self.batches);
        self.bytes = 0;
        let runs: Vec<Run<'_>> = batches
            .iter()
            .map(|batch| Run {
                keys: &batch.keys,
                ops: &batch.ops,
            })
            .collect();
        let folded = fold(self.pending.keys.shape(), &runs, |at| {
            batches[at.file as usize].lacks_cells(at.row as usize)
        });
        if folded.truncated {
            if let Some(writer) = self.writer.take() {
                writer.abandon().await;
            }
            self.pending.truncate();
        }
        Ok((batches, folded))
    }

    /// Writes the winners of folded batches to files, and drops the batches.
    pub async fn spill(&mut self, batches: Vec<Staged>, last: Vec<BooleanBuffer>) -> Result<()> {
        let Some(first) = batches.first() else { return Ok(()) };
        let mut rows = BatchCoalescer::new(first.rows.schema(), WRITE_ROWS);
        let mut keys = Vec::new();
        for (batch, last) in batches.into_iter().zip(last) {
            let is_put = BooleanBuffer::collect_bool(batch.ops.len(), |row| batch.ops[row] == Op::Put);
            let puts = &last & &is_put;
            keys.extend(puts.set_indices().map(|row| batch.keys[row]));
            let deletes = (&last & &!&is_put).set_indices().map(|row| batch.keys[row]).collect::<Vec<_>>();
            deletes
                .into_iter()
                .for_each(|key| self.pending.stand(key, Address { file: DELETED, row: 0 }));
            rows.push_batch_with_filter(batch.rows, &BooleanArray::new(puts, None))
                .map_err(|e| self.misfit(e))?;
            while let Some(rows) = rows.next_completed_batch() {
                let rest = keys.split_off(rows.num_rows());
                self.put(&rows, &std::mem::replace(&mut keys, rest)).await?;
            }
        }
        rows.finish_buffered_batch().map_err(|e| self.misfit(e))?;
        match rows.next_completed_batch() {
            Some(rows) => self.put(&rows, &keys).await,
            None => Ok(()),
        }
    }

    /// Makes all files whole.
    pub async fn finish_file(&mut self) -> Result<()> {
        if let (Some(writer), Some(spilled)) = (self.writer.take(), self.pending.spilled.last_mut()) {
            spilled.file = Some(writer.finish().await?);
        }
        Ok(())
    }

    /// Hands over what was published; nothing is staged any more.
    pub fn published(&mut self) -> Pending {
        let empty = Pending::new(self.pending.keys.shape());
        std::mem::replace(&mut self.pending, empty)
    }

    async fn put(&mut self, rows: &RecordBatch, keys: &[Key]) -> Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                self.pending.spilled.push(Spilled {
                    file: None,
                    deleted: RoaringTreemap::new(),
                });
                none.insert(self.files.begin(Default::default())?)
            }
        };
        let first = u32::try_from(writer.rows()).map_err(|_| Error::bug("a data file has grown beyond four thousand million rows"))?;
        writer.write(rows).await?;
        let full = writer.is_full();
        let file = (self.pending.spilled.len() - 1) as u32;
        for (row, &key) in (first..).zip(keys) {
            self.pending.stand(key, Address { file, row });
        }
        if full { self.finish_file().await } else { Ok(()) }
    }

    fn misfit(&self, error: ArrowError) -> Error {
        Error::bug(format!("staged rows of {} do not fit together", self.files.table)).because(error)
    }
}
