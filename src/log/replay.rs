//! From the files of a log to the state of a table at a version: a checkpoint, and the commits behind it.

use futures::TryStreamExt;
use object_store::path::Path;

use crate::error::{Error, Result};
use crate::log::actions::CommitInfo;
use crate::log::entries::{Commit, Entries};
use crate::log::snapshot::Snapshot;
use crate::log::{features, times, type_changes};
use crate::table::Version;

/// Versions between checkpoints where a table does not say: the pipeline's own habit.
pub const CHECKPOINT_INTERVAL: u64 = 100; // Opening reads at most this many small files; Delta's own default too, since 3.0.
/// Versions before another among which its checkpoint is looked for before the whole log is listed.
const NEIGHBOURHOOD: u64 = 400; // Four checkpoints' worth, and, with a checksum beside each commit, one answer of an object store.

/// A state, and what was learnt on the way to it.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub snapshot: Snapshot,
    /// What the commits from the checkpoint on say about themselves, oldest first.
    pub tail: Vec<Said>,
    /// What tells the newest commit's file from another of its name.
    pub e_tag: Option<String>,
    /// The version of the checkpoint that it began with; 0 where there was none.
    pub checkpointed: Version,
}

/// What a commit says about itself.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub version: Version,
    pub info: CommitInfo,
}

/// The newest state of a table; None where there is no log.
pub(crate) async fn latest(entries: &Entries) -> Result<Option<Replayed>> {
    let listing = entries.list_latest().await?;
    let newest_checkpoint = listing.newest_checkpoint();
    let newest = listing.commits.last().copied().max(newest_checkpoint.map(|(version, _)| version));
    match newest {
        Some(version) => replay(entries, newest_checkpoint, version).await.map(Some),
        None => Ok(None),
    }
}

/// The state of a table at a version that is not newer than its newest: the newest checkpoint before it, and the commits since.
pub(crate) async fn at(entries: &Entries, version: Version) -> Result<Replayed> {
    let near = version.saturating_sub(NEIGHBOURHOOD);
    let mut listing = entries.list(near..=version).await?;
    if listing.checkpoints.is_empty() && near > 0 {
        listing = entries.list(0..=near).await?;
    }
    if listing.checkpoints.is_empty() && !listing.commits.contains(&0) {
        // The clean-up of a log leaves a checkpoint to begin with.
        let later = entries.list(version..=Version::MAX).await?.checkpoints;
        if let Some(oldest) = later.keys().next() {
            let place = &entries.place;
            let what = format!("version {version} of the table {place} was cleaned away: the oldest that can be read is {oldest}");
            return Err(Error::config("usage", what));
        }
    }
    replay(entries, listing.newest_checkpoint(), version).await
}

async fn replay(entries: &Entries, checkpoint: Option<(Version, &[Path])>, version: Version) -> Result<Replayed> {
    let mut snapshot = Snapshot::empty();
    let (mut first, mut tail, mut e_tag) = (0, Vec::new(), None);
    if let Some((checkpointed, files)) = checkpoint {
        snapshot.apply(entries.checkpoint(files).await?)?;
        first = checkpointed + 1;
        // Its time, which all versions come after, stands in its commit; that may have been cleaned away.
        if let Some(commit) = entries.commit(checkpointed).await? {
            snapshot.timestamp_ms = commit.made_ms();
            tail.push(Said::of(&commit));
            e_tag = commit.e_tag;
        }
    }
    let mut commits = std::pin::pin!(entries.commits(first..=version));
    while let Some(commit) = commits.try_next().await? {
        tail.push(Said::of(&commit));
        snapshot.timestamp_ms = times::after(snapshot.timestamp_ms, commit.made_ms());
        e_tag = commit.e_tag;
        snapshot.apply(commit.actions)?;
    }
    snapshot.version = version;
    may_read(&snapshot, entries)?;
    Ok(Replayed {
        snapshot,
        tail,
        e_tag,
        checkpointed: checkpoint.map_or(0, |(version, _)| version),
    })
}

/// Whether this program reads such a table rightly.
pub(super) fn may_read(snapshot: &Snapshot, entries: &Entries) -> Result<()> {
    let protocol = &snapshot.protocol;
    let refuse = |what: String| {
        Error::config(
            "unknown_feature",
            format!(
                "the table {} {what}: read it with a program that knows it, or drop the feature",
                entries.place
            ),
        )
    };
    match protocol.min_reader_version {
        0 => Err(Error::data(
            "bad_log",
            format!("the log of {} names no protocol: its first versions are missing", entries.place),
        )),
        1 | 2 => Ok(()),
        3 => {
            let asked = protocol.reader_features.as_deref().unwrap_or_default();
            match asked.iter().find(|feature| !features::READ.contains(&feature.as_str())) {
                Some(feature) => Err(refuse(format!("uses the reader feature `{feature}`, which alluvium does not know"))),
                None => match type_changes::unknown(snapshot.schema.fields()) {
                    Some(what) => Err(refuse(format!("has changed a type in a way that alluvium does not know: {what}"))),
                    None => Ok(()),
                },
            }
        }
        other => Err(refuse(format!("asks for reader version {other}, which alluvium does not know"))),
    }
}

impl Said {
    pub(crate) fn of(commit: &Commit) -> Self {
        Self {
            version: commit.version,
            info: commit.info().cloned().unwrap_or_default(),
        }
    }
}
