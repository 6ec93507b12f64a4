//! Failovers: a standby is promoted, with all that the tables hold or without; and servers that are set back.

use std::time::Duration;

use crate::support::bank::Bank;
use crate::support::postgres::{Installation, Options, PostgresServer, wait_until};

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
    let mut bank = Bank::on(standby, bank.parts());
    bank.reconfigure(ALL);
    standby.value("postgres", "SELECT pg_switch_wal()").await;
    bank.sql("INSERT INTO t VALUES (10)").await;
    bank
}

#[tokio::test(flavor = "multi_thread")]
async fn p16_a_failover_that_lost_nothing_goes_on() {
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
async fn p16_a_failover_that_lost_what_tables_hold_stops_them_until_they_are_copied_again() {
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
    assert!(asked.wait(Duration::from_secs(120)).await.status.success());
    for id in 11..13 {
        bank.catch_up().await;
        bank.agrees("SELECT id FROM public.t", &["public.t"]).await;
        bank.sql(&format!("INSERT INTO t VALUES ({id})")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p16_a_failover_finds_the_slot_that_the_standby_has_kept() {
    // Standbys keep slots since 17.
    let Some(installation) = Installation::since(17).into_iter().next() else {
        return;
    };
    // Nothing is told before the standby has it, so nothing is lost.
    let settings = Options::default().on(&installation).set("synchronized_standby_slots", "standby");
    let mut primary = PostgresServer::start(settings);
    primary
        .rows("postgres", "SELECT pg_create_physical_replication_slot('standby', true)")
        .await;
    let bank = Bank::new(&primary, "synced", TABLES, ALL).await;
    let standby = primary.standby_with(&[
        ("primary_slot_name", "standby"),
        ("hot_standby_feedback", "on"),
        ("sync_replication_slots", "on"),
    ]);
    bank.catch_up().await;
    let told = |what: &str| format!("SELECT {what} FROM pg_replication_slots WHERE slot_name = '{}'", bank.slot());
    assert_eq!(bank.value(&told("failover")).await, "t");
    // It keeps one once the primary no longer needs for it what the standby has removed.
    for id in 2.. {
        bank.sql(&format!("INSERT INTO t VALUES ({id})")).await;
        bank.value("SELECT pg_log_standby_snapshot()").await;
        bank.catch_up().await;
        if standby.value("postgres", &told("synced AND NOT temporary")).await == "t" {
            break;
        }
        assert!(id < 90, "the standby has no slot:\n{}", standby.log());
        // Where nothing comes of it, the standby looks less and less often.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bank.sql("INSERT INTO t VALUES (100)").await;
    bank.catch_up().await;
    has_all(&standby, &primary).await;
    let parts = bank.parts();
    primary.crash();
    let bank = promoted(Bank::on(&standby, parts), &standby).await;
    for id in 101..103 {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_set_back_stops_its_tables_however_far_its_wal_is_by_then() {
    let mut server = PostgresServer::start(Options::default());
    let bank = Bank::new(&server, "setback", TABLES, ALL).await;
    bank.catch_up().await;
    let kept = restart(&bank).await;
    let parts = bank.parts();
    server.keep();
    let bank = Bank::on(&server, parts);
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
    let parts = bank.parts();
    server.set_back();
    let bank = Bank::on(&server, parts);
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
