//! What a commit changes, and what came of it: plain values.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use roaring::RoaringTreemap;

use crate::position::Checkpoint;
use crate::table::Version;

/// A data file that is already in the store and that a commit makes part of the table.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Relative to the table, as it stands in the store.
    pub path: Arc<str>,
    pub size: u64,
    pub rows: u64,
    /// Values of the partition columns as Delta writes them; None is null.
    pub partition_values: BTreeMap<String, Option<String>>,
    /// Statistics as Delta's JSON.
    pub stats: Arc<str>,
    /// Rows of this very file that later staged changes have replaced: the file is born with a vector.
    pub deleted: RoaringTreemap,
}

/// One commit: all of it, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub adds: Vec<NewFile>,
    /// Live files that go away whole (rewritten, truncated).
    pub removes: Vec<Arc<str>>,
    /// Rows that are newly deleted, by live file. They are united with the file's own vector.
    pub vectors: BTreeMap<Arc<str>, RoaringTreemap>,
    /// The columns of the rows that it brings: what the table lacks of them it gains in this very commit (see `columns.rs`). None where
    /// the table has them all.
    pub columns: Option<SchemaRef>,
    /// Properties of the table that get these values.
    pub properties: BTreeMap<String, String>,
    /// The marks that the table holds after this commit: written for each lane that differs from `base`.
    pub mark: Checkpoint,
    /// The marks that the table must hold before it, of the lanes in `mark`: else another writer has them, and this one is fenced.
    pub base: Checkpoint,
    /// The table has the same rows before and after: they only stand in other files (`dataChange` is false).
    pub keeps_rows: bool,
    /// `commitInfo.operation`: "STREAMING UPDATE", "MERGE" …
    pub operation: &'static str,
    /// `commitInfo.operationMetrics`, beside those that the log counts itself.
    pub metrics: BTreeMap<&'static str, u64>,
    /// When the newest of its records came to be at the source, in milliseconds since 1970, for `commitInfo.userMetadata`.
    pub source_ms: Option<i64>,
    /// Further facts for `commitInfo.userMetadata`, beside the range of positions: a gap that was passed over, for example.
    pub notes: BTreeMap<String, serde_json::Value>,
}

/// What came of a commit. A conflict is a value: the log has read the versions that won, and stands at the latest.
#[derive(Clone, Debug)]
pub enum Outcome {
    Committed(Version),
    /// Another writer's versions came first, and changed files of a table in which rows replace each other. Our lanes' marks still
    /// equal `base`, so the change can be planned again on the log as it stands now. Nothing of the change was published.
    Conflict {
        latest: Version,
        /// Files that became part of the table since.
        added: Vec<Arc<str>>,
        /// Files that are no longer part of it.
        removed: Vec<Arc<str>>,
    },
}
