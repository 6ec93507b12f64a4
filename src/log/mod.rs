//! The Delta transaction log of one table: versions, positions, commits, deletion vectors, checkpoints, time travel.
//!
//! A log is read once, when it is opened; from then on its newest state is kept in memory. A commit is the JSON of its actions,
//! put if its version is absent, and a lost race is the reading of the versions that won. So a commit costs what it changes,
//! however large the table and however long its log.
//!
//! ```text
//!   Log ── open, at, history ──► replay ──► entries ──► object store      entries: the files of `_delta_log`
//!    │                             │                                      replay:  checkpoint + commits = Snapshot
//!    └──── make, check, commit ────┴─► actions, vectors, schema           commit:  the one way in which a version is made
//! ```
//!
//! The Delta library (deltalake) is used for checkpoints and, in `query`, for scans. Its commit path is not used, so what it would
//! have checked (protocol, table id, schema, marks) is checked in `check.rs` and `commit.rs`; tests replay logs with both.

mod actions;
mod audit;
pub mod change;
mod check;
pub mod columns;
mod commit;
mod create;
mod durable;
mod entries;
mod features;
mod forget;
pub mod history;
mod indexed;
pub mod maintain;
mod plan;
mod positions;
mod properties;
mod replay;
mod retention;
mod rowless;
pub(crate) mod scannable;
mod schema;
pub mod snapshot;
pub mod store;
mod times;
mod type_changes;
mod unhinted;
mod unmade;
mod vectors;

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use roaring::RoaringTreemap;
use url::Url;

pub use actions::{Protocol, UserMetadata};
pub use change::{Change, NewFile, Outcome};
pub use forget::{FORGOTTEN, TOLD_AGAIN};
pub use indexed::Indexed;
pub use replay::CHECKPOINT_INTERVAL;
pub use snapshot::{LiveFile, Snapshot, Vector};

use crate::error::{Error, Result};
use crate::log::actions::Action;
use crate::log::entries::Entries;
use crate::log::replay::{Replayed, Said};
use crate::position::Checkpoint;
use crate::table::{Table, Version};

/// A moment of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum When {
    Latest,
    Version(Version),
    /// The newest version that was made at or before this time: milliseconds since 1970.
    Time(i64),
    /// The first version that holds all these positions. Of a database, one that a copy holds shows nothing before the copy's own. A lane
    /// may be named without its incarnation: `orders/0`; and with its pipeline before it: `shop:orders/0`.
    Mark(Checkpoint),
}

/// Whether no version of the table came after this one. The store is rooted at the table.
pub async fn is_newest(store: &dyn ObjectStore, version: Version) -> object_store::Result<bool> {
    match store.head(&entries::commit_path(version + 1)).await {
        Ok(_) => Ok(false),
        Err(StoreError::NotFound { .. }) => Ok(true),
        Err(e) => Err(e),
    }
}

/// The log of one table, and its newest state that is known here.
#[derive(Debug)]
pub struct Log {
    entries: Entries,
    url: Url,
    pipeline: Arc<str>,
    snapshot: Snapshot,
    /// What tells the file of the snapshot's version from another of its name: the table may be deleted and made anew under us.
    e_tag: Option<String>,
    /// The version of the checkpoint that the log was opened from; 0 where there was none.
    checkpointed: Version,
    /// What the commits from the last checkpoint on said when the log was opened: the audit looks there first.
    tail: Vec<Said>,
    /// What the pipeline takes the table for; none before `check`, and never for readers.
    table: Option<Table>,
    /// The newest version that repeated all marks of the pipeline.
    all_marks_at: Option<Version>,
    /// By lane a version by which another instance of the pipeline brought rows that the marks had passed, since the log was opened. It
    /// brought some that this one may be about to bring, and no mark would tell.
    passed: BTreeMap<String, Version>,
    /// Version 0, where the table is still to be made.
    unmade: Vec<Action>,
    jitter: SmallRng,
}

impl Log {
    /// Opens the log of the table at `url` and reads its newest state; None where there is no table. `store` is rooted at the table.
    /// Readers may give any `pipeline`, or none (""): it tells whose marks are meant where several pipelines wrote.
    pub async fn open(url: &Url, store: Arc<dyn ObjectStore>, pipeline: &str) -> Result<Option<Self>> {
        let entries = Entries {
            store,
            place: url.as_str().into(),
        };
        let Some(replayed) = replay::latest(&entries).await? else {
            return Ok(None);
        };
        Ok(Some(Self::from_parts(entries, url, replayed, pipeline)))
    }

    fn from_parts(entries: Entries, url: &Url, replayed: Replayed, pipeline: &str) -> Self {
        let Replayed {
            snapshot,
            tail,
            e_tag,
            checkpointed,
        } = replayed;
        let all_marks_at = tail
            .iter()
            .rev()
            .find(|said| said.repeats_marks_of(pipeline))
            .map(|said| said.version);
        Self {
            entries,
            url: url.clone(),
            pipeline: pipeline.into(),
            snapshot,
            e_tag,
            checkpointed,
            tail,
            table: None,
            all_marks_at,
            passed: BTreeMap::new(),
            unmade: Vec::new(),
            jitter: SmallRng::from_os_rng(), // Times between tries only: nothing that is decided depends on it.
        }
    }

    /// The newest state that is known here. A commit by another program is seen with the next `refresh` or `commit`.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The marks of this log's pipeline in the newest state that is known here.
    pub fn checkpoint(&self) -> Checkpoint {
        self.snapshot.checkpoint(&self.pipeline)
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The store, rooted at the table.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.entries.store
    }

    /// The deleted rows of a live file; empty where it has no vector. Read once, then kept in memory.
    pub async fn vector(&mut self, path: &str) -> Result<Arc<RoaringTreemap>> {
        let not_live = || {
            Error::bug(format!(
                "`{path}` is not a file of {} at version {}",
                self.url, self.snapshot.version
            ))
        };
        let file = self.snapshot.files.get_mut(path).ok_or_else(not_live)?;
        let rows = vectors::read(self.entries.store.as_ref(), &self.entries.place, file).await?;
        if let Some(vector) = &mut file.vector {
            vector.rows = Some(Arc::clone(&rows));
        }
        Ok(rows)
    }

    /// The state of the table at another moment.
    pub async fn at(&self, when: When) -> Result<Snapshot> {
        let version = self.version_at(&when).await?;
        if version == self.snapshot.version {
            return Ok(self.snapshot.clone());
        }
        Ok(replay::at(&self.entries, version).await?.snapshot)
    }

    /// The newest checkpoint that was there when the log was opened; 0 where there was none.
    pub fn checkpointed(&self) -> Version {
        self.checkpointed
    }

    /// Versions between checkpoints: `delta.checkpointInterval`, or 100.
    pub fn checkpoint_interval(&self) -> u64 {
        let text = self.snapshot.properties.get("delta.checkpointInterval");
        text.and_then(|text| text.parse().ok())
            .filter(|&interval| interval > 0)
            .unwrap_or(CHECKPOINT_INTERVAL)
    }
}
