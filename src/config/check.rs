//! What lies between options, or between an option and this machine: what no type can say.
//!
//! What the columns of a table must be is checked where its schema is read: this file knows no formats.

mod groups;
mod postgres;
mod properties;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use url::Url;

use super::location::{place_of, shown};
use super::{
    Bytes, Config, Format, Kafka, KeyFrom, KeyPath, Merge, OnUnknownRow, OneOrMany, Pipeline, Reach, SaslMechanism, Secret, Span, Table,
    Text, Tls, Tombstones,
};

/// Below this, the buffers of a fetch and of a Parquet writer do not fit.
const MEMORY_MIN: Bytes = Bytes(16 << 20);
/// A commit takes some milliseconds, and each makes a version that stays: more often is never what was meant.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Longer than anybody waits, and short enough for all clocks.
const SPAN_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// What librdkafka takes for the age of what it knows of topics.
const DISCOVERY_MAX: Duration = Duration::from_secs(3600);
/// More than any machine has, and little enough to be counted with.
const MEMORY_MAX: Bytes = Bytes(1 << 50);
/// What a data file may be full at: below it a table is all files, above it no task can read or rewrite one.
const FILE_SIZE_MIN: Bytes = Bytes(1 << 20);
const FILE_SIZE_MAX: Bytes = Bytes(1 << 30);
/// What is wrong, by key.
pub(super) fn check(config: &Config, reach: Reach) -> Vec<(KeyPath, String)> {
    let mut check = Check {
        config,
        reach,
        problems: Vec::new(),
    };
    check.process();
    for (name, pipeline) in &config.pipelines {
        let at = KeyPath::of(["pipelines", name]);
        check.name(&at, "pipeline", name);
        check.pipeline(&at, pipeline);
    }
    check.places();
    check.follows();
    check.slots();
    check.groups();
    check.problems
}

const TOO_LONG: &str = "more than a year";

struct Check<'c> {
    config: &'c Config,
    reach: Reach,
    problems: Vec<(KeyPath, String)>,
}

