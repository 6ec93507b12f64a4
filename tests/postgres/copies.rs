//! Copies beside the stream: tables that are copied again, or that come later.

use std::time::Duration;

use crate::support::bank::Bank;
use crate::support::postgres::{Options, PostgresServer, wait_until};

const ALL: &str = "create = true\nfollow = [\"public.*\"]";
/// A copy on the shared server waits for the transactions of other tests.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_copied_again_in_one_version_while_the_stream_goes_on_and_its_history_stays() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 100) i; CREATE TABLE other (id int PRIMARY KEY)";
    let bank = Bank::new(PostgresServer::shared(), "again", sql, ALL).await;
    bank.catch_up().await;
    let first = bank.versions("public.t").await;
    let mut service = bank.site.run("service", &bank.config);
    bank.sql("UPDATE t SET v = 1; INSERT INTO other VALUES (1)").await;
    // What the table holds was spoilt from outside, say; its next copy is right whatever it was.
    assert_eq!(bank.resnapshot("public.t").await, Some(0));
    bank.sql("UPDATE t SET v = 2 WHERE id <= 10; DELETE FROM t WHERE id = 100; INSERT INTO other VALUES (2)")
        .await;
    let copied = || service.log_text().matches("\"message\":\"copied\"").count() == 1;
    wait_until("it is copied again", async || copied()).await;
    service.stop().await;
    assert!(!service.log_text().contains("another writer"), "{}", service.log_text());
    bank.catch_up().await;
    bank.agrees("SELECT id, v FROM public.t", &["public.t"]).await;
    bank.agrees("SELECT id FROM public.other", &["public.other"]).await;
    // The versions before are there, and no version is without rows.
    let table = bank.table("public.t");
    for version in first..=bank.versions("public.t").await {
        let when = alluvium::log::When::Version(version);
        let tables = std::slice::from_ref(&table);
        let rows = alluvium::query::query("SELECT count(*) FROM public.t", tables, &when)
            .await
            .expect("a query");
        let rows = crate::support::bank::rows(&rows.collect().await.expect("rows"));
        let count: u32 = rows[0][0].parse().expect("a number");
        assert!((99..=100).contains(&count), "version {version} has {count} rows");
    }
    for name in ["public.tt", "bank_dead_letters"] {
        assert_eq!(bank.resnapshot(name).await, Some(64), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_added_later_are_copied_and_join_a_running_stream() {
    let sql = "CREATE TABLE first (id int PRIMARY KEY); INSERT INTO first VALUES (1)";
    let mut bank = Bank::new(PostgresServer::shared(), "joined", sql, ALL).await;
    bank.catch_up().await;
    bank.reconfigure("discovery = \"200 ms\"\nfollow = [\"public.*\"]");
    let mut program = bank.site.run("service", &bank.config);
    bank.sql("CREATE TABLE second (id int PRIMARY KEY); INSERT INTO second SELECT generate_series(1, 1000)")
        .await;
    bank.sql(&format!("ALTER PUBLICATION pub_{} ADD TABLE second", bank.database)).await;
    bank.sql("INSERT INTO second VALUES (1001); INSERT INTO first VALUES (2)").await;
    let log = bank.site.table("public").join("second/_delta_log");
    program
        .until("the second table is there", PATIENCE, || {
            log.join(format!("{:020}.json", 1)).exists().then_some(())
        })
        .await;
    bank.sql("INSERT INTO second VALUES (1002)").await;
    program.stop().await;
    bank.catch_up().await;
    bank.agrees("SELECT count(*), max(id) FROM public.second", &["public.second"]).await;
    bank.agrees("SELECT id FROM public.first", &["public.first"]).await;
}

/// One has the slot while it copies, and the other one waits. Should it lose it unawares, the log of each table tells the two apart.
#[tokio::test(flavor = "multi_thread")]
async fn p17_p23_of_two_programs_that_copy_at_once_one_goes_on_and_the_other_waits() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 50000); CREATE TABLE e (id int); INSERT INTO e SELECT generate_series(1, 50000)";
    let bank = Bank::new(PostgresServer::shared(), "twice", sql, ALL).await;
    let proxy = bank.behind_proxy().await;
    proxy.stall_behind(256 << 10);
    let one = bank.site.run("one", &bank.config);
    // It has two connections that copy.
    wait_until("it is in the middle of its copies", async || proxy.held() >= 2).await;
    let other = bank.site.run("other", &bank.config);
    wait_until("the other one waits", async || other.log_text().contains("is active for PID")).await;
    bank.server.end_walsender(&bank.slot()).await;
    let mut programs = [one, other];
    wait_until("both are in the middle of their copies", async || proxy.held() >= 4).await;
    bank.sql("INSERT INTO t VALUES (60000); INSERT INTO e VALUES (60000)").await;
    proxy.flow();
    let has_said = |words: &str| programs.iter().any(|program| program.log_text().contains(words));
    wait_until("one is told that the tables are another's", async || {
        has_said("opens again from the log")
    })
    .await;
    bank.sql("INSERT INTO t VALUES (60001); INSERT INTO e VALUES (60001); DELETE FROM t WHERE id = 1")
        .await;
    let counted = |table: &str| format!("SELECT count(*), count(DISTINCT id), sum(id), max(id) FROM public.{table}");
    for table in ["t", "e"] {
        let (name, sql) = (format!("public.{table}"), counted(table));
        let there = bank.there(&sql).await;
        wait_until("what comes behind the copies is there", async || {
            bank.here(&sql, &[&name]).await == there
        })
        .await;
    }
    for program in &mut programs {
        assert!(program.poll().is_none(), "{}", program.log_tail());
        program.kill().await;
    }
    bank.catch_up().await;
    for table in ["t", "e"] {
        bank.agrees(&counted(table), &[&format!("public.{table}")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p17_the_slot_is_not_moved_past_a_copy_that_another_process_may_still_publish() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 50000); CREATE TABLE small (id int PRIMARY KEY); INSERT INTO small VALUES (1)";
    let mut bank = Bank::new(PostgresServer::shared(), "passed", sql, ALL).await;
    let small = async |bank: &Bank<'_>| bank.here("SELECT id FROM public.small", &["public.small"]).await;
    let first = bank.behind_proxy().await;
    first.stall_behind(256 << 10);
    let mut one = bank.site.run("one", &bank.config);
    wait_until("the small table is there", async || small(&bank).await == [["1"]]).await;
    // It is in the middle of the other one, and has lost the slot.
    let slot = bank.slot();
    let began = bank.server.confirmed(&slot).await;
    bank.server.end_walsender(&slot).await;
    bank.sql("INSERT INTO small VALUES (2); INSERT INTO t VALUES (60000)").await;
    bank.reconfigure(ALL);
    let second = bank.behind_proxy().await;
    second.stall_behind(256 << 10);
    let mut other = bank.site.run("other", &bank.config);
    wait_until("the other one is in the middle of its copy", async || second.held() >= 1).await;
    wait_until("it follows the small table", async || small(&bank).await == [["1"], ["2"]]).await;
    // The server is told within a second or two.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(bank.server.confirmed(&slot).await, began);
    first.flow();
    let log = bank.site.table("public").join("t").join("_delta_log");
    wait_until("the first one publishes its copy", async || log.exists()).await;
    second.flow();
    let there = bank.there("SELECT id FROM t").await;
    wait_until("the table is whole", async || {
        bank.here("SELECT id FROM public.t", &["public.t"]).await == there
    })
    .await;
    bank.until_released().await;
    for program in [&mut one, &mut other] {
        assert!(program.poll().is_none(), "{}", program.log_tail());
        program.kill().await;
    }
    bank.catch_up().await;
    bank.agrees("SELECT id FROM public.t", &["public.t"]).await;
    bank.agrees("SELECT id FROM public.small", &["public.small"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_fail_again_and_again_do_not_keep_the_slot_where_it_is() {
    let lines = format!("{ALL}\ndiscovery = \"200 ms\"");
    let sql = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";
    let bank = Bank::new(PostgresServer::shared(), "failing", sql, &lines).await;
    bank.catch_up().await;
    let proxy = bank.behind_proxy().await;
    proxy.stall_behind(256 << 10);
    let mut service = bank.site.run("service", &bank.config);
    let slot = bank.slot();
    bank.server.until_read(&slot).await;
    bank.sql("CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b SELECT generate_series(1, 50000)")
        .await;
    wait_until("it is in the middle of its copy", async || proxy.held() >= 1).await;
    proxy.cut();
    let began = bank.server.confirmed(&slot).await;
    bank.sql("INSERT INTO t VALUES (2)").await;
    wait_until("the slot moves on", async || bank.server.confirmed(&slot).await > began).await;
    let log = bank.site.table("public").join("b").join("_delta_log");
    assert!(!log.exists(), "the table was copied: {}", service.log_tail());
    proxy.flow();
    let there = bank.there("SELECT count(*), sum(id) FROM b").await;
    wait_until("it is copied", async || {
        log.exists() && bank.here("SELECT count(*), sum(id) FROM public.b", &["public.b"]).await == there
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_there_with_its_copy_and_has_the_columns_of_then() {
    // A server of its own: a consistent point comes when all transactions of the server have ended that run.
    let server = PostgresServer::start(Options::default());
    let sql = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1); CREATE TABLE busy (id int PRIMARY KEY)";
    let bank = Bank::new(&server, "unseen", sql, ALL).await;
    let long = server.client(&bank.database).await;
    long.batch_execute("BEGIN; INSERT INTO busy VALUES (1)")
        .await
        .expect("a long transaction");
    let mut service = bank.site.run("service", &bank.config);
    wait_until("it waits for the transaction", async || {
        service.log_text().contains("making the replication slot")
    })
    .await;
    service.kill().await;
    assert!(
        !bank.site.table("public/t").exists(),
        "something of a table without its copy is seen"
    );
    long.batch_execute("COMMIT").await.expect("the end");
    bank.sql("ALTER TABLE t ALTER v TYPE text").await;
    bank.catch_up().await;
    bank.agrees("SELECT id, v FROM public.t", &["public.t"]).await;
    let log = std::fs::read_to_string(bank.site.table("public/t/_delta_log/00000000000000000000.json")).expect("version 0");
    assert!(log.contains("alluvium.postgres.columns"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_others_go_on_while_a_table_waits_for_its_copy() {
    // A server of its own: a consistent point comes when all transactions of the server have ended that run.
    let server = PostgresServer::start(Options::default());
    let sql = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000); CREATE TABLE other (id int PRIMARY KEY)";
    let bank = Bank::new(&server, "beside", sql, ALL).await;
    bank.catch_up().await;
    let long = server.client(&bank.database).await;
    let mut service = bank.site.run("service", &bank.config);
    long.batch_execute("BEGIN; DELETE FROM t WHERE id <= 10")
        .await
        .expect("a long transaction");
    assert_eq!(bank.resnapshot("public.t").await, Some(0));
    // The service finds out with its next version.
    bank.sql("INSERT INTO other VALUES (0)").await;
    for stop in [true, false] {
        wait_until("a copy begins", async || service.log_text().contains("taking a consistent point")).await;
        let before = bank.value("SELECT count(*) FROM other").await;
        bank.sql("INSERT INTO other SELECT 1 + count(*) FROM other").await;
        wait_until("the other table goes on", async || {
            bank.here("SELECT count(*) FROM public.other", &["public.other"]).await != [[before.clone()]]
        })
        .await;
        assert!(
            !service.log_text().contains("\"message\":\"copied\""),
            "it was copied without waiting for a transaction"
        );
        // What is read until it is whole is the copy of before.
        assert_eq!(bank.here("SELECT count(*) FROM public.t", &["public.t"]).await, [["1000"]]);
        if stop {
            service.stop().await;
            service = bank.site.run("service", &bank.config);
        } else {
            let waits_for = bank
                .value("SELECT 'process ' || pid FROM pg_stat_activity WHERE query LIKE 'BEGIN; DELETE FROM t %'")
                .await;
            wait_until("the log tells what is waited for", async || service.log_text().contains(&waits_for)).await;
        }
    }
    long.batch_execute("COMMIT").await.expect("the end");
    wait_until("the copy is there", async || {
        bank.here("SELECT count(*) FROM public.t", &["public.t"]).await == [["990"]]
    })
    .await;
    bank.sql("INSERT INTO t VALUES (5000); INSERT INTO other VALUES (5000)").await;
    wait_until("the table is followed again", async || {
        bank.here("SELECT max(id) FROM public.t", &["public.t"]).await == [["5000"]]
    })
    .await;
    service.stop().await;
    bank.catch_up().await;
    for table in ["t", "other"] {
        bank.agrees(&format!("SELECT id FROM public.{table}"), &[&format!("public.{table}")])
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_rewritten_before_its_copy_is_copied_with_its_rows() {
    comes_before_the_copy("rewritten", "ALTER TABLE b ALTER v TYPE int USING v + 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_made_anew_before_its_copy_is_copied_with_its_rows() {
    let sql = "DROP TABLE b; CREATE TABLE b (id int PRIMARY KEY, v int); INSERT INTO b SELECT i, -i FROM generate_series(1, 100) i";
    comes_before_the_copy("anew", sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_others_go_on_while_a_table_is_rewritten_whenever_it_is_to_be_copied() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";
    let bank = Bank::new(PostgresServer::shared(), "emptied", sql, &format!("{ALL}\ndiscovery = \"200 ms\"")).await;
    bank.catch_up().await;
    let proxy = bank.behind_proxy().await;
    let mut service = bank.site.run("service", &bank.config);
    bank.server.until_read(&bank.slot()).await;
    // Its connection is made before it copies.
    proxy.delay(Duration::from_millis(100));
    bank.sql("CREATE TABLE b (id int PRIMARY KEY)").await;
    wait_until("a point is taken", async || service.log_text().contains("\"copying\"")).await;
    bank.sql("TRUNCATE b").await;
    wait_until("it is given up", async || service.log_text().contains("its copy is given up")).await;
    proxy.delay(Duration::ZERO);
    bank.sql("INSERT INTO t VALUES (2); INSERT INTO b VALUES (1)").await;
    let here = async |table: &str| {
        bank.here(&format!("SELECT id FROM public.{table}"), &[&format!("public.{table}")])
            .await
    };
    wait_until("the other one goes on", async || here("t").await == [["1"], ["2"]]).await;
    assert!(!service.log_text().contains("table_rewritten"), "meanwhile: {}", service.log_tail());
    wait_until("it is copied again", async || here("b").await == [["1"]]).await;
    service.stop().await;
}

/// While another table is copied, something happens to `b`.
async fn comes_before_the_copy(name: &str, happens: &str) {
    let sql = "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 50000);
        CREATE TABLE b (id int PRIMARY KEY, v int); INSERT INTO b SELECT i, i FROM generate_series(1, 100) i";
    let bank = Bank::new(PostgresServer::shared(), name, sql, &format!("{ALL}\ncopy_connections = 1")).await;
    let proxy = bank.behind_proxy().await;
    proxy.stall_behind(256 << 10);
    let mut service = bank.site.run("service", &bank.config);
    wait_until("the copy begins", async || service.log_text().contains("\"copying\"")).await;
    let copying =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY % FROM ONLY \"public\".\"a\"%'";
    wait_until("the first table is copied", async || bank.value(copying).await == "1").await;
    bank.sql(happens).await;
    proxy.flow();
    let there = bank.there("SELECT id, v FROM b").await;
    wait_until("both are copied", async || {
        bank.here("SELECT id, v FROM public.b", &["public.b"]).await == there
    })
    .await;
    service.stop().await;
    bank.agrees("SELECT count(*) FROM public.a", &["public.a"]).await;
    // What happens to one table holds up none of the others.
    let log = service.log_text();
    let said = |words: &str, table: &str| log.lines().filter(|line| line.contains(words) && line.contains(table)).count();
    assert_eq!(
        (said("its copy is given up", "public.b"), said("\"copied\"", "public.a")),
        (1, 1),
        "{log}"
    );
}
