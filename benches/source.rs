//! How fast a topic's backlog becomes columns: fetched from a real broker, decoded, handed over and dropped.
//!
//! `cargo bench --bench source [-- MILLIONS]`. Four partitions, JSON of some 200 bytes. Rows per second of this process's CPU time: the
//! broker's is not counted, and a busy machine says the same.

#[path = "../tests/support/kafka.rs"]
#[expect(dead_code, reason = "shared with the tests; the bench uses a part")]
mod kafka;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium::batch::Flow;
use alluvium::budget::Budget;
use alluvium::config::{self, Format, KeyFrom, OnGap, Start, Tombstones};
use alluvium::sources::Source;
use alluvium::sources::decode::{DecodeSpec, NewColumns, decoder_under};
use alluvium::sources::kafka::{KafkaClient, KafkaSource, Policy, Route, Settings, options};
use alluvium::status::Board;
use alluvium::table::{Lanes, TableId};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use rdkafka::producer::Producer;

const PARTITIONS: i32 = 4;
const MEMORY: usize = 256 << 20;
const ROUNDS: usize = 3;

fn main() {
    let millions: f64 = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(2.0);
    let rows = (millions * 1e6) as usize;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let broker = kafka::Broker::start("");
    let topic = runtime.block_on(broker.topic("orders", PARTITIONS, &[("segment.bytes", "1073741824")]));
    let bytes = produce(&broker, &topic, rows);
    println!(
        "{rows} records, {} bytes on average, {PARTITIONS} partitions, {} MiB for rows",
        bytes / rows,
        MEMORY >> 20
    );
    println!(
        "{:<8} {:>14} {:>14} {:>12} {:>10}",
        "threads", "rows/s", "rows/CPU-s", "CPU/wall", "MB/s"
    );
    for threads in [1, 2] {
        for _ in 0..ROUNDS {
            let (wall, cpu) = runtime.block_on(read(&broker, &topic, rows, threads));
            let (count, load) = (rows as f64, cpu / wall);
            println!(
                "{threads:<8} {:>14.0} {:>14.0} {load:>12.2} {:>10.0}",
                count / wall,
                count / cpu,
                bytes as f64 / wall / 1e6
            );
        }
    }
}

/// Reads the whole topic once: seconds on the clock, and of CPU.
async fn read(broker: &kafka::Broker, topic: &str, rows: usize, threads: usize) -> (f64, f64) {
    let text = format!("brokers = \"{}\"", broker.bootstrap());
    let config: config::Kafka = toml::from_str(&text).expect("the bench's own text");
    let properties = options::properties(&config, "bench", MEMORY, threads).expect("good options");
    let client = KafkaClient::new("bench", &properties, false, Duration::from_secs(30)).expect("a client");
    let decoding = Arc::new(spec());
    let route = Route {
        table: TableId::new("orders"),
        lanes: Lanes::Topics(vec![topic.to_owned()]),
        decoder: Arc::new(move |terms| decoder_under(&decoding, terms)),
    };
    let settings = Settings {
        pipeline: "bench".to_owned(),
        policy: Policy {
            start: Start::Earliest,
            on_gap: OnGap::Stop,
        },
        until_caught_up: true,
        dead_letters: TableId::new("dead"),
        delivered: Arc::default(),
        stop_after: 1000,
        threads,
    };
    let (budget, board) = (Budget::new(MEMORY), Board::default());
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let mut source = KafkaSource::open(&client, &[route], &BTreeMap::new(), &settings, &budget, &board)
        .await
        .expect("the topic opens");
    let mut read = 0;
    while let Some(flow) = source.next().await.expect("the topic is read") {
        if let Flow::Rows(batch) = flow {
            read += batch.rows.num_rows();
        }
    }
    assert_eq!(read, rows);
    (began.elapsed().as_secs_f64(), cpu_seconds() - cpu)
}

fn produce(broker: &kafka::Broker, topic: &str, rows: usize) -> usize {
    let producer = broker.producer(&[
        ("linger.ms", "20"),
        ("batch.size", "1000000"),
        ("queue.buffering.max.messages", "10000000"),
    ]);
    let mut bytes = 0;
    for row in 0..rows {
        let text = order(row);
        bytes += text.len();
        kafka::send(&producer, topic, row as i32 % PARTITIONS, &row.to_string(), Some(&text));
        if row % 500_000 == 499_999 {
            producer.flush(Duration::from_secs(60)).expect("the broker takes the records");
        }
    }
    producer.flush(Duration::from_secs(60)).expect("the broker takes the records");
    bytes
}

/// The record that the project's other figures are about.
fn order(row: usize) -> String {
    format!(
        r#"{{"id":{row},"customer":"customer-{:06}","amount":{}.{:02},"status":"shipped","ts":"2026-11-{:02}T10:{:02}:54.040279Z","note":"{}"}}"#,
        row * 7919 % 1_000_000,
        row % 5000,
        row % 100,
        row % 28 + 1,
        row % 60,
        "the quick brown fox jumps over the lazy dog, and then again: over it"
    )
}

fn spec() -> DecodeSpec {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let columns = [
        ("id", DataType::Int64),
        ("customer", DataType::Utf8),
        ("amount", DataType::Float64),
        ("status", DataType::Utf8),
        ("ts", utc),
        ("note", DataType::Utf8),
    ];
    DecodeSpec {
        format: Format::Json,
        columns: Arc::new(Schema::new(columns.map(|(name, kind)| Field::new(name, kind, true)).to_vec())),
        new_columns: NewColumns::Ignore,
        key: Vec::new(),
        key_from: KeyFrom::Value,
        tombstones: Tombstones::Skip,
        metadata: Vec::new(),
        partition_by: Vec::new(),
    }
}

fn cpu_seconds() -> f64 {
    // SAFETY: getrusage fills the struct that it is given.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
