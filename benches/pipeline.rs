//! What draining a backlog costs: CPU time, wall time and memory of the program, from a real Kafka into an append table and an upsert table.
//!
//! ```text
//! cargo bench --profile release --bench pipeline                      5 million records of 4 partitions, 5 million keys
//! cargo bench --profile release --bench pipeline -- 500000 500000     records, keys
//! ```
//! The first records have each key once, in a random order, and go into both tables. Then as many come of random keys, and change the rows of
//! the upsert table. Rows per CPU second count all threads of the program and nothing of the broker, from its start to its end; bytes are
//! those of the messages. The aims stand in the table.

#[path = "../tests/support/mod.rs"]
mod support;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use support::changes::{Change, Encoding, Order};
use support::kafka::Broker;
use support::model::Model;
use support::program::{Exit, Site};
use support::shop::Source;

const MIB: f64 = 1024.0 * 1024.0;
const BUDGET_MIB: f64 = 256.0;
/// Beside the budget: the program itself, the client's buffers, what the allocator keeps.
const BESIDE_BUDGET_MIB: f64 = 150.0;
/// Of the CPU time, what may pass on the clock: the source decodes while tables are written.
const WALL_MOST: f64 = 0.8;
/// The most that the index of an upsert table may take for a key.
const INDEX_BYTES: f64 = 24.0;

struct Case {
    name: &'static str,
    table: &'static str,
    /// Rows per CPU second that it should reach.
    aim: f64,
    keys_indexed: bool,
}

const APPEND: Case = Case {
    name: "append",
    table: "metadata = [\"__partition\", \"__offset\"]",
    aim: 700_000.0,
    keys_indexed: false,
};
const UPSERT: Case = Case {
    name: "upsert, new keys",
    table: "key = [\"id\"]",
    aim: 300_000.0,
    keys_indexed: true,
};
const AGAIN: Case = Case {
    name: "upsert, the same keys",
    ..UPSERT
};

/// A topic's new records.
struct Load {
    records: usize,
    /// Different ones.
    keys: usize,
    /// Of all messages.
    bytes: usize,
}

#[tokio::main]
async fn main() {
    let mut sizes = std::env::args().filter_map(|arg| arg.parse::<usize>().ok());
    let records = sizes.next().unwrap_or(5_000_000);
    let keys = sizes.next().unwrap_or(5_000_000).min(records);
    let broker = Broker::start("");
    let source = Source::new(&broker, 4).await;
    let mut rng = SmallRng::seed_from_u64(1);
    let mut ids: Vec<i64> = (0..keys as i64).collect();
    ids.shuffle(&mut rng);
    let bytes = fill(&source, records, &mut rng, |record, _| ids[record % keys]);
    println!(
        "{records} records of {} bytes, {keys} keys, 4 partitions, a budget of {BUDGET_MIB} MiB",
        bytes / records
    );
    println!(
        "{:22} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8} {:>8} {:>5} {:>12} {:>10}",
        "table", "rows/CPU s", "aim", "rows/s", "MB/CPU s", "MB/s", "CPU s", "wall/CPU", "aim", "peak RSS MiB", "limit MiB"
    );
    let load = Load { records, keys, bytes };
    let (appended, upserted) = (Site::new(), Site::new());
    report(&APPEND, &load, drain(&source, &APPEND, &appended).await);
    report(&UPSERT, &load, drain(&source, &UPSERT, &upserted).await);
    let bytes = fill(&source, records, &mut rng, |_, rng| rng.random_range(0..keys as i64));
    report(&AGAIN, &Load { bytes, ..load }, drain(&source, &AGAIN, &upserted).await);
}

/// Puts so many records into the topic, with these ids; returns the bytes of all values.
fn fill(source: &Source, records: usize, rng: &mut SmallRng, id: impl Fn(usize, &mut SmallRng) -> i64) -> usize {
    let mut producer = source.producer(Model::new(4, Encoding::Json));
    for record in 0..records {
        let change = Change {
            id: id(record, rng),
            order: Some(Order::random(rng)),
            before: None,
        };
        producer.send(&change);
    }
    producer.flush();
    producer.bytes
}

/// Runs the program until it has read what is new.
async fn drain(source: &Source, case: &Case, site: &Site) -> Exit {
    let config = site.configure(
        "bench",
        &format!(
            "lake = \"{{dir}}/lake\"\nstate = \"{{dir}}/state\"\nmemory = \"{BUDGET_MIB} MiB\"\nhttp = {{ address = \"\" }}\n\
             [pipelines.shop.kafka]\nbrokers = \"{}\"\n\
             [pipelines.shop.tables.orders]\ntopic = \"{}\"\nschema = \"{{dir}}/orders.avsc\"\n{}\n",
            source.brokers, source.topic, case.table
        ),
    );
    site.catch_up(&config).await
}

fn report(case: &Case, load: &Load, exit: Exit) {
    let (cpu, wall) = (exit.cpu.as_secs_f64(), exit.wall.as_secs_f64());
    let (records, megabytes) = (load.records as f64, load.bytes as f64 / 1e6);
    let index = if case.keys_indexed {
        load.keys as f64 * INDEX_BYTES / MIB
    } else {
        0.0
    };
    println!(
        "{:22} {:>10.0} {:>10.0} {:>10.0} {:>10.0} {:>8.0} {:>8.2} {:>8.2} {WALL_MOST:>5} {:>12.0} {:>10.0}",
        case.name,
        records / cpu,
        case.aim,
        records / wall,
        megabytes / cpu,
        megabytes / wall,
        cpu,
        wall / cpu,
        exit.peak_rss_bytes as f64 / MIB,
        BUDGET_MIB + BESIDE_BUDGET_MIB + index,
    );
}
