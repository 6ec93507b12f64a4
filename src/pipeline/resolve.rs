//! From a configuration to pipelines that can be opened: places, columns, routes and limits, everything that needs no connection.
//!
//! Problems go back into the document that they were read from, so that a configuration is told all of them at once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use regex::Regex;
use url::Url;

use super::postgres::{PostgresFeed, PostgresFeeds};
use crate::config::{self, Config, Document, KeyPath, Problems};
use crate::error::Error;
use crate::log::store;
use crate::reject::dead_letter_schema;
use crate::sources::decode::{self, DecodeSpec, NewColumns, columns};
use crate::sources::kafka::options;
use crate::sources::postgres::followed::Metadata;
use crate::table::{Lanes, Layout, Limits, Merge, Mode, Table, TableId};

/// A mark that moved without rows is published at the latest after this time. It keeps a table's place within a topic's retention, at
/// six versions an hour.
const IDLE_KAFKA: Duration = Duration::from_secs(600);

/// A pipeline of the configuration, as it is opened.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub name: Arc<str>,
    pub source: Source,
    /// Where records go that cannot be read.
    pub dead_letters: Table,
    /// So many rejects in a row stop the pipeline.
    pub stop_after: u64,
    pub storage: Storage,
    /// A folder for what can be made again.
    pub state: PathBuf,
}

/// Where a pipeline reads, and which tables it feeds.
#[derive(Clone, Debug)]
pub enum Source {
    Kafka(KafkaFeeds),
    Postgres(PostgresFeeds),
}

/// A Kafka cluster and the tables that it feeds.
#[derive(Clone, Debug)]
pub struct KafkaFeeds {
    pub kafka: config::Kafka,
    pub feeds: Vec<Feed>,
}

/// The options of an object store. Prints only their names, for there are secrets among them.
#[derive(Clone, Default)]
pub struct Storage(pub BTreeMap<String, String>);

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// One table and what feeds it, before its columns are known.
#[derive(Clone, Debug)]
pub struct Feed {
    pub id: TableId,
    pub location: Url,
    pub lanes: Lanes,
    /// The record's columns by the schema file. Without one they are those of the table, or, where there is none yet, of the messages.
    pub columns: Option<SchemaRef>,
    limits: Limits,
    type_widening: bool,
    options: config::Table,
}

/// What is wrong with one option of a table.
struct Wrong(KeyPath, String);

/// The options of the object store, with the values of secrets.
pub fn storage(config: &Config) -> crate::error::Result<Storage> {
    let revealed = config.storage.iter().map(|(name, text)| Ok((name.clone(), text.reveal()?)));
    revealed.collect::<crate::error::Result<_>>().map(Storage)
}

/// Looks everything up that needs no connection. All problems are in the answer, those of the document included.
pub fn resolve(mut document: Document) -> Result<(Config, Vec<Resolved>), Problems> {
    let (mut resolved, mut wrong) = (Vec::new(), Vec::new());
    if let Some(config) = document.config() {
        storage_options(config, &mut wrong);
        for (name, pipeline) in &config.pipelines {
            resolved.extend(resolve_pipeline(config, name, pipeline, &mut wrong));
        }
    }
    for Wrong(key, what) in wrong {
        document.add(&key, what);
    }
    document.into_config().map(|config| (config, resolved))
}

