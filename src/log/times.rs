//! When versions were made, and which one a time names.
//!
//! **The rule** is that of Delta in Spark: a version was made when its commit says (or else when the store wrote it), but at least a
//! millisecond after the version before. So times grow with versions, whatever the clocks of their writers did, and a time names one
//! version: the newest that was made by then. What `history` shows are these times.
//!
//! When a version was made thus rests on all before it, but few are read: alluvium's own commits follow the rule when they are made and are
//! believed. Those of other programs are read back to the nearest of alluvium's, or to [`OTHERS_READ_MAX`] of them.

use futures::TryStreamExt;

use crate::error::Result;
use crate::log::Log;
use crate::log::entries::{Commit, READS_AT_ONCE};
use crate::table::Version;

/// Commits of others that are read back in a row: two or three seconds of an object store. The oldest of so many is believed.
const OTHERS_READ_MAX: usize = 1000;

/// A version, and when it was made: milliseconds since 1970.
type Made = (Version, i64);

impl Log {
    /// The newest version that was made by then.
    pub(super) async fn version_at_time(&self, time_ms: i64) -> Result<Version> {
        // Of `low` it is known that it was made by then, of `high` that it was not.
        let (mut low, mut high) = (self.oldest_made().await?, self.snapshot.version + 1);
        if low.1 > time_ms {
            let (oldest, made) = (low.0, text_of_time(low.1));
            return Err(self.no_such(format!("has no version as old as that: its oldest, {oldest}, was made at {made}")));
        }
        let mut probed = self.snapshot.version;
        while low.0 + 1 < high {
            let made = self.made_up_to(probed, low).await?;
            let by_then = made.partition_point(|(_, made_ms)| *made_ms <= time_ms);
            if let Some((later, _)) = made.get(by_then) {
                high = *later;
            }
            low = made[..by_then].last().copied().unwrap_or(low);
            probed = low.0 + (high - low.0) / 2;
        }
        Ok(low.0)
    }

    /// When the version of this commit was made.
    pub(super) async fn made_ms(&self, commit: &Commit) -> Result<i64> {
        if is_ours(commit) {
            return Ok(commit.made_ms());
        }
        let oldest = self.oldest_made().await?;
        let made = self.made_up_to(commit.version, oldest).await?;
        Ok(made.last().map_or(oldest.1, |(_, made_ms)| *made_ms))
    }

    /// The oldest version that is left; of those before it nobody knows.
    async fn oldest_made(&self) -> Result<Made> {
        let oldest = self.oldest_commit(0).await?;
        let commit = self.entries.commit(oldest).await?.ok_or_else(|| self.gone(oldest))?;
        Ok((oldest, commit.made_ms()))
    }

    /// The last versions up to `newest`, as many as had to be read to know when it was made, all of them after a `known` one.
    async fn made_up_to(&self, newest: Version, known: Made) -> Result<Vec<Made>> {
        let (mut made, mut end, mut at_once): (Vec<Made>, _, _) = (Vec::new(), newest + 1, 1);
        'back: while end > known.0 + 1 {
            let begin = end.saturating_sub(at_once).max(known.0 + 1);
            let commits: Vec<Commit> = self.entries.commits(begin..=end - 1).try_collect().await?;
            for commit in commits.iter().rev() {
                made.push((commit.version, commit.made_ms()));
                if is_ours(commit) || made.len() == OTHERS_READ_MAX {
                    break 'back;
                }
            }
            // Most logs are alluvium's own, where one is enough.
            (end, at_once) = (begin, (2 * at_once).min(READS_AT_ONCE as u64));
        }
        made.reverse();
        let mut before = known;
        for (version, made_ms) in &mut made {
            *made_ms = after(before.1.saturating_add_unsigned(*version - before.0 - 1), *made_ms);
            before = (*version, *made_ms);
        }
        Ok(made)
    }
}

/// When a version was made, by the time of the version before and by what its own commit says.
pub(super) fn after(before_ms: i64, says_ms: i64) -> i64 {
    says_ms.max(before_ms.saturating_add(1))
}

fn is_ours(commit: &Commit) -> bool {
    commit.info().is_some_and(|info| info.ours().is_some())
}

fn text_of_time(time_ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(time_ms).map_or_else(|| time_ms.to_string(), |time| time.to_rfc3339())
}
