//! From produce to visible: how long it takes until an independent reader (Python deltalake, in a process of its own) sees a version that
//! holds a record, at two commit intervals.
//!
//! ```text
//! cargo bench --profile release --bench latency            30 s for each interval
//! cargo bench --profile release --bench latency -- 5       seconds
//! ```
//! A record's time runs from before it is handed to the producer, whose own waiting is set to a millisecond, to the reader's sight of a
//! version whose marks contain it. The aims stand in the table.

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use alluvium::telemetry::now_us;
use support::changes::{Changes, Encoding};
use support::history;
use support::kafka::Broker;
use support::model::Model;
use support::producer::Producer;
use support::program::Site;
use support::python;
use support::shop::{Shop, Source};

/// Commit interval, and the aim for the 99th percentile.
const CASES: [(&str, u64); 2] = [("1 s", 1_400), ("100 ms", 350)];
const PER_SECOND: usize = 1_000;

#[tokio::main]
async fn main() {
    let seconds = std::env::args().find_map(|arg| arg.parse::<usize>().ok()).unwrap_or(30);
    let broker = Broker::start("");
    println!("{PER_SECOND} records a second for {seconds} s, 4 partitions");
    println!(
        "{:>10} {:>8} {:>8} {:>8} {:>8} {:>10}",
        "interval", "p50 ms", "p99 ms", "max ms", "aim ms", "versions"
    );
    for (interval, aim) in CASES {
        let (mut waits, versions) = measure(&broker, interval, seconds).await;
        waits.sort_unstable();
        let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize] / 1000;
        println!(
            "{interval:>10} {:>8} {:>8} {:>8} {aim:>8} {versions:>10}",
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

/// The wait of every record in microseconds, and how many versions the reader saw.
async fn measure(broker: &Broker, interval: &str, seconds: usize) -> (Vec<i64>, usize) {
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
    let mut program = site.start("program", &["run", "--config", config.to_str().expect("a path in UTF-8")]);
    let table = site.table("audit");
    let warm = producer.model.end();
    program
        .until("the first version", Duration::from_secs(60), || {
            (history::marks(&table) == warm).then_some(())
        })
        .await;
    let (mut child, mut sights) = watch(&table).await;

    let produced = tokio::task::spawn_blocking(move || {
        let mut times = Vec::new(); // (partition, offset, microseconds since 1970)
        let mut tick = now_us();
        for change in changes.take(PER_SECOND * seconds) {
            while now_us() < tick {
                producer.poll(Duration::from_micros(200));
            }
            tick += 1_000_000 / PER_SECOND as i64;
            let at = now_us();
            producer.send(&change);
            let partition = producer.model.partition_of(change.id);
            times.push((partition, producer.model.partition(partition).len() as u64 - 1, at));
        }
        producer.flush();
        (times, producer.model.end())
    });
    let mut seen = Vec::new();
    let reader = async {
        while let Some(line) = sights.next_line().await.expect("the reader writes lines") {
            seen.push(serde_json::from_str::<serde_json::Value>(&line).expect("a line is JSON"));
            let end = warm.values().sum::<u64>() + (PER_SECOND * seconds) as u64;
            let marks = seen.last().expect("just pushed")["marks"].as_object().expect("marks");
            if marks.values().filter_map(serde_json::Value::as_u64).sum::<u64>() >= end {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(seconds as u64 + 60), reader)
        .await
        .expect("the reader sees all records");
    child.kill().await.expect("the reader ends");
    let (times, _) = produced.await.expect("the producer does not panic");
    (waits(&times, &seen), seen.len())
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

fn waits(times: &[(i32, u64, i64)], seen: &[serde_json::Value]) -> Vec<i64> {
    let wait = |(partition, offset, at): &(i32, u64, i64)| {
        let holds = |sight: &&serde_json::Value| sight["marks"][partition.to_string()].as_u64() >= Some(*offset);
        let sight = seen.iter().find(holds).expect("every record was seen");
        sight["seen_us"].as_i64().expect("microseconds") - at
    };
    times.iter().map(wait).collect()
}
