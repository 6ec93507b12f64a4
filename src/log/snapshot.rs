//! The state of a table at one version, in memory, and how a commit moves it on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use roaring::RoaringTreemap;

use crate::error::{Error, Result};
use crate::log::actions::{Action, Add, CommitInfo, Descriptor, MetaData, Protocol, Txn};
use crate::log::schema;
use crate::log::vectors;
use crate::position::{Checkpoint, Lane, Position};
use crate::table::Version;

/// A data file of the table.
#[derive(Clone, Debug)]
pub struct LiveFile {
    /// As it stands in the log: relative to the table, percent-encoded. Names that alluvium gives need no encoding; use
    /// [`LiveFile::location`] to read files of others.
    pub path: Arc<str>,
    pub size: u64,
    /// From its statistics; None where the writer of the file gave none.
    pub rows: Option<u64>,
    pub partition_values: Arc<BTreeMap<String, Option<String>>>,
    /// Statistics as Delta's JSON.
    pub stats: Option<Arc<str>>,
    pub tags: Option<Arc<BTreeMap<String, Option<String>>>>,
    pub modified_ms: i64,
    /// Where its deletion vector lies, if it has one.
    pub vector: Option<Vector>,
}

/// A deletion vector: its descriptor in the log, and its rows once they were read.
#[derive(Clone, Debug)]
pub struct Vector {
    pub storage_type: char,
    pub path_or_inline: Arc<str>,
    pub offset: Option<i32>,
    pub size: i32,
    pub cardinality: u64,
    pub rows: Option<Arc<RoaringTreemap>>,
}

/// The state of a table at one version.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub version: Version,
    /// When the version was committed: milliseconds since 1970.
    pub timestamp_ms: i64,
    /// As it stands in the log; the fields that follow are read from it.
    pub(crate) metadata: Arc<MetaData>,
    /// `metaData.id`
    pub table_id: String,
    pub schema: SchemaRef,
    pub partition_by: Vec<String>,
    pub properties: BTreeMap<String, String>,
    pub protocol: Protocol,
    pub files: HashMap<Arc<str>, LiveFile>,
    /// The marks, by pipeline.
    pub marks: BTreeMap<String, Checkpoint>,
}

/// What a commit did to the files of a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moves {
    pub added: Vec<Arc<str>>,
    pub removed: Vec<Arc<str>>,
}

/// The application id of a lane's mark.
pub(crate) fn app_id(pipeline: &str, lane: &Lane) -> String {
    format!("alluvium/{pipeline}/{}", lane.as_str())
}

/// The pipeline and the lane of an application id; None where it is another program's.
pub(crate) fn pipeline_and_lane(app_id: &str) -> Option<(&str, &str)> {
    app_id.strip_prefix("alluvium/")?.split_once('/')
}

impl Snapshot {
    /// What the table holds of one pipeline's lanes.
    pub fn checkpoint(&self, pipeline: &str) -> Checkpoint {
        self.marks.get(pipeline).cloned().unwrap_or_default()
    }

