//! Failovers: a standby is promoted, with all that the tables hold or without; and servers that are set back.

use std::time::Duration;

use crate::support::bank::Bank;
use crate::support::postgres::{Options, PostgresServer, wait_until};
use crate::support::program::Site;

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

/// From where on WAL is kept for the slot.
async fn restart(bank: &Bank<'_>) -> u64 {
    let sql = format!(
        "SELECT restart_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
        bank.slot()
    );
    bank.value(&sql).await.parse().expect("a number")
}

async fn end_of_wal(bank: &Bank<'_>) -> u64 {
    let end = bank.value("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").await;
    end.parse().expect("a number")
}

/// The same database and lake, on a server that was away meanwhile.
fn on<'s>(server: &'s PostgresServer, (database, site): (String, Site)) -> Bank<'s> {
    let config = site.path("bank.toml");
    Bank {
        server,
        database,
        site,
        config,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_set_back_stops_its_tables_however_far_its_wal_is_by_then() {
    let mut server = PostgresServer::start(Options::default());
    let bank = Bank::new(&server, "setback", TABLES, ALL).await;
    bank.catch_up().await;
    let kept = restart(&bank).await;
    let parts = (bank.database.clone(), bank.site);
    server.keep();
    let bank = on(&server, parts);
    for id in 2.. {
        bank.sql(&format!("INSERT INTO t VALUES ({id})")).await;
        bank.sql("CHECKPOINT").await;
        bank.catch_up().await;
        bank.agrees("SELECT id FROM public.t", &["public.t"]).await;
        if restart(&bank).await > kept {
            break;
        }
        assert!(id < 30, "the slot stays where it is");
    }
    bank.catch_up().await;
    let end = end_of_wal(&bank).await;
    let parts = (bank.database.clone(), bank.site);
    server.set_back();
    let bank = on(&server, parts);
    while end_of_wal(&bank).await <= end {
        bank.sql("SELECT pg_switch_wal()").await;
        bank.sql("INSERT INTO t SELECT 100 + count(*) FROM t").await;
    }
    for (code, said) in [bank.check().await, bank.refused().await] {
        assert_eq!(code, 65, "{said}");
        for word in ["was set back to an earlier state", "alluvium resnapshot public.t"] {
            assert!(said.contains(word), "`{word}` is missing:\n{said}");
        }
    }
    assert_eq!(bank.resnapshot("public.t").await, Some(0));
    for id in 11..14 {
        bank.catch_up().await;
        bank.agrees("SELECT id FROM public.t", &["public.t"]).await;
        bank.sql(&format!("INSERT INTO t VALUES ({id})")).await;
        bank.sql("CHECKPOINT").await;
    }
}