fn storage_options(config: &Config, wrong: &mut Vec<Wrong>) {
    let own = |pipeline: &config::Pipeline| {
        let tables = pipeline.tables.values().map(|table| table.location.clone());
        tables.chain([pipeline.dead_letters.location.clone()]).flatten().collect::<Vec<_>>()
    };
    let places = config.pipelines.values().flat_map(own).chain(config.lake.clone());
    let places: Vec<Url> = places.filter_map(|place| config::url_of(&place).ok()).collect(); // Of others the document knows.
    let at = KeyPath::of(["storage"]);
    for name in config.storage.keys() {
        wrong.extend(store::options::wrong_name(name, &places).map(|what| Wrong(at.key(name), what)));
    }
    let Ok(Storage(options)) = storage(config) else { return }; // The document has the reason.
    if options.is_empty() {
        return; // What the environment says is seen when the first table is opened.
    }
    let secrets: Vec<&String> = config
        .storage
        .keys()
        .filter(|name| matches!(config.storage[*name], config::Text::Secret(_)))
        .collect();
    for (name, why) in store::options::wrong_values(&options, &places) {
        let what = match &name {
            Some(name) if secrets.contains(&name) && !why.starts_with(store::options::LACKS) => {
                "not a value for it (which is a secret)".to_owned()
            }
            // The reason of several together may name one of them.
            _ => secrets.iter().fold(why, |why, secret| why.replace(&options[*secret], "***")),
        };
        wrong.push(Wrong(
            name.map_or_else(|| at.clone(), |name| at.key(&name)),
            format!("the store does not take it: {what}"),
        ));
    }
}

/// None where something is wrong.
fn resolve_pipeline(config: &Config, name: &str, pipeline: &config::Pipeline, wrong: &mut Vec<Wrong>) -> Option<Resolved> {
    let at = KeyPath::of(["pipelines", name]);
    let before = wrong.len();
    let source = match (&pipeline.kafka, &pipeline.postgres) {
        (Some(kafka), None) => Source::Kafka(kafka_feeds(config, &at, name, pipeline, kafka, wrong)),
        (None, Some(postgres)) => Source::Postgres(postgres_feeds(config, &at, pipeline, postgres, wrong)),
        _ => return None, // The document has the reason.
    };
    let dead_letters = dead_letters(config, name, pipeline)?;
    let storage = storage(config).ok()?; // The document has the reason.
    (wrong.len() == before).then(|| Resolved {
        name: name.into(),
        source,
        dead_letters,
        stop_after: pipeline.dead_letters.stop_after,
        storage,
        state: config.state.clone(),
    })
}

fn kafka_feeds(
    config: &Config,
    at: &KeyPath,
    name: &str,
    pipeline: &config::Pipeline,
    kafka: &config::Kafka,
    wrong: &mut Vec<Wrong>,
) -> KafkaFeeds {
    kafka_options(&at.key("kafka"), name, kafka, wrong);
    let feeds = pipeline.tables.iter().filter_map(|(table, options)| {
        let feed = feed(config, pipeline, table, options);
        let here = at.key("tables").key(table);
        let place = |Wrong(key, what)| Wrong(here.join(&key), what);
        feed.map_err(|all| wrong.extend(all.into_iter().map(place))).ok()
    });
    KafkaFeeds {
        feeds: feeds.collect(),
        kafka: kafka.clone(),
    }
}

fn postgres_feeds(
    config: &Config,
    at: &KeyPath,
    pipeline: &config::Pipeline,
    postgres: &config::Postgres,
    wrong: &mut Vec<Wrong>,
) -> PostgresFeeds {
    let mut named = Vec::new();
    for (table, options) in &pipeline.tables {
        let here = at.key("tables").key(table);
        for (index, name) in options.metadata.iter().enumerate() {
            if let Err(error) = Metadata::named(name) {
                wrong.push(Wrong(here.key("metadata").index(index), error.to_string()));
            }
        }
        named.extend(PostgresFeed::named(config, table, options)); // Of the rest the document knows.
    }
    PostgresFeeds {
        postgres: postgres.clone(),
        named,
        commit: pipeline.commit.clone(),
        type_widening: pipeline.type_widening,
        config: config.clone(),
    }
}

fn kafka_options(at: &KeyPath, name: &str, kafka: &config::Kafka, wrong: &mut Vec<Wrong>) {
    let mut refused = false;
    for (option, value) in &kafka.options {
        if let Some(what) = options::misfit(option, value) {
            wrong.push(Wrong(at.key("options").key(option), what));
            refused = true;
        }
    }
    // What is left to say: properties that are set twice. Of secrets that are missing the document knows.
    if let Err(error) = options::properties(kafka, name, 0, 1)
        && !refused
        && error.code != "secret_missing"
    {
        wrong.push(Wrong(at.key("options"), error.to_string()));
    }
}

