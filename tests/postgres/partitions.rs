//! Partitions that bring rows along, or take some away: no change tells that, but a look at the catalog does.

use crate::support::bank::Bank;
use crate::support::postgres::{Installation, Options, PostgresServer, wait_until};

const TABLES: &str = "CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id); \
    CREATE TABLE first PARTITION OF root FOR VALUES FROM (0) TO (10); INSERT INTO root VALUES (1)";

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_attached_with_rows_or_detached_are_named_and_nothing_is_copied_unasked() {
    let lines = "create = true\ndiscovery = \"200 ms\"\nfollow = [\"public.root\"]";
    let bank = Bank::new(PostgresServer::shared(), "partitions", TABLES, lines).await;
    bank.catch_up().await;
    let (table, root) = ("public.root", "SELECT id FROM public.root");
    let mut service = bank.site.run("service", &bank.config);
    bank.sql("INSERT INTO root VALUES (2)").await;
    bank.until_released().await;
    let is_told = |partition: &str, what: &str| {
        let (said, name) = (service.log_text(), format!("\\\"{partition}\\\""));
        let mut lines = said.lines();
        lines.any(|line| {
            [name.as_str(), what, "alluvium resnapshot public.root"]
                .iter()
                .all(|word| line.contains(word))
        })
    };
    let attach = |name: &str, from: u32| {
        let to = from + 10;
        format!("ALTER TABLE root ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})")
    };
    // These tell all their rows: one that is made as a partition, and one that is empty.
    bank.sql("CREATE TABLE made PARTITION OF root FOR VALUES FROM (10) TO (20)").await;
    bank.sql("CREATE TABLE empty (LIKE root INCLUDING ALL)").await;
    bank.sql(&attach("empty", 20)).await;
    bank.sql("INSERT INTO root VALUES (11)").await;

    bank.sql("CREATE TABLE staged (LIKE root INCLUDING ALL); INSERT INTO staged VALUES (31)")
        .await;
    // In one transaction, as scripts do it.
    bank.sql(&format!("ALTER TABLE staged RENAME TO filled; {}", attach("filled", 30)))
        .await;
    wait_until("what is attached is told", async || is_told("filled", "became a partition")).await;
    bank.sql("ALTER TABLE root DETACH PARTITION first").await;
    wait_until("what is detached is told", async || is_told("first", "was detached")).await;
    bank.sql("DROP TABLE made").await;
    bank.sql("INSERT INTO root VALUES (32)").await;
    bank.until_released().await;
    // Before PostgreSQL 15, what was a table may not tell its first rows.
    let sees_partitions = bank.server.version() >= 15;
    assert_eq!(is_told("empty", ""), !sees_partitions, "{}", service.log_text());
    assert!(!is_told("made", ""), "{}", service.log_text());
    assert_eq!(bank.here(root, &[table]).await, [["1"], ["11"], ["2"], ["32"]]);
    assert_eq!(bank.copied_again(table), 0);
    service.stop().await;
    // What is advised helps.
    assert_eq!(bank.resnapshot(table).await, Some(0));
    bank.catch_up().await;
    bank.agrees(root, &[table]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_partition_tells_its_rows_however_far_back_the_last_mark_is() {
    // Before PostgreSQL 15, whoever reads what a table had before passes over it for good.
    let oldest = Installation::all().pop().expect("a server");
    let server = PostgresServer::start(Options::default().on(&oldest));
    let lines = "create = true\ndiscovery = \"200 ms\"\nfollow = [\"public.root\"]";
    let bank = Bank::new(&server, "attached", TABLES, lines).await;
    bank.catch_up().await;
    bank.edit("interval = \"100 ms\"", "interval = \"5 s\"");
    let mut service = bank.site.run("service", &bank.config);
    wait_until("it follows", async || service.log_text().contains("\"following\"")).await;
    // The first row waits for its commit, and with it the mark.
    bank.sql("INSERT INTO root VALUES (2)").await;
    bank.sql("CREATE TABLE filled (LIKE root INCLUDING ALL); INSERT INTO filled VALUES (31)")
        .await;
    bank.sql("ALTER TABLE root ATTACH PARTITION filled FOR VALUES FROM (30) TO (40)")
        .await;
    wait_until("what is attached is told", async || {
        service.log_text().contains("became a partition")
    })
    .await;
    bank.sql("INSERT INTO root VALUES (32)").await;
    bank.until_released().await;
    let rows = bank.here("SELECT id FROM public.root", &["public.root"]).await;
    assert_eq!(rows, [["1"], ["2"], ["32"]], "{}", service.log_tail());
    service.stop().await;
}
