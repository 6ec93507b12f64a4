//! Tables that are asked for and could not be published: each stops alone, until it is.

use std::collections::{BTreeMap, BTreeSet};

use super::PostgresToDelta;
use crate::error::{Error, Result};
use crate::sources::postgres::connection::Control;
use crate::table::TableId;

/// See the head of the file.
#[derive(Default)]
pub(super) struct Unpublished {
    /// Schema and name of each on the server.
    pub sources: BTreeSet<(String, String)>,
    /// What stops tables that were not stopped yet.
    pub errors: Vec<Error>,
}

impl PostgresToDelta {
    /// Publishes what is asked for, if it is to be published.
    pub(super) async fn publish(&mut self, control: &Control) -> Result<Unpublished> {
        let Some(publisher) = &self.publisher else {
            return Ok(Unpublished::default());
        };
        let outcome = publisher.publish(control).await?;
        let (sources, selection) = (outcome.names(), self.feeds.selection());
        // The next look may be too late for a run that ends before, and a table that is named has to be there.
        let cannot_wait = |schema: &str, table: &str| self.until_caught_up || selection.names(schema, table);
        if let Some(locked) = outcome.later.into_iter().find(|one| cannot_wait(&one.schema, &one.table)) {
            return Err(locked.why);
        }
        let mut stopped = BTreeMap::new();
        for one in outcome.refused {
            for id in self.feeds.fed_from(&one.schema, &one.table) {
                let error = Error::new(one.why.kind, one.why.code, one.why.to_string()).alone(&id);
                stopped.insert(id, error);
            }
        }
        for id in stopped.keys() {
            // What keeps it out now takes the place of what was said while it was not there.
            if self.missing.remove(id) {
                self.left_out.remove(id);
            }
        }
        self.go_on_with_published(stopped.keys().cloned().collect());
        stopped.retain(|id, _| !self.left_out.contains(id));
        Ok(Unpublished {
            sources,
            errors: stopped.into_values().collect(),
        })
    }

    /// What has been published meanwhile is followed like a table that is new.
    fn go_on_with_published(&mut self, unpublished: BTreeSet<TableId>) {
        let before = std::mem::replace(&mut self.unpublished, unpublished);
        let published: Vec<TableId> = before.difference(&self.unpublished).cloned().collect();
        self.go_on_with(published);
    }
}
