//! Tables that are copied in parts, side by side, and in groups, one behind the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::Client;

use crate::support::bank::Bank;
use crate::support::postgres::{Options, PostgresServer, wait_until};

const ALL: &str = "create = true\nfollow = [\"public.*\"]";

/// Two tables of 20,000 pages with a row each: three parts of 64 MiB. One keeps a row of each key, the other would show a row that was
/// copied twice.
const TABLES: &str = "CREATE TABLE state (id int PRIMARY KEY, n int, body text) WITH (fillfactor = 10); \
    CREATE TABLE events (id int, body text) WITH (fillfactor = 10); ALTER TABLE state ALTER body SET STORAGE PLAIN; \
    INSERT INTO state SELECT i, 0, repeat('x', 700) FROM generate_series(1, 20000) i; \
    INSERT INTO events SELECT i, repeat('x', 700) FROM generate_series(1, 20000) i";

fn there_is(bank: &Bank<'_>, table: &str) -> bool {
    let log = bank.site.table("public").join(table).join("_delta_log");
    log.join(format!("{:020}.json", 0)).exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn p17_p18_a_table_of_several_parts_is_copied_whole_while_its_rows_change_and_move() {
    let bank = Bank::new(PostgresServer::shared(), "parts", TABLES, ALL).await;
    let proxy = bank.behind_proxy().await;
    // The first run ends in the middle: nothing of it may be seen.
    proxy.stall_behind(4 << 20);
    let mut service = bank.site.run("killed", &bank.config);
    wait_until("a copy is in the middle", async || proxy.held() > 0).await;
    assert!(service.log_text().contains("\"parts\":6"), "{}", service.log_tail());
    service.kill().await;
    for table in ["state", "events"] {
        assert!(!there_is(&bank, table), "{table} is seen without its copy");
    }
    proxy.flow();
    // Slowly, and with a halt in the middle, so that there is time for changes.
    proxy.delay(Duration::from_millis(5));
    proxy.stall_behind(4 << 20);
    let ended = Arc::new(AtomicBool::new(false));
    let client = bank.server.client(&bank.database).await;
    let changing = tokio::spawn(change(client, Arc::clone(&ended)));
    let mut service = bank.site.run("service", &bank.config);
    let turns = "SELECT count(*) FROM events WHERE id > 20000";
    wait_until("the copies begin", async || service.log_text().contains("\"parts\":6")).await;
    let before = bank.value(turns).await;
    wait_until("rows are changed meanwhile", async || bank.value(turns).await != before).await;
    proxy.flow();
    wait_until("both are copied", async || {
        service.log_text().matches("\"message\":\"copied\"").count() == 2
    })
    .await;
    proxy.delay(Duration::ZERO);
    ended.store(true, Ordering::Relaxed);
    changing.await.expect("the changes");
    service.stop().await;
    bank.catch_up().await;
    bank.agrees("SELECT id, n, length(body) FROM public.state", &["public.state"]).await;
    bank.agrees(
        "SELECT count(*), count(DISTINCT id), sum(id) FROM public.events",
        &["public.events"],
    )
    .await;
}

/// Changes rows in each part, has some of them move from their page to another, deletes and inserts, until it is told to end.
async fn change(client: Client, ended: Arc<AtomicBool>) {
    let mut turn = 0;
    while !ended.load(Ordering::Relaxed) {
        turn += 1;
        let sql = format!(
            "UPDATE state SET n = n + 1 WHERE id % 997 = {turn} % 997; UPDATE state SET body = repeat('y', 7600) WHERE id = {turn} * 61 % 20000; \
             DELETE FROM state WHERE id = 20000 - {turn}; INSERT INTO state VALUES (20000 + {turn}, 0, repeat('z', 700)); \
             INSERT INTO events VALUES (20000 + {turn}, 'z')"
        );
        client.batch_execute(&sql).await.expect("changes");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p17_tables_that_are_copied_are_not_copied_again_when_a_later_one_is_interrupted() {
    let mut server = PostgresServer::start(Options::default());
    for is_of_another_group in [false, true] {
        let rows = if is_of_another_group { 1_000 } else { 50_000 };
        let database = server.database("interrupted").await;
        let sql = format!(
            "CREATE TABLE a (id int PRIMARY KEY, body text); INSERT INTO a SELECT i, repeat('x', 100) FROM generate_series(1, {rows}) i; \
             CREATE TABLE b (LIKE a INCLUDING ALL); INSERT INTO b SELECT i, repeat('x', 100) FROM generate_series(1, 40000) i"
        );
        server.sql(&database, &sql).await;
        if is_of_another_group {
            // Together they are more than the GiB of a group.
            server.lengthen(&database, "a", (1 << 30) - (1 << 20)).await;
        }
        let bank = Bank::of(&server, database, &format!("copy_connections = 1\n{ALL}"));
        let proxy = bank.behind_proxy().await;
        // Behind all that is sent of the first one, and before the end of the second.
        proxy.stall_behind(rows * 112 + (2 << 20));
        let mut service = bank.site.run("killed", &bank.config);
        wait_until("the second table's copy is in the middle", async || proxy.held() > 0).await;
        let is_there = async || bank.here("SELECT count(*) FROM public.a", &["public.a"]).await == [[rows.to_string()]];
        wait_until("the first table is there", is_there).await;
        assert!(!there_is(&bank, "b"), "{}", service.log_tail());
        service.kill().await;
        proxy.flow();
        bank.sql("DELETE FROM a WHERE id = 1; INSERT INTO a VALUES (200000); DELETE FROM b WHERE id = 1")
            .await;
        bank.catch_up().await;
        for table in ["a", "b"] {
            let sql = format!("SELECT id, length(body) FROM public.{table}");
            bank.agrees(&sql, &[&format!("public.{table}")]).await;
        }
        let copies = |log: &str, table: &str| {
            let log = std::fs::read_to_string(bank.site.path(log)).expect("a log");
            let of_table = format!("\"table\":\"public.{table}\"");
            let copied = |line: &&str| line.contains("\"message\":\"copied\"") && line.contains(&of_table);
            log.lines().filter(copied).count()
        };
        let counted = ["killed.log", "catch-up.log"].map(|log| ["a", "b"].map(|table| copies(log, table)));
        assert_eq!(counted, [[1, 0], [0, 1]]);
    }
}
