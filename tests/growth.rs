//! Real events of Debezium whose table was altered while they flowed, from a topic to what independent readers see of the tables.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::Value;

use crate::support::history;
use crate::support::kafka::send;
use crate::support::program::Site;
use crate::support::python::Reader;

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
        cluster.create_topic("compk", 1, 1).unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers());
        Self {
            producer: config.create().unwrap(),
            cluster,
            samples: WITH_SCHEMA.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        }
    }

    fn produce(&self, names: &[&str]) {
        for name in names {
            let sample = self
                .samples
                .iter()
                .find(|sample| sample["name"] == format!("compk.{name}"))
                .unwrap();
            send(
                &self.producer,
                "compk",
                0,
                sample["key"].as_str().unwrap(),
                sample["value"].as_str(),
            );
        }
        self.producer.flush(std::time::Duration::from_secs(30)).unwrap();
    }

    /// One table for the newest rows, another for all events; their columns come from the messages.
    fn configure(&self, site: &Site) -> PathBuf {
        let text = format!(
            "lake = \"{{dir}}/lake\"\nstate = \"{{dir}}/state\"\nmemory = \"64 MiB\"\nhttp = {{ address = \"\" }}\n\
             [pipelines.p.kafka]\nbrokers = \"{}\"\n\
             [pipelines.p.tables.newest]\ntopic = \"compk\"\nformat = \"debezium-json\"\nkey = [\"k1\", \"k2\"]\n\
             [pipelines.p.tables.events]\ntopic = \"compk\"\nformat = \"debezium-json\"\nmetadata = [\"__op\", \"__offset\"]\n",
            self.cluster.bootstrap_servers()
        );
        site.configure("grow", &text)
    }
}

/// Rows as some reader wrote them: these columns as one text, sorted. A column that is not there is `-`.
fn texts(files: &[PathBuf], columns: &[&str]) -> Vec<String> {
    let mut rows = Vec::new();
    for file in files {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap())
            .unwrap()
            .build()
            .unwrap();
        for batch in reader.map(Result::unwrap) {
            let cells: Vec<_> = columns
                .iter()
                .map(|name| batch.column_by_name(name).map(|column| cast(column, &DataType::Utf8).unwrap()))
                .collect();
            rows.extend((0..batch.num_rows()).map(|row| {
                let cell = |column: &Option<arrow::array::ArrayRef>| match column {
                    None => "-".to_owned(),
                    Some(column) if column.is_null(row) => "NULL".to_owned(),
                    Some(column) => column.as_string::<i32>().value(row).to_owned(),
                };
                cells.iter().map(cell).collect::<Vec<_>>().join("|")
            }));
        }
    }
    rows.sort();
    rows
}

fn newest(table: &Path) -> u64 {
    history::read(table).last().unwrap().version
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_s7_s13_s14_tables_follow_a_schema_that_changes_and_every_reader_reads_every_version() {
    let (site, topic) = (Site::new(), Topic::new());
    let config = topic.configure(&site);
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
        topic.produce(stage);
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
