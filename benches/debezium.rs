//! Debezium beside alluvium: the same tables of the same server are copied and the same changes are followed, by the one into Kafka and
//! by the other into Delta tables.
//!
//! ```text
//! cargo bench --profile release --bench debezium            scale 5: 500,000 accounts, 150,000 updates of random ones
//! cargo bench --profile release --bench debezium -- 1       scale
//! ```
//! `scripts/setup.sh bench` fetches Kafka Connect with Debezium. Of Debezium the clock counts from its first record to its last one, in its
//! favour: without the start of the virtual machine; of alluvium from the start of the process to its end. CPU time is the whole process's.
//! Bytes are those of the rows as text. The server has the WAL of one that is tuned for writes (`Options::for_writes`), for both.

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use support::kafka::Broker;
use support::pgbench::Bench;
use support::postgres::{Options, PostgresServer};
use support::program::{Exit, Program, free_port};
use support::python::needed;

const MIB: f64 = 1024.0 * 1024.0;
/// Debezium names topics so, after `topic.prefix`.
const TOPIC: &str = "bench.public.pgbench_accounts";
const WORKER: &str = "key.converter=org.apache.kafka.connect.json.JsonConverter\nvalue.converter=org.apache.kafka.connect.json.JsonConverter\n\
                      key.converter.schemas.enable=false\nvalue.converter.schemas.enable=false\noffset.flush.interval.ms=1000\n";
const CONNECTOR: &str = "name=bench\nconnector.class=io.debezium.connector.postgresql.PostgresConnector\ntasks.max=1\ntopic.prefix=bench\n\
                         plugin.name=pgoutput\nslot.name=debezium\npublication.name=debezium\npublication.autocreate.mode=filtered\n\
                         table.include.list=public.pgbench_accounts\ntopic.creation.default.replication.factor=1\n\
                         topic.creation.default.partitions=1\n";

#[tokio::main]
async fn main() {
    let scale = std::env::args().find_map(|arg| arg.parse::<u32>().ok()).unwrap_or(5);
    let (accounts, updates) = (scale * 100_000, scale * 30_000);
    let server = PostgresServer::start(Options::default().for_writes());
    let broker = Broker::start("");
    let bench = Bench::new(&server, "bench", scale).await;
    let config = bench.configure_with("bench", "memory = \"256 MiB\"", "interval = \"1 s\"");
    bench.choose().await; // Before the slots are there, whose WAL this would be.
    println!("PostgreSQL {}, scale {scale}: {accounts} accounts", server.version());
    println!(
        "{:34} {:>12} {:>12} {:>10} {:>8} {:>8} {:>12}",
        "what", "rows/CPU s", "rows/s", "MB/CPU s", "MB/s", "CPU s", "peak RSS MiB"
    );
    let row_bytes = bench.row_bytes().await;

    let copied = bench.site.catch_up(&config).await;
    report("alluvium, copy", accounts, row_bytes, copied.wall, &copied);
    let debezium = Debezium::of(&bench, &broker);
    let (took, exit) = debezium.until(u64::from(accounts)).await;
    report("Debezium, snapshot", accounts, row_bytes, took, &exit);

    bench.update(updates).await;
    let streamed = bench.site.catch_up(&config).await;
    report("alluvium, updates", updates, row_bytes, streamed.wall, &streamed);
    let (took, exit) = debezium.until(u64::from(accounts + updates)).await;
    report("Debezium, updates", updates, row_bytes, took, &exit);
}

/// Kafka Connect with one connector.
struct Debezium<'b> {
    bench: &'b Bench<'b>,
    records: BaseConsumer,
    worker: PathBuf,
    connector: PathBuf,
}

impl<'b> Debezium<'b> {
    fn of(bench: &'b Bench<'b>, broker: &Broker) -> Debezium<'b> {
        let (site, server) = (&bench.site, bench.server);
        let worker = format!(
            "{WORKER}bootstrap.servers={}\noffset.storage.file.filename={{dir}}/offsets\nplugin.path={}\nlisteners=http://127.0.0.1:{}\n",
            broker.bootstrap(),
            needed("debezium/plugins", "bench").display(),
            free_port()
        );
        let connector = format!(
            "{CONNECTOR}database.hostname={}\ndatabase.port={}\ndatabase.user={}\ndatabase.dbname={}\n",
            server.host(),
            server.port(),
            server.user(),
            bench.database
        );
        Debezium {
            records: broker.client().create().expect("a consumer"),
            worker: site.configure("worker.properties", &worker),
            connector: site.configure("connector.properties", &connector),
            bench,
        }
    }

    /// Runs until the topic has so many records. Returns the time from the first new one to the last one, and what the whole run took.
    async fn until(&self, wanted: u64) -> (Duration, Exit) {
        let before = self.count();
        let mut program = self.start();
        let patience = Duration::from_secs(1_800);
        let more = || (self.count() > before).then(Instant::now);
        let first = program.until("its first record", patience, more).await;
        let all = || (self.count() >= wanted).then(Instant::now);
        let last = program.until("its last record", patience, all).await;
        program.signal(libc::SIGTERM);
        (last - first, program.wait(Duration::from_secs(60)).await)
    }

    fn start(&self) -> Program {
        self.bench.site.start_other("debezium", "java", |command| {
            command.args(["-Xmx1g", "-cp", &format!("{}/*", needed("debezium/libs", "bench").display())]);
            command.arg("org.apache.kafka.connect.cli.ConnectStandalone");
            command.args([&self.worker, &self.connector]);
        })
    }

    fn count(&self) -> u64 {
        // There is no topic before the first record.
        let ends = self.records.fetch_watermarks(TOPIC, 0, Duration::from_secs(10));
        ends.map_or(0, |(_, end)| end.try_into().expect("no record has a negative offset"))
    }
}

fn report(what: &str, rows: u32, row_bytes: f64, wall: Duration, exit: &Exit) {
    let (cpu, wall, rows) = (exit.cpu.as_secs_f64(), wall.as_secs_f64(), f64::from(rows));
    let megabytes = rows * row_bytes / 1e6;
    println!(
        "{what:34} {:>12.0} {:>12.0} {:>10.1} {:>8.1} {cpu:>8.2} {:>12.0}",
        rows / cpu,
        rows / wall,
        megabytes / cpu,
        megabytes / wall,
        exit.peak_rss_bytes as f64 / MIB
    );
}
