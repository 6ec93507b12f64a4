//! Updates that leave cells out as unchanged, of rows that are nowhere: what the rows are cannot be known.
//!
//! The row may be a dead letter, or was made by a change of its key that left the same cells out. Such an update stops the table; or it is
//! left out, where the table's options say so. Then the table has no row of that key until a change brings a whole one: what it has is right,
//! and it lacks what it cannot know.

use super::fill::Cell;
use super::keys::KeyEncoder;
use super::stage::Staged;
use crate::batch::Op;
use crate::config::OnUnknownRow;
use crate::error::{Error, Result};
use crate::table::{Lanes, Table};

/// What one table does with them.
#[derive(Debug)]
pub struct Unknown {
    on_unknown_row: OnUnknownRow,
    /// What may be done where they stop the table.
    next: String,
    left_out: LeftOut,
}

/// Rows that the table lacks for it, since the last commit.
#[derive(Debug, Default)]
pub struct LeftOut {
    pub rows: u64,
    /// The key of one of them, as a person reads it.
    pub one: String,
}

impl Unknown {
    pub fn new(table: &Table) -> Self {
        let next = match &table.lanes {
            Lanes::Slot(_) => format!(
                "Copy the table again (`alluvium resnapshot {}`), and set REPLICA IDENTITY FULL at the source before rows change",
                table.id
            ),
            _ => "Set `on_unknown_row = \"leave_out\"` of the table, and start again: it goes on without the row until a change brings it whole, as \
                  a new snapshot of Debezium's does. With REPLICA IDENTITY FULL at the source nothing is left out"
                .to_owned(),
        };
        Self {
            on_unknown_row: table.on_unknown_row,
            next,
            left_out: LeftOut::default(),
        }
    }

    /// Makes rows with such cells deleted ones, as far as they may be left out: an older row of their key goes away as it would have.
    pub fn settle(&mut self, batches: &mut [Staged], cells: &[Cell], encoder: &KeyEncoder) -> Result<()> {
        let Some(first) = cells.first() else { return Ok(()) };
        let key = encoder.printed(&batches[first.batch].rows, first.row)?;
        if self.on_unknown_row == OnUnknownRow::Stop {
            let schema = batches[first.batch].rows.schema();
            let (table, column, next) = (encoder.table(), schema.field(first.column).name(), &self.next);
            return Err(Error::data(
                "unknown_row",
                format!(
                    "cannot apply an update to `{table}` of the row with {key}: it leaves column `{column}` out as unchanged, and the table has no \
                     row of that key to take it from; the change that made the row, perhaps by giving it this key, may be among the dead letters. {next}"
                ),
            ));
        }
        self.left_out.one = key;
        for cell in cells {
            let before = std::mem::replace(&mut batches[cell.batch].ops[cell.row], Op::Delete);
            self.left_out.rows += u64::from(before == Op::Put); // Several of its cells may be unknown.
        }
        Ok(())
    }

    /// What was left out of what is published now.
    pub fn published(&mut self) -> LeftOut {
        std::mem::take(&mut self.left_out)
    }
}