impl Check<'_> {
    fn wrong(&mut self, at: KeyPath, what: impl Into<String>) {
        self.problems.push((at, what.into()));
    }

    fn wrong_if(&mut self, wrong: bool, at: KeyPath, what: &str) {
        if wrong {
            self.wrong(at, what);
        }
    }

    fn process(&mut self) {
        let config = self.config;
        let address = &config.http.address;
        if !address.is_empty() && !is_host_port(address) {
            self.wrong(
                KeyPath::of(["http", "address"]),
                format!("`{address}` is not HOST:PORT, as in 127.0.0.1:9464"),
            );
        }
        if config.memory.is_some_and(|memory| memory.0 < MEMORY_MIN.0) {
            self.wrong(
                KeyPath::of(["memory"]),
                "less than 16 MiB: a fetch and a file being written do not fit",
            );
        }
        self.wrong_if(
            config.memory.is_some_and(|memory| memory.0 > MEMORY_MAX.0),
            KeyPath::of(["memory"]),
            "more than any machine has",
        );
        self.wrong_if(config.grace.0 > SPAN_MAX, KeyPath::of(["grace"]), TOO_LONG);
        self.wrong_if(
            config.pipelines.is_empty(),
            KeyPath::of(["pipelines"]),
            "no pipeline: write at least one `[pipelines.NAME.tables.NAME]`",
        );
        self.texts(&KeyPath::of(["storage"]), &config.storage);
    }

    fn pipeline(&mut self, at: &KeyPath, pipeline: &Pipeline) {
        match (&pipeline.kafka, &pipeline.postgres) {
            (Some(kafka), None) => self.kafka(&at.key("kafka"), kafka),
            (None, Some(postgres)) => self.postgres(&at.key("postgres"), postgres),
            (Some(_), Some(_)) => self.wrong(at.key("postgres"), "beside `kafka`: a pipeline has one source"),
            (None, None) => self.wrong(
                at.clone(),
                "no source: write `[pipelines.NAME.kafka]` or `[pipelines.NAME.postgres]`",
            ),
        }
        let commit = &pipeline.commit;
        self.commit(&at.key("commit"), Some(commit.interval), Some(commit.rows), Some(commit.bytes));
        self.wrong_if(
            commit.idle.is_some_and(|idle| idle.0 > SPAN_MAX),
            at.key("commit").key("idle"),
            TOO_LONG,
        );
        self.wrong_if(
            pipeline.dead_letters.stop_after == 0,
            at.key("dead_letters").key("stop_after"),
            "0 would stop at once: write at least 1",
        );
        let follows = pipeline.postgres.as_ref().is_some_and(|postgres| !postgres.follow.is_empty());
        self.wrong_if(
            pipeline.tables.is_empty() && !follows,
            at.key("tables"),
            "no table: a pipeline without one has nothing to do",
        );
        for (name, table) in &pipeline.tables {
            let at = at.key("tables").key(name);
            self.name(&at, "table", name);
            if pipeline.postgres.is_some() {
                self.postgres_table(&at, table);
            } else {
                self.kafka_table(&at, table);
            }
            self.table(&at, table);
        }
    }

    fn commit(&mut self, at: &KeyPath, interval: Option<Span>, rows: Option<u64>, bytes: Option<Bytes>) {
        let short = interval.is_some_and(|interval| interval.0 < INTERVAL_MIN);
        self.wrong_if(
            short,
            at.key("interval"),
            "less than 10 ms: every commit makes a version that stays",
        );
        self.wrong_if(interval.is_some_and(|interval| interval.0 > SPAN_MAX), at.key("interval"), TOO_LONG);
        self.wrong_if(rows == Some(0), at.key("rows"), "0 would never publish a row: write at least 1");
        self.wrong_if(
            bytes.is_some_and(|bytes| bytes.0 == 0),
            at.key("bytes"),
            "0 would never publish a row: write at least 1 MiB",
        );
    }

    fn kafka(&mut self, at: &KeyPath, kafka: &Kafka) {
        for broker in kafka.brokers.split(',') {
            if !is_host_port(broker.trim()) {
                let broker = shown(broker);
                self.wrong(at.key("brokers"), format!("`{broker}` is not HOST:PORT, as in kafka-1:9092"));
            }
        }
        self.wrong_if(
            kafka.group.as_deref() == Some(""),
            at.key("group"),
            "empty: leave it out to read all partitions with this instance",
        );
        self.wrong_if(
            kafka.discovery.0.is_zero(),
            at.key("discovery"),
            "0 would ask the brokers without a pause",
        );
        self.wrong_if(
            kafka.discovery.0 > DISCOVERY_MAX,
            at.key("discovery"),
            "more than an hour: new partitions would be found too late for most",
        );
        if let Some(tls) = &kafka.tls {
            self.tls(&at.key("tls"), tls);
        }
        if let Some(sasl) = &kafka.sasl {
            let at = at.key("sasl");
            self.wrong_if(sasl.username.is_empty(), at.key("username"), "empty");
            self.secret(&at.key("password"), &sasl.password);
            let bare = sasl.mechanism == SaslMechanism::Plain && kafka.tls.is_none();
            self.wrong_if(
                bare,
                at.key("mechanism"),
                "PLAIN sends the password readably: add `tls`, or use SCRAM-SHA-512",
            );
        }
        self.texts(&at.key("options"), &kafka.options);
    }

    fn tls(&mut self, at: &KeyPath, tls: &Tls) {
        for (key, file) in [("ca", &tls.ca), ("certificate", &tls.certificate), ("key", &tls.key)] {
            // They lie on the machine that connects, as secrets do.
            if self.reach.needs(at) {
                self.file(&at.key(key), file.as_deref());
            }
        }
        let needs = "`certificate` and `key` need each other";
        self.wrong_if(tls.certificate.is_some() != tls.key.is_some(), at.clone(), needs);
        self.wrong_if(
            tls.key_password.is_some() && tls.key.is_none(),
            at.key("key_password"),
            "there is no `key` that it could open",
        );
        tls.key_password
            .iter()
            .for_each(|secret| self.secret(&at.key("key_password"), secret));
    }

    fn kafka_table(&mut self, at: &KeyPath, table: &Table) {
        self.topics(at, table);
        let schemaless = table.format == Format::Json && table.schema.is_none();
        self.wrong_if(
            schemaless,
            at.key("schema"),
            "missing: plain JSON does not tell its columns; name an Avro schema (.avsc) or a JSON Schema (.json)",
        );
        let alone = "only with `postgres` as the source";
        self.wrong_if(table.table.is_some(), at.key("table"), alone);
        self.wrong_if(table.mode.is_some(), at.key("mode"), alone);
        self.key(at, table);
    }

    fn table(&mut self, at: &KeyPath, table: &Table) {
        self.file(&at.key("schema"), table.schema.as_deref());
        self.distinct(&at.key("key"), &table.key);
        self.distinct(&at.key("partition_by"), &table.partition_by);
        self.distinct(&at.key("metadata"), &table.metadata);
        self.wrong_if(
            !(FILE_SIZE_MIN.0..=FILE_SIZE_MAX.0).contains(&table.target_file_size.0),
            at.key("target_file_size"),
            "not a size for data files: write 1 MiB to 1 GiB",
        );
        self.commit(&at.key("commit"), table.commit.interval, table.commit.rows, table.commit.bytes);
        self.properties(&at.key("properties"), table);
    }

    fn topics(&mut self, at: &KeyPath, table: &Table) {
        match (&table.topic, &table.topic_pattern) {
            (None, None) => self.wrong(
                at.key("topic"),
                "missing: name the topic that feeds the table, or a `topic_pattern`",
            ),
            (Some(_), Some(_)) => self.wrong(at.key("topic_pattern"), "beside `topic`: only one of them can name the topics"),
            (None, Some(pattern)) => {
                if let Err(error) = regex::Regex::new(pattern) {
                    // The library draws a picture of several lines; its last line is the reason.
                    let text = error.to_string();
                    let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    self.wrong(
                        at.key("topic_pattern"),
                        format!("`{pattern}` is not a regular expression: {reason}"),
                    );
                }
            }
            (Some(topics), None) => {
                let at = at.key("topic");
                let one = matches!(topics, OneOrMany::One(_));
                let topics = topics.to_vec();
                self.wrong_if(topics.is_empty(), at.clone(), "an empty list: name at least one topic");
                self.distinct(&at, &topics);
                for (index, topic) in topics.iter().enumerate() {
                    let at = if one { at.clone() } else { at.index(index) };
                    let legal = (1..=249).contains(&topic.len())
                        && topic != "."
                        && topic != ".."
                        && topic.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
                    if !legal {
                        self.wrong(
                            at,
                            format!("`{topic}` cannot be a topic: their names are of 1 to 249 letters, digits, `.`, `_` and `-`"),
                        );
                    }
                }
            }
        }
    }

    /// What only goes with a key, and what only goes without one.
    fn key(&mut self, at: &KeyPath, table: &Table) {
        if table.key.is_empty() {
            let alone = "only of tables with a `key`, and this one has none";
            self.wrong_if(table.key_from != KeyFrom::default(), at.key("key_from"), alone);
            self.wrong_if(table.merge != Merge::default(), at.key("merge"), alone);
            self.wrong_if(table.on_unknown_row != OnUnknownRow::default(), at.key("on_unknown_row"), alone);
        } else {
            let alone = "only of tables without a `key`";
            self.wrong_if(!table.partition_by.is_empty(), at.key("partition_by"), alone);
            self.wrong_if(table.tombstones != Tombstones::default(), at.key("tombstones"), alone);
        }
    }

    fn distinct(&mut self, at: &KeyPath, names: &[String]) {
        let mut seen = BTreeSet::new();
        for (index, name) in names.iter().enumerate() {
            if !seen.insert(name) {
                self.wrong(at.index(index), format!("`{name}` stands there twice"));
            }
        }
    }

    /// Names become parts of paths and of marks.
    fn name(&mut self, at: &KeyPath, what: &str, name: &str) {
        let legal = name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
        if !legal || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            self.wrong(
                at.clone(),
                format!("not a name for a {what}: use letters, digits, `_`, `-` and `.`, and begin with a letter or digit"),
            );
        }
    }

    /// No two tables have one name, or lie at one place or inside of each other.
    fn places(&mut self) {
        let mut names: BTreeMap<String, KeyPath> = BTreeMap::new();
        let mut places: Vec<(String, KeyPath)> = Vec::new();
        for (name, location, at) in tables(self.config) {
            if let Some(first) = names.insert(name.clone(), at.clone()) {
                self.wrong(at.clone(), format!("`{first}` has the same name: table names are unique in a file"));
                continue;
            }
            match self.config.table_url(&name, location) {
                Err(what) => self.wrong(at.key("location"), what),
                Ok(url) => {
                    let place = place_of(&url);
                    for (other, first) in &places {
                        if *other == place {
                            self.wrong(at.key("location"), format!("`{first}` lies at the same place, {url}"));
                        } else if place.starts_with(other.as_str()) || other.starts_with(&place) {
                            self.wrong(
                                at.key("location"),
                                format!("this table and `{first}` lie one inside of the other: {place} and {other}"),
                            );
                        }
                    }
                    places.push((place, at));
                }
            }
        }
    }

    fn file(&mut self, at: &KeyPath, file: Option<&Path>) {
        let Some(file) = file else { return };
        if let Err(error) = std::fs::File::open(file) {
            self.wrong(at.clone(), format!("{} cannot be read: {error}", file.display()));
        } else if file.is_dir() {
            self.wrong(at.clone(), format!("{} is a folder: name a file", file.display()));
        }
    }

    fn secret(&mut self, at: &KeyPath, secret: &Secret) {
        if self.reach.needs(at)
            && let Err(error) = secret.reveal()
        {
            self.wrong(at.clone(), error.to_string());
        }
    }

    fn texts(&mut self, at: &KeyPath, texts: &BTreeMap<String, Text>) {
        for (name, text) in texts {
            match text {
                Text::Secret(secret) => self.secret(&at.key(name), secret),
                Text::Plain(_) if is_secret_name(name) => {
                    self.wrong(
                        at.key(name),
                        "a secret in the open: write { env = \"NAME\" } or { file = \"/path\" }",
                    );
                }
                Text::Plain(_) => {}
            }
        }
    }
}

