//! What happened to a table: its newest versions, as their writers describe them.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use serde_json::Value;

use crate::error::Result;
use crate::log::Log;
use crate::log::actions::UserMetadata;
use crate::log::entries::Commit;
use crate::log::times;
use crate::position::Lane;
use crate::table::Version;

/// A note of a version: a list of `{lane, from, until}`, positions that the source had lost before they were read. `until` is there again.
pub const GAPS: &str = "gaps";

/// One version of a table.
#[derive(Clone, Debug)]
pub struct Entry {
    pub version: Version,
    /// When it was made, as `times.rs` says: milliseconds since 1970.
    pub timestamp_ms: i64,
    pub operation: Option<String>,
    pub engine: Option<String>,
    /// `operationMetrics`, numbers only.
    pub metrics: BTreeMap<String, u64>,
    /// Pipeline and positions, where alluvium made the version.
    pub said: Option<UserMetadata>,
    pub files_added: usize,
    pub files_removed: usize,
}

impl Log {
    /// The newest `limit` versions that are known here, newest first. Versions whose commits were cleaned away end the list.
    pub async fn history(&self, limit: usize) -> Result<Vec<Entry>> {
        let newest = self.snapshot.version;
        let oldest = (newest + 1).saturating_sub(limit as u64);
        let oldest = self.oldest_commit(oldest).await?;
        let mut commits = std::pin::pin!(self.entries.commits(oldest..=newest));
        let mut entries: Vec<Entry> = Vec::new();
        while let Some(commit) = commits.try_next().await? {
            let made_ms = match entries.last() {
                Some(before) => times::after(before.timestamp_ms, commit.made_ms()),
                None => self.made_ms(&commit).await?,
            };
            entries.push(Entry::of(&commit, made_ms));
        }
        entries.reverse();
        entries.truncate(limit);
        Ok(entries)
    }
}

impl Entry {
    fn of(commit: &Commit, timestamp_ms: i64) -> Self {
        let info = commit.info();
        let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        let metrics = info.and_then(|info| info.operation_metrics.as_ref()?.as_object());
        Self {
            version: commit.version,
            timestamp_ms,
            operation: info.and_then(|info| info.operation.clone()),
            engine: info.and_then(|info| info.engine_info.clone()),
            metrics: metrics
                .into_iter()
                .flatten()
                .filter_map(|(name, value)| Some((name.clone(), number(value)?)))
                .collect(),
            said: info.and_then(|info| info.ours()).map(|mut said| {
                said.positions.retain(|lane, _| Lane::new(lane.as_str()).has_positions());
                said
            }),
            files_added: commit.actions.iter().filter(|action| action.add.is_some()).count(),
            files_removed: commit.actions.iter().filter(|action| action.remove.is_some()).count(),
        }
    }
}
