//! What Debezium wrote, flattened and in envelopes, each with its schema: from topics to what independent readers see of the tables.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::Value;

use super::PATIENCE;
use crate::support::bank::read;
use crate::support::history;
use crate::support::kafka::Broker;
use crate::support::program::Site;
use crate::support::python::Reader;
use crate::support::readback::texts;

/// How they were made says `tests/decode/flattened.rs`.
const REWRITTEN: &str = include_str!("../data/debezium/flattened-with-schema-rewrite.jsonl");
const NULLED: &str = include_str!("../data/debezium/flattened-with-schema-tombstone.jsonl");
const ENVELOPES: &str = include_str!("../data/debezium/json-with-schema.jsonl");

/// A table, its key, columns of it, and their cells in the end.
type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a [String]);

/// Makes a topic with all samples of one table, headers and all.
async fn topic_of(broker: &Broker, samples: &str, table: &str) -> String {
    let topic = broker.topic(table, 1, &[]).await;
    let producer = broker.producer(&[]);
    let samples = samples.lines().map(|line| serde_json::from_str::<Value>(line).expect("a sample"));
    let is_of_table = |sample: &Value| sample["name"].as_str().is_some_and(|name| name.split('.').next() == Some(table));
    for sample in samples.filter(is_of_table) {
        let headers = sample["headers"].as_array().expect("a list").iter();
        let headers = headers.fold(OwnedHeaders::new(), |headers, header| {
            let (key, value) = (header[0].as_str().expect("a name"), header[1].as_str());
            headers.insert(Header { key, value })
        });
        let mut record = BaseRecord::<str, str>::to(&topic).partition(0).headers(headers);
        record.key = sample["key"].as_str();
        record.payload = sample["value"].as_str();
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("the producer takes the record");
    }
    producer.flush(PATIENCE).expect("the broker takes the records");
    topic
}

#[tokio::test(flavor = "multi_thread")]
async fn what_debezium_flattened_and_what_it_did_not_become_the_rows_of_the_database() {
    let (broker, site) = (Broker::shared(), Site::new());
    let kinds = [
        "1|true|0|-9223372036854775808|0.1|9999999999.99|100000000000000000000|NULL|deadbeef00|2024-02-29|86399123456|2024-03-01T00:00:00\
         |2024-02-29T07:04:56.789012Z|[1, NULL, 3]|uno|set",
        "20|NULL|NULL|NULL|NULL|NULL|NULL|moved|NULL|NULL|NULL|NULL|NULL|NULL|two|new",
        "3|true|NULL|NULL|NULL|0.00|NULL|NULL|NULL|NULL|NULL|NULL|2024-01-01T00:00:00Z|NULL|drei|y",
    ]
    .map(str::to_owned);
    let notes = [format!("1|{}|2", "0123456789".repeat(210)), "5|short|1".to_owned()];
    let compk = ["1|k|v|NULL", "3|a|NULL|10"].map(str::to_owned);
    let columns = [
        "id", "b", "i4", "i8", "f8", "n", "nu", "t", "by", "d", "tm", "ts", "tstz", "ia", "s", "dflt",
    ];
    let cases: [Case<'_>; 3] = [
        ("kinds", &["id"], &columns, &kinds),
        ("notes", &["id"], &["id", "body", "n"], &notes),
        ("compk", &["k1", "k2"], &["k1", "k2", "v", "extra"], &compk),
    ];
    let mut config = format!(
        "lake = \"{{dir}}/lake\"\nstate = \"{{dir}}/state\"\nmemory = \"64 MiB\"\nhttp = {{ address = \"\" }}\n\
         [pipelines.p.kafka]\nbrokers = \"{}\"\n",
        broker.bootstrap()
    );
    let mut topics = Vec::new();
    for ((table, key, ..), samples) in cases.iter().zip([REWRITTEN, NULLED, ENVELOPES]) {
        let topic = topic_of(broker, samples, table).await;
        config += &format!("[pipelines.p.tables.{table}]\ntopic = \"{topic}\"\nformat = \"debezium-json\"\nkey = {key:?}\n");
        topics.push(topic);
    }
    site.catch_up(&site.configure("debezium", &config)).await;
    for (table, _, columns, rows) in cases {
        let place = site.table(table);
        let newest = history::read(&place).last().expect("the table has versions").version;
        for reader in [Reader::Deltalake, Reader::Duckdb] {
            let files = reader.read(&place, &[newest], &site.out()).await.concat();
            assert_eq!(texts(&files, columns), rows, "{table} {reader:?}");
        }
    }
    // A large value did not come along when the row got another key: nothing but a header says that this is no update.
    let lane = format!("{}/0", topics[1]);
    let letters = read(
        &site,
        "SELECT \"table\", lane, position, code FROM p_dead_letters",
        &["p_dead_letters"],
    )
    .await;
    assert_eq!(letters, [["notes", lane.as_str(), "4", "unavailable_value"]]);
}
