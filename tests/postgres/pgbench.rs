//! A bank of pgbench's, followed while it works: at every moment its books balance.

use std::time::Duration;

use rand::Rng;
use tokio::time::sleep;

use crate::support::pgbench::Bench;
use crate::support::postgres::{Options, PostgresServer};

/// A moment of work for four clients.
const CLIENTS: [&str; 3] = ["-n", "-c", "4"];

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_copied_and_followed_while_clients_work_and_every_version_balances() {
    let bench = Bench::new(PostgresServer::shared(), "followed", 2).await;
    let config = bench.configure("followed");
    let mut clients = bench.pgbench(&[&CLIENTS[..], &["-T", "8"]].concat());
    sleep(Duration::from_millis(500)).await;
    let mut program = bench.site.run("program", &config);
    clients.wait().await.expect("pgbench ends");
    assert!(program.poll().is_none(), "it ended by itself:\n{}", program.log_tail());
    program.signal(libc::SIGTERM);
    assert_eq!(
        program.wait(Duration::from_secs(30)).await.status.code(),
        Some(0),
        "{}",
        program.log_tail()
    );
    bench.site.catch_up(&config).await;
    let marks = bench.verdict().await;
    assert!(marks > 10, "only {marks} marks: it followed nothing");
    assert_eq!(bench.confirmed().await, bench.held().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_cut_off_at_random_moments_nothing_is_lost_or_doubled() {
    let kills: usize = std::env::var("ALLUVIUM_KILLS").map_or(10, |text| text.parse().expect("ALLUVIUM_KILLS is a number"));
    let mut server = PostgresServer::start(Options::default());
    let mut rng = rand::rng();
    // The server is stopped now and then, so the bench borrows it anew each time.
    let (database, site) = {
        let bench = Bench::new(&server, "killed", 1).await;
        (bench.database, bench.site)
    };
    let mut bench = Bench {
        server: &server,
        database,
        site,
    };
    let config = bench.configure("killed");
    for kill in 0..kills {
        let mut clients = bench.pgbench(&[&CLIENTS[..], &["-T", "1000"]].concat());
        let mut program = bench.site.run("program", &config);
        let until = tokio::time::Instant::now() + Duration::from_millis(rng.random_range(200..2_500));
        while tokio::time::Instant::now() < until {
            // What the slot was told is never ahead of the tables: it is asked first, for the tables only move on.
            let confirmed = bench.confirmed().await;
            if let (Some(confirmed), Some(held)) = (confirmed, bench.held().await) {
                assert!(confirmed <= held, "kill {kill}: the slot is at {confirmed}, and a table at {held}");
            }
            sleep(Duration::from_millis(20)).await;
        }
        let exit = program.poll();
        assert!(
            exit.is_none(),
            "before kill {kill} it ended by itself with {exit:?}:\n{}",
            program.log_tail()
        );
        if kill % 3 == 2 {
            // The server goes first, without a word; the program waits for it.
            let Bench { database, site, .. } = bench;
            server.crash();
            server.resume();
            bench = Bench {
                server: &server,
                database,
                site,
            };
            sleep(Duration::from_millis(rng.random_range(0..1_500))).await;
            assert!(program.poll().is_none(), "it did not wait for its server:\n{}", program.log_tail());
        }
        program.kill().await;
        clients.kill().await.expect("pgbench is killed");
    }
    bench.site.catch_up(&config).await;
    let marks = bench.verdict().await;
    assert!(marks > kills, "only {marks} marks in {kills} runs");
}