fn feed(config: &Config, pipeline: &config::Pipeline, name: &str, options: &config::Table) -> Result<Feed, Vec<Wrong>> {
    let wrong = |option: &str, what: String| vec![Wrong(KeyPath::of([option]), what)];
    let columns = options.schema.as_deref().map(columns::from_file).transpose();
    let limits = limits(&pipeline.commit, &options.commit, IDLE_KAFKA);
    let location = config.table_url(name, options.location.as_deref());
    let feed = Feed {
        id: TableId::new(name),
        location: location.map_err(|what| wrong("location", what))?,
        lanes: lanes(options).map_err(|what| wrong("topic_pattern", what))?,
        columns: columns.map_err(|error| wrong("schema", error.to_string()))?,
        limits,
        type_widening: options.type_widening.unwrap_or(pipeline.type_widening),
        options: options.clone(),
    };
    let wrong = match &feed.columns {
        Some(columns) => feed.with_columns(columns, NewColumns::Ignore).err().unwrap_or_default(),
        None => feed.wrong_metadata(),
    };
    if wrong.is_empty() { Ok(feed) } else { Err(wrong) }
}

/// When a table is published. `idle`: where nothing is said of it.
pub(super) fn limits(commit: &config::Commit, own: &config::TableCommit, idle: Duration) -> Limits {
    Limits {
        interval: own.interval.unwrap_or(commit.interval).0,
        rows: usize::try_from(own.rows.unwrap_or(commit.rows)).unwrap_or(usize::MAX),
        bytes: own.bytes.unwrap_or(commit.bytes).to_usize(),
        idle: commit.idle.map_or(idle, |idle| idle.0),
    }
}

pub(super) fn layout(options: &config::Table) -> Layout {
    Layout {
        auto_compact: options.auto_compact,
        target_file_size: options.target_file_size.0,
    }
}

pub(super) fn merge(options: &config::Table) -> Merge {
    match options.merge {
        config::Merge::Vectors => Merge::Vectors,
        config::Merge::Rewrite => Merge::Rewrite,
    }
}

fn lanes(options: &config::Table) -> Result<Lanes, String> {
    match (&options.topic, &options.topic_pattern) {
        (Some(topics), _) => Ok(Lanes::Topics(topics.to_vec())),
        (None, Some(pattern)) => Regex::new(&format!("^(?:{pattern})$"))
            .map(Lanes::TopicPattern)
            .map_err(|error| error.to_string()),
        (None, None) => Ok(Lanes::Topics(Vec::new())), // The document has the problem.
    }
}

fn dead_letters(config: &Config, pipeline: &str, options: &config::Pipeline) -> Option<Table> {
    let name = format!("{pipeline}_dead_letters");
    let location = config.table_url(&name, options.dead_letters.location.as_deref()).ok()?; // The document has the reason.
    Some(Table {
        limits: Limits {
            interval: options.commit.interval.0,
            ..Limits::default()
        },
        comment: Some(format!("records that pipeline {pipeline} could not read")),
        ..Table::new(TableId::new(name), location, Mode::Append, dead_letter_schema())
    })
}

impl Feed {
    /// The table and its decoding, given the record's columns.
    pub fn complete(&self, columns: &SchemaRef, new_columns: NewColumns) -> crate::error::Result<(Table, DecodeSpec)> {
        self.with_columns(columns, new_columns).map_err(|all| {
            let each: Vec<String> = all.iter().map(|Wrong(key, what)| format!("`{key}`: {what}")).collect();
            Error::config("table_option", format!("table `{}`: {}", self.id, each.join("; ")))
        })
    }

