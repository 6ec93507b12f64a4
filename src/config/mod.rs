//! The configuration as types. The doc comments are the manual: they are what `alluvium schema` prints, and what
//! `config/example.toml` shows with every option's default.
//!
//! [`load`] reads a file and answers with all of its problems at once, each with its place: what the types can say is checked against
//! their own JSON Schema (`structure`), what lies between options by `check`.

mod check;
mod document;
mod key_path;
mod location;
pub mod pattern;
mod postgres;
mod problem;
mod reach;
mod structure;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

pub use document::{Document, schema};
pub use key_path::KeyPath;
pub use location::url_of;
pub use postgres::{Database, Postgres, SpecialValues, TableMode, schema_and_table};
pub use problem::{Problem, Problems, suggestion};
pub use reach::Reach;
pub use values::{Bytes, OneOrMany, Secret, Span, Text};

/// Reads a configuration with all secrets that it asks for, or tells everything that is wrong with it. Relative paths in it are relative
/// to its own folder.
pub fn load(path: &Path) -> Result<Config, Problems> {
    Document::read(path, Reach::All)?.into_config()
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where tables lie: a folder or a URL (`s3://bucket/lake`, `gs://…`, `az://…`). Table `orders` lies at `<lake>/orders` unless it
    /// names a `location` of its own.
    pub lake: Option<String>,
    /// Options of the object store, by the names that the `object_store` crate gives them: `aws_endpoint`, `aws_region` … Where tables lie in
    /// several stores, each takes those that it knows.
    #[serde(default)]
    pub storage: BTreeMap<String, Text>,
    /// A folder for what can always be made again: caches of key indexes. Keep it between restarts to start faster.
    #[serde(default = "default_state")]
    pub state: PathBuf,
    /// Memory for rows in flight; each pipeline gets an equal part. Indexes of keys come on top: some 20 bytes for each key. Default: 512
    /// MiB, or a third of what the machine or the container has, or half of what it has beyond 150 MiB, whichever is least.
    pub memory: Option<Bytes>,
    #[serde(default)]
    pub http: Http,
    /// How long a stop may take to publish what is staged. What is not published then is read again at the next start.
    #[serde(default = "default_grace")]
    pub grace: Span,
    /// Each pipeline by its name, which is part of the marks in its tables: a pipeline that is renamed begins anew, and is refused by tables
    /// where rows would be there twice, be missing, or stay when they are deleted.
    pub pipelines: BTreeMap<String, Pipeline>,
}

/// One source and the tables that it feeds.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// A Kafka cluster as the source. A pipeline has one source.
    pub kafka: Option<Kafka>,
    /// A Postgres database as the source.
    pub postgres: Option<Postgres>,
    /// When tables are published, unless a table says otherwise.
    #[serde(default)]
    pub commit: Commit,
    #[serde(default)]
    pub dead_letters: DeadLetterTable,
    /// Give columns a wider type where the source did (int to long, float to double, a decimal with more digits and so on, as far as Delta
    /// allows), unless a table says otherwise. Without it the table stops. From the version that does it on, only readers that know
    /// Delta's feature `typeWidening` read the table: Spark 4 and DuckDB do; deltalake, polars and daft refuse it; Trino 476 leaves the
    /// columns out without a word.
    #[serde(default)]
    pub type_widening: bool,
    /// Each table by its name, which no other table of the file has.
    #[serde(default)]
    pub tables: BTreeMap<String, Table>,
}