    /// Whether a property is `true`.
    pub(crate) fn is_set(&self, property: &str) -> bool {
        let value = self.properties.get(property);
        value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Whether rows are never taken away.
    pub fn only_grows(&self) -> bool {
        self.is_set("delta.appendOnly")
    }

    /// Before the first action of a log.
    pub(crate) fn empty() -> Self {
        Self {
            version: 0,
            timestamp_ms: 0,
            metadata: Arc::default(),
            table_id: String::new(),
            schema: Arc::new(Schema::empty()),
            partition_by: Vec::new(),
            properties: BTreeMap::new(),
            protocol: Protocol::default(),
            files: HashMap::new(),
            marks: BTreeMap::new(),
        }
    }

    /// Takes in the actions of one version, or of a checkpoint.
    pub(crate) fn apply(&mut self, actions: Vec<Action>) -> Result<Moves> {
        let mut moves = Moves::default();
        // A file that gets a vector is removed and added in one commit, in any order: what is added counts.
        for remove in actions.iter().filter_map(|action| action.remove.as_ref()) {
            if let Some((path, _)) = self.files.remove_entry(&remove.path) {
                moves.removed.push(path);
            }
        }
        for action in actions {
            if let Some(add) = action.add {
                moves.added.push(Arc::clone(&add.path));
                self.put_file(add.into());
            }
            if let Some(txn) = action.txn {
                self.take_mark(&txn)?;
            }
            if let Some(metadata) = action.meta_data {
                self.take_metadata(metadata.into())?;
            }
            if let Some(protocol) = action.protocol {
                self.protocol = protocol;
            }
        }
        Ok(moves)
    }

    pub(crate) fn put_file(&mut self, file: LiveFile) {
        self.files.insert(Arc::clone(&file.path), file);
    }

    pub(crate) fn set_mark(&mut self, pipeline: &str, lane: Lane, position: Position) {
        match self.marks.get_mut(pipeline) {
            Some(checkpoint) => checkpoint.set(lane, position),
            None => {
                self.marks.insert(pipeline.to_owned(), Checkpoint::from_iter([(lane, position)]));
            }
        }
    }

    fn take_mark(&mut self, txn: &Txn) -> Result<()> {
        if let Some((pipeline, lane, position)) = txn.mark()? {
            self.set_mark(pipeline, Lane::new(lane), position);
        }
        Ok(())
    }

    pub(crate) fn take_metadata(&mut self, metadata: Arc<MetaData>) -> Result<()> {
        self.schema = Arc::new(schema::from_delta(&metadata.schema_string)?);
        self.table_id.clone_from(&metadata.id);
        self.partition_by.clone_from(&metadata.partition_columns);
        self.properties.clone_from(&metadata.configuration);
        self.metadata = metadata;
        Ok(())
    }
}

impl Txn {
    /// The mark that this is, if it is one of alluvium's.
    pub(crate) fn mark(&self) -> Result<Option<(&str, &str, Position)>> {
        let Some((pipeline, lane)) = pipeline_and_lane(&self.app_id) else {
            return Ok(None);
        };
        let position = u64::try_from(self.version).map_err(|_| {
            Error::data(
                "bad_mark",
                format!(
                    "the mark of `{}` is {}: a position is never negative; who wrote it?",
                    self.app_id, self.version
                ),
            )
        })?;
        Ok(Some((pipeline, lane, Position(position))))
    }
}

impl CommitInfo {
    /// When the version was made: the in-commit timestamp where there is one, else what its writer says.
    pub(crate) fn made_ms(&self) -> Option<i64> {
        self.in_commit_timestamp.or(self.timestamp)
    }
}

impl LiveFile {
    /// Where the file lies in the table's store.
    pub fn location(&self) -> Result<object_store::path::Path> {
        let other = |why: String| {
            Error::config(
                "foreign_file",
                format!("the data file `{}` cannot be reached from its table: {why}", self.path),
            )
        };
        if self.path.contains("://") || self.path.starts_with('/') {
            return Err(other(
                "its path is absolute, as in a shallow clone; copy the table with its data instead".to_owned(),
            ));
        }
        object_store::path::Path::from_url_path(self.path.as_ref()).map_err(|e| other(e.to_string()))
    }

    /// Its deleted rows, as they stand in the store or were read before.
    pub async fn dead(&self, store: &dyn object_store::ObjectStore, place: &str) -> Result<Arc<RoaringTreemap>> {
        vectors::read(store, place, self).await
    }

    /// How many of its rows are deleted.
    pub fn deleted(&self) -> u64 {
        self.vector.as_ref().map_or(0, |vector| vector.cardinality)
    }
}

impl From<Add> for LiveFile {
    fn from(add: Add) -> Self {
        Self {
            rows: add.stats.as_deref().and_then(rows_of_stats),
            path: add.path,
            size: add.size,
            partition_values: add.partition_values,
            stats: add.stats,
            tags: add.tags,
            modified_ms: add.modification_time,
            vector: add.deletion_vector.map(Vector::from),
        }
    }
}

impl From<Descriptor> for Vector {
    fn from(descriptor: Descriptor) -> Self {
        Self {
            storage_type: descriptor.storage_type,
            path_or_inline: descriptor.path_or_inline_dv,
            offset: descriptor.offset,
            size: descriptor.size_in_bytes,
            cardinality: descriptor.cardinality,
            rows: None,
        }
    }
}

/// The number of rows that a file's statistics tell.
fn rows_of_stats(stats: &str) -> Option<u64> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Rows {
        num_records: Option<u64>,
    }
    serde_json::from_str::<Rows>(stats).ok()?.num_records
}
