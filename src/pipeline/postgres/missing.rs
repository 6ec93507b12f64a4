//! Tables that have a section of their own and that the publication does not have.
//!
//! One that was never followed is a mistake, and stops the pipeline. One that was is gone: it stops alone, until it is there again. Then it is
//! copied again, so the server keeps nothing for it meanwhile.

use std::collections::BTreeSet;

use super::relations::Relations;
use super::{PostgresFeed, PostgresToDelta};
use crate::error::{Error, Result};
use crate::position::Lane;
use crate::sources::postgres::catalog::PgTable;
use crate::sources::postgres::connection::identifier;
use crate::table::TableId;

impl PostgresToDelta {
    /// What stops those of them that have not stopped yet. Those that are there again go on.
    pub(super) fn stop_missing(&mut self, published: &[PgTable], known: &Relations, lane: &Lane) -> Result<Vec<Error>> {
        let missing = self.feeds.missing(published).filter(|feed| !self.unpublished.contains(&feed.id));
        let mut missing: Vec<PostgresFeed> = missing.cloned().collect();
        let now = missing.iter().map(|feed| feed.id.clone()).collect();
        let before = std::mem::replace(&mut self.missing, now);
        let there_again: Vec<TableId> = before.difference(&self.missing).cloned().collect();
        self.go_on_with(there_again);
        missing.retain(|feed| !self.left_out.contains(&feed.id));
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let publication = identifier(&self.publication_name());
        // Once the pipeline has begun, one that never could be published may be dropped as well.
        let begins = !self.is_matched;
        if begins && missing.iter().any(|feed| !known.knows(lane, &feed.id)) {
            let sources: BTreeSet<String> = missing.iter().map(PostgresFeed::source).collect();
            let sources = Vec::from_iter(sources).join(", ");
            let what = format!(
                "the publication does not have {sources}: ALTER PUBLICATION {publication} ADD TABLE {sources}, or take them out of the configuration"
            );
            return Err(Error::config("not_published", what));
        }
        let pipeline = &self.resolved.name;
        let gone = missing.iter().map(|feed| {
            let (source, id) = (feed.source(), &feed.id);
            let what = format!(
                "the publication does not have {source} any more: it was dropped, renamed, or taken out, and table `{id}` stays as it is. Run: \
                 ALTER PUBLICATION {publication} ADD TABLE {source}; then it is copied again, unless it only grows; or take \
                 [pipelines.{pipeline}.tables.{id}] out of the configuration"
            );
            Error::config("not_published", what).alone(id)
        });
        Ok(gone.collect())
    }
}
