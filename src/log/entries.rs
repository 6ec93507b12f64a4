//! The files of `_delta_log`: their names, how they are listed, read and put. Knows bytes and actions, not what they mean.
//!
//! Commits are read by name, since versions have no gaps. Only two things need a listing: which version is the newest, and
//! which checkpoints there are; `_last_checkpoint` says where to begin, so that a listing is short however long the log is. What other
//! writers keep beside (checksums, `compacted` commits) says nothing that the commits do not, and stays unread.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::log::actions::{Action, CommitInfo};
use crate::log::store::fault;
use crate::table::Version;

/// Commits read at once when a log is replayed: enough to hide the latency of an object store.
pub(crate) const READS_AT_ONCE: usize = 16;
/// Columns of a checkpoint that a replay needs. Tombstones and parsed statistics stay unread: they can be the larger part of it.
const STATE_COLUMNS: [&str; 5] = ["protocol", "metaData", "txn", "add", "sidecar"];
const UNREAD_LEAVES: [&str; 2] = ["stats_parsed", "partitionValues_parsed"];
/// Names a checkpoint, which may be gone.
pub(super) const HINT: &str = "_delta_log/_last_checkpoint";

/// The log folder of one table.
#[derive(Clone, Debug)]
pub(crate) struct Entries {
    pub store: Arc<dyn ObjectStore>,
    /// The table's URL, for messages.
    pub place: Arc<str>,
}

/// One commit file, read.
#[derive(Debug)]
pub(crate) struct Commit {
    pub version: Version,
    pub actions: Vec<Action>,
    /// What tells this very file from a later one of the same name.
    pub e_tag: Option<String>,
    /// When the store wrote it: milliseconds since 1970.
    pub stored_ms: i64,
}

/// What a listing found.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub commits: std::collections::BTreeSet<Version>,
    /// The files of each checkpoint that is complete.
    pub checkpoints: BTreeMap<Version, Vec<Path>>,
}

impl Listing {
    pub(crate) fn newest_checkpoint(&self) -> Option<(Version, &[Path])> {
        self.checkpoints
            .last_key_value()
            .map(|(version, files)| (*version, files.as_slice()))
    }
}

/// The part of `_last_checkpoint` that is of use.
#[derive(Debug, Deserialize)]
struct LastCheckpoint {
    version: Version,
}

/// The file of a version's commit.
pub(crate) fn commit_path(version: Version) -> Path {
    Path::from(format!("_delta_log/{version:020}.json"))
}

impl Commit {
    pub(crate) fn info(&self) -> Option<&CommitInfo> {
        self.actions.iter().find_map(|action| action.commit_info.as_ref())
    }

    /// The lanes of which the pipeline appended rows without moving a mark: so come the dead letters of a table that is behind the others.
    pub(crate) fn passed(&self, pipeline: &str) -> Vec<String> {
        let said = self.info().and_then(CommitInfo::ours);
        said.filter(|said| said.pipeline == pipeline)
            .map(|said| said.passed.clone())
            .unwrap_or_default()
    }

    /// When the version was made, as its writer says, or else the store.
    pub(crate) fn made_ms(&self) -> i64 {
        self.info().and_then(CommitInfo::made_ms).unwrap_or(self.stored_ms)
    }
}

impl Entries {
    /// Reads a version's commit; None where there is none.
    pub(crate) async fn commit(&self, version: Version) -> Result<Option<Commit>> {
        let path = commit_path(version);
        let Some((meta, bytes)) = self.read(&path).await? else {
            return Ok(None);
        };
        let actions = parse_commit(&bytes).map_err(|e| self.unreadable(&path).because(e))?;
        Ok(Some(Commit {
            version,
            actions,
            e_tag: meta.e_tag,
            stored_ms: meta.last_modified.timestamp_millis(),
        }))
    }

