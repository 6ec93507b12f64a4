//! What following a database costs: CPU time, wall time and memory of the program, for a copy, for many small updates, and for one
//! transaction that is larger than its memory; from a real server on the same machine.
//!
//! ```text
//! cargo bench --profile release --bench postgres               scale 50: 5 million accounts, 1.5 million updates, 5 million rows at once
//! cargo bench --profile release --bench postgres -- 5          scale
//! ```
//! Rows per CPU second count all threads of the program and nothing of the server, from its start to its end: with opening the tables,
//! and with the key index. Beside the updates stand those who get the same changes and do nothing with them: PostgreSQL's own pg_recvlogical,
//! and our own connection without decoding; and of each, how long the server's process that decodes the WAL computed. Who computes all the
//! while is the bottleneck on the clock. The aims stand in the table, and whether they are reached: of the updates, 350,000 per CPU second
//! and 150,000 on the clock. Bytes are those of the rows as text.
//!
//! The server has a WAL as servers have that are tuned for writes (`Options::for_writes` says why that matters here: what the tests' servers
//! do, which is a checkpoint after the other, makes the WAL of these updates ten times as long). It takes some 10 GB of the disk.

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use alluvium::sources::postgres::connection::{Frame, Replication};
use support::pgbench::Bench;
use support::postgres::{Options, PostgresServer, wait_until};
use support::program::Exit;
use tokio::process::Command;

const MIB: f64 = 1024.0 * 1024.0;
const BUDGET_MIB: f64 = 256.0;
/// Beside the budget: the program itself, what the allocator keeps, the index of keys.
const BESIDE_BUDGET_MIB: f64 = 200.0;

#[tokio::main]
async fn main() {
    let scale = std::env::args().find_map(|arg| arg.parse::<u32>().ok()).unwrap_or(50);
    let (accounts, updates) = (scale * 100_000, scale * 30_000);
    let server = PostgresServer::start(Options::default().for_writes());
    let bench = Bench::new(&server, "bench", scale).await;
    let config = bench.configure_with("bench", &format!("memory = \"{BUDGET_MIB} MiB\""), "interval = \"1 s\"");
    println!(
        "PostgreSQL {}, scale {scale}: {accounts} accounts, a budget of {BUDGET_MIB} MiB",
        server.version()
    );
    println!(
        "{:34} {:>12} {:>10} {:>12} {:>10} {:>8} {:>10} {:>8} {:>8} {:>12} {:>10}",
        "what", "rows/CPU s", "aim", "rows/s", "aim", "reached", "MB/CPU s", "MB/s", "CPU s", "peak RSS MiB", "limit MiB"
    );
    let row_bytes = bench.row_bytes().await;
    bench.choose().await; // Before the slot is there, whose WAL this would be.
    let copied = bench.site.catch_up(&config).await;
    report("copy of the accounts", accounts, row_bytes, &copied, 700_000, None);

    for slot in ["theirs", "undecoded"] {
        let sql = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
        server.sql(&bench.database, &sql).await;
    }
    let before = end_of_wal(&bench).await;
    bench.update(updates).await;
    let wal = end_of_wal(&bench).await - before;
    let (streamed, walsender) = with_walsender(&bench, &bench.slot(), bench.site.catch_up(&config)).await;
    report("updates of random accounts", updates, row_bytes, &streamed, 350_000, Some(150_000));
    bound("  by alluvium", updates, streamed.wall, walsender, Some(streamed.cpu));
    let (wall, walsender) = with_walsender(&bench, "theirs", read_by_pg_recvlogical(&bench, "theirs")).await;
    bound("  by pg_recvlogical", updates, wall, walsender, None);
    let (wall, walsender) = with_walsender(&bench, "undecoded", read_undecoded(&bench, "undecoded")).await;
    bound("  by its connection alone", updates, wall, walsender, None);
    println!("  WAL of these updates: {} bytes each", wal / u64::from(updates));

    server
        .sql(&bench.database, "UPDATE pgbench_accounts SET abalance = abalance + 1")
        .await;
    let large = bench.site.catch_up(&config).await;
    report("one transaction over all accounts", accounts, row_bytes, &large, 350_000, None);

    let all = format!("INSERT INTO pgbench_accounts SELECT {accounts} + i, 1, 0, repeat('x', 84) FROM generate_series(1, {accounts}) i");
    server.sql(&bench.database, &all).await;
    let large = bench.site.catch_up(&config).await;
    report("one transaction of new accounts", accounts, row_bytes, &large, 350_000, None);
}

/// Runs this while a slot is read, and tells how long the server's process that reads the WAL computed meanwhile.
async fn with_walsender<T>(bench: &Bench<'_>, slot: &str, reading: impl Future<Output = T>) -> (T, Duration) {
    let mut reading = std::pin::pin!(reading);
    let (mut process, mut computed) = (String::new(), Duration::ZERO);
    loop {
        tokio::select! {
            read = &mut reading => return (read, computed),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        // It is asked for once: a session each time would compute, too.
        if process.is_empty() {
            process = bench.server.walsender(slot).await;
        }
        computed = computed.max(computed_by(&process).unwrap_or_default());
    }
}

/// User and system time of a process, None where there is no such.
fn computed_by(process: &str) -> Option<Duration> {
    const TICKS: f64 = 100.0; // A second's, on every Linux: USER_HZ.
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which may have blanks in it: fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place)?.parse::<f64>().ok();
    Some(Duration::from_secs_f64((ticks(11)? + ticks(12)?) / TICKS))
}