/// A Kafka cluster and how to read it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `host:port`, several with commas between.
    pub brokers: String,
    /// A consumer group: instances with the same group share the partitions. Without it, this instance reads all of them. Two pipelines that
    /// read one topic need two groups.
    pub group: Option<String>,
    /// Where a table begins that has read nothing: `earliest` or `latest`. What comes later is read from its beginning.
    #[serde(default)]
    pub start: Start,
    /// What to do when the topic no longer holds the next record: `stop`, or `earliest` to go on with the gap on record.
    #[serde(default)]
    pub on_gap: OnGap,
    /// How often to look for new topics and partitions.
    #[serde(default = "default_discovery")]
    pub discovery: Span,
    /// Talk TLS to the brokers; an empty table is enough where the system trusts their authority.
    pub tls: Option<Tls>,
    /// Log in to the brokers.
    pub sasl: Option<Sasl>,
    /// Further properties of librdkafka. Those that would break alluvium's promises are refused.
    #[serde(default)]
    pub options: BTreeMap<String, Text>,
}

/// Where a partition is begun that no table has read.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    #[default]
    Earliest,
    Latest,
}

/// What to do when the topic no longer holds the next record.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OnGap {
    #[default]
    Stop,
    Earliest,
}

/// How the brokers prove who they are, and we who we are.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the authorities to trust; the system's own without it.
    pub ca: Option<PathBuf>,
    /// PEM file of our certificate, where brokers ask for one.
    pub certificate: Option<PathBuf>,
    /// PEM file of our certificate's key.
    pub key: Option<PathBuf>,
    /// What the key is encrypted with.
    pub key_password: Option<Secret>,
    /// Talk to a broker whose certificate does not prove who it is. Not for production.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

/// A login by user name and password.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// PLAIN shows the password to the broker: only with `tls`.
    pub mechanism: SaslMechanism,
    pub username: String,
    pub password: Secret,
}

/// How a password is proven.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
pub enum SaslMechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// When staged rows are published: at the first mark behind any of these.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Commit {
    /// Age of the oldest staged row. Shorter is fresher, and makes more and smaller files.
    pub interval: Span,
    /// Staged rows.
    pub rows: u64,
    /// Staged bytes, as the rows weigh in memory.
    pub bytes: Bytes,
    /// A table without changes is told how far its source was read after this time, in a version without rows. Default: 10 min, or 30 s
    /// with Postgres, whose slot keeps its WAL until then.
    pub idle: Option<Span>,
}

impl Default for Commit {
    fn default() -> Self {
        // The reasons stand with `Limits`.
        let limits = crate::table::Limits::default();
        Self {
            interval: Span(limits.interval),
            rows: limits.rows as u64,
            bytes: Bytes(limits.bytes as u64),
            idle: None,
        }
    }
}

/// When one table's rows are published, where it differs from its pipeline.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableCommit {
    /// Age of the oldest staged row. Default: the pipeline's.
    pub interval: Option<Span>,
    /// Staged rows. Default: the pipeline's.
    pub rows: Option<u64>,
    /// Staged bytes, as the rows weigh in memory. Default: the pipeline's.
    pub bytes: Option<Bytes>,
}

/// Where records go that cannot be read.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetterTable {
    /// Default: `<lake>/<pipeline>_dead_letters`.
    pub location: Option<String>,
    /// So many rejects without one readable record between them stop the pipeline: the fault is then not in single records.
    pub stop_after: u64,
}

impl Default for DeadLetterTable {
    fn default() -> Self {
        // More than a producer's bad hour in one partition, and little enough to look through.
        Self {
            location: None,
            stop_after: 1_000,
        }
    }
}

