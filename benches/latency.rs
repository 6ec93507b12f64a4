//! From produce or COMMIT to visible: how long it takes until an independent reader (Python deltalake, in a process of its own) sees a
//! version that holds a record, at two commit intervals, of Kafka and of Postgres. From Kafka both tables are fed: one by key, and one that
//! keeps all.
//!
//! ```text
//! cargo bench --profile release --bench latency                     30 s for each table and interval
//! cargo bench --profile release --bench latency -- 5                seconds
//! cargo bench --profile release --bench latency -- 5 postgres       of one source alone: kafka or postgres
//! ```
//! A record's time runs from before it is handed to the producer, whose own waiting is set to a millisecond, or from before its transaction
//! (one statement, so its COMMIT) is sent, to the reader's sight of a version whose marks contain it. The aims stand in the table. Rows and
//! bytes a second are what came through, from the first record's time to the last one's sight: bytes of the messages, and of Postgres of its
//! WAL, with all that the server writes there.

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

use alluvium::telemetry::now_us;
use support::bank::Bank;
use support::changes::{Changes, Encoding};
use support::history;
use support::kafka::Broker;
use support::model::Model;
use support::postgres::{Options, PostgresServer};
use support::producer::Producer;
use support::program::Site;
use support::python;
use support::shop::{Shop, Source};

/// Commit interval, and the aim for the 99th percentile.
const CASES: [(&str, u64); 2] = [("1 s", 1_400), ("100 ms", 350)];
const PER_SECOND: usize = 1_000;
const ROWS_EACH: usize = 5;

/// What was written: its lane as the reader names it, its position there, and when, in microseconds since 1970.
struct Sent {
    lane: String,
    position: u64,
    at: i64,
    rows: usize,
    bytes: usize,
}

struct Measured {
    /// Of each that was sent, in microseconds.
    waits: Vec<i64>,
    /// That the reader saw.
    versions: usize,
    rows: usize,
    bytes: usize,
    seconds: f64,
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let seconds = arguments.iter().find_map(|arg| arg.parse::<usize>().ok()).unwrap_or(30);
    let without = |source: &str| !arguments.iter().any(|argument| argument == source);
    if without("postgres") {
        let broker = Broker::start("");
        head(&format!("Kafka: {PER_SECOND} records a second for {seconds} s, 4 partitions"));
        for (interval, aim) in CASES {
            for table in ["audit", "orders"] {
                report(table, interval, aim, kafka(&broker, table, interval, seconds).await);
            }
        }
    }
    if without("kafka") {
        let server = PostgresServer::start(Options::default().for_writes());
        let (version, each) = (server.version(), PER_SECOND / ROWS_EACH);
        head(&format!(
            "PostgreSQL {version}: {each} transactions of {ROWS_EACH} rows a second for {seconds} s"
        ));
        for (interval, aim) in CASES {
            report("orders", interval, aim, postgres(&server, interval, seconds).await);
        }
    }
}

fn head(what: &str) {
    println!("{what}");
    println!(
        "{:>8} {:>10} {:>8} {:>8} {:>8} {:>8} {:>10} {:>8} {:>8}",
        "table", "interval", "p50 ms", "p99 ms", "max ms", "aim ms", "versions", "rows/s", "kB/s"
    );
}

fn report(table: &str, interval: &str, aim: u64, measured: Measured) {
    let mut waits = measured.waits;
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize] / 1000;
    println!(
        "{table:>8} {interval:>10} {:>8} {:>8} {:>8} {aim:>8} {:>10} {:>8.0} {:>8.0}",
        at(0.5),
        at(0.99),
        at(1.0),
        measured.versions,
        measured.rows as f64 / measured.seconds,
        measured.bytes as f64 / measured.seconds / 1e3,
    );
}

/// Of every record.
async fn kafka(broker: &Broker, table: &str, interval: &str, seconds: usize) -> Measured {
    let source = Source::new(broker, 4).await;
    let site = Site::new();
    let commit = format!("interval = \"{interval}\"");
    let config = Shop {
        commit: &commit,
        ..Shop::on(&source)
    }
    .configure(&site);
    let mut producer = Producer::prompt(&source.brokers, &source.topic, Model::new(4, Encoding::Json));
    let mut changes = Changes::new(5, 10_000);
    // The first records make the table; they are not counted.
    changes.by_ref().take(PER_SECOND).for_each(|change| producer.send(&change));
    producer.flush();
    let mut program = site.run("program", &config);
    let table = site.table(table);
    let warm = producer.model.end();
    program
        .until("the first version", Duration::from_secs(60), || {
            (history::marks(&table) == warm).then_some(())
        })
        .await;
    let writing = || {
        tokio::task::spawn_blocking(move || {
            let mut sent = Vec::new();
            let mut tick = now_us();
            for change in changes.take(PER_SECOND * seconds) {
                while now_us() < tick {
                    producer.poll(Duration::from_micros(200));
                }
                tick += 1_000_000 / PER_SECOND as i64;
                let (at, before) = (now_us(), producer.bytes);
                producer.send(&change);
                let partition = producer.model.partition_of(change.id);
                let position = producer.model.partition(partition).len() as u64 - 1;
                sent.push(Sent {
                    lane: partition.to_string(),
                    position,
                    at,
                    rows: 1,
                    bytes: producer.bytes - before,
                });
            }
            producer.flush();
            sent
        })
    };
    measure(&table, seconds, writing).await
}

