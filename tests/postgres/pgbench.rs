//! A bank of pgbench's, followed while it works: at every moment its books balance.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::support::pgbench::Bench;
use crate::support::postgres::{Options, PostgresServer, wait_until};
use crate::support::program::Program;
use crate::support::proxy::Proxy;

/// Four clients that work until they are stopped.
const CLIENTS: [&str; 5] = ["-n", "-T", "1000", "-c", "4"];
/// What the tables may take for a few commits. On two busy cores a start alone takes some ten seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// So many times all tables have to move on behind their copies.
const MOVES: usize = 10;

/// With a million accounts, which are copied in two parts.
#[tokio::test(flavor = "multi_thread")]
async fn tables_are_copied_and_followed_while_clients_work_and_every_version_balances() {
    let bench = Bench::new(PostgresServer::shared(), "followed", 10).await;
    let config = bench.configure("followed");
    let clients = bench.pgbench(&CLIENTS);
    let worked = "SELECT count(*) FROM pgbench_history";
    wait_until("the clients work", async || {
        bench.server.value(&bench.database, worked).await != "0"
    })
    .await;
    let mut program = bench.site.run("program", &config);
    // The first place is that of the copies.
    let (mut watch, mut places) = (Watch { made: None }, BTreeSet::new());
    let late = Instant::now() + PATIENCE;
    watch
        .until(late, &bench, &mut program, |held| {
            places.extend(held);
            places.len() > MOVES
        })
        .await;
    assert!(
        places.len() > MOVES,
        "the tables were seen at {places:?} only:\n{}",
        program.log_tail()
    );
    drop(clients);
    clients_are_gone(&bench).await;
    program.stop().await;
    bench.site.catch_up(&config).await;
    let marks = bench.verdict().await;
    assert!(marks >= places.len(), "only {marks} marks, and the tables were at {places:?}");
    assert_eq!(bench.confirmed().await, bench.held().await);
}

/// Waits until the server has heard that nobody works any more.
async fn clients_are_gone(bench: &Bench<'_>) {
    let at_work = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench' AND datname = current_database()";
    wait_until("the clients are gone", async || {
        bench.server.value(&bench.database, at_work).await == "0"
    })
    .await;
}

/// So many lives a run has, and the server ends in each third of them. `make proofs` has more.
const KILLS: usize = 20;
/// So many lives end while the tables are copied; the next one is left alone until they are.
const LIVES_OF_COPYING: usize = 2;
/// After those, one life in so many is left alone until all tables have moved on; the others end whenever it happens.
const LIVES_TO_A_MARK: usize = 2;
/// What COPY sends of 100,000 accounts.
const COPY_BYTES: usize = 11 << 20;
/// A transaction that the server sends before its end, with a part that is taken back. It takes locks in the order of the others.
const LARGE: &str = "\\set first random(1, 95000)
    BEGIN;
    SAVEPOINT taken;
    UPDATE pgbench_accounts SET abalance = abalance + 7 WHERE aid BETWEEN :first AND :first + 1999;
    ROLLBACK TO taken;
    UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid BETWEEN :first AND :first + 1999;
    UPDATE pgbench_tellers SET tbalance = tbalance + 2000 WHERE tid = 1;
    UPDATE pgbench_branches SET bbalance = bbalance + 2000 WHERE bid = 1;
    INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, :first, 2000, now());
    END;";

/// Compares, all the while, what the slot was told with what the tables hold.
struct Watch {
    /// Where the slot was made: nothing else is told as long as no table holds anything.
    made: Option<u64>,
}

