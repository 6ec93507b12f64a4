//! What flows from a source to a sink: runs of changes as columns, and marks.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::buffer::BooleanBuffer;

use crate::budget::Permit;
use crate::position::{Checkpoint, Lane};
use crate::table::TableId;

/// What happens to the row of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The row is as it stands here, whether it was there before or not.
    Put,
    /// The row is gone; only its key is read.
    Delete,
    /// All rows of the table are gone; nothing of the row is read.
    Truncate,
}

/// Cells that the source did not send, because they did not change (unchanged TOAST): by the column's index in the batch, true where
/// the cell was not sent. A sink fills them from the table, and never writes what stands in the rows there.
#[derive(Clone, Debug, Default)]
pub struct Unchanged(pub BTreeMap<usize, BooleanBuffer>);

/// A run of changes to one table, in source order, as columns.
#[derive(Debug)]
pub struct ChangeBatch {
    pub table: TableId,
    /// The columns that the source knows, by name and in any order; of a deleted row only the key is read.
    ///
    /// The sink makes them fit: a column that the table lacks is added to it, nullable and behind its own, in the commit that
    /// brings the first of these rows; a column that only the table has is null; a type whose values the column's has all (int for long,
    /// float for double, fewer digits of a decimal) is widened, and a wider one widens the column where the configuration asks for
    /// it; a column that has no nulls so far and gets one may be null from then on, save those of the key. So batches of producers
    /// that change at different times may follow each other in any order. Any other type than the table's, and a name that differs
    /// from another in case only, is an error (`schema_changed`).
    pub rows: RecordBatch,
    /// One per row, beside the rows, so that it cannot clash with a user's column.
    pub ops: Vec<Op>,
    pub unchanged: Option<Unchanged>,
    /// When the newest of these records came to be at the source, in milliseconds since 1970; None where the source does not tell.
    pub newest_ms: Option<i64>,
    /// Memory, given back when the rows are dropped. The source takes it where it can; else the reader does.
    pub permit: Option<Permit>,
}

impl ChangeBatch {
    /// Rows that are all put.
    pub fn puts(table: TableId, rows: RecordBatch) -> Self {
        let ops = vec![Op::Put; rows.num_rows()];
        Self {
            table,
            rows,
            ops,
            unchanged: None,
            newest_ms: None,
            permit: None,
        }
    }
}

/// Positions that the source no longer holds: retention was faster than we were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub table: TableId,
    pub lane: Lane,
    /// The first position that is missing, and the first that is there again.
    pub missing: std::ops::Range<u64>,
}

/// What a source is made of.
#[derive(Debug)]
pub enum Flow {
    Rows(ChangeBatch),
    /// Everything up to these positions has been handed over, and a table may be shown to readers here.
    Mark(Checkpoint),
    /// Rows of this table alone are whole up to here: those that came before are a copy of it, made at this position. It is published when
    /// a mark has come to it. Further rows of the table come when the flow opens again, and the source keeps what is behind the copy.
    Copied {
        table: TableId,
        mark: Checkpoint,
    },
    /// Where the table begins, or goes on behind a gap: it is to hold this from now on, in a version of its own. Comes before any row.
    Begin {
        table: TableId,
        mark: Checkpoint,
    },
    /// Changes that a table will never get, passed over because the configuration allows it. Comes before any row of the lane, and is
    /// recorded in the table's next commit.
    Gap(Gap),
    /// The lanes of the source have changed (a rebalance, a new partition): publish what is staged up to the last mark and open
    /// again from the log. The text says why, for the log.
    Reopen(String),
}