/// Of every transaction.
async fn postgres(server: &PostgresServer, interval: &str, seconds: usize) -> Measured {
    let sql = "CREATE TABLE orders (id bigint PRIMARY KEY, customer text, amount numeric(12, 2), note text); \
               INSERT INTO orders SELECT i, 'customer', i, 'note' FROM generate_series(1, 1000) i";
    let bank = Bank::new(server, "latency", sql, "create = true\nfollow = [\"public.*\"]").await;
    let text = std::fs::read_to_string(&bank.config).expect("the configuration");
    let text = text.replace("interval = \"100 ms\"", &format!("interval = \"{interval}\""));
    std::fs::write(&bank.config, text).expect("the configuration");
    let mut program = bank.site.run("program", &bank.config);
    let table = bank.site.table("public/orders");
    // With the copy the table has a mark; then its stream begins.
    program
        .until("the stream", Duration::from_secs(60), || {
            (!history::app_ids(&table).is_empty() && program_follows(&bank)).then_some(())
        })
        .await;
    let (client, lane) = (server.client(&bank.database).await, bank.slot());
    let writing = move || {
        tokio::spawn(async move {
            let insert = "INSERT INTO orders SELECT $1::bigint + i, 'customer', i, repeat('x', 150) FROM generate_series(1, $2::bigint) i";
            let insert = client.prepare(insert).await.expect("a statement");
            let end = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
            let end = client.prepare(end).await.expect("a statement");
            let (mut sent, mut before) = (Vec::new(), None);
            let mut tick = now_us();
            for number in 1..=(PER_SECOND / ROWS_EACH * seconds) as i64 {
                let early = tick - now_us();
                tokio::time::sleep(Duration::from_micros(early.max(0).cast_unsigned())).await;
                tick += 1_000_000 / (PER_SECOND / ROWS_EACH) as i64;
                let at = now_us();
                let parameters = (number * 1_000_000, ROWS_EACH as i64);
                client.execute(&insert, &[&parameters.0, &parameters.1]).await.expect("an insert");
                // Where its commit ends, or a little later.
                let position = client
                    .query_one(&end, &[])
                    .await
                    .expect("a position")
                    .get::<_, i64>(0)
                    .cast_unsigned();
                sent.push(Sent {
                    lane: lane.clone(),
                    position,
                    at,
                    rows: ROWS_EACH,
                    bytes: (position - before.replace(position).unwrap_or(position)) as usize,
                });
            }
            sent
        })
    };
    measure(&table, seconds, writing).await
}

fn program_follows(bank: &Bank<'_>) -> bool {
    let log = std::fs::read_to_string(bank.site.path("program.log")).unwrap_or_default();
    log.contains("\"following\"")
}

/// Writes while the independent reader watches the table.
async fn measure(table: &Path, seconds: usize, writing: impl FnOnce() -> JoinHandle<Vec<Sent>>) -> Measured {
    let (mut child, mut sights) = watch(table).await;
    let mut writing = writing();
    let mut sent: Option<Vec<Sent>> = None;
    let mut seen: Vec<Value> = Vec::new();
    let all_is_seen = async {
        loop {
            tokio::select! {
                written = &mut writing, if sent.is_none() => sent = Some(written.expect("the writer does not panic")),
                line = sights.next_line() => {
                    let line = line.expect("the reader writes lines").expect("the reader goes on");
                    seen.push(serde_json::from_str(&line).expect("a line is JSON"));
                }
            }
            let ends = sent.as_ref().map(|sent| ends(sent));
            if ends.is_some_and(|ends| {
                seen.last()
                    .is_some_and(|sight| ends.iter().all(|(lane, end)| holds(sight, lane, *end)))
            }) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(seconds as u64 + 60), all_is_seen)
        .await
        .expect("the reader sees all records");
    child.kill().await.expect("the reader ends");
    let sent = sent.expect("all was written");
    let sight = |sent: &Sent| {
        let sight = seen.iter().find(|sight| holds(sight, &sent.lane, sent.position));
        sight.expect("every record was seen")["seen_us"].as_i64().expect("microseconds")
    };
    let sights: Vec<i64> = sent.iter().map(sight).collect();
    let (first, last) = (sent.iter().map(|sent| sent.at).min(), sights.iter().max());
    let us = last.expect("a sight") - first.expect("a record");
    Measured {
        waits: sent.iter().zip(&sights).map(|(sent, sight)| sight - sent.at).collect(),
        versions: seen.len(),
        rows: sent.iter().map(|sent| sent.rows).sum(),
        bytes: sent.iter().map(|sent| sent.bytes).sum(),
        seconds: us as f64 / 1e6,
    }
}

/// Starts the independent reader, and waits until it has opened the table.
async fn watch(table: &Path) -> (Child, Lines<BufReader<ChildStdout>>) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/watch_table.py");
    let mut command = Command::new(python::interpreter());
    command
        .arg(script)
        .arg(table)
        .args(history::app_ids(table))
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("python starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    lines.next_line().await.expect("the reader writes lines").expect("a first version");
    (child, lines)
}

/// The last position of each lane.
fn ends(sent: &[Sent]) -> BTreeMap<&str, u64> {
    sent.iter().map(|sent| (sent.lane.as_str(), sent.position)).collect()
}

fn holds(sight: &Value, lane: &str, position: u64) -> bool {
    sight["marks"][lane].as_u64() >= Some(position)
}
