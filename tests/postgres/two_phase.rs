//! Prepared transactions: rows when they are committed, nothing when they are rolled back, wherever the program ends in between.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::support::bank::Bank;
use crate::support::postgres::{Options, PostgresServer, wait_until};

const WITHOUT: &str = "create = true\nfollow = [\"public.*\"]";
const WITH: &str = "create = true\nfollow = [\"public.*\"]\ntwo_phase = true";
const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, v int, body text); CREATE TABLE other (id int PRIMARY KEY, v int, body text);
                      INSERT INTO t SELECT i, 0, 'copied' FROM generate_series(1, 10) i";

/// A server of its own, for an open prepared transaction keeps new slots from being made. Large transactions are streamed.
fn server() -> PostgresServer {
    PostgresServer::start(Options::default().set("logical_decoding_work_mem", "64kB"))
}

/// Both ways to read; the second one as far as the server's version knows it.
fn ways(server: &PostgresServer) -> Vec<&'static str> {
    let both = [WITHOUT, WITH];
    both[..if server.version() < 15 { 1 } else { 2 }].to_vec()
}

async fn prepare(bank: &Bank<'_>, gid: &str, sql: &str) {
    bank.sql(&format!("BEGIN; {sql}; PREPARE TRANSACTION '{gid}'")).await;
}

/// `COMMIT` or `ROLLBACK`.
async fn finish(bank: &Bank<'_>, how: &str, gid: &str) {
    bank.sql(&format!("{how} PREPARED '{gid}'")).await;
}

async fn agree(bank: &Bank<'_>) {
    for table in ["t", "other"] {
        let sql = format!("SELECT id, v, md5(body) FROM public.{table}");
        bank.agrees(&sql, &[&format!("public.{table}")]).await;
    }
}

async fn confirmed(bank: &Bank<'_>) -> u64 {
    let sql = format!(
        "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
        bank.slot()
    );
    bank.value(&sql).await.parse().expect("a position")
}

async fn end_of_wal(bank: &Bank<'_>) -> u64 {
    let sql = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn";
    bank.value(sql).await.parse().expect("a position")
}

const LARGE: &str = "INSERT INTO t SELECT i, 1, repeat('large', 20) FROM generate_series(1001, 6000) i; SAVEPOINT s; DELETE FROM t WHERE id > 1000; \
                     ROLLBACK TO s; UPDATE t SET v = 2 WHERE id BETWEEN 1001 AND 2000";

