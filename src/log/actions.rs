//! Delta's actions as they stand in a commit file or a checkpoint: the part of them that alluvium reads and writes.
//!
//! One set of types serves both ways, so that what is read from a file and what is written about it again are the same fields.
//! Texts are shared (`Arc`), because a live file lends its own to the actions that mention it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::log::snapshot::{LiveFile, Vector};

/// Values of partition columns as Delta writes them; None is null.
pub(crate) type PartitionValues = Arc<BTreeMap<String, Option<String>>>;

/// One line of a commit file, or one row of a checkpoint: exactly one of these is there, or one that is of no concern here.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Action {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_info: Option<CommitInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<MetaData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn: Option<Txn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add: Option<Add>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove: Option<Remove>,
    #[serde(skip_serializing)]
    pub sidecar: Option<Sidecar>,
}

macro_rules! into_action {
    ($($kind:ty => $field:ident),*) => {$(
        impl From<$kind> for Action {
            fn from(action: $kind) -> Self {
                Self { $field: Some(action), ..Self::default() }
            }
        }
    )*};
}
into_action!(CommitInfo => commit_info, Protocol => protocol, MetaData => meta_data, Txn => txn, Add => add, Remove => remove);

/// What a reader and a writer must know to touch the table.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    pub min_reader_version: i32,
    pub min_writer_version: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader_features: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_features: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MetaData {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub format: Format,
    pub schema_string: String,
    pub partition_columns: Vec<String>,
    #[serde(default)]
    pub configuration: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Format {
    pub provider: String,
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl Default for Format {
    fn default() -> Self {
        Self {
            provider: "parquet".to_owned(),
            options: BTreeMap::new(),
        }
    }
}

/// How far an application has come: for alluvium, a lane's mark.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Txn {
    pub app_id: String,
    pub version: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<i64>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Add {
    pub path: Arc<str>,
    pub partition_values: PartitionValues,
    pub size: u64,
    pub modification_time: i64,
    pub data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Arc<BTreeMap<String, Option<String>>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<Descriptor>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remove {
    pub path: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<i64>,
    pub data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_file_metadata: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_values: Option<PartitionValues>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<Descriptor>,
}

/// Where a deletion vector lies.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub storage_type: char,
    pub path_or_inline_dv: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i32>,
    pub size_in_bytes: i32,
    pub cardinality: u64,
}

/// A part of a checkpoint that lies beside it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Sidecar {
    pub path: String,
}

/// Who made a version, and how. Any writer may put anything here: nothing is required of it, and what does not fit is not there.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct CommitInfo {
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "if_it_fits")]
    pub timestamp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "if_it_fits")]
    pub in_commit_timestamp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "if_it_fits")]
    pub operation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "if_it_fits")]
    pub operation_parameters: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "if_it_fits")]
    pub operation_metrics: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "if_it_fits")]
    pub engine_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "if_it_fits")]
    pub txn_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "if_it_fits")]
    pub is_blind_append: Option<bool>,
    /// A text by Delta's convention; ours is the JSON of [`UserMetadata`].
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "if_it_fits")]
    pub user_metadata: Option<String>,
}

/// What alluvium says of a version beyond Delta's own fields: `commitInfo.userMetadata`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct UserMetadata {
    pub pipeline: String,
    /// By lane: the first and the last position that this version brought. The first is null where the table had not read the lane.
    pub positions: BTreeMap<String, (Option<u64>, u64)>,
    /// Where the version moved no mark: the lanes whose marks had passed the rows that it brought.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<String>,
    /// Whether the version repeats the marks of all lanes of the pipeline, moved or not (see `positions.rs`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all_marks: bool,
    /// When the newest record of the version came to be at the source, in milliseconds since 1970, where the source tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ms: Option<i64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, Value>,
}

/// What is of another type than it has by convention, and null, is None.
fn if_it_fits<'de, T: DeserializeOwned, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(from)?;
    Ok(serde_json::from_value::<Option<T>>(value).ok().flatten())
}

impl Protocol {
    /// Whether a feature that readers and writers must both know is among the table's.
    pub(crate) fn lists(&self, feature: &str) -> bool {
        let listed = |features: &Option<Vec<String>>| features.iter().flatten().any(|listed| listed == feature);
        listed(&self.reader_features) && listed(&self.writer_features)
    }
}

impl CommitInfo {
    /// What alluvium wrote; None where another program made the version.
    pub(crate) fn ours(&self) -> Option<UserMetadata> {
        if !self.engine_info.as_deref().is_some_and(|engine| engine.starts_with("alluvium/")) {
            return None;
        }
        serde_json::from_str(self.user_metadata.as_deref()?).ok()
    }
}

impl Add {
    /// The action that makes a file part of the table as it stands here.
    pub(crate) fn of(file: &LiveFile, data_change: bool) -> Self {
        Self {
            path: Arc::clone(&file.path),
            partition_values: Arc::clone(&file.partition_values),
            size: file.size,
            modification_time: file.modified_ms,
            data_change,
            stats: file.stats.clone(),
            tags: file.tags.clone(),
            deletion_vector: file.vector.as_ref().map(Descriptor::of),
        }
    }
}

impl Remove {
    /// The action that takes a file out of the table.
    pub(crate) fn of(file: &LiveFile, timestamp_ms: i64, data_change: bool) -> Self {
        Self {
            path: Arc::clone(&file.path),
            deletion_timestamp: Some(timestamp_ms),
            data_change,
            extended_file_metadata: Some(true),
            partition_values: Some(Arc::clone(&file.partition_values)),
            size: Some(file.size),
            deletion_vector: file.vector.as_ref().map(Descriptor::of),
        }
    }
}

impl Descriptor {
    fn of(vector: &Vector) -> Self {
        Self {
            storage_type: vector.storage_type,
            path_or_inline_dv: Arc::clone(&vector.path_or_inline),
            offset: vector.offset,
            size_in_bytes: vector.size,
            cardinality: vector.cardinality,
        }
    }
}
