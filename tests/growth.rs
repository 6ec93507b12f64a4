//! Real events of Debezium whose table was altered while they flowed, from a topic to what independent readers see of the tables.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::Value;

use crate::support::history;
use crate::support::kafka::send;
use crate::support::program::Site;
use crate::support::python::Reader;
use crate::support::readback::texts;

const WITH_SCHEMA: &str = include_str!("data/debezium/json-with-schema.jsonl");

/// A broker within this process, and what is written to it.
struct Topic {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
    samples: Vec<Value>,
}

impl Topic {
    fn new() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        for topic in ["compk", "pgbench_branches"] {
            cluster.create_topic(topic, 1, 1).unwrap();
        }
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers());
        Self {
            producer: config.create().unwrap(),
            cluster,
            samples: WITH_SCHEMA.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        }
    }

    fn sample(&self, name: &str) -> &Value {
        self.samples.iter().find(|sample| sample["name"] == name).unwrap()
    }

    /// Samples of this table, by their names, into the topic that is named after it.
    fn produce(&self, table: &str, names: &[&str]) {
        for name in names {
            let sample = self.sample(&format!("{table}.{name}"));
            send(&self.producer, table, 0, sample["key"].as_str().unwrap(), sample["value"].as_str());
        }
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// Tables whose columns come from the messages.
    fn configure(&self, site: &Site, tables: &str) -> PathBuf {
        let text = format!(
            "lake = \"{{dir}}/lake\"\nstate = \"{{dir}}/state\"\nmemory = \"64 MiB\"\nhttp = {{ address = \"\" }}\n\
             [pipelines.p.kafka]\nbrokers = \"{}\"\n{tables}",
            self.cluster.bootstrap_servers()
        );
        site.configure("grow", &text)
    }

    /// Two tables that are published soon, and are looked for soon while they wait for their first record. `kafka`: further lines.
    fn configure_soon(&self, site: &Site, kafka: &str) -> PathBuf {
        let soon = "discovery = \"500 ms\"\n[pipelines.p.commit]\ninterval = \"100 ms\"\n";
        self.configure(site, &[kafka, soon, NEWEST, OTHER].concat())
    }
}

/// One table for the newest rows, another for all events.
const NEWEST: &str = "[pipelines.p.tables.newest]\ntopic = \"compk\"\nformat = \"debezium-json\"\nkey = [\"k1\", \"k2\"]\n";
const EVENTS: &str = "[pipelines.p.tables.events]\ntopic = \"compk\"\nformat = \"debezium-json\"\nmetadata = [\"__op\", \"__offset\"]\n";
/// Of another topic.
const OTHER: &str = "[pipelines.p.tables.other]\ntopic = \"pgbench_branches\"\nformat = \"debezium-json\"\nkey = [\"bid\"]\n";

fn newest(table: &Path) -> u64 {
    history::read(table).last().unwrap().version
}

