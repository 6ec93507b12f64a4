//! The state of a table at one version, in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use roaring::RoaringTreemap;

use crate::position::Checkpoint;
use crate::table::Version;

/// A data file of the table.
#[derive(Clone, Debug)]
pub struct LiveFile {
    pub path: Arc<str>,
    pub size: u64,
    /// From its statistics; None where the writer of the file gave none.
    pub rows: Option<u64>,
    pub partition_values: Arc<BTreeMap<String, Option<String>>>,
    pub stats: Option<Arc<str>>,
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
    /// `metaData.id`
    pub table_id: String,
    pub schema: SchemaRef,
    pub partition_by: Vec<String>,
    pub properties: BTreeMap<String, String>,
    pub files: HashMap<Arc<str>, LiveFile>,
    /// The marks, by pipeline.
    pub marks: BTreeMap<String, Checkpoint>,
}

impl Snapshot {
    /// What the table holds of one pipeline's lanes.
    pub fn checkpoint(&self, pipeline: &str) -> Checkpoint {
        self.marks.get(pipeline).cloned().unwrap_or_default()
    }
}
