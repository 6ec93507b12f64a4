//! The rows of one COPY, in columns, and the dead letters of those that cannot be.

use std::sync::PoisonError;

use metrics::counter;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::xxh3_128;

use super::jobs::Job;
use super::{Piece, Shared};
use crate::batch::ChangeBatch;
use crate::error::{Error, Result};
use crate::reject::{DeadLetter, DeadLetters, Place};
use crate::sources::postgres::Feed;
use crate::sources::postgres::changes::reject;
use crate::sources::postgres::copying::{CopyReader, Values};
use crate::sources::postgres::letter::told;
use crate::sources::postgres::progress::PartProgress;
use crate::sources::postgres::rows::{Event, Rows, copied_cells};
use crate::telemetry;

/// The rows of one job in the making.
pub(super) struct CopiedPart<'s> {
    of: &'s Shared,
    number: usize,
    table: &'s Feed,
    rows: Rows,
    letters: DeadLetters,
    /// Bad rows since the last batch.
    rejected: u64,
    reader: CopyReader,
    progress: PartProgress,
}

impl<'s> CopiedPart<'s> {
    pub(super) fn new(of: &'s Shared, job: &Job) -> Self {
        let table = &of.tables[job.table];
        Self {
            of,
            number: job.table,
            table,
            rows: Rows::new(&table.followed, of.settings.specials),
            letters: DeadLetters::new(&of.settings.pipeline, &of.settings.delivered),
            rejected: 0,
            reader: CopyReader::default(),
            progress: of.progress.part(&table.followed.id, job.bytes),
        }
    }

    /// Takes what the server sent, wherever it cut it.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.progress.receive(bytes.len());
        let columns = self.table.followed.columns.len();
        let mut reader = std::mem::take(&mut self.reader);
        let read = reader.take(bytes, columns, |values| self.row(values));
        self.reader = reader;
        read.map_err(|what| self.malformed(what))
    }

    /// What waits to be handed over.
    pub(super) fn bytes(&self) -> usize {
        self.rows.bytes() + self.letters.bytes()
    }

    pub(super) fn finish(&mut self) {
        self.progress.finish();
    }

    fn row(&mut self, values: Values<'_>) {
        let event = Event {
            op: "r",
            lsn: self.of.point,
            xid: None,
            committed_ms: None,
        };
        let Err(bad) = self.rows.append_copied(&self.table.followed, values, &event) else {
            return;
        };
        let reject = reject(&bad);
        let (key, row) = told(&self.table.followed, copied_cells(&self.table.followed, values));
        let hash = xxh3_128(&row);
        let number = key.as_ref().map_or_else(|| self.number_of_same(hash), |_| 0);
        self.rejected += 1;
        self.letters.push(&DeadLetter {
            lane: &self.of.settings.lane,
            position: self.of.point,
            place: Place::Content { hash, number },
            table: self.table.followed.id.as_str(),
            key: key.as_deref(),
            value: Some(&row),
            headers: None,
            timestamp_us: None,
            schema_id: None,
            reject: &reject,
        });
    }

    /// Tells a bad row from others without a key that hold the same.
    fn number_of_same(&self, hash: u128) -> u64 {
        let mut same = self.of.same.lock().unwrap_or_else(PoisonError::into_inner);
        let next = same.entry((self.number, hash)).or_default();
        *next += 1;
        *next - 1
    }

    /// False: nobody takes it any more.
    pub(super) async fn hand_over(&mut self, pieces: &mpsc::Sender<Result<Piece>>) -> Result<bool> {
        let settings = &self.of.settings;
        let (pipeline, table) = (settings.pipeline.to_string(), self.table.followed.id.to_string());
        let labels = |outcome: &str| {
            [
                ("pipeline", pipeline.clone()),
                ("table", table.clone()),
                ("outcome", outcome.to_owned()),
            ]
        };
        let rejected = std::mem::take(&mut self.rejected);
        if rejected > 0 {
            counter!(telemetry::RECORDS, &labels("dead_letter")).increment(rejected);
        }
        if let Some(rows) = self.letters.take(telemetry::now_us())? {
            let batch = ChangeBatch::puts(settings.letters.clone(), rows);
            if pieces.send(Ok(Piece::Letters { table: self.number, batch })).await.is_err() {
                return Ok(false);
            }
        }
        let Some(batch) = self.rows.take(&self.table.followed)? else {
            return Ok(true);
        };
        let printed = self.table.followed.printed_by_server(&batch.rows);
        if printed > 0 {
            let labels = [("pipeline", pipeline.clone()), ("table", table.clone())];
            counter!(telemetry::UNKNOWN_TYPES, &labels).increment(printed);
        }
        let rows = batch.ops.len() as u64;
        counter!(telemetry::RECORDS, &labels("written")).increment(rows);
        self.progress.hand_over(rows);
        Ok(pieces.send(Ok(Piece::Rows(batch))).await.is_ok())
    }

    pub(super) fn must_be_whole(&self) -> Result<()> {
        if self.reader.is_at_its_end() {
            return Ok(());
        }
        let what = format!("the copy of {} ended in the middle of a row", self.table.source.full_name());
        Err(Error::transient("postgres_unreachable", what))
    }

    fn malformed(&self, what: &str) -> Error {
        Error::bug(format!(
            "the copy of {} is not what COPY's binary form should be: {what}",
            self.table.source.full_name()
        ))
    }
}
