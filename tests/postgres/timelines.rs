//! Failovers: a standby is promoted, with all that the tables hold or without.

use std::time::Duration;

use crate::support::bank::Bank;
use crate::support::postgres::{Options, PostgresServer, wait_until};

const ALL: &str = "create = true\nfollow = [\"public.*\"]";
const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";

/// The standby has all that the primary has.
async fn has_all(standby: &PostgresServer, primary: &PostgresServer) {
    let end = primary.value("postgres", "SELECT pg_current_wal_flush_lsn()").await;
    let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
    wait_until("the standby has all", async || standby.value("postgres", &sql).await == "t").await;
}

/// The standby becomes the primary, and writes so much that it comes further than the other one was.
async fn promoted<'s>(bank: Bank<'_>, standby: &'s PostgresServer) -> Bank<'s> {
    assert_eq!(standby.value("postgres", "SELECT pg_promote()").await, "t");
    let mut bank = Bank {
        server: standby,
        database: bank.database,
        site: bank.site,
        config: bank.config,
    };
    bank.reconfigure(ALL);
    standby.value("postgres", "SELECT pg_switch_wal()").await;
    bank.sql("INSERT INTO t VALUES (10)").await;
    bank
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_lost_nothing_goes_on() {
    let primary = PostgresServer::start(Options::default());
    let bank = Bank::new(&primary, "kept", TABLES, ALL).await;
    let mut standby = primary.standby();
    bank.catch_up().await;
    bank.sql("INSERT INTO t VALUES (2)").await;
    bank.catch_up().await;
    bank.sql("INSERT INTO t VALUES (3); CHECKPOINT").await;
    has_all(&standby, &primary).await;
    standby.cut_off(&primary, &bank.slot());
    let bank = promoted(bank, &standby).await;
    // Again and again: what is kept is the new one's from now on.
    for id in 11..13 {
        bank.catch_up().await;
        bank.agrees("SELECT id FROM public.t", &["public.t"]).await;
        bank.sql(&format!("INSERT INTO t VALUES ({id})")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_lost_what_tables_hold_stops_them_until_they_are_copied_again() {
    let primary = PostgresServer::start(Options::default());
    let bank = Bank::new(&primary, "lost", TABLES, ALL).await;
    let mut standby = primary.standby();
    bank.catch_up().await;
    has_all(&standby, &primary).await;
    standby.cut_off(&primary, &bank.slot());
    bank.sql("INSERT INTO t VALUES (2)").await;
    bank.catch_up().await;
    let bank = promoted(bank, &standby).await;
    let (code, said) = bank.refused().await;
    assert_eq!(code, 65, "{said}");
    for word in ["timeline_forked", "left that timeline at", "alluvium resnapshot public.t"] {
        assert!(said.contains(word), "`{word}` is missing:\n{said}");
    }
    let config = bank.config.to_str().expect("a path in UTF-8");
    let mut asked = bank.site.start("ask", &["resnapshot", "--config", config, "public.t"]);
    assert!(asked.wait(Duration::from_secs(30)).await.status.success());
    for id in 11..13 {
        bank.catch_up().await;
        bank.agrees("SELECT id FROM public.t", &["public.t"]).await;
        bank.sql(&format!("INSERT INTO t VALUES ({id})")).await;
    }
}
