//! Whether each table of the database is still the one that its Delta table was copied from.
//!
//! A table that was dropped and made anew has the same name and other rows; and of one that was out of the publication for a while, changes
//! are missing that nothing tells. The server tells both by the numbers of its objects, which the dead-letter table keeps for all tables.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::position::{Checkpoint, Lane, Position};
use crate::sources::postgres::again::NEW_TABLE;
use crate::sources::postgres::catalog::PgTable;
use crate::table::{Mode, Table, TableId};

/// Of a table that is not there, instead of its relation, which has another number: what it is when it comes back, it is not any more.
const GONE: Position = Position(0);

/// The lane whose position is the relation that a table is copied from.
fn lane(slot: &Lane, table: &str) -> Lane {
    Lane::new(format!(
        "{}/relation/{table}@{}",
        slot.name(),
        slot.incarnation().unwrap_or_default()
    ))
}

/// What is kept of all tables, and what will be.
pub(super) struct Relations {
    kept: Checkpoint,
    now: Checkpoint,
}

impl Relations {
    /// `kept`: what the dead-letter table holds.
    pub fn of(kept: &Checkpoint) -> Self {
        Self {
            kept: kept.clone(),
            now: Checkpoint::default(),
        }
    }

    /// Whether the rows that the Delta table holds have to be copied again. A table that only grows cannot be: it stops.
    pub fn is_another(&mut self, slot: &Lane, table: &Table, source: &PgTable, holds: bool) -> Result<bool> {
        let (lane, now) = (lane(slot, table.id.as_str()), Position(source.relation));
        let is_another = holds && self.kept.get(&lane).is_some_and(|kept| kept != now);
        if is_another && table.mode == Mode::Append {
            let what = format!(
                "table {} was dropped and made anew, or was out of the publication for a while: changes are missing in `{}`, which keeps all of them: \
                 {NEW_TABLE}",
                source.full_name(),
                table.id
            );
            return Err(Error::data("relation_changed", what));
        }
        self.now.set(lane, now);
        Ok(is_another)
    }

    /// Whether a table was followed once.
    pub fn knows(&self, slot: &Lane, table: &TableId) -> bool {
        self.kept.get(&lane(slot, table.as_str())).is_some()
    }

    /// The tables that were followed once, and are not there now: they were dropped, renamed, or taken out of the publication.
    pub fn gone(&self, slot: &Lane) -> BTreeSet<String> {
        let lanes = self.kept.iter().filter(|(lane, _)| self.now.get(lane).is_none());
        let of = format!("{}/relation/", slot.name());
        let names = lanes.filter(|(lane, _)| lane.incarnation() == slot.incarnation());
        names
            .filter_map(|(lane, _)| Some(lane.name().strip_prefix(&of)?.to_owned()))
            .collect()
    }

    /// What is not there now is followed no longer, and the slot moves on without it.
    pub fn leave(&mut self, slot: &Lane, table: &str) {
        self.now.set(lane(slot, table), GONE);
    }

    /// What has to be kept from now on. None where it is kept already. `kept`: what the dead-letter table holds by now.
    ///
    /// Errors: what another process has kept meanwhile. It may have looked at the catalog later.
    pub fn unkept(self, kept: &Checkpoint) -> Result<Option<Checkpoint>> {
        let new = self.now.only(|lane| kept.get(lane) != self.now.get(lane));
        if let Some((lane, _)) = new.iter().find(|(lane, _)| kept.get(lane) != self.kept.get(lane)) {
            let what = format!("another process has kept {lane} meanwhile: this one opens again from the log");
            return Err(Error::transient("conflict", what));
        }
        Ok((!new.is_empty()).then_some(new))
    }
}