impl Config {
    /// A table with a place of its own in the file that lies at this one, around it or within it: its key.
    pub fn table_beside(&self, url: &Url) -> Option<String> {
        let place = place_of(url);
        let mut all = tables(self).filter_map(|(name, location, at)| Some((place_of(&self.table_url(&name, location).ok()?), at)));
        let found = all.find(|(other, _)| place.starts_with(other.as_str()) || other.starts_with(&place));
        found.map(|(_, at)| at.to_string())
    }
}

/// All tables with their own locations, the dead-letter tables included.
fn tables(config: &Config) -> impl Iterator<Item = (String, Option<&str>, KeyPath)> {
    config.pipelines.iter().flat_map(|(pipeline, of)| {
        let at = KeyPath::of(["pipelines", pipeline]);
        let dead_letters = (
            format!("{pipeline}_dead_letters"),
            of.dead_letters.location.as_deref(),
            at.key("dead_letters"),
        );
        let tables = of
            .tables
            .iter()
            .map(move |(name, table)| (name.clone(), table.location.as_deref(), at.key("tables").key(name)));
        tables.chain([dead_letters])
    })
}

fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    !host.is_empty() && !host.contains(['/', ';', ',']) && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok()
}

/// Whether an option of a store or of librdkafka holds a secret by its name.
fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words = [
        "secret",
        "password",
        "token",
        "account_key",
        "master_key",
        "customer_key",
        "sas_key",
        "key.pem",
    ];
    // These hold no secret, though they have such a word: the place of one, and the names of switches.
    let harmless = ["_file", "_path", "endpoint", "url", ".location", "method", "token.refresh"];
    (name.ends_with("access_key") || words.iter().any(|word| name.contains(word))) && !harmless.iter().any(|word| name.contains(word))
}
