//! Which dead letters are there already: those that a flow may come to once more are read out of the dead-letter table.
//!
//! After a stop in peace none are, and nothing is read: what the letters hold beyond a table is known by the marks, and where it lies by
//! the statistics of the files. Where a table is copied, those are read that its copies before have made.

use std::collections::HashMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;

use crate::error::{Error, Result};
use crate::log::Log;
use crate::position::{Checkpoint, Lane, Position};
use crate::reject::delivered::Delivered;
use crate::reject::of_copies;
use crate::sinks::delta::scan::{Bounds, scan};
use crate::table::{Table, TableId};

/// What is read of the letters.
const COLUMNS: [&str; 5] = ["pipeline", "table", "lane", "position", "id"];

/// Tables that the letters are ahead of.
#[derive(Debug, Default, PartialEq)]
pub struct Behind {
    /// What each holds of a lane, by the lane's name.
    lanes: HashMap<String, HashMap<String, i64>>,
    /// How the ids of letters begin that earlier copies have made, of a table that is to be copied.
    copies: HashMap<String, String>,
}

impl Behind {
    /// `tables`: those that the source goes on with, and what they hold.
    pub fn of<'a>(letters: &Checkpoint, tables: impl IntoIterator<Item = (&'a Table, &'a Checkpoint)>) -> Self {
        let mut behind = Self::default();
        for (table, holds) in tables {
            for (lane, read) in letters.iter().filter(|(lane, _)| table.lanes.takes(lane)) {
                let held = held(holds, lane);
                if held < Some(read) {
                    let from = held.map_or(0, |held| i64::try_from(held.0).unwrap_or(i64::MAX));
                    let lanes = behind.lanes.entry(table.id.to_string()).or_default();
                    let least = lanes.entry(lane.name().to_owned()).or_insert(from);
                    *least = from.min(*least);
                }
            }
        }
        behind
    }

    /// `table` is to be copied, whatever it holds of the lane.
    pub fn copied(&mut self, table: &TableId, lane: &Lane) {
        self.copies.insert(table.to_string(), of_copies(table.as_str(), lane));
    }

    /// The letters of the pipeline that such a table may come to once more.
    pub async fn delivered(&self, letters: &Log, pipeline: &str) -> Result<Delivered> {
        let mut delivered = Delivered::default();
        if *self != Self::default() {
            let take = |rows: &RecordBatch| self.take(rows, pipeline, &mut delivered);
            scan(letters, &COLUMNS, |bounds| self.may_hold(bounds), take).await?;
        }
        Ok(delivered)
    }

    fn may_hold(&self, bounds: &Bounds) -> bool {
        let may_hold = |table: &String| bounds.may_hold("table", table);
        self.copies.keys().any(may_hold)
            || self.lanes.iter().any(|(table, lanes)| {
                let mut lanes = lanes.iter();
                may_hold(table) && lanes.any(|(lane, &from)| bounds.may_hold("lane", lane) && bounds.may_reach("position", from))
            })
    }

    fn take(&self, rows: &RecordBatch, pipeline: &str, delivered: &mut Delivered) -> Result<()> {
        let lost = || {
            Error::data(
                "bad_letters",
                "the dead-letter table has lost columns of its own: restore it, or name another",
            )
        };
        let text = |name: &str| rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        let [Some(of), Some(table), Some(lane), Some(id)] = ["pipeline", "table", "lane", "id"].map(text) else {
            return Err(lost());
        };
        let position = rows
            .column_by_name("position")
            .and_then(|column| column.as_primitive_opt::<Int64Type>());
        let position = position.ok_or_else(lost)?;
        for row in (0..rows.num_rows()).filter(|&row| of.value(row) == pipeline) {
            let from = self.lanes.get(table.value(row)).and_then(|lanes| lanes.get(lane.value(row)));
            let copies = self.copies.get(table.value(row));
            if from.is_some_and(|&from| position.value(row) >= from) || copies.is_some_and(|begin| id.value(row).starts_with(begin)) {
                delivered.insert(id.value(row));
            }
        }
        Ok(())
    }
}

/// What a table holds of a lane, or else of another one of its name: a source goes on behind that.
fn held(holds: &Checkpoint, lane: &Lane) -> Option<Position> {
    let named = holds.iter().filter(|(other, _)| other.name() == lane.name()).map(|(_, at)| at);
    holds.get(lane).or_else(|| named.min())
}
