//! How far a table holds a slot, read off its marks.

use crate::error::{Error, Result};
use crate::log::FORGOTTEN;
use crate::position::{Checkpoint, Lane};
use crate::sources::postgres::Holds;
use crate::table::Table;

/// What a table holds of the slot.
pub(super) fn holds(marks: &Checkpoint, lane: &Lane, table: &Table) -> Result<Holds> {
    if let Some((other, _)) = marks.named(lane.name()).filter(|(other, _)| *other != lane) {
        let what = format!(
            "table `{}` at {} holds changes of slot `{}` of another server (system {}, now {}): its positions mean nothing here. Name another \
             `location` for tables of this server",
            table.id,
            table.location,
            lane.name(),
            other.incarnation().unwrap_or_default(),
            lane.incarnation().unwrap_or_default(),
        );
        return Err(Error::data("another_server", what));
    }
    Ok(match marks.get(lane) {
        None => Holds::Nothing,
        // This is how a table is told to be copied again.
        Some(FORGOTTEN) => Holds::OldCopy,
        Some(at) => Holds::UpTo(at.0),
    })
}