impl Watch {
    /// Until this time, or until `enough`; the program must not end by itself.
    async fn until(&mut self, time: Instant, bench: &Bench<'_>, program: &mut Program, mut enough: impl FnMut(Option<u64>) -> bool) {
        while Instant::now() < time {
            // What the slot was told is never ahead of the tables: it is asked first, for the tables only move on.
            let confirmed = bench.confirmed().await;
            let each = bench.each_held().await;
            self.made = self.made.or(confirmed);
            // One that holds nothing needs nothing: it is copied at a later point.
            let lowest = each.iter().flatten().min().copied();
            if let (Some(confirmed), Some(upto)) = (confirmed, lowest.or(self.made)) {
                assert!(confirmed <= upto, "the slot is at {confirmed}, and the tables are at {each:?}");
            }
            let exit = program.poll();
            assert!(exit.is_none(), "it ended by itself with {exit:?}:\n{}", program.log_tail());
            if enough(each.into_iter().min().flatten()) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn during(&mut self, time: Duration, bench: &Bench<'_>, program: &mut Program) {
        self.until(Instant::now() + time, bench, program, |_| false).await;
    }
}

/// pgbench's own transactions, and a large one now and then.
fn clients(bench: &Bench<'_>, large: &str) -> [Child; 2] {
    let large = ["-n", "-T", "1000", "-R", "4", "-f", large];
    [bench.pgbench(&CLIENTS), bench.pgbench(&large)]
}

/// The program is killed, its connections are cut in the middle of whatever they carry, and every third time the server goes
/// before: it crashes, or is stopped as operators do.
/// `ALLUVIUM_KILLS` says how often, and that it is done with more rows: 50 in `make proofs`.
#[tokio::test(flavor = "multi_thread")]
async fn killed_and_cut_off_at_random_moments_nothing_is_lost_or_doubled() {
    let (kills, scale) = match std::env::var("ALLUVIUM_KILLS") {
        Ok(text) => (text.parse().expect("ALLUVIUM_KILLS is a number"), 10),
        Err(_) => (KILLS, 1),
    };
    let mut server = PostgresServer::start(Options::default().set("logical_decoding_work_mem", "64kB"));
    let proxy = Proxy::before(server.port()).await;
    let mut rng = rand::rng();
    let mut bench = Bench::new(&server, "killed", scale).await;
    bench.port = proxy.port();
    let config = bench.configure("killed");
    let large = bench.site.path("large.sql").display().to_string();
    std::fs::write(&large, LARGE).expect("a script");
    let (mut watch, mut moved) = (Watch { made: None }, 0);
    for kill in 0..kills {
        let mut working = clients(&bench, &large);
        let mut program = bench.site.run("program", &config);
        let is_copying = kill < LIVES_OF_COPYING;
        let is_left_alone = !is_copying && (kill - LIVES_OF_COPYING).is_multiple_of(LIVES_TO_A_MARK);
        if is_left_alone {
            let before = bench.held().await;
            let late = Instant::now() + PATIENCE;
            watch.until(late, &bench, &mut program, |held| held > before).await;
            assert!(
                bench.held().await > before,
                "the tables stay at {before:?}:\n{}",
                program.log_tail()
            );
            moved += 1;
        }
        // A copy takes longer than some commits.
        let (longest, most) = if is_copying {
            (1_200, COPY_BYTES * scale as usize)
        } else {
            (800, 64 << 10)
        };
        let (first, second) = (rng.random_range(0..longest), rng.random_range(100..longest + 100));
        watch.during(Duration::from_millis(first), &bench, &mut program).await;
        let cuts = proxy.cuts();
        proxy.cut_behind(rng.random_range(0..most));
        if is_left_alone {
            // It reads, and the clients work: so many bytes come.
            let late = Instant::now() + PATIENCE;
            watch.until(late, &bench, &mut program, |_| proxy.cuts() > cuts).await;
            assert!(proxy.cuts() > cuts, "nothing was cut:\n{}", program.log_tail());
        }
        watch.during(Duration::from_millis(second), &bench, &mut program).await;
        if kill % 3 == 2 {
            // The program waits for it.
            let Bench {
                database,
                site,
                scale,
                port,
                ..
            } = bench;
            if kill % 2 == 0 {
                server.crash();
                server.resume();
            } else {
                server.restart();
            }
            bench = Bench {
                server: &server,
                database,
                site,
                scale,
                port,
            };
            working = clients(&bench, &large);
            watch
                .during(Duration::from_millis(rng.random_range(0..800)), &bench, &mut program)
                .await;
        }
        program.kill().await;
        drop(working);
    }
    let cuts = proxy.cuts();
    assert!(
        cuts as usize >= kills / 3,
        "connections were cut {cuts} times only, in {kills} lives"
    );
    clients_are_gone(&bench).await;
    bench.site.catch_up(&config).await;
    assert_eq!(bench.confirmed().await, bench.held().await);
    let marks = bench.verdict().await;
    println!("{kills} kills, {} ends of the server, {cuts} cuts, {marks} marks", kills / 3);
    assert!(marks >= moved, "only {marks} marks, and the tables moved on {moved} times");
}