    /// The record's columns by the table that is there: without those that alluvium adds.
    pub fn columns_of_table(&self, schema: &Schema) -> SchemaRef {
        let own = |name: &String| self.options.metadata.contains(name);
        let fields = schema.fields().iter().filter(|field| !own(field.name())).cloned();
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    pub fn format(&self) -> config::Format {
        self.options.format
    }

    /// What is wrong with the columns that alluvium adds, whatever the record's are.
    fn wrong_metadata(&self) -> Vec<Wrong> {
        let Self { options, .. } = self;
        let mut wrong = problems_of("metadata", &options.metadata, |name| {
            decode::metadata::fields(&[name.to_owned()], options.format)
                .map(drop)
                .map_err(|error| error.to_string())
        });
        let told = decode::metadata::must_tell_deletes(&options.metadata, options.format, &options.key);
        wrong.extend(told.err().map(|error| Wrong(KeyPath::of(["metadata"]), error.to_string())));
        wrong
    }

    fn with_columns(&self, columns: &SchemaRef, new_columns: NewColumns) -> Result<(Table, DecodeSpec), Vec<Wrong>> {
        let options = &self.options;
        let spec = DecodeSpec {
            format: options.format,
            columns: Arc::clone(columns),
            new_columns,
            key: options.key.clone(),
            key_from: options.key_from,
            tombstones: options.tombstones,
            metadata: options.metadata.clone(),
            partition_by: options.partition_by.clone(),
        };
        let mut wrong = problems_of("key", &options.key, |name| key_column(columns, name));
        wrong.extend(self.wrong_metadata());
        if !wrong.is_empty() {
            return Err(wrong); // Without these the decoder would say the same once more.
        }
        let schema = match decode::decoder(&spec) {
            Ok(decoder) => Arc::clone(decoder.schema()),
            Err(error) => {
                let option = if error.code == "metadata" { "metadata" } else { "schema" };
                return Err(vec![Wrong(KeyPath::of([option]), error.to_string())]);
            }
        };
        let wrong = problems_of("partition_by", &options.partition_by, |name| column(&schema, name).map(drop));
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let upsert = || Mode::Upsert {
            key: options.key.clone(),
            merge: merge(options),
        };
        let table = Table {
            id: self.id.clone(),
            location: self.location.clone(),
            mode: if options.key.is_empty() { Mode::Append } else { upsert() },
            schema,
            partition_by: options.partition_by.clone(),
            lanes: self.lanes.clone(),
            limits: self.limits,
            layout: layout(options),
            properties: options.properties.clone(),
            comment: options.comment.clone(),
            type_widening: self.type_widening,
            on_unknown_row: options.on_unknown_row,
        };
        Ok((table, spec))
    }
}

/// What is wrong with the items of a list.
fn problems_of(option: &str, items: &[String], check: impl Fn(&str) -> Result<(), String>) -> Vec<Wrong> {
    let at = KeyPath::of([option]);
    let each = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| Some(Wrong(at.index(index), check(item).err()?)));
    each.collect()
}

fn column<'s>(schema: &'s Schema, name: &str) -> Result<&'s DataType, String> {
    let names = schema.fields().iter().map(|field| field.name().as_str());
    let near = config::suggestion(name, names.clone());
    let found = schema.field_with_name(name).map(arrow::datatypes::Field::data_type);
    found.map_err(|_| {
        format!(
            "there is no column `{name}`{near} (the columns are {})",
            names.collect::<Vec<_>>().join(", ")
        )
    })
}

/// A key is compared by its bytes: what has several forms of one value, or none that is equal to itself, cannot be one.
fn key_column(schema: &Schema, name: &str) -> Result<(), String> {
    let kind = column(schema, name)?;
    if kind.is_nested() || kind.is_floating() {
        return Err(format!(
            "column `{name}` is {kind}, which cannot be a key: use numbers without fractions, decimals, texts, dates or times"
        ));
    }
    Ok(())
}
