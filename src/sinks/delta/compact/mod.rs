//! Compaction behind the writer: small files are joined, and files with many deleted rows are written again without them.
//!
//! ```text
//!  commit ─► upkeep: choose ──► work, beside the commits: the rows live at S ──► ready
//!  commit ─► publish: rows deleted since S are marked in the new files, by position; one small version, or another time
//! ```
//!
//! Rows keep their order, so that a row of an old file is the row of the new one that has as many live rows before it. So commits go on
//! while files are read, and what they delete stays deleted. A version of a compaction has `dataChange = false` and moves no mark.
//!
//! It never fails the pipeline: the work may be dropped at any moment, a group whose files others have changed is given up, and a version
//! that comes too late is tried again behind the next commit. What is given up leaves an orphan, for vacuum.

pub mod choose;
mod work;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringTreemap;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use self::choose::{FAN_IN, Group, Policy};
pub use self::work::Compacted;
use self::work::{Source, compact};
use super::age::Age;
use super::files::Files;
use crate::error::{Kind, Result};
use crate::log::{Change, Log, NewFile, Snapshot};
use crate::table::{Layout, Table, TableId, Version};

/// After a round compaction rests for so many times as long as the round took, so that most of the machine is the writers'. A table that
/// gets more small files meanwhile joins more of them at once, and so writes each row again less often.
const REST: u32 = 3;
/// Commits behind which one round is offered: each time another writer was first.
const OFFERS_MAX: u32 = 20;
/// What a commit may wait for a version of a compaction. Nothing is lost when it is over: whether the version was made is found out by
/// the next commit.
const OFFER_TIME_MAX: Duration = Duration::from_secs(5);

/// Compacts one table.
pub struct Compactor {
    table: TableId,
    layout: Layout,
    policy: Policy,
    round: Round,
    /// Of what the round has written.
    age: Age,
    /// Files that were removed by this writer's own commits since the round began, because all of their rows were deleted.
    emptied: HashSet<Arc<str>>,
    /// Files that could not be read: left as they are until the table is opened again, so that they do not hold up the others.
    left_alone: HashSet<Arc<str>>,
    /// Files that were added or changed since nothing was found to do.
    touched: usize,
    rest_until: Instant,
}

/// Where the one round of a table stands.
enum Round {
    None,
    /// The sender is dropped with the work.
    Works(oneshot::Receiver<Done>),
    Ready {
        groups: Vec<Compacted>,
        offers: u32,
    },
}

/// What came of a round's work.
#[derive(Debug, Default)]
struct Done {
    groups: Vec<Compacted>,
    left_alone: Vec<Arc<str>>,
    took: Duration,
}

/// A version that a compaction made.
#[derive(Debug)]
pub struct Published {
    pub version: Version,
    pub groups: Vec<Compacted>,
    pub change: Box<Change>,
}

impl Compactor {
    pub fn new(table: &Table) -> Self {
        Self {
            table: table.id.clone(),
            layout: table.layout,
            policy: Policy {
                target: table.layout.target_file_size,
            },
            round: Round::None,
            age: Age::default(),
            emptied: HashSet::new(),
            left_alone: HashSet::new(),
            touched: usize::MAX, // What is there at the start is looked at once.
            rest_until: Instant::now(),
        }
    }

    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// What to write again, where a round is due.
    pub fn choose(&mut self, now: &Snapshot) -> Option<Vec<Group>> {
        self.take_done();
        let idle = matches!(self.round, Round::None) && Instant::now() >= self.rest_until;
        // Looking through all files is not for every commit.
        if !self.layout.auto_compact || !idle || self.touched < FAN_IN {
            return None;
        }
        let groups = self.policy.choose(now.files.values(), &self.left_alone);
        if groups.is_empty() {
            self.touched = 0;
            return None;
        }
        Some(groups)
    }

    /// The work of a round, which may be dropped at any moment. `files`: as the table's are written now; `groups`: of this version.
    pub fn begin(&mut self, files: Files, groups: Vec<Group>, version: Version) -> impl Future<Output = Result<()>> + Send + use<> {
        let (done, ready) = oneshot::channel();
        self.emptied.clear();
        self.age.end();
        self.age.begin();
        self.round = Round::Works(ready);
        round(files, groups, version, done)
    }

    /// A commit of this writer is in the log.
    pub fn committed(&mut self, change: &Change, now: &Snapshot) {
        self.touch(change.adds.len() + change.vectors.len());
        if !matches!(self.round, Round::None) {
            // A commit that marks the last row of a file as deleted, or truncates the table, removes the file: its rows are gone. A file that
            // was removed to be written again has left its rows in another, of which a round knows nothing.
            let emptied = change.vectors.keys().filter(|path| !now.files.contains_key(*path));
            self.emptied.extend(emptied.cloned());
        }
    }

    /// Files came or went by the hands of others, or by commits that say no more of them.
    pub fn touch(&mut self, files: usize) {
        self.touched = self.touched.saturating_add(files);
    }

    /// Publishes what is ready, if no other version comes first. None: there is nothing, or it is for another time, or lost.
    pub async fn publish(&mut self, log: &mut Log) -> Option<Published> {
        self.take_done();
        let (groups, offers) = match std::mem::replace(&mut self.round, Round::None) {
            Round::Ready { groups, offers } => (groups, offers),
            other => {
                self.round = other;
                return None;
            }
        };
        if let Err(error) = self.age.check(&self.table, log) {
            info!(table = %self.table, %error, "compaction given up");
            return None;
        }
        match timeout(OFFER_TIME_MAX, self.offer(log, &groups)).await {
            Ok(Ok(Offer::Taken(version, change, taken))) => {
                let groups = groups
                    .into_iter()
                    .zip(taken)
                    .filter_map(|(group, taken)| taken.then_some(group))
                    .collect();
                return Some(Published { version, groups, change });
            }
            Ok(Ok(Offer::Void)) => {
                info!(table = %self.table, "compaction given up: others have changed its files");
                return None;
            }
            Ok(Ok(Offer::Late)) => {}
            Ok(Err(error)) => warn!(table = %self.table, %error, "a compaction could not be published"),
            Err(_) => warn!(table = %self.table, "a compaction took too long to be published"),
        }
        if offers + 1 < OFFERS_MAX {
            let offers = offers + 1;
            self.round = Round::Ready { groups, offers };
        }
        None
    }

