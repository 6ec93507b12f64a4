//! Tables that have stopped, each by an error of its own: the others are opened without them. What they hold is still needed of the server.

use tracing::warn;

use super::{PostgresFeed, PostgresToDelta};
use crate::error::Result;
use crate::log::{FORGOTTEN, Log};
use crate::position::{Checkpoint, Lane};
use crate::sources::postgres::again::Held;
use crate::sources::postgres::catalog::PgTable;
use crate::table::{Lanes, TableId};

/// A table that is left out, and what it holds.
pub(super) struct LeftOut {
    id: TableId,
    only_grows: bool,
    slot: Lane,
    marks: Checkpoint,
}

impl LeftOut {
    pub fn held_by(&self) -> Option<Held<'_>> {
        Some(Held {
            table: self.id.as_str(),
            at: self.marks.get(&self.slot)?.0,
            only_grows: self.only_grows,
        })
    }

    pub fn lanes(&self) -> (Lanes, Checkpoint) {
        (Lanes::Slot(self.slot.clone()), self.marks.clone())
    }
}

impl PostgresToDelta {
    /// What is followed, without the tables that are left out. What these hold is kept.
    pub(super) async fn without_left_out(&mut self, published: &[PgTable], lane: &Lane) -> Result<Vec<(PostgresFeed, PgTable)>> {
        let (out, feeds): (Vec<_>, Vec<_>) = self
            .feeds
            .fed_by(published)?
            .into_iter()
            .partition(|(feed, _)| self.left_out.contains(&feed.id));
        self.waiting = out.iter().map(|(feed, _)| feed.id.clone()).collect();
        let mut held = Vec::new();
        for (feed, _) in out {
            let store = self.tables.store(&feed.location).await?;
            let Some(log) = Log::open(&feed.location, store, &self.resolved.name).await? else {
                continue;
            };
            let marks = log.checkpoint();
            // One that is yet to be copied needs nothing of what comes before its copy.
            if marks.get(lane).is_some_and(|at| at != FORGOTTEN) {
                if self.kept_for.insert(feed.id.clone()) {
                    warn!(table = %feed.id, "the server keeps the WAL that it lacks until it is mended and the pipeline is started again");
                }
                held.push(LeftOut {
                    id: feed.id,
                    only_grows: log.snapshot().only_grows(),
                    slot: lane.clone(),
                    marks,
                });
            }
        }
        self.kept_for.retain(|id| held.iter().any(|left| left.id == *id));
        self.held = held;
        Ok(feeds)
    }

    /// What kept these tables from being followed is over: they are like tables that are new, or as their marks say.
    pub(super) fn go_on_with(&mut self, tables: impl IntoIterator<Item = TableId>) {
        for id in tables {
            self.left_out.remove(&id);
            self.board.update(&self.resolved.name, |status| {
                if let Some(table) = status.tables.get_mut(id.as_str()) {
                    table.stopped = None;
                }
            });
        }
    }
}
