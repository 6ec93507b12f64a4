//! Tables whose source is gone. The slot moves on without them; if they come back, they are copied again.
//!
//! One that a pattern asks for may be dropped whenever its owner likes: that is told, and is nothing that the pipeline needs help for. One with a
//! section of its own is missing there (`missing`), and has stopped.

use tracing::warn;

use super::PostgresToDelta;
use super::relations::Relations;
use crate::position::Lane;
use crate::table::TableId;

/// What `/status` says of such a table.
const GONE: &str =
    "its source is gone: dropped, renamed, or taken out of the publication; the table stays as it is, and is copied again if it comes back";

impl PostgresToDelta {
    /// The log tells each of these tables once a start, and the status as long as it is asked for and gone.
    pub(super) fn leave_gone(&mut self, relations: &mut Relations, slot: &Lane) {
        let mut gone = relations.gone(slot);
        gone.retain(|name| {
            let id = TableId::new(name.as_str());
            !self.waiting.contains(&id) && !self.unpublished.contains(&id)
        });
        for table in &gone {
            relations.leave(slot, table);
            let id = TableId::new(table.as_str());
            if self.missing.contains(&id) {
                continue;
            }
            // Whatever stopped it, it is another one if it comes back.
            self.left_out.remove(&id);
            if !self.gone.contains(table) {
                warn!(
                    table,
                    "its source is gone: dropped, renamed, taken out of the publication, or no longer asked for; the table stays as it is"
                );
            }
        }
        self.board.update(&self.resolved.name, |status| {
            for (name, table) in &mut status.tables {
                if table.is_gone && !gone.contains(name) {
                    (table.stopped, table.is_gone) = (None, false);
                }
            }
            for name in gone.iter().filter(|name| self.feeds.is_followed(name)) {
                let table = status.tables.entry(name.clone()).or_default();
                (table.stopped, table.is_gone) = (Some(GONE.to_owned()), true);
            }
        });
        self.gone = gone;
    }
}