    /// Takes over what the work has made, once it has ended.
    fn take_done(&mut self) {
        let Round::Works(ready) = &mut self.round else { return };
        match ready.try_recv() {
            Ok(done) => {
                self.rest_until = Instant::now() + done.took * REST;
                self.left_alone.extend(done.left_alone);
                let groups = done.groups;
                self.round = if groups.is_empty() {
                    Round::None
                } else {
                    Round::Ready { groups, offers: 0 }
                };
            }
            Err(oneshot::error::TryRecvError::Empty) => {}
            Err(oneshot::error::TryRecvError::Closed) => self.round = Round::None,
        }
    }

    async fn offer(&self, log: &mut Log, groups: &[Compacted]) -> Result<Offer> {
        let mut change = Change {
            keeps_rows: true,
            operation: "OPTIMIZE",
            ..Change::default()
        };
        let mut taken = Vec::with_capacity(groups.len());
        let mut vectors = 0;
        for group in groups {
            let carried = self.carry(log, group).await?;
            taken.push(carried.is_some());
            if let Some((file, removes)) = carried {
                vectors += group.sources.iter().filter(|source| !source.left.is_empty()).count();
                change.adds.extend(file);
                change.removes.extend(removes);
            }
        }
        if change.removes.is_empty() {
            return Ok(Offer::Void);
        }
        change.metrics = BTreeMap::from([("numDeletionVectorsRemoved", vectors as u64)]);
        Ok(match log.offer(&change).await? {
            Some(version) => Offer::Taken(version, Box::new(change), taken),
            None => Offer::Late,
        })
    }

    /// The new file with the rows marked that were deleted since its sources were read, and the sources that are still there. None where
    /// others have changed the sources in another way than by deleting rows, or nothing of them is left.
    async fn carry(&self, log: &mut Log, group: &Compacted) -> Result<Option<(Option<NewFile>, Vec<Arc<str>>)>> {
        let (mut deleted, mut removes) = (RoaringTreemap::new(), Vec::new());
        for source in &group.sources {
            if log.snapshot().files.contains_key(&source.path) {
                let dead = log.vector(&source.path).await?;
                if !source.left.is_subset(&dead) {
                    return Ok(None);
                }
                deleted |= carried(source, &dead);
                removes.push(Arc::clone(&source.path));
            } else if self.emptied.contains(&source.path) {
                let first = u64::from(source.first);
                deleted.insert_range(first..first + source.kept());
            } else {
                return Ok(None);
            }
        }
        let file = group.file.as_ref().map(|file| NewFile { deleted, ..file.clone() });
        Ok((!removes.is_empty()).then_some((file, removes)))
    }
}

/// What came of an offer to the log.
enum Offer {
    /// The version, and which of the groups are in it.
    Taken(Version, Box<Change>, Vec<bool>),
    /// Another version came first.
    Late,
    /// Nothing of the groups is of use any more.
    Void,
}

/// Where the rows stand in the new file that are dead now and were not when it was written.
fn carried(source: &Source, dead: &RoaringTreemap) -> RoaringTreemap {
    let since = dead - &*source.left;
    // As many rows stand before it as before, those excepted that were left behind.
    since
        .iter()
        .map(|row| u64::from(source.first) + row - source.left.rank(row))
        .collect()
}

/// Writes the groups of files of this version again, one after the other. A group that cannot be read is left alone; a fault of the store ends the round.
async fn round(files: Files, groups: Vec<Group>, version: Version, ready: oneshot::Sender<Done>) -> Result<()> {
    let begun = Instant::now();
    let (mut done, mut failure) = (Done::default(), Ok(()));
    for group in groups {
        match compact(&files, &group, version).await {
            Ok(compacted) => done.groups.push(compacted),
            Err(error) => {
                done.left_alone.extend(group.into_iter().map(|file| file.path));
                if !matches!(error.kind, Kind::Data | Kind::Bug) {
                    failure = Err(error);
                    break;
                }
                warn!(table = %files.table, code = error.code, %error, "files that cannot be compacted are left as they are");
            }
        }
    }
    done.took = begun.elapsed();
    // Where nobody waits any more, the files are orphans.
    let _ = ready.send(done);
    failure
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_that_is_deleted_meanwhile_is_deleted_where_it_went(
            left in prop::collection::btree_set(0_u64..60, 0..60),
            since in prop::collection::btree_set(0_u64..60, 0..60),
            first in 0_u32..1000,
        ) {
            let live: Vec<u64> = (0..60).filter(|row| !left.contains(row)).collect();
            let source = Source { path: "x".into(), rows: 60, left: Arc::new(left.iter().collect()), first };
            let dead: RoaringTreemap = left.union(&since).collect();
            let carried: BTreeSet<u64> = carried(&source, &dead).iter().collect();
            let expected: BTreeSet<u64> =
                live.iter().enumerate().filter(|(_, row)| since.contains(row)).map(|(place, _)| u64::from(first) + place as u64).collect();
            prop_assert_eq!(carried, expected);
        }
    }
}