/// Whether any version of a table has brought rows.
fn has_rows(table: &Path) -> Option<()> {
    history::read(table).iter().any(|commit| !commit.added.is_empty()).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_s7_s13_s14_tables_follow_a_schema_that_changes_and_every_reader_reads_every_version() {
    let (site, topic) = (Site::new(), Topic::new());
    let config = topic.configure(&site, &[NEWEST, EVENTS].concat());
    let mut versions = Vec::new();
    // The column `extra` comes and `v` goes between the first stage and the second; in the third, the old schema is back. Each stage is
    // a start of its own.
    let stages: [&[&str]; 3] = [
        &["r", "c", "u"],
        &[
            "d-pkchange-newkey",
            "tombstone",
            "c-pkchange-oldkey",
            "d",
            "tombstone.2",
            "c.2",
            "u.2",
        ],
        &["c"],
    ];
    for stage in stages {
        topic.produce("compk", stage);
        site.catch_up(&config).await;
        versions.push((newest(&site.table("newest")), newest(&site.table("events"))));
    }
    let rows: [&[&str]; 3] = [
        &["1|k|v|-", "2|kk|v2|-"],
        &["1|k|v|NULL", "3|a|NULL|10"],
        &["1|k|v|NULL", "2|kk|v|NULL", "3|a|NULL|10"],
    ];
    // In the order of texts.
    let events = [
        "0|r|1|k|v|NULL",
        "10|c|2|kk|v|NULL",
        "1|c|2|kk|v|NULL",
        "2|u|2|kk|v2|NULL",
        "3|d|2|kk|NULL|NULL",
        "5|c|2|k3|v2|NULL",
        "6|d|2|k3|NULL|NULL",
        "8|c|3|a|b|9",
        "9|u|3|a|NULL|10",
    ];
    for reader in [Reader::Deltalake, Reader::Polars, Reader::Duckdb] {
        let asked: Vec<u64> = versions.iter().map(|(newest, _)| *newest).collect();
        let read = reader.read(&site.table("newest"), &asked, &site.out()).await;
        for (files, rows) in read.iter().zip(rows) {
            assert_eq!(texts(files, &["k1", "k2", "v", "extra"]), rows, "{reader:?}");
        }
        let last = versions.last().unwrap().1;
        let read = reader.read(&site.table("events"), &[last], &site.out()).await;
        let columns = ["__offset", "__op", "k1", "k2", "v", "extra"];
        assert_eq!(texts(&read[0], &columns), events, "{reader:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r5_a_table_that_waits_for_its_first_record_holds_up_no_other() {
    let (site, topic) = (Site::new(), Topic::new());
    let config = topic.configure_soon(&site, "");
    topic.produce("compk", &["r"]);
    let mut program = site.run("waits", &config);
    let within = Duration::from_secs(180);
    program.until("rows of the one", within, || has_rows(&site.table("newest"))).await;
    assert!(history::read(&site.table("other")).is_empty(), "of the other nothing is known yet");
    topic.produce("pgbench_branches", &["r"]);
    topic.produce("compk", &["c"]);
    program.until("rows of the other", within, || has_rows(&site.table("other"))).await;
    program
        .until("what came meanwhile", within, || {
            (history::marks(&site.table("newest")) == [(0, 1)].into()).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catch_up_is_done_where_no_record_says_what_its_only_table_is() {
    let (site, topic) = (Site::new(), Topic::new());
    let config = topic.configure(&site, NEWEST);
    let key = topic.sample("compk.r")["key"].as_str().unwrap();
    send(&topic.producer, "compk", 0, key, None);
    topic.producer.flush(Duration::from_secs(30)).unwrap();
    site.catch_up(&config).await;
    assert!(history::read(&site.table("newest")).is_empty(), "nothing is known of it yet");
    let said = std::fs::read_to_string(site.path("catch-up.log")).unwrap();
    assert!(said.contains("no record says its columns yet") && said.contains("newest"), "{said}");
    topic.produce("compk", &["r"]);
    site.catch_up(&config).await;
    assert_eq!(history::marks(&site.table("newest")), [(0, 1)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_made_from_what_stands_before_tombstones_or_waits_behind_them() {
    let (site, topic) = (Site::new(), Topic::new());
    let config = topic.configure_soon(&site, "");
    topic.produce("pgbench_branches", &["r"]);
    for table in ["compk", "pgbench_branches"] {
        let key = topic.sample(&format!("{table}.r"))["key"].as_str().unwrap();
        (0..300).for_each(|_| send(&topic.producer, table, 0, key, None));
    }
    topic.producer.flush(Duration::from_secs(30)).unwrap();
    let mut program = site.run("waits", &config);
    let within = Duration::from_secs(180);
    let holds = |name: &str, offset: u64| {
        let table = site.table(name);
        (!history::read(&table).is_empty() && history::marks(&table) == [(0, offset)].into()).then_some(())
    };
    program.until("the one to hold all", within, || holds("other", 300)).await;
    assert!(history::read(&site.table("newest")).is_empty(), "of the other nothing is known yet");
    topic.produce("compk", &["r"]);
    program.until("the other to hold all", within, || holds("newest", 300)).await;
    let said = program.log_text();
    assert_eq!(
        said.matches("which a table waits for").count(),
        1,
        "what was looked at is not looked at again: {said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_begins_with_the_newest_records_begins_with_the_first_that_it_waits_for() {
    let (site, topic) = (Site::new(), Topic::new());
    let config = topic.configure_soon(&site, "start = \"latest\"\n");
    topic.produce("pgbench_branches", &["r"]);
    let mut program = site.run("waits", &config);
    let within = Duration::from_secs(180);
    let is_made = || (!history::read(&site.table("other")).is_empty()).then_some(());
    program.until("the one to be made", within, is_made).await;
    topic.produce("compk", &["r"]);
    program
        .until("the record that the other waits for", within, || has_rows(&site.table("newest")))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s10_r5_a_column_of_another_type_stops_its_tables_and_the_others_go_on() {
    let (site, topic) = (Site::new(), Topic::new());
    let config = topic.configure(&site, &[NEWEST, EVENTS, OTHER].concat());
    topic.produce("compk", &["r"]);
    topic.produce("pgbench_branches", &["r"]);
    site.catch_up(&config).await;
    let before = newest(&site.table("other"));
    let sample = topic.sample("compk.c");
    let text = sample["value"].as_str().unwrap();
    let changed = text
        .replace(
            r#""type":"string","optional":true,"field":"v""#,
            r#""type":"int64","optional":true,"field":"v""#,
        )
        .replace(r#""v":"v""#, r#""v":7"#);
    assert_ne!(text, changed);
    send(&topic.producer, "compk", 0, sample["key"].as_str().unwrap(), Some(&changed));
    topic.produce("compk", &["u"]);
    topic.produce("pgbench_branches", &["u"]);
    let arguments = ["run", "--config", config.to_str().unwrap(), "--until-caught-up"];
    let mut program = site.start("changed", &arguments);
    let exit = program.wait(Duration::from_secs(120)).await;
    let said = program.log_text();
    assert_eq!(exit.status.code(), Some(65), "{said}");
    for part in ["`v` is Int64 there and Utf8 here", "the others go on", "\"newest\"", "\"events\""] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(newest(&site.table("other")), before + 1, "the other table has its update");
    assert_eq!(
        history::marks(&site.table("newest")),
        [(0, 0)].into(),
        "nothing behind the change is written"
    );
    assert_eq!(history::marks(&site.table("events")), [(0, 0)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_s13_columns_get_wider_with_their_source_where_that_is_asked_for() {
    let (site, topic) = (Site::new(), Topic::new());
    topic.produce("compk", &["r", "c", "c.2"]);
    let config = topic.configure(&site, &[NEWEST, EVENTS].concat());
    site.catch_up(&config).await;
    let narrow = (newest(&site.table("newest")), newest(&site.table("events")));
    // The key is a long from here on, and another column a double. The message's key is not looked at.
    let wider = |name: &str, changes: &[(&str, &str)]| {
        let sample = topic.sample(name);
        let text = sample["value"].as_str().unwrap();
        let types = [
            (
                r#""type":"int32","optional":false,"field":"k1""#,
                r#""type":"int64","optional":false,"field":"k1""#,
            ),
            (
                r#""type":"int32","optional":true,"default":5,"field":"extra""#,
                r#""type":"double","optional":true,"default":5,"field":"extra""#,
            ),
        ];
        let text = types.iter().chain(changes).fold(text.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}: {text}");
            text.replace(from, to)
        });
        send(&topic.producer, "compk", 0, sample["key"].as_str().unwrap(), Some(&text));
    };
    wider(
        "compk.c.2",
        &[(r#""k1":3"#, r#""k1":1099511627776"#), (r#""extra":9"#, r#""extra":0.5"#)],
    );
    wider("compk.u.2", &[(r#""extra":10"#, r#""extra":10.5"#)]);
    // One writer has not heard of it.
    topic.produce("compk", &["u"]);
    let arguments = ["run", "--config", config.to_str().unwrap(), "--until-caught-up"];
    let mut program = site.start("refused", &arguments);
    assert_eq!(
        program.wait(Duration::from_secs(120)).await.status.code(),
        Some(65),
        "{}",
        program.log_text()
    );
    let said = program.log_text();
    assert!(
        said.contains("`k1` is Int32 in the table and Int64 here") && said.contains("set `type_widening = true`"),
        "{said}"
    );
    let option = "[pipelines.p]\ntype_widening = true\n";
    let config = topic.configure(&site, &[NEWEST, EVENTS, option].concat());
    site.catch_up(&config).await;
    // The index is made from files of both types; then a row of the first is replaced.
    std::fs::remove_dir_all(site.path("state")).unwrap();
    topic.produce("compk", &["d", "c"]);
    site.catch_up(&config).await;
    let last = (newest(&site.table("newest")), newest(&site.table("events")));
    let columns = ["k1", "k2", "v", "extra"];
    let before = ["1|k|v|NULL", "2|kk|v|NULL", "3|a|b|9"];
    let read = Reader::Duckdb.read(&site.table("newest"), &[narrow.0, last.0], &site.out()).await;
    assert_eq!(texts(&read[0], &columns), before);
    let after = ["1099511627776|a|b|0.5", "1|k|v|NULL", "2|kk|v|NULL", "3|a|NULL|10.5"];
    assert_eq!(texts(&read[1], &columns), after);
    let read = Reader::Duckdb.read(&site.table("events"), &[last.1], &site.out()).await;
    let events = [
        "0|1|NULL",
        "1|2|NULL",
        "2|3|9.0",
        "3|1099511627776|0.5",
        "4|3|10.5",
        "5|2|NULL",
        "6|2|NULL",
        "7|2|NULL",
    ];
    assert_eq!(texts(&read[0], &["__offset", "k1", "extra"]), events);
    // Versions before the first wider column are as they were, for every reader.
    let read = Reader::Deltalake.read(&site.table("newest"), &[narrow.0], &site.out()).await;
    assert_eq!(texts(&read[0], &columns), before);
}

/// An order with what is nested in it in every way, as an Avro schema. `more` are further fields of the nested record.
fn nested_schema(more: &str) -> String {
    format!(
        r#"{{"type": "record", "name": "Order", "fields": [
            {{"name": "id", "type": "long"}},
            {{"name": "at", "type": ["null", {{"type": "record", "name": "Place", "fields": [{{"name": "street", "type": "string"}}{more}]}}]}},
            {{"name": "stops", "type": {{"type": "array", "items": "Place"}}}},
            {{"name": "known", "type": {{"type": "map", "values": "string"}}}}]}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_s7_fields_within_columns_are_added_with_the_schema_and_every_reader_reads_every_version() {
    let (site, topic) = (Site::new(), Topic::new());
    let table =
        |name: &str, more: &str| format!("[pipelines.p.tables.{name}]\ntopic = \"compk\"\nschema = \"{{dir}}/nested.avsc\"\n{more}");
    let tables = [
        table("all", ""),
        table("vectors", "key = [\"id\"]\n"),
        table("rewrite", "key = [\"id\"]\nmerge = \"rewrite\"\n"),
    ];
    let config = topic.configure(&site, &tables.concat());
    let place = |text: &str| format!(r#"{{"at": {text}, "stops": [{text}, {text}], "known": {{"k": "v"}}"#);
    let stages = [
        ("", r#"{"street": "a"}"#, [1, 2]),
        (
            r#", {"name": "zip", "type": ["null", "string"]}, {"name": "geo", "type": ["null", {"type": "record", "name": "Geo", "fields": [{"name": "x", "type": "double"}]}]}"#,
            r#"{"street": "b", "zip": "8000", "geo": {"x": 0.5}}"#,
            [2, 3],
        ),
        // An instance that has not heard of the new fields.
        ("", r#"{"street": "c", "zip": "passed over"}"#, [3, 4]),
    ];
    let mut versions = Vec::new();
    for (more, text, ids) in stages {
        std::fs::write(site.path("nested.avsc"), nested_schema(more)).unwrap();
        for id in ids {
            send(
                &topic.producer,
                "compk",
                0,
                &id.to_string(),
                Some(&format!(r#"{}, "id": {id}}}"#, place(text))),
            );
        }
        topic.producer.flush(Duration::from_secs(30)).unwrap();
        site.catch_up(&config).await;
        versions.push(["all", "vectors", "rewrite"].map(|name| newest(&site.table(name))));
    }
    // What the column `at` is in each row, before the fields are there and behind.
    let (a, grown_a) = ("{street: a}", "{street: a, zip: NULL, geo: NULL}");
    let (b, c) = ("{street: b, zip: 8000, geo: {x: 0.5}}", "{street: c, zip: NULL, geo: NULL}");
    let newest_rows = [
        vec![(1, a), (2, a)],
        vec![(1, grown_a), (2, b), (3, b)],
        vec![(1, grown_a), (2, b), (3, c), (4, c)],
    ];
    let all_rows = [
        vec![(1, a), (2, a)],
        vec![(1, grown_a), (2, grown_a), (2, b), (3, b)],
        vec![(1, grown_a), (2, grown_a), (2, b), (3, b), (3, c), (4, c)],
    ];
    for (kind, name) in ["all", "vectors", "rewrite"].into_iter().enumerate() {
        let asked: Vec<u64> = versions.iter().map(|each| each[kind]).collect();
        let expected = if name == "all" { &all_rows } else { &newest_rows };
        for reader in [Reader::Deltalake, Reader::Polars, Reader::Duckdb] {
            let read = reader.read(&site.table(name), &asked, &site.out()).await;
            for (files, rows) in read.iter().zip(expected) {
                let mut rows: Vec<String> = rows.iter().map(|(id, at)| format!("{id}|{at}|[{at}, {at}]|{{k: v}}")).collect();
                let mut columns = vec!["id", "at", "stops", "known"];
                if !matches!(reader, Reader::Duckdb) {
                    // polars, which writes down what deltalake reads, too, makes a list of a map.
                    columns.pop();
                    rows.iter_mut().for_each(|row| row.truncate(row.rfind('|').unwrap()));
                }
                rows.sort();
                assert_eq!(texts(files, &columns), rows, "{reader:?} of {name}");
            }
        }
    }
}
