//! The slot: what it is told, and what happens when it is not what the tables need.

use std::time::Duration;

use crate::support::bank::Bank;
use crate::support::postgres::{Installation, Options, PostgresServer, wait_until};
use crate::support::program::{Exit, Program, free_port, get, http, labelled};
use crate::support::proxy::Proxy;

const ALL: &str = "create = true\nfollow = [\"public.*\"]";
const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";
/// One that holds current rows, and one that only grows.
const BOTH: &str = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE l (v int); INSERT INTO l VALUES (1)";

/// A run is refused so, and a look says it before.
async fn refused_with(bank: &Bank<'_>, code: i32, words: &[&str]) {
    for (exit, said) in [bank.check().await, bank.refused().await] {
        assert_eq!(exit, code, "{said}");
        for word in words {
            assert!(said.contains(word), "`{word}` is missing:\n{said}");
        }
    }
}

/// What stands in a text between two others.
fn between<'t>(text: &'t str, from: &str, to: &str) -> &'t str {
    let found = text.split_once(from).and_then(|(_, behind)| behind.split_once(to));
    found.unwrap_or_else(|| panic!("`{from}` … `{to}` is missing:\n{text}")).0
}

/// Changes of the tables of [`BOTH`] are lost. What is advised, done to the letter, brings both back; what they held stays in their history.
async fn comes_back_as_advised(bank: &mut Bank<'_>) {
    let (code, said) = bank.check().await;
    assert_eq!(code, 65, "{said}");
    for table in between(&said, "alluvium resnapshot ", ")").split(' ') {
        assert_eq!(bank.resnapshot(table).await, Some(0), "{table}");
    }
    let grows = between(&said, "again in its place (`", "`)");
    assert!(said.contains("[pipelines.….tables.NAME] with `table = "), "{said}");
    bank.reconfigure(&format!("{ALL}\n[pipelines.bank.tables.anew]\ntable = \"{grows}\""));
    let held = bank.here("SELECT v FROM public.l", &["public.l"]).await;
    for id in 11..13 {
        bank.catch_up().await;
        bank.agrees("SELECT id FROM public.t", &["public.t"]).await;
        let there = bank.there("SELECT v FROM l").await;
        assert_eq!(bank.here("SELECT v FROM anew", &["anew"]).await, there);
        bank.sql(&format!("INSERT INTO t VALUES ({id}); INSERT INTO l VALUES ({id})")).await;
    }
    assert_eq!(bank.here("SELECT v FROM public.l", &["public.l"]).await, held);
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_what_is_missing_is_named_with_the_sql_that_makes_it() {
    let bank = Bank::new(PostgresServer::shared(), "missing", TABLE, "follow = [\"public.t\"]").await;
    refused_with(&bank, 78, &["PUBLICATION"]).await;
    // A look says all at once.
    let (_, said) = bank.check().await;
    assert!(said.contains("pg_create_logical_replication_slot"), "{said}");
    bank.sql(&format!("CREATE PUBLICATION pub_{} FOR TABLE t", bank.database)).await;
    refused_with(&bank, 78, &["pg_create_logical_replication_slot", &bank.slot()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_slot_that_is_gone_or_was_made_anew_stops_the_tables() {
    let bank = Bank::new(PostgresServer::shared(), "remade", TABLE, ALL).await;
    bank.catch_up().await;
    bank.sql(&format!("SELECT pg_drop_replication_slot('{}')", bank.slot())).await;
    bank.sql("INSERT INTO t VALUES (2)").await;
    refused_with(&bank, 65, &[&bank.slot(), "resnapshot"]).await;
    assert!(!bank.check().await.1.contains("will be made"), "what is gone is not made");
    bank.sql(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", bank.slot()))
        .await;
    refused_with(&bank, 65, &["gone", "public.t", "resnapshot"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_advised_where_a_slot_is_gone_or_was_made_anew_brings_all_tables_back() {
    for made_anew in [false, true] {
        let mut bank = Bank::new(PostgresServer::shared(), "advised", BOTH, ALL).await;
        bank.catch_up().await;
        bank.sql(&format!("SELECT pg_drop_replication_slot('{}')", bank.slot())).await;
        bank.sql("INSERT INTO t VALUES (2); INSERT INTO l VALUES (2)").await;
        if made_anew {
            bank.sql(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", bank.slot()))
                .await;
        }
        comes_back_as_advised(&mut bank).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_a_slot_that_the_server_gave_up_stops_the_tables() {
    let small = [
        ("max_slot_wal_keep_size", "1MB"),
        ("max_wal_size", "32MB"),
        ("min_wal_size", "32MB"),
    ];
    let server = PostgresServer::start(
        small
            .iter()
            .fold(Options::default(), |options, (name, value)| options.set(name, value)),
    );
    let mut bank = Bank::new(&server, "lost", BOTH, ALL).await;
    bank.catch_up().await;
    bank.sql("CREATE UNLOGGED TABLE filler (t text)").await;
    for _ in 0..6 {
        bank.sql("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 8000000))")
            .await;
        bank.sql("SELECT pg_switch_wal()").await;
        bank.sql("CHECKPOINT").await;
    }
    wait_until("the slot is lost", async || {
        bank.value(&format!(
            "SELECT wal_status = 'lost' AND restart_lsn IS NULL AND active_pid IS NULL FROM pg_replication_slots WHERE slot_name = '{}'",
            bank.slot()
        ))
        .await
            == "t"
    })
    .await;
    refused_with(&bank, 65, &["gave", "max_slot_wal_keep_size"]).await;
    let (_, said) = bank.check().await;
    bank.sql(between(&said, "drop it (", "). ")).await;
    comes_back_as_advised(&mut bank).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_a_slot_that_was_given_up_for_another_reason_is_told_with_what_helps_against_that() {
    // Servers give up slots that nobody reads since 18.
    for installation in &Installation::since(18) {
        let server = PostgresServer::start(Options::default().on(installation).set("idle_replication_slot_timeout", "1s"));
        let bank = Bank::new(&server, "unread", TABLE, ALL).await;
        bank.catch_up().await;
        let reason = format!(
            "SELECT invalidation_reason FROM pg_replication_slots WHERE slot_name = '{}'",
            bank.slot()
        );
        wait_until("the slot is given up", async || {
            bank.sql("CHECKPOINT").await;
            bank.value(&reason).await == "idle_timeout"
        })
        .await;
        refused_with(
            &bank,
            65,
            &["idle_timeout", "Raise idle_replication_slot_timeout", "failover => true"],
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_a_slot_that_another_process_reads_is_waited_for_and_everybody_is_told() {
    let mut bank = Bank::new(PostgresServer::shared(), "taken", TABLE, ALL).await;
    bank.catch_up().await;
    let mut first = bank.site.run("first", &bank.config);
    let slot = bank.slot();
    bank.server.until_read(&slot).await;
    let pid = bank.server.walsender(&slot).await;
    let (code, said) = bank.check().await;
    assert!(code == 0 && said.contains(&format!("pg_terminate_backend({pid})")), "{said}");
    let (code, said) = bank.refused().await;
    assert!(code == 75 && said.contains(&format!("active for PID {pid}")), "{code}: {said}");
    let port = free_port();
    bank.reconfigure_with(&http(port), ALL);
    let mut second = bank.site.run("second", &bank.config);
    let is_told = |(code, said): (u16, String)| code == 503 && said.contains(&format!("active for PID {pid}"));
    wait_until("it is told", async || get(port, "/readyz").is_some_and(is_told)).await;
    assert_eq!(bank.server.walsender(&slot).await, pid, "nobody takes it away");
    first.stop().await;
    bank.sql("INSERT INTO t VALUES (2)").await;
    let here = async || bank.here("SELECT id FROM public.t", &["public.t"]).await.concat();
    wait_until("the second one goes on", async || here().await == ["1", "2"]).await;
    wait_until("it is ready", async || get(port, "/readyz").is_some_and(|(code, _)| code == 200)).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_a_slot_that_another_process_is_making_is_no_slot_yet() {
    // A server of its own: a slot is made when all transactions of the server have ended that run.
    let server = PostgresServer::start(Options::default());
    let bank = Bank::new(&server, "making", TABLE, ALL).await;
    let long = server.client(&bank.database).await;
    long.batch_execute("BEGIN; SELECT txid_current()")
        .await
        .expect("a long transaction");
    let mut programs = Vec::new();
    for name in ["one", "other"] {
        programs.push(bank.site.run(name, &bank.config));
        server.until_read(&bank.slot()).await;
    }
    let [one, other] = &mut programs[..] else { panic!("two programs") };
    wait_until("the other one waits", async || {
        other.log_text().contains("another session makes the replication slot")
    })
    .await;
    // The first one gives up, and so does the server's process.
    one.kill().await;
    let maker = server.end_walsender(&bank.slot()).await;
    wait_until("the other one makes it", async || {
        ![maker.as_str(), ""].contains(&server.walsender(&bank.slot()).await.as_str())
    })
    .await;
    assert!(!other.log_text().contains("taking a consistent point"), "{}", other.log_tail());
    long.batch_execute("COMMIT").await.expect("the end");
    wait_until("the table is copied", async || {
        bank.here("SELECT id FROM public.t", &["public.t"]).await == [["1"]]
    })
    .await;
    other.stop().await;
    bank.agrees("SELECT id FROM public.t", &["public.t"]).await;
}

/// Writes to the table of [`TABLE`] without a pause until a program ends.
async fn written_to_until_the_end(bank: &Bank<'_>, program: &mut Program) -> Exit {
    for _ in 0..10_000 {
        bank.sql("INSERT INTO t SELECT max(id) + 1 FROM t").await;
        if let Some(exit) = program.poll() {
            return exit;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the program did not end:\n{}", program.log_tail());
}

/// A run that has the tables of the publication, and gets no answer any more until its proxy lets it.
async fn stalled_while_it_opens(bank: &Bank<'_>) -> (Program, Proxy) {
    let proxy = bank.behind_proxy().await;
    proxy.delay(Duration::from_millis(50));
    let program = bank.start();
    bank.server.until_asked(&bank.database, "t.typname::text").await;
    proxy.stall();
    (program, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_a_slot_that_moves_on_while_another_process_opens_its_tables_is_waited_for() {
    let mut bank = Bank::new(PostgresServer::shared(), "moving", TABLE, ALL).await;
    bank.catch_up().await;
    // The first one begins, publishes and tells the slot between two answers that the second one gets.
    let (mut second, proxy) = stalled_while_it_opens(&bank).await;
    bank.reconfigure(ALL);
    let mut first = bank.site.run("first", &bank.config);
    bank.server.until_read(&bank.slot()).await;
    bank.sql("INSERT INTO t VALUES (2)").await;
    bank.until_released().await;
    proxy.flow();
    let exit = written_to_until_the_end(&bank, &mut second).await;
    let said = second.log_text();
    assert!(
        exit.status.code() == Some(75) && said.contains("is active for PID"),
        "{}: {said}",
        exit.status
    );
    first.stop().await;
    bank.catch_up().await;
    bank.agrees("SELECT id FROM public.t", &["public.t"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_a_table_that_another_process_begins_while_this_one_opens_is_not_gone() {
    let lines = format!("{ALL}\ndiscovery = \"200 ms\"");
    let mut bank = Bank::new(PostgresServer::shared(), "begun", TABLE, &lines).await;
    bank.catch_up().await;
    let (mut second, proxy) = stalled_while_it_opens(&bank).await;
    bank.reconfigure(&lines);
    let mut first = bank.site.run("first", &bank.config);
    bank.server.until_read(&bank.slot()).await;
    bank.sql("CREATE TABLE l (v int)").await;
    bank.sql("INSERT INTO l VALUES (1)").await;
    let is_here = async || bank.here("SELECT v FROM public.l", &["public.l"]).await == [["1"]];
    wait_until("it is copied", is_here).await;
    proxy.flow();
    let exit = second.wait(Duration::from_secs(120)).await;
    assert_eq!(exit.status.code(), Some(75), "{}", second.log_text());
    first.stop().await;
    bank.sql("INSERT INTO l VALUES (2)").await;
    bank.catch_up().await;
    bank.agrees("SELECT v FROM public.l", &["public.l"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_finds_nothing_wrong_with_what_a_service_publishes_meanwhile() {
    let bank = Bank::new(PostgresServer::shared(), "serving", TABLE, ALL).await;
    bank.catch_up().await;
    let mut service = bank.site.run("service", &bank.config);
    bank.server.until_read(&bank.slot()).await;
    let proxy = bank.behind_proxy().await;
    proxy.delay(Duration::from_millis(100));
    let config = bank.config.to_str().expect("a path in UTF-8");
    let mut check = bank.site.start("check", &["check", "--config", config]);
    let exit = written_to_until_the_end(&bank, &mut check).await;
    assert!(exit.status.success(), "{}: {}", exit.status, check.log_text());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_takes_nothing_that_a_service_of_its_own_has_for_another_ones() {
    let few = Options::default().set("max_replication_slots", "2").set("max_wal_senders", "2");
    let server = PostgresServer::start(few);
    let bank = Bank::new(&server, "few", TABLE, ALL).await;
    bank.catch_up().await;
    let mut service = bank.site.run("service", &bank.config);
    server.until_read(&bank.slot()).await;
    let (code, said) = bank.check().await;
    assert_eq!(code, 0, "{said}");
    service.stop().await;
    // Another one's are.
    let other = Bank::new(&server, "others", TABLE, ALL).await;
    other.sql("SELECT pg_create_logical_replication_slot('more', 'pgoutput')").await;
    let (code, said) = other.check().await;
    assert!(code == 78 && said.contains("max_replication_slots"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_slot_that_another_program_moved_on_stops_the_tables_until_they_are_brought_back() {
    let mut bank = Bank::new(PostgresServer::shared(), "moved", BOTH, ALL).await;
    bank.catch_up().await;
    bank.sql("INSERT INTO t VALUES (2); INSERT INTO l VALUES (2)").await;
    let slot = bank.slot();
    bank.sql(&format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())"))
        .await;
    let words = [
        slot.as_str(),
        "`public.t` at ",
        "`public.l` at ",
        "read by another program",
        "alluvium resnapshot public.t",
    ];
    refused_with(&bank, 65, &words).await;
    comes_back_as_advised(&mut bank).await;
}

/// A table that is not published, one whose rows the publication's condition leaves out, and another database write what nobody is told of.
#[tokio::test(flavor = "multi_thread")]
async fn p13_an_idle_slot_moves_on_with_the_server() {
    let server = PostgresServer::shared();
    let tables = format!("{TABLE}; CREATE TABLE other (id int); CREATE TABLE filtered (id int PRIMARY KEY)");
    let bank = Bank::new(server, "idle", &tables, "follow = [\"public.*\"]").await;
    // Conditions are of PostgreSQL 15 and newer.
    let filtered = if server.version() >= 15 { ", filtered WHERE (id < 0)" } else { "" };
    bank.sql(&format!("CREATE PUBLICATION pub_{} FOR TABLE t{filtered}", bank.database))
        .await;
    bank.sql(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", bank.slot()))
        .await;
    bank.catch_up().await;
    let mut service = bank.site.run("service", &bank.config);
    let slot = bank.slot();
    server.until_read(&slot).await;
    let busy = server.database("busy").await;
    for (database, writes) in [
        (&bank.database, "INSERT INTO other SELECT generate_series(1, 10000)"),
        (&bank.database, "INSERT INTO filtered SELECT generate_series(1, 10000)"),
        (&busy, "CREATE TABLE t AS SELECT generate_series(1, 10000) AS id"),
    ] {
        server.sql(database, writes).await;
        bank.until_released().await;
    }
    service.stop().await;
    assert_eq!(bank.here("SELECT id FROM public.t", &["public.t"]).await, [["1"]]);
    assert!(bank.here("SELECT id FROM public.filtered", &["public.filtered"]).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_tell_how_far_the_slot_is_behind() {
    let mut bank = Bank::new(PostgresServer::shared(), "metrics", TABLE, ALL).await;
    bank.catch_up().await;
    let port = free_port();
    bank.reconfigure_with(&http(port), &format!("{ALL}\ndiscovery = \"200 ms\""));
    let program = bank.site.run("service", &bank.config);
    bank.sql("INSERT INTO t SELECT generate_series(2, 1000)").await;
    let of = format!("source=\"{}\"", bank.slot());
    wait_until("the slot has come to the end", async || {
        let lag = |stage: &str| labelled(port, "alluvium_pg_lag_bytes", &[&of, &format!("stage=\"{stage}\"")]);
        let retained = labelled(port, "alluvium_pg_slot_retained_wal_bytes", &[&of]);
        lag("received").is_some_and(|bytes| bytes < 10_000.0) && lag("committed").is_some() && retained.is_some_and(|bytes| bytes > 0.0)
    })
    .await;
    drop(program);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_of_another_server_is_refused() {
    let mut bank = Bank::new(PostgresServer::shared(), "elsewhere", TABLE, ALL).await;
    bank.catch_up().await;
    let other = PostgresServer::start(Options::default());
    other.sql("postgres", &format!("CREATE DATABASE {}", bank.database)).await;
    other.sql(&bank.database, TABLE).await;
    bank = Bank::on(&other, bank.parts());
    bank.reconfigure(ALL);
    let (code, said) = bank.refused().await;
    assert_eq!(code, 65, "{said}");
    assert!(said.contains("another server") && said.contains("public.t"), "{said}");
    // Now that they are published, it is seen before.
    refused_with(&bank, 65, &["another server", "public.t"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p24_check_prints_the_sql_for_all_that_is_missing_and_nothing_is_left_when_it_was_run() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE loose (v int)";
    let bank = Bank::new(PostgresServer::shared(), "checked", sql, "follow = [\"public.*\"]").await;
    let (code, said) = bank.check().await;
    assert_eq!(code, 78, "{said}");
    let statement = said
        .split("Run: ")
        .find(|text| text.starts_with("CREATE PUBLICATION"))
        .expect("a statement");
    bank.sql(statement.split(';').next().expect("its text")).await;
    let slot = said
        .split("Run: ")
        .find(|text| text.starts_with("SELECT pg_create"))
        .expect("a statement");
    bank.sql(slot.split(';').next().expect("its text")).await;
    let (code, said) = bank.check().await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("B of WAL to read up to 0/"), "{said}");
    assert!(
        said.contains("REPLICA IDENTITY FULL") && said.contains("upsert by id") && said.contains("will be created"),
        "{said}"
    );
    bank.catch_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_of_each_table_what_a_run_would_do_with_it() {
    let sql = format!("{TABLE}; CREATE TABLE bent (id int PRIMARY KEY, \"a b\" int); CREATE TABLE u (id int PRIMARY KEY)");
    let bank = Bank::new(PostgresServer::shared(), "told", &sql, ALL).await;
    let (code, said) = bank.check().await;
    assert_eq!(code, 78, "{said}");
    for (table, then) in [
        ("public.t", "copies it"),
        ("public.bent", "stops it there"),
        ("public.u", "copies it"),
    ] {
        let told = format!("{table}: a run adds it to the publication when it starts, and {then}");
        assert!(said.contains(&told), "{told}: {said}");
    }
    let _ = bank.refused().await;
    bank.sql("CREATE TABLE later (id int PRIMARY KEY)").await;
    let (code, said) = bank.check().await;
    assert_eq!(code, 78, "{said}");
    for line in [
        "public.bent: WRONG",
        "public.t (upsert by id)",
        "public.u (upsert by id)",
        "public.later: a run adds it",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("/relation/"), "{said}");
    assert_eq!(bank.resnapshot("public.u").await, Some(0));
    assert!(bank.check().await.1.contains("will be loaded again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn p24_check_prints_the_sql_for_a_role_that_may_not_replicate() {
    let bank = Bank::new(PostgresServer::shared(), "plain", TABLE, ALL).await;
    let role = format!("plain_{}", bank.database);
    bank.sql(&format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON t TO {role}")).await;
    let text = std::fs::read_to_string(&bank.config).expect("the configuration");
    std::fs::write(&bank.config, text.replace("postgres@", &format!("{role}@"))).expect("the configuration");
    let (code, said) = bank.check().await;
    assert_ne!(code, 0, "{said}");
    assert!(said.contains("ALTER ROLE") && said.contains("REPLICATION"), "{said}");
}
