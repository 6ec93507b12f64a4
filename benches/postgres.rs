//! What following a database costs: CPU time, wall time and memory of the program, for a copy, for many small updates, and for one
//! transaction that is larger than its memory; from a real server on the same machine.
//!
//! ```text
//! cargo bench --profile release --bench postgres               scale 50: 5 million accounts, 1.5 million updates, 5 million rows at once
//! cargo bench --profile release --bench postgres -- 5          scale
//! ```
//! Rows per CPU second count all threads of the program and nothing of the server, from its start to its end: with opening the tables,
//! and with the key index. On the clock the server, which decodes its WAL, is the bottleneck of the stream: beside it stands how fast a client
//! gets the same changes that does nothing with them, PostgreSQL's own pg_recvlogical. The aims stand in the table.

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use support::pgbench::Bench;
use support::postgres::PostgresServer;
use support::program::Exit;

const MIB: f64 = 1024.0 * 1024.0;
const BUDGET_MIB: f64 = 256.0;
/// Beside the budget: the program itself, what the allocator keeps, the index of keys.
const BESIDE_BUDGET_MIB: f64 = 200.0;

#[tokio::main]
async fn main() {
    let scale = std::env::args().find_map(|arg| arg.parse::<u32>().ok()).unwrap_or(50);
    let (accounts, updates) = (scale * 100_000, scale * 30_000);
    let server = PostgresServer::start(Default::default());
    let bench = Bench::new(&server, "bench", scale).await;
    let config = bench.configure_with("bench", &format!("memory = \"{BUDGET_MIB} MiB\""), "interval = \"1 s\"");
    println!(
        "PostgreSQL {}, scale {scale}: {accounts} accounts, a budget of {BUDGET_MIB} MiB",
        server.version()
    );
    println!(
        "{:34} {:>12} {:>10} {:>12} {:>10} {:>8} {:>12} {:>10}",
        "what", "rows/CPU s", "aim", "rows/s", "aim", "CPU s", "peak RSS MiB", "limit MiB"
    );
    bench.choose().await; // Before the slot is there, whose WAL this would be.
    let copied = bench.site.catch_up(&config).await;
    report("copy of the accounts", accounts, &copied, 700_000, None);

    server
        .sql(&bench.database, "SELECT pg_create_logical_replication_slot('raw', 'pgoutput')")
        .await;
    bench.update(updates).await;
    let streamed = bench.site.catch_up(&config).await;
    report("updates of random accounts", updates, &streamed, 350_000, Some(150_000));
    println!(
        "{:34} {:>36.0}",
        "  the same, by pg_recvlogical",
        f64::from(updates) / read_raw(&bench).await.as_secs_f64()
    );

    server
        .sql(&bench.database, "UPDATE pgbench_accounts SET abalance = abalance + 1")
        .await;
    let large = bench.site.catch_up(&config).await;
    report("one transaction over all accounts", accounts, &large, 350_000, None);

    let all = format!("INSERT INTO pgbench_accounts SELECT {accounts} + i, 1, 0, repeat('x', 84) FROM generate_series(1, {accounts}) i");
    server.sql(&bench.database, &all).await;
    let large = bench.site.catch_up(&config).await;
    report("one transaction of new accounts", accounts, &large, 350_000, None);
}

/// How long the server takes to send what a slot has to a client that does nothing with it.
async fn read_raw(bench: &Bench<'_>) -> Duration {
    let server = bench.server;
    let end = server.value("postgres", "SELECT pg_current_wal_flush_lsn()").await;
    let begin = Instant::now();
    let status = Command::new(server.programs().join("pg_recvlogical"))
        .args([
            "-h",
            server.host(),
            "-p",
            &server.port().to_string(),
            "-U",
            server.user(),
            "-d",
            &bench.database,
        ])
        .args(["--slot", "raw", "--start", "--no-loop", "-f", "/dev/null", "--endpos", &end])
        .args([
            "-o",
            "proto_version=2",
            "-o",
            "streaming=on",
            "-o",
            "binary=true",
            "-o",
            "publication_names=alluvium_bench",
        ])
        .status()
        .expect("pg_recvlogical starts");
    assert!(status.success(), "{status}");
    server.sql("postgres", "SELECT pg_drop_replication_slot('raw')").await;
    begin.elapsed()
}

fn report(what: &str, rows: u32, exit: &Exit, aim: u32, aim_on_the_clock: Option<u32>) {
    let (cpu, wall) = (exit.cpu.as_secs_f64(), exit.wall.as_secs_f64());
    println!(
        "{what:34} {:>12.0} {aim:>10} {:>12.0} {:>10} {cpu:>8.2} {:>12.0} {:>10.0}",
        f64::from(rows) / cpu,
        f64::from(rows) / wall,
        aim_on_the_clock.map_or(String::new(), |aim| aim.to_string()),
        exit.peak_rss_bytes as f64 / MIB,
        BUDGET_MIB + BESIDE_BUDGET_MIB,
    );
}
