//! What draining a backlog costs: CPU time, wall time and memory of the program, from a real Kafka into an append table and an upsert table.
//!
//! ```text
//! cargo bench --profile release --bench pipeline                      5 million records of 4 partitions, 5 million keys
//! cargo bench --profile release --bench pipeline -- 500000 500000     records, keys
//! ```
//! Rows per CPU second count all threads of the program and nothing of the broker, from its start to its end. The aims stand in the table.

#[path = "../tests/support/mod.rs"]
mod support;

use rand::rngs::SmallRng;
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
/// The most that the index of an upsert table may take for a key.
const INDEX_BYTES: f64 = 24.0;

struct Case {
    name: &'static str,
    table: &'static str,
    /// Rows per CPU second that it should reach.
    aim: f64,
    keys_indexed: bool,
}

const CASES: [Case; 2] = [
    Case {
        name: "append",
        table: "metadata = [\"__partition\", \"__offset\"]",
        aim: 700_000.0,
        keys_indexed: false,
    },
    Case {
        name: "upsert",
        table: "key = [\"id\"]",
        aim: 300_000.0,
        keys_indexed: true,
    },
];

#[tokio::main]
async fn main() {
    let mut sizes = std::env::args().filter_map(|arg| arg.parse::<usize>().ok());
    let records = sizes.next().unwrap_or(5_000_000);
    let keys = sizes.next().unwrap_or(5_000_000);
    let broker = Broker::start("");
    let source = Source::new(&broker, 4).await;
    let bytes = fill(&source, records, keys);
    println!(
        "{records} records of {} bytes, {keys} keys, 4 partitions, a budget of {BUDGET_MIB} MiB",
        bytes / records
    );
    println!(
        "{:8} {:>12} {:>10} {:>12} {:>8} {:>8} {:>12} {:>10}",
        "table", "rows/CPU s", "aim", "rows/s", "CPU s", "wall/CPU", "peak RSS MiB", "limit MiB"
    );
    for case in CASES {
        let exit = drain(&source, &case).await;
        let (cpu, wall) = (exit.cpu.as_secs_f64(), exit.wall.as_secs_f64());
        let index = if case.keys_indexed { keys as f64 * INDEX_BYTES / MIB } else { 0.0 };
        println!(
            "{:8} {:>12.0} {:>10.0} {:>12.0} {:>8.2} {:>8.2} {:>12.0} {:>10.0}",
            case.name,
            records as f64 / cpu,
            case.aim,
            records as f64 / wall,
            cpu,
            wall / cpu,
            exit.peak_rss_bytes as f64 / MIB,
            BUDGET_MIB + BESIDE_BUDGET_MIB + index,
        );
    }
}

/// Fills the topic; returns the bytes of all values.
fn fill(source: &Source, records: usize, keys: usize) -> usize {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut producer = source.producer(Model::new(4, Encoding::Json));
    for _ in 0..records {
        let change = Change {
            id: rng.random_range(0..keys as i64),
            order: Some(Order::random(&mut rng)),
            before: None,
        };
        producer.send(&change);
    }
    producer.flush();
    producer.bytes
}

async fn drain(source: &Source, case: &Case) -> Exit {
    let site = Site::new();
    let config = site.configure(
        case.name,
        &format!(
            "lake = \"{{dir}}/lake\"\nstate = \"{{dir}}/state\"\nmemory = \"{BUDGET_MIB} MiB\"\nhttp = {{ address = \"\" }}\n\
             [pipelines.shop.kafka]\nbrokers = \"{}\"\n\
             [pipelines.shop.tables.orders]\ntopic = \"{}\"\nschema = \"{{dir}}/orders.avsc\"\n{}\n",
            source.brokers, source.topic, case.table
        ),
    );
    site.catch_up(&config).await
}
