//! Tables that somebody has locked: the others do not wait for them.

use std::time::Duration;

use crate::support::bank::Bank;
use crate::support::postgres::{Installation, Options, PostgresServer, wait_until};
use crate::support::program::{Program, free_port, get, http};

const PATIENCE: Duration = Duration::from_secs(120);
const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY); CREATE TABLE later (id int PRIMARY KEY); \
                      INSERT INTO t VALUES (1); INSERT INTO later VALUES (1)";

async fn comes(bank: &Bank<'_>, table: &str, id: u32) {
    bank.sql(&format!("INSERT INTO {table} VALUES ({id})")).await;
    is_there(bank, table, id).await;
}

async fn is_there(bank: &Bank<'_>, table: &str, id: u32) {
    let (name, sql) = (format!("public.{table}"), format!("SELECT max(id) FROM public.{table}"));
    wait_until(&format!("{table} has {id} on {}", bank.server.version()), async || {
        bank.here(&sql, &[&name]).await == [[id.to_string()]]
    })
    .await;
}

/// A database whose tables are followed, `later` excepted, and that is looked at every moment.
async fn followed<'s>(server: &'s PostgresServer, condition: &str) -> Bank<'s> {
    let bank = Bank::new(server, "locked", TABLES, "follow = [\"public.*\"]\ndiscovery = \"100 ms\"").await;
    bank.sql(&format!("CREATE PUBLICATION pub_{} FOR TABLE other, t {condition}", bank.database))
        .await;
    bank.value(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", bank.slot()))
        .await;
    bank.catch_up().await;
    bank
}

async fn stops_well(bank: &Bank<'_>, mut service: Program) {
    service.signal(libc::SIGTERM);
    assert!(service.wait(PATIENCE).await.status.success(), "{}", service.log_tail());
    assert!(!service.log_text().contains("table_locked"), "{}", service.log_tail());
    bank.catch_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_holds_up_no_other() {
    for installation in Installation::all() {
        let server = PostgresServer::start(Options::default().on(&installation));
        let bank = followed(&server, if server.version() >= 15 { "WHERE (id > 0)" } else { "" }).await;
        let lock = server.client(&bank.database).await;
        lock.batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
            .await
            .expect("a lock");
        // Opened while it is locked, and then looked for new tables again and again.
        let service = bank.site.run("service", &bank.config);
        for id in 1..4 {
            comes(&bank, "other", id).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // It gains a column, and the catalog is asked whether it is to be copied again.
        bank.sql("ALTER TABLE other ADD v int").await;
        comes(&bank, "other", 4).await;
        lock.batch_execute("COMMIT; INSERT INTO t VALUES (2)").await.expect("the end");
        is_there(&bank, "t", 2).await;
        stops_well(&bank, service).await;
        bank.agrees("SELECT * FROM public.other", &["public.other"]).await;
        bank.agrees("SELECT * FROM public.t", &["public.t"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_that_is_to_be_copied_holds_up_no_other() {
    // A server of its own: a consistent point comes when all transactions of the server have ended that run.
    let server = PostgresServer::start(Options::default().on(&Installation::all()[0]));
    let bank = followed(&server, "").await;
    let service = bank.site.run("service", &bank.config);
    comes(&bank, "other", 1).await;
    let lock = server.client(&bank.database).await;
    let sql = format!(
        "BEGIN; ALTER PUBLICATION pub_{} ADD TABLE later; COMMIT; BEGIN; LOCK TABLE later IN ACCESS EXCLUSIVE MODE",
        bank.database
    );
    lock.batch_execute(&sql).await.expect("a lock");
    let begins = || service.log_text().contains("taking a consistent point");
    wait_until("a copy begins", async || begins()).await;
    for id in 2..5 {
        comes(&bank, "other", id).await;
    }
    assert!(
        !bank.site.table("public/later/_delta_log/00000000000000000000.json").exists(),
        "a table without its copy is seen"
    );
    lock.batch_execute("COMMIT").await.expect("the end");
    is_there(&bank, "later", 1).await;
    stops_well(&bank, service).await;
    bank.agrees("SELECT * FROM public.later", &["public.later"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_waits_for_a_transaction_longer_than_for_a_lock() {
    // Sessions of ours wait for locks as long as half a minute.
    const LONGER: Duration = Duration::from_secs(34);
    let server = PostgresServer::start(Options::default());
    let bank = Bank::new(&server, "open", TABLES, "create = true\nfollow = [\"public.*\"]").await;
    let open = server.client(&bank.database).await;
    bank.catch_up().await;
    bank.sql("CREATE TABLE new (id int PRIMARY KEY); INSERT INTO new VALUES (1)").await;
    open.batch_execute("BEGIN; SELECT txid_current()").await.expect("a transaction");
    let service = bank.site.run("service", &bank.config);
    wait_until("the copy waits", async || service.log_text().contains("taking a consistent point")).await;
    tokio::time::sleep(LONGER).await;
    comes(&bank, "other", 1).await;
    open.batch_execute("COMMIT").await.expect("the end");
    is_there(&bank, "new", 1).await;
    stops_well(&bank, service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_waits_for_a_slot_and_the_others_go_on() {
    let server = PostgresServer::start(Options::default().set("max_replication_slots", "2"));
    let lines = "create = true\nfollow = [\"public.*\"]\ndiscovery = \"200 ms\"";
    let mut bank = Bank::new(&server, "slots", TABLES, lines).await;
    bank.catch_up().await;
    bank.value("SELECT pg_create_physical_replication_slot('taken')").await;
    let port = free_port();
    bank.reconfigure_with(&http(port), lines);
    let service = bank.site.run("service", &bank.config);
    comes(&bank, "other", 1).await;
    bank.sql("CREATE TABLE new (id int PRIMARY KEY); INSERT INTO new VALUES (1)").await;
    wait_until("the copy waits, and that is told", async || {
        get(port, "/readyz")
            .is_some_and(|(code, said)| code == 503 && said.contains("tables wait to be copied") && said.contains("max_replication_slots"))
    })
    .await;
    comes(&bank, "other", 2).await;
    bank.value("SELECT pg_drop_replication_slot('taken')").await;
    is_there(&bank, "new", 1).await;
    wait_until("it is ready again", async || {
        get(port, "/readyz").is_some_and(|(code, _)| code == 200)
    })
    .await;
    stops_well(&bank, service).await;
}
