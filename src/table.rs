//! A table as the pipeline sees it: where it lies, what its columns are, and what feeds it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use regex::Regex;
use url::Url;

use crate::config::OnUnknownRow;
use crate::position::Lane;

/// The number of a table's version.
pub type Version = u64;

/// Characters that Delta does not allow in the names of columns, because Parquet did not.
pub const NOT_IN_COLUMN_NAMES: [char; 10] = [' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// `schema.table`, the name of a table of a database that only a pattern asks for. A part with a dot or a quote in it stands in double quotes,
/// as in SQL: so no two tables have one name.
pub fn full_name(schema: &str, table: &str) -> String {
    let part = |name: &str| match name.contains(['.', '"']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_owned(),
    };
    format!("{}.{}", part(schema), part(table))
}

/// The name of a table in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(Arc<str>);

impl TableId {
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How changes become rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every change is a row; rows are never touched again (`delta.appendOnly`).
    Append,
    /// One row per key: the last change of the key.
    Upsert { key: Vec<String>, merge: Merge },
}

/// How replaced rows go away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Merge {
    /// They are marked in deletion vectors.
    #[default]
    Vectors,
    /// Their files are written again without them, for readers that know no deletion vectors.
    Rewrite,
}

/// Which lanes feed a table.
#[derive(Clone, Debug)]
pub enum Lanes {
    All,
    Topics(Vec<String>),
    TopicPattern(Regex),
    /// The one lane of a replication slot.
    Slot(Lane),
}

impl fmt::Display for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lanes::All => f.write_str("all topics"),
            Lanes::Topics(topics) => write!(f, "topic {}", topics.join(", ")),
            Lanes::TopicPattern(pattern) => write!(f, "topics like {pattern}"),
            Lanes::Slot(lane) => write!(f, "{lane}"),
        }
    }
}

impl Lanes {
    pub fn takes_topic(&self, topic: &str) -> bool {
        match self {
            Lanes::All => true,
            Lanes::Topics(topics) => topics.iter().any(|t| t == topic),
            Lanes::TopicPattern(pattern) => pattern.is_match(topic),
            Lanes::Slot(_) => false,
        }
    }

    pub fn takes(&self, lane: &Lane) -> bool {
        if let Lanes::Slot(slot) = self {
            return slot == lane;
        }
        match lane.topic_partition() {
            Some((topic, _)) => self.takes_topic(topic),
            None => matches!(self, Lanes::All),
        }
    }
}

/// When a table's staged rows are published: at the first mark behind any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Age of the oldest staged row.
    pub interval: Duration,
    pub rows: usize,
    /// As the rows weigh in memory.
    pub bytes: usize,
    /// Without rows: a mark that moved is published at the latest after this time.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // An interval that dashboards find fresh and that makes some 8,600 versions a day; a million rows or 128 MiB make a
        // Parquet file of a size that readers like.
        Self {
            interval: Duration::from_secs(10),
            rows: 1_000_000,
            bytes: 128 << 20,
            // Keeps a table's place within a topic's retention, at six versions an hour.
            idle: Duration::from_secs(600),
        }
    }
}

/// How large a table's data files are, and whether small ones are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Write small files, and files with many deleted rows, again behind the writer.
    pub auto_compact: bool,
    /// Bytes at which a data file is full.
    pub target_file_size: u64,
}

impl Default for Layout {
    fn default() -> Self {
        // Large enough that a table has few files, small enough for one task to read or to rewrite one.
        Self {
            auto_compact: true,
            target_file_size: 128 << 20,
        }
    }
}

/// One table of a pipeline.
#[derive(Clone, Debug)]
pub struct Table {
    pub id: TableId,
    pub location: Url,
    pub mode: Mode,
    /// All columns, the metadata columns that the configuration asks for included.
    pub schema: SchemaRef,
    pub partition_by: Vec<String>,
    pub lanes: Lanes,
    pub limits: Limits,
    pub layout: Layout,
    /// Table properties to set at creation, beside alluvium's own.
    pub properties: BTreeMap<String, String>,
    pub comment: Option<String>,
    /// Whether its columns may get wider types with their source. Readers must know a feature of their own for that.
    pub type_widening: bool,
    /// Of a table with a key.
    pub on_unknown_row: OnUnknownRow,
}

impl Table {
    /// A table that is fed by all lanes, and of which a configuration says nothing else.
    pub fn new(id: TableId, location: Url, mode: Mode, schema: SchemaRef) -> Self {
        Self {
            id,
            location,
            mode,
            schema,
            partition_by: Vec::new(),
            lanes: Lanes::All,
            limits: Limits::default(),
            layout: Layout::default(),
            properties: BTreeMap::new(),
            comment: None,
            type_widening: false,
            on_unknown_row: OnUnknownRow::default(),
        }
    }
}
