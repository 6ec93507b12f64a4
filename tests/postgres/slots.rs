//! The slot: what it is told, and what happens when it is not what the tables need.

use crate::support::bank::Bank;
use crate::support::postgres::{Options, PostgresServer, wait_until};
use crate::support::program::{free_port, http, labelled};

const ALL: &str = "create = true\nfollow = [\"public.*\"]";
const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";

/// A run is refused so, and a look says it before.
async fn refused_with(bank: &Bank<'_>, code: i32, words: &[&str]) {
    for (exit, said) in [bank.check().await, bank.refused().await] {
        assert_eq!(exit, code, "{said}");
        for word in words {
            assert!(said.contains(word), "`{word}` is missing:\n{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named_with_the_sql_that_makes_it() {
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
    let bank = Bank::new(&server, "lost", TABLE, ALL).await;
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
            "SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{}'",
            bank.slot()
        ))
        .await
            == "lost"
    })
    .await;
    refused_with(&bank, 65, &["gave", "max_slot_wal_keep_size"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p13_an_idle_slot_moves_on_with_the_server() {
    let bank = Bank::new(
        PostgresServer::shared(),
        "idle",
        &format!("{TABLE}; CREATE TABLE other (id int)"),
        "create = true\nfollow = [\"public.t\"]",
    )
    .await;
    bank.catch_up().await;
    let program = bank.site.run("service", &bank.config);
    bank.sql("INSERT INTO other SELECT generate_series(1, 10000)").await;
    bank.until_released().await;
    drop(program);
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
    let (database, site) = (bank.database, bank.site);
    bank = Bank {
        server: &other,
        database,
        config: site.path("bank.toml"),
        site,
    };
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
    assert_eq!(code, 0, "{said}");
    for table in ["public.t", "public.bent", "public.u"] {
        assert!(said.contains(&format!("{table}: a run adds it to the publication")), "{said}");
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
async fn check_prints_the_sql_for_a_role_that_may_not_replicate() {
    let bank = Bank::new(PostgresServer::shared(), "plain", TABLE, ALL).await;
    let role = format!("plain_{}", bank.database);
    bank.sql(&format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON t TO {role}")).await;
    let text = std::fs::read_to_string(&bank.config).expect("the configuration");
    std::fs::write(&bank.config, text.replace("postgres@", &format!("{role}@"))).expect("the configuration");
    let (code, said) = bank.check().await;
    assert_ne!(code, 0, "{said}");
    assert!(said.contains("ALTER ROLE") && said.contains("REPLICATION"), "{said}");
}