#[tokio::test(flavor = "multi_thread")]
async fn p20_prepared_transactions_are_rows_when_they_are_committed() {
    let server = server();
    for way in ways(&server) {
        let bank = Bank::new(&server, "prepared", TABLES, way).await;
        bank.catch_up().await;
        prepare(
            &bank,
            "small",
            "UPDATE t SET v = 1 WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO other VALUES (1, 1)",
        )
        .await;
        prepare(&bank, "large", LARGE).await;
        prepare(&bank, "never", "UPDATE t SET v = 1 WHERE id = 3; INSERT INTO other VALUES (2, 1)").await;
        prepare(
            &bank,
            "never large",
            &LARGE
                .replace("1001", "11001")
                .replace("6000", "16000")
                .replace("> 1000", "> 11000")
                .replace("2000", "12000"),
        )
        .await;
        bank.sql("UPDATE t SET v = 9 WHERE id = 4; INSERT INTO other VALUES (3, 9)").await;
        let open = end_of_wal(&bank).await;
        bank.catch_up().await;
        agree(&bank).await;
        if way == WITH {
            assert!(confirmed(&bank).await < open, "the slot is held where a transaction is open");
        }
        finish(&bank, "COMMIT", "small").await;
        finish(&bank, "ROLLBACK", "never").await;
        bank.sql("UPDATE t SET v = 10 WHERE id = 1").await;
        bank.catch_up().await;
        agree(&bank).await;
        finish(&bank, "ROLLBACK", "never large").await;
        finish(&bank, "COMMIT", "large").await;
        bank.sql("UPDATE t SET v = 10 WHERE id = 1500").await;
        bank.catch_up().await;
        agree(&bank).await;
        assert_eq!(bank.value("SELECT count(*) FROM t WHERE id > 1000").await, "5000");
        let end = end_of_wal(&bank).await;
        let program = bank.site.run("service", &bank.config);
        wait_until("nothing holds the slot any more", async || confirmed(&bank).await >= end).await;
        drop(program);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_prepared_transaction_introduced_others_of_the_session_can_read() {
    let server = server();
    for way in ways(&server) {
        let mut bank = Bank::new(&server, "introduced", TABLES, way).await;
        bank.catch_up().await;
        bank.reconfigure(way);
        let mut program = bank.site.run("service", &bank.config);
        wait_until("the service streams", async || program.log_text().contains("following")).await;
        // It is the first of the session to touch the table: the server introduces the table in it, and nowhere else.
        prepare(&bank, "first", "INSERT INTO t VALUES (11, 1)").await;
        prepare(&bank, "second", "INSERT INTO t VALUES (12, 1); UPDATE t SET v = 1 WHERE id = 1").await;
        bank.sql("INSERT INTO t VALUES (13, 1)").await;
        let count = "SELECT count(*) FROM public.t";
        wait_until("another one is there", async || bank.here(count, &["public.t"]).await == [["11"]]).await;
        // Columns that are only there if the transaction is committed.
        prepare(
            &bank,
            "wider",
            "ALTER TABLE other ADD w int DEFAULT 7; INSERT INTO other VALUES (1, 1, '', 1)",
        )
        .await;
        finish(&bank, "COMMIT", "second").await;
        wait_until("the second is there", async || bank.here(count, &["public.t"]).await == [["12"]]).await;
        finish(&bank, "ROLLBACK", "wider").await;
        finish(&bank, "COMMIT", "first").await;
        bank.sql("INSERT INTO other VALUES (2, 2); INSERT INTO t VALUES (14, 1)").await;
        wait_until("all are there", async || bank.here(count, &["public.t"]).await == [["14"]]).await;
        program.kill().await;
        bank.catch_up().await;
        agree(&bank).await;
        assert_eq!(
            bank.here("SELECT * FROM public.other", &["public.other"]).await,
            [["2", "2", "NULL"]]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_prepare_and_commit_loses_nothing_though_tables_are_far_beyond() {
    let server = server();
    for way in ways(&server) {
        let bank = Bank::new(&server, "killed", TABLES, way).await;
        bank.catch_up().await;
        let mut program = bank.site.run("service", &bank.config);
        prepare(&bank, "small", "INSERT INTO other VALUES (1, 1)").await;
        prepare(&bank, "large", LARGE).await;
        for id in 1..=5 {
            bank.sql(&format!("UPDATE t SET v = 9 WHERE id = {id}")).await;
        }
        let last = "SELECT v FROM public.t WHERE id = 5";
        wait_until("later ones are in the table", async || {
            bank.here(last, &["public.t"]).await == [["9"]]
        })
        .await;
        // Long enough for the slot to be told.
        tokio::time::sleep(Duration::from_secs(2)).await;
        program.kill().await;
        finish(&bank, "COMMIT", "small").await;
        finish(&bank, "COMMIT", "large").await;
        bank.catch_up().await;
        agree(&bank).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_two_phase_stays_so_and_one_that_is_not_becomes_so() {
    let server = server();
    let mut bank = Bank::new(&server, "changed", TABLES, WITHOUT).await;
    bank.catch_up().await;
    if server.version() < 15 {
        bank.reconfigure(WITH);
        let (exit, said) = bank.refused().await;
        assert!(
            exit == 78 && said.contains("PostgreSQL 14") && said.contains("two_phase"),
            "{exit}: {said}"
        );
        return;
    }
    // Prepared while the slot was not asked for it, or asked for it, and read with and without.
    prepare(&bank, "before", "UPDATE t SET v = 1 WHERE id = 1").await;
    bank.catch_up().await;
    bank.reconfigure(WITH);
    bank.catch_up().await;
    prepare(&bank, "with", "UPDATE t SET v = 1 WHERE id = 2").await;
    bank.sql("UPDATE t SET v = 1 WHERE id = 4").await;
    bank.catch_up().await;
    bank.reconfigure(WITHOUT);
    prepare(&bank, "without", "UPDATE t SET v = 1 WHERE id = 3").await;
    bank.sql("UPDATE t SET v = 1 WHERE id = 5").await;
    bank.catch_up().await;
    agree(&bank).await;
    for gid in ["without", "before", "with"] {
        finish(&bank, "COMMIT", gid).await;
        bank.catch_up().await;
        agree(&bank).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_another_maker_that_is_two_phase_is_read_as_it_is() {
    let server = server();
    let bank = Bank::new(&server, "made", TABLES, WITHOUT).await;
    bank.sql(&format!(
        "SELECT pg_create_logical_replication_slot('{}', 'pgoutput', false, true)",
        bank.slot()
    ))
    .await;
    bank.catch_up().await;
    prepare(&bank, "one", "UPDATE t SET v = 1 WHERE id = 1").await;
    bank.sql("UPDATE t SET v = 1 WHERE id = 2").await;
    bank.catch_up().await;
    agree(&bank).await;
    finish(&bank, "COMMIT", "one").await;
    bank.catch_up().await;
    agree(&bank).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_prepare_the_slot_has_passed_stops_the_pipeline() {
    let server = server();
    if !server.is_since(15) {
        return;
    }
    let bank = Bank::new(&server, "passed", TABLES, WITH).await;
    bank.catch_up().await;
    prepare(&bank, "lost one", "UPDATE t SET v = 1 WHERE id = 1").await;
    prepare(&bank, "never", "UPDATE t SET v = 1 WHERE id = 2").await;
    bank.sql("UPDATE t SET v = 1 WHERE id = 3").await;
    let passed = end_of_wal(&bank).await;
    bank.sql("UPDATE t SET v = 1 WHERE id = 4").await;
    bank.catch_up().await;
    bank.sql(&format!(
        "SELECT pg_replication_slot_advance('{}', '0/0'::pg_lsn + {passed})",
        bank.slot()
    ))
    .await;
    // A rollback misses nothing.
    finish(&bank, "ROLLBACK", "never").await;
    bank.catch_up().await;
    agree(&bank).await;
    finish(&bank, "COMMIT", "lost one").await;
    let (exit, said) = bank.refused().await;
    assert_eq!(exit, 65, "{said}");
    for word in ["lost one", "resnapshot public.other public.t"] {
        assert!(said.contains(word), "`{word}` is missing:\n{said}");
    }
    let config = bank.config.to_str().expect("a path in UTF-8");
    let mut ask = bank
        .site
        .start("ask", &["resnapshot", "--config", config, "public.other", "public.t"]);
    assert!(ask.wait(Duration::from_secs(120)).await.status.success());
    bank.catch_up().await;
    agree(&bank).await;
}

/// What a transaction does with rows of its own: nobody waits for its locks.
fn changes(rng: &mut SmallRng, place: usize) -> String {
    let (first, last) = (place * 1000, place * 1000 + 999);
    let one = |rng: &mut SmallRng| {
        let table = ["t", "other"].choose(rng).expect("there are two");
        let id = rng.random_range(first..=last);
        match rng.random_range(0..5) {
            0 | 1 => format!("INSERT INTO {table} VALUES ({id}, 0, 'one') ON CONFLICT (id) DO UPDATE SET v = {table}.v + 1;"),
            2 => format!("UPDATE {table} SET v = v + 1 WHERE id BETWEEN {first} AND {last};"),
            3 => format!("DELETE FROM {table} WHERE id BETWEEN {id} AND {last};"),
            _ => format!(
                "INSERT INTO {table} SELECT i, 0, repeat('many', 9) FROM generate_series({id}, {last}) i ON CONFLICT (id) DO NOTHING;"
            ),
        }
    };
    (0..rng.random_range(1..5)).map(|_| one(rng)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_transactions_prepared_or_not_survive_kills_at_any_moment() {
    const PLACES: usize = 8;
    let server = server();
    for way in ways(&server) {
        let seed: u64 = rand::random();
        let mut rng = SmallRng::seed_from_u64(seed);
        let bank = Bank::new(&server, "gids", TABLES, way).await;
        bank.catch_up().await;
        let client = server.client(&bank.database).await;
        let mut open: BTreeMap<usize, String> = BTreeMap::new();
        for round in 0..8 {
            let mut program = bank.site.run("service", &bank.config);
            for number in 0..rng.random_range(5..40) {
                let place = rng.random_range(1..=PLACES);
                let statements = match (open.remove(&place), rng.random_range(0..3)) {
                    (Some(gid), 0) => format!("ROLLBACK PREPARED '{gid}'"),
                    (Some(gid), _) => format!("COMMIT PREPARED '{gid}'"),
                    (None, 0) => format!("BEGIN; {} COMMIT", changes(&mut rng, place)),
                    (None, _) => {
                        let gid = format!("{} {round} {number}", bank.database);
                        let statements = format!("BEGIN; {} PREPARE TRANSACTION '{gid}'", changes(&mut rng, place));
                        open.insert(place, gid);
                        statements
                    }
                };
                client.batch_execute(&statements).await.expect("a transaction");
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..3000))).await;
            program.kill().await;
            if round % 3 == 2 {
                bank.catch_up().await;
                for table in ["t", "other"] {
                    let sql = format!("SELECT id, v, md5(body) FROM public.{table}");
                    let (here, there) = (bank.here(&sql, &[&format!("public.{table}")]).await, bank.there(&sql).await);
                    assert!(here == there, "seed {seed}, round {round}, {table}, {way}:\n{here:?}\n{there:?}");
                }
            }
        }
        for gid in open.values() {
            finish(&bank, "COMMIT", gid).await;
        }
        bank.catch_up().await;
        agree(&bank).await;
    }
}