    /// Reads the commits of these versions in order, several at once. A missing one is an error.
    pub(crate) fn commits(&self, versions: RangeInclusive<Version>) -> impl futures::Stream<Item = Result<Commit>> + '_ {
        let read = move |version| async move {
            let missing = || {
                Error::data(
                    "bad_log",
                    format!(
                        "version {version} of {} is missing from its log: restore the file, or read a newer version",
                        self.place
                    ),
                )
            };
            self.commit(version).await?.ok_or_else(missing)
        };
        futures::stream::iter(versions).map(read).buffered(READS_AT_ONCE)
    }

    /// Puts a version's commit, if there is none. The error is the store's own: its meaning is for the caller to find out.
    pub(crate) async fn put_commit(&self, version: Version, bytes: Bytes) -> object_store::Result<Option<String>> {
        let create = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        let put = self.store.put_opts(&commit_path(version), PutPayload::from(bytes), create).await?;
        Ok(put.e_tag)
    }

    /// Lists the log from the newest known checkpoint on.
    pub(crate) async fn list_latest(&self) -> Result<Listing> {
        match self.last_checkpoint().await? {
            Some(version) => {
                let listing = self.list(version..=Version::MAX).await?;
                // The hint outlived its checkpoint: the log itself decides.
                if listing.checkpoints.is_empty() {
                    self.list(0..=Version::MAX).await
                } else {
                    Ok(listing)
                }
            }
            None => self.list(0..=Version::MAX).await,
        }
    }

    /// Lists commits and checkpoints of these versions.
    pub(crate) async fn list(&self, versions: RangeInclusive<Version>) -> Result<Listing> {
        let folder = Path::from("_delta_log");
        // An offset is exclusive: a name that sorts right before the first version's first.
        let offset = Path::from(format!("_delta_log/{:020}", versions.start()));
        let mut found = self.store.list_with_offset(Some(&folder), &offset);
        let mut listing = Listing::default();
        let mut parts: BTreeMap<(Version, String), (usize, Vec<Path>)> = BTreeMap::new();
        while let Some(meta) = found
            .try_next()
            .await
            .map_err(|e| fault(e, &format!("list the log of {}", self.place)))?
        {
            match Name::of(&meta.location) {
                // Not every server knows where a list is to begin: Azure's learnt it in 2026, and others that answer as it does have not.
                Some((version, _)) if version < *versions.start() => {}
                // Names come in order: the rest is later.
                Some((version, _)) if version > *versions.end() => break,
                Some((version, Name::Commit)) => _ = listing.commits.insert(version),
                Some((version, Name::Checkpoint { of })) => {
                    let (_, files) = parts.entry((version, of.0)).or_insert_with(|| (of.1, Vec::new()));
                    files.push(meta.location);
                }
                None => {}
            }
        }
        for ((version, _), (expected, files)) in parts {
            if files.len() == expected {
                listing.checkpoints.insert(version, files);
            }
        }
        Ok(listing)
    }

    /// Whether the file of this version is still the one that has this tag; None where it is gone.
    pub(crate) async fn commit_tag(&self, version: Version) -> Result<Option<Option<String>>> {
        match self.store.head(&commit_path(version)).await {
            Ok(meta) => Ok(Some(meta.e_tag)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(fault(e, &format!("look at version {version} of {}", self.place))),
        }
    }

    /// Reads the actions of a checkpoint: everything that a state is made of, but no tombstones.
    pub(crate) async fn checkpoint(&self, files: &[Path]) -> Result<Vec<Action>> {
        let mut actions = Vec::new();
        for path in files {
            actions.extend(self.checkpoint_part(path).await?);
        }
        let sidecars: Vec<String> = actions
            .iter()
            .filter_map(|action| Some(action.sidecar.as_ref()?.path.clone()))
            .collect();
        for name in sidecars {
            actions.extend(self.checkpoint_part(&Path::from(format!("_delta_log/_sidecars/{name}"))).await?);
        }
        Ok(actions)
    }

    async fn checkpoint_part(&self, path: &Path) -> Result<Vec<Action>> {
        let missing = || Error::transient("bad_log", format!("{path} of {} went away while it was read", self.place));
        let (_, bytes) = self.read(path).await?.ok_or_else(missing)?;
        let actions = if path.as_ref().ends_with(".json") {
            parse_commit(&bytes)
        } else {
            // Some milliseconds a file: far less than its reading.
            parse_checkpoint(bytes)
        };
        let unreadable = || {
            let what = format!(
                "the checkpoint {path} of {} cannot be read: remove it if all commits since the checkpoint before are there, \
                 or else restore it from a backup",
                self.place
            );
            Error::data("bad_log", what)
        };
        actions.map_err(|e| unreadable().because(e))
    }

    async fn last_checkpoint(&self) -> Result<Option<Version>> {
        let hint = self.read(&Path::from(HINT)).await?;
        // Only a hint: one that cannot be read is none.
        Ok(hint
            .and_then(|(_, bytes)| serde_json::from_slice::<LastCheckpoint>(&bytes).ok())
            .map(|hint| hint.version))
    }

    async fn read(&self, path: &Path) -> Result<Option<(ObjectMeta, Bytes)>> {
        let failed = |e| fault(e, &format!("read {path} of {}", self.place));
        match self.store.get(path).await {
            Ok(found) => {
                let meta = found.meta.clone();
                Ok(Some((meta, found.bytes().await.map_err(failed)?)))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(failed(e)),
        }
    }

    fn unreadable(&self, path: &Path) -> Error {
        Error::data(
            "bad_log",
            format!("{path} of {} cannot be read: restore it from a backup", self.place),
        )
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn parse_commit(bytes: &[u8]) -> Result<Vec<Action>, Cause> {
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    Ok(lines.map(serde_json::from_slice).collect::<Result<_, _>>()?)
}

/// Rows of a checkpoint become lines of JSON and then actions: one way to read actions, wherever they stand.
fn parse_checkpoint(bytes: Bytes) -> Result<Vec<Action>, Cause> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let schema = reader.parquet_schema();
    let wanted = (0..schema.num_columns()).filter(|&leaf| {
        let column = schema.column(leaf);
        let parts = column.path().parts();
        STATE_COLUMNS.contains(&parts[0].as_str()) && !UNREAD_LEAVES.contains(&parts.get(1).map_or("", String::as_str))
    });
    let mask = ProjectionMask::leaves(schema, wanted.collect::<Vec<_>>());
    let mut actions = Vec::new();
    for batch in reader.with_projection(mask).build()? {
        let mut lines = Vec::new();
        // Null partition values must survive, so nulls are written out.
        let format = arrow_json::WriterBuilder::new().with_explicit_nulls(true);
        let mut writer = format.build::<_, arrow_json::writer::LineDelimited>(&mut lines);
        writer.write(&batch?)?;
        writer.finish()?;
        drop(writer);
        actions.extend(parse_commit(&lines)?);
    }
    Ok(actions)
}

/// What a file of the log is.
enum Name {
    Commit,
    /// Which checkpoint of its version (there may be several), and of how many files it is.
    Checkpoint {
        of: (String, usize),
    },
}

impl Name {
    fn of(path: &Path) -> Option<(Version, Self)> {
        let name = path.as_ref().strip_prefix("_delta_log/")?;
        let (version, rest) = name.split_once('.')?;
        let version = (version.len() == 20).then(|| version.parse().ok()).flatten()?;
        let parts: Vec<&str> = rest.split('.').collect();
        match parts.as_slice() {
            ["json"] => Some((version, Name::Commit)),
            // Classic; the version 2 kind with its own name; and the classic kind of several files.
            ["checkpoint", "parquet"] => Some((version, Name::Checkpoint { of: (String::new(), 1) })),
            ["checkpoint", name, "parquet" | "json"] => Some((
                version,
                Name::Checkpoint {
                    of: ((*name).to_owned(), 1),
                },
            )),
            ["checkpoint", _, count, "parquet"] => Some((
                version,
                Name::Checkpoint {
                    of: (format!("#{count}"), count.parse().ok()?),
                },
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_log_are_told_apart() {
        let name = |name: &str| Name::of(&Path::from(format!("_delta_log/{name}")));
        assert!(matches!(name("00000000000000000007.json"), Some((7, Name::Commit))));
        for (checkpoint, files) in [
            ("00000000000000000007.checkpoint.parquet", 1),
            ("00000000000000000007.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.parquet", 1),
            ("00000000000000000007.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json", 1),
            ("00000000000000000007.checkpoint.0000000001.0000000003.parquet", 3),
        ] {
            assert!(
                matches!(name(checkpoint), Some((7, Name::Checkpoint { of: (_, count) })) if count == files),
                "{checkpoint}"
            );
        }
        for other in [
            "_last_checkpoint",
            "7.json",
            "00000000000000000007.crc",
            "00000000000000000001.00000000000000000007.compacted.json",
            "_sidecars/3a0d65cd-4056-49b8-937b-95f9e3ee90e5.parquet",
            "00000000000000000007.json.tmp",
            "_staged_commits/00000000000000000007.x.json",
        ] {
            assert!(name(other).is_none(), "{other}");
        }
    }

    #[test]
    fn a_commit_of_any_program_is_read() {
        let text = concat!(
            r#"{"commitInfo":{"timestamp":7,"operation":"X","operationParameters":{"a":1},"isolationLevel":"Serializable","tags":{"x":"y"}}}"#,
            "\n",
            r#"{"domainMetadata":{"domain":"d","configuration":"{}","removed":false}}"#,
            "\r\n\n",
            r#"{"add":{"path":"p=%20/x.parquet","partitionValues":{"p":null},"size":1,"modificationTime":2,"dataChange":false,"baseRowId":5}}"#,
        );
        let actions = parse_commit(text.as_bytes()).expect("actions");
        assert_eq!(actions.len(), 3);
        assert_eq!(actions[0].commit_info.as_ref().and_then(CommitInfo::made_ms), Some(7));
        assert_eq!(actions[2].add.as_ref().expect("a file").partition_values["p"], None);
        assert!(parse_commit(b"{\"add\":{}}").is_err(), "half an action is none");
        let strange = br#"{"commitInfo":{"timestamp":"today","operation":7,"txnId":null,"isBlindAppend":"true","userMetadata":{"a":1},"engineInfo":"x"}}"#;
        let strange = parse_commit(strange).expect("actions")[0]
            .commit_info
            .clone()
            .expect("what it says");
        assert_eq!(
            (strange.made_ms(), strange.user_metadata, strange.engine_info.as_deref()),
            (None, None, Some("x"))
        );
    }
}
