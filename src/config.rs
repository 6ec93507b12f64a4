//! The configuration as types. The doc comments are the manual; `config/example.toml` shows every option with its default.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

/// The whole file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where tables lie: a folder or a URL (`s3://bucket/lake`, `gs://…`, `az://…`). Table `orders` lies at `<lake>/orders` unless it
    /// names a `location` of its own.
    pub lake: Option<String>,
    /// Options of the object store, by the names that the `object_store` crate gives them: `aws_endpoint`, `aws_region` …
    #[serde(default)]
    pub storage: BTreeMap<String, Text>,
    /// A folder for what can always be made again: caches of key indexes.
    #[serde(default = "default_state")]
    pub state: PathBuf,
    /// Memory for rows in flight, shared by all pipelines.
    #[serde(default = "default_memory")]
    pub memory: Bytes,
    #[serde(default)]
    pub http: Http,
    /// How long a stop may take to publish what is staged.
    #[serde(default = "default_grace")]
    pub grace: Span,
    pub pipelines: BTreeMap<String, Pipeline>,
}

/// One source and the tables that it feeds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    pub kafka: Kafka,
    /// When tables are published, unless a table says otherwise.
    #[serde(default)]
    pub commit: Commit,
    #[serde(default)]
    pub dead_letters: DeadLetterTable,
    pub tables: BTreeMap<String, Table>,
}

/// A Kafka cluster and how to read it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `host:port`, several with commas between.
    pub brokers: String,
    /// A consumer group: instances with the same group share the partitions. Without it, this instance reads all of them.
    pub group: Option<String>,
    /// Where a partition is begun that no table has read: `earliest` or `latest`.
    #[serde(default)]
    pub start: Start,
    /// What to do when the topic no longer holds the next record: `stop`, or `earliest` to go on with the gap on record.
    #[serde(default)]
    pub on_gap: OnGap,
    /// How often to look for new topics and partitions.
    #[serde(default = "default_discovery")]
    pub discovery: Span,
    pub tls: Option<Tls>,
    pub sasl: Option<Sasl>,
    /// Further properties of librdkafka. Those that would break alluvium's promises are refused.
    #[serde(default)]
    pub options: BTreeMap<String, Text>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    #[default]
    Earliest,
    Latest,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OnGap {
    #[default]
    Stop,
    Earliest,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the authorities to trust; the system's own without it.
    pub ca: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub key_password: Option<Secret>,
    /// Talk to a broker whose certificate does not prove who it is. Not for production.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    pub mechanism: SaslMechanism,
    pub username: String,
    pub password: Secret,
}

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
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// Age of the oldest staged row. Default: 10 s.
    pub interval: Option<Span>,
    /// Staged rows. Default: 1,000,000.
    pub rows: Option<u64>,
    /// Staged bytes, as the rows weigh in memory. Default: 128 MiB.
    pub bytes: Option<Bytes>,
}

/// Where records go that cannot be read.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterTable {
    /// Default: `<lake>/<pipeline>_dead_letters`.
    pub location: Option<String>,
    /// So many rejects without one readable record between them stop the pipeline: the fault is then not in single records. Default: 1,000.
    pub stop_after: Option<u64>,
}

/// One Delta table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The topic or topics that feed it.
    pub topic: Option<OneOrMany>,
    /// All topics whose whole name this regular expression matches.
    pub topic_pattern: Option<String>,
    /// How the messages are written.
    #[serde(default)]
    pub format: Format,
    /// Columns: an Avro schema (`.avsc`) or a JSON Schema (`.json`). Without it they come from the schema inside of the messages.
    pub schema: Option<PathBuf>,
    /// Default: `<lake>/<name>`.
    pub location: Option<String>,
    /// Key columns: the table then holds one row per key. Without them every change is a row.
    #[serde(default)]
    pub key: Vec<String>,
    /// Where the key columns are read.
    #[serde(default)]
    pub key_from: KeyFrom,
    #[serde(default)]
    pub merge: Merge,
    /// Only of tables without a key.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// Columns beside the record's own, by name: `__topic`, `__partition`, `__offset`, `__timestamp`, `__key`, `__headers`, `__op`,
    /// `__deleted`, `__lsn`, `__source_ts_ms`.
    #[serde(default)]
    pub metadata: Vec<String>,
    /// What a message without a value is to a table without a key: passed over, or a row of nulls.
    #[serde(default)]
    pub tombstones: Tombstones,
    #[serde(default)]
    pub commit: Commit,
    /// Delta table properties to set at creation.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// A description, shown by catalogs.
    pub comment: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One JSON object a message.
    #[default]
    Json,
    /// Debezium's change events as JSON, with or without their schema, or flattened by ExtractNewRecordState.
    DebeziumJson,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum KeyFrom {
    #[default]
    Value,
    /// The message's key: a JSON object with the key columns, or, for one key column, the bare value.
    MessageKey,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// Replaced rows are marked in deletion vectors: fast; Spark, Trino, DuckDB, Polars and others read them.
    #[default]
    Vectors,
    /// Files with replaced rows are written again: for readers that know no deletion vectors.
    Rewrite,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Tombstones {
    #[default]
    Skip,
    Keep,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Where `/metrics`, `/livez`, `/readyz` and `/status` are served; empty turns them off.
    #[serde(default = "default_http")]
    pub address: String,
}

impl Default for Http {
    fn default() -> Self {
        Self { address: default_http() }
    }
}

/// A string or a list of strings.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub fn to_vec(&self) -> Vec<String> {
        match self {
            OneOrMany::One(one) => vec![one.clone()],
            OneOrMany::Many(many) => many.clone(),
        }
    }
}

/// A size as people write it: `"64 MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub struct Bytes(#[schemars(with = "String")] pub u64);

/// A time as people write it: `"5 s"`, `"250 ms"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub struct Span(#[schemars(with = "String")] pub Duration);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let size: bytesize::ByteSize =
            text.parse().map_err(|_| serde::de::Error::custom(format!("`{text}` is not a size: write it like \"64 MiB\"")))?;
        Ok(Self(size.as_u64()))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let time = humantime::parse_duration(&text)
            .map_err(|_| serde::de::Error::custom(format!("`{text}` is not a time: write it like \"5 s\" or \"250 ms\"")))?;
        Ok(Self(time))
    }
}

/// A secret by reference: `{ env = "NAME" }` or `{ file = "/path" }`. It prints as `***`.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Secret {
    Env(String),
    File(PathBuf),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// A text in the open, or a secret by reference.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Text {
    Plain(String),
    Secret(Secret),
}

fn default_state() -> PathBuf {
    PathBuf::from(".alluvium")
}
fn default_memory() -> Bytes {
    // Half a GiB drains a backlog at full speed; less only makes smaller files.
    Bytes(512 << 20)
}
fn default_grace() -> Span {
    // Below the 30 s that Kubernetes waits before it kills.
    Span(Duration::from_secs(25))
}
fn default_discovery() -> Span {
    Span(Duration::from_secs(30))
}
fn default_http() -> String {
    "127.0.0.1:9464".to_owned()
}
