//! Rows of an append table: they go straight to Parquet, one open file for each partition value.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;

use super::files::{FileWriter, Files};
use super::partition::{Partitions, Values};
use crate::error::Result;
use crate::log::NewFile;

/// Files in the making at once. A batch with more partition values than that makes more and smaller files, not a larger process.
const OPEN_FILES_MAX: usize = 64;

/// The files in the making of one commit.
pub struct Appender {
    files: Files,
    partition_by: Vec<String>,
    /// None where the table has no partitions.
    partitions: Option<Partitions>,
    open: BTreeMap<Values, Open>,
    done: Vec<NewFile>,
    /// Bytes that all open files may hold in memory together.
    memory: usize,
    /// Counts writes: tells which file was used last.
    turn: u64,
}

struct Open {
    writer: FileWriter,
    used: u64,
}

impl Appender {
    pub fn new(files: Files, partition_by: Vec<String>, partitions: Option<Partitions>, memory: usize) -> Self {
        Self {
            files,
            partition_by,
            partitions,
            open: BTreeMap::new(),
            done: Vec::new(),
            memory,
            turn: 0,
        }
    }

    /// Appends rows of all the table's columns.
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let split = match &self.partitions {
            Some(partitions) => partitions.split(rows)?,
            None => vec![(Vec::new(), rows.clone())],
        };
        for (values, rows) in split {
            self.write_to(values, &rows).await?;
        }
        Ok(())
    }

    /// Rows are of other columns from now on. Files of the old ones are whole: they only lack the new.
    pub async fn grow(&mut self, files: Files, partitions: Option<Partitions>) -> Result<()> {
        self.finish().await?;
        (self.files, self.partitions) = (files, partitions);
        Ok(())
    }

    /// Finishes all files: what the commit adds. It may be asked again, if the commit has to be tried again.
    pub async fn finish(&mut self) -> Result<Vec<NewFile>> {
        for (_, open) in std::mem::take(&mut self.open) {
            self.done.push(open.writer.finish().await?);
        }
        Ok(self.done.clone())
    }

    /// Forgets the files: they are published.
    pub fn clear(&mut self) {
        self.done.clear();
    }

    async fn write_to(&mut self, values: Values, rows: &RecordBatch) -> Result<()> {
        self.turn += 1;
        if !self.open.contains_key(&values) {
            self.make_room().await?;
            let named = self.partition_by.iter().cloned().zip(values.iter().cloned()).collect();
            self.open.insert(
                values.clone(),
                Open {
                    writer: self.files.begin(named)?,
                    used: 0,
                },
            );
        }
        if let Some(open) = self.open.get_mut(&values) {
            open.used = self.turn;
            open.writer.write(rows).await?;
            if open.writer.is_full() {
                self.finish_one(&values).await?;
            }
        }
        self.bound_memory().await
    }

    /// Finishes the file that was not written to for longest, if there are too many.
    async fn make_room(&mut self) -> Result<()> {
        if self.open.len() < OPEN_FILES_MAX {
            return Ok(());
        }
        let idle = self.open.iter().min_by_key(|(_, open)| open.used).map(|(values, _)| values.clone());
        match idle {
            Some(values) => self.finish_one(&values).await,
            None => Ok(()),
        }
    }

    async fn finish_one(&mut self, values: &Values) -> Result<()> {
        if let Some(open) = self.open.remove(values) {
            self.done.push(open.writer.finish().await?);
        }
        Ok(())
    }

    /// Ends the row group of the file that holds most, if all of them together hold too much.
    async fn bound_memory(&mut self) -> Result<()> {
        let held: usize = self.open.values().map(|open| open.writer.memory()).sum();
        if held <= self.memory {
            return Ok(());
        }
        match self.open.values_mut().max_by_key(|open| open.writer.memory()) {
            Some(open) => open.writer.flush().await,
            None => Ok(()),
        }
    }
}