/// One Delta table.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The topic or topics that feed it.
    pub topic: Option<OneOrMany>,
    /// All topics whose whole name this regular expression matches.
    pub topic_pattern: Option<String>,
    /// The Postgres table that feeds it: `schema.table`.
    pub table: Option<String>,
    /// How the changes of a Postgres table become rows. Default: `upsert` where there is a key, else `append`.
    pub mode: Option<TableMode>,
    /// How the messages are written.
    #[serde(default)]
    pub format: Format,
    /// Columns: an Avro schema (`.avsc`) or a JSON Schema (`.json`). Without it they come from the schema inside of the messages.
    pub schema: Option<PathBuf>,
    /// A folder or URL. Default: `<lake>/<name>`.
    pub location: Option<String>,
    /// Key columns: the table then holds one row per key. Without them every change is a row. Default with Postgres: the columns of the
    /// table's replica identity, or of its primary key.
    #[serde(default)]
    pub key: Vec<String>,
    /// Where the key columns are read.
    #[serde(default)]
    pub key_from: KeyFrom,
    /// How replaced rows go away. Only of tables with a key.
    #[serde(default)]
    pub merge: Merge,
    /// Columns by whose values the files are parted. Only of tables without a key.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// Join small files, and write files anew of which many rows are deleted, behind the writer. No version and no row is lost by it.
    #[serde(default = "default_auto_compact")]
    pub auto_compact: bool,
    /// Bytes at which a data file is full, and which compaction aims at.
    #[serde(default = "default_target_file_size")]
    pub target_file_size: Bytes,
    /// Columns beside the record's own, by name: `__topic`, `__partition`, `__offset`, `__timestamp`, `__key`, `__headers`,
    /// `__deleted`; and of Debezium's events `__op`, `__ts_ms`, `__source_ts_ms`, `__lsn`, `__table` and more.
    #[serde(default)]
    pub metadata: Vec<String>,
    /// What a message without a value is to a table without a key: passed over, or a row of nulls.
    #[serde(default)]
    pub tombstones: Tombstones,
    /// What an update of Debezium's does that leaves values out as unchanged, of a row that the table does not have. Only of tables with a
    /// key.
    #[serde(default)]
    pub on_unknown_row: OnUnknownRow,
    /// When this table is published, where it differs from the pipeline.
    #[serde(default)]
    pub commit: TableCommit,
    /// Give columns a wider type where the source did. Default: the pipeline's.
    pub type_widening: Option<bool>,
    /// Delta table properties to set at creation.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// A description, shown by catalogs.
    pub comment: Option<String>,
}

impl Default for Table {
    fn default() -> Self {
        toml::from_str("").expect("every option of a table has a default")
    }
}

/// How messages are written.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One JSON object a message.
    #[default]
    Json,
    /// Debezium's change events as JSON, with or without their schema, or flattened by ExtractNewRecordState.
    DebeziumJson,
}

/// Where the key columns are read.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum KeyFrom {
    /// The message's value.
    #[default]
    Value,
    /// The message's key: a JSON object with the key columns, or, for one key column, the bare value.
    MessageKey,
}

/// How replaced rows go away.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// Replaced rows are marked in deletion vectors: fast; Spark, Trino, DuckDB, Polars and others read them.
    #[default]
    Vectors,
    /// Files with replaced rows are written again: for readers that know no deletion vectors.
    Rewrite,
}

/// What an update does that leaves values out of a row that the table does not have.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknownRow {
    /// It stops the table: its row would not be whole.
    #[default]
    Stop,
    /// It is left out: the table has no row of the key until a change brings a whole one.
    LeaveOut,
}

/// What a message without a value is to a table without a key.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Tombstones {
    /// It is passed over, and counted.
    #[default]
    Skip,
    /// It is a row of nulls.
    Keep,
}

/// The endpoints for operators.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Where `/metrics`, `/livez`, `/readyz` and `/status` are served; empty turns them off. They ask for no password: other
    /// addresses than this machine's own belong behind something that does.
    pub address: String,
}

impl Default for Http {
    fn default() -> Self {
        // Only this machine can reach it, at the port of OpenTelemetry's Prometheus exporter.
        Self {
            address: "127.0.0.1:9464".to_owned(),
        }
    }
}

fn default_state() -> PathBuf {
    PathBuf::from(".alluvium")
}
fn default_grace() -> Span {
    // Below the 30 s that Kubernetes waits before it kills.
    Span(Duration::from_secs(25))
}
fn default_auto_compact() -> bool {
    crate::table::Layout::default().auto_compact
}
fn default_target_file_size() -> Bytes {
    Bytes(crate::table::Layout::default().target_file_size)
}
fn default_discovery() -> Span {
    Span(Duration::from_secs(30))
}