/// Where the server's WAL ends.
async fn end_of_wal(bench: &Bench<'_>) -> u64 {
    let end = "SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn";
    bench.server.value("postgres", end).await.parse().expect("a number")
}

/// How long the server takes to send what a slot has to PostgreSQL's own client.
async fn read_by_pg_recvlogical(bench: &Bench<'_>, slot: &str) -> Duration {
    let server = bench.server;
    let end = server.value("postgres", "SELECT pg_current_wal_flush_lsn()").await;
    let port = server.port().to_string();
    let mut command = Command::new(server.programs().join("pg_recvlogical"));
    command.args(["-h", server.host(), "-p", &port, "-U", server.user(), "-d", &bench.database]);
    command.args(["--slot", slot, "--start", "--no-loop", "-f", "/dev/null", "--endpos", &end]);
    for (name, value) in options() {
        command.arg("-o").arg(format!("{name}={value}"));
    }
    let begin = Instant::now();
    let status = command.stdin(Stdio::null()).status().await.expect("pg_recvlogical starts");
    assert!(status.success(), "{status}");
    let wall = begin.elapsed();
    drop_slot(bench, slot).await;
    wall
}

/// The same, to our own connection, which takes the messages apart by their lengths only.
async fn read_undecoded(bench: &Bench<'_>, slot: &str) -> Duration {
    let server = bench.server;
    let end = end_of_wal(bench).await;
    let begin = Instant::now();
    let connection = Replication::open(&server.address(&bench.database)).await.expect("a session");
    let read_ahead = (BUDGET_MIB * MIB) as usize / 8; // As in the program.
    let mut stream = connection.start(slot, 0, &options(), read_ahead).await.expect("a stream");
    let (mut read, mut wall) = (0, Duration::ZERO);
    while read < end {
        for frame in stream.next().await.expect("changes").iter() {
            match frame {
                Frame::Data { end, .. } => (read, wall) = (read.max(*end), begin.elapsed()),
                // That there is no more, the server tells a while after the last change.
                Frame::KeepAlive { end } => read = read.max(*end),
            }
        }
    }
    stream.close().await;
    drop_slot(bench, slot).await;
    wall
}

/// What alluvium asks of the server, too.
fn options() -> [(&'static str, String); 4] {
    [
        ("proto_version", "2".to_owned()),
        ("streaming", "on".to_owned()),
        ("binary", "true".to_owned()),
        ("publication_names", "alluvium_bench".to_owned()),
    ]
}

async fn drop_slot(bench: &Bench<'_>, slot: &str) {
    let gone = async || bench.server.walsender(slot).await.is_empty();
    wait_until("the slot is free", gone).await;
    bench
        .server
        .sql("postgres", &format!("SELECT pg_drop_replication_slot('{slot}')"))
        .await;
}

/// Rows on the clock, who computed for how much of that time, and what the server could send at most.
fn bound(who: &str, rows: u32, wall: Duration, walsender: Duration, own: Option<Duration>) {
    let (wall, rows) = (wall.as_secs_f64(), f64::from(rows));
    let share = |computed: Duration| 100.0 * computed.as_secs_f64() / wall;
    let own = own.map_or(String::new(), |cpu| format!(", its own {:.0} %", share(cpu)));
    println!(
        "{who:34} {:>36.0} {:>10} in {wall:.2} s; the server's walsender computed {:.0} % of them, {:.0} rows/CPU s{own}",
        rows / wall,
        "",
        share(walsender),
        rows / walsender.as_secs_f64()
    );
}

fn report(what: &str, rows: u32, row_bytes: f64, exit: &Exit, aim: u32, aim_on_the_clock: Option<u32>) {
    let (cpu, wall) = (exit.cpu.as_secs_f64(), exit.wall.as_secs_f64());
    let rows = f64::from(rows);
    let megabytes = rows * row_bytes / 1e6;
    let is_reached = rows / cpu >= f64::from(aim) && rows / wall >= aim_on_the_clock.map_or(0.0, f64::from);
    println!(
        "{what:34} {:>12.0} {aim:>10} {:>12.0} {:>10} {:>8} {:>10.1} {:>8.1} {cpu:>8.2} {:>12.0} {:>10.0}",
        rows / cpu,
        rows / wall,
        aim_on_the_clock.map_or(String::new(), |aim| aim.to_string()),
        if is_reached { "yes" } else { "no" },
        megabytes / cpu,
        megabytes / wall,
        exit.peak_rss_bytes as f64 / MIB,
        BUDGET_MIB + BESIDE_BUDGET_MIB,
    );
}
