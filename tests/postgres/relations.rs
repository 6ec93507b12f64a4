//! Tables that are dropped and made anew, or out of the publication for a while: what they hold is copied again, for no change tells it.

use std::time::Duration;

use alluvium::error::Kind;
use alluvium::sources::postgres::catalog;

use crate::support::bank::Bank;
use crate::support::postgres::{PostgresServer, wait_until};
use crate::support::program::{free_port, get, http, status};

const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'old'), (2, 'old'); \
    CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1)";
const T: &str = "SELECT * FROM public.t";
const DROPPED: &str = "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (10, 'new')";
const RENAMED: &str = "ALTER TABLE t RENAME TO gone; CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (10, 'new')";
const OUT: &str = "ALTER PUBLICATION {pub} DROP TABLE t; UPDATE t SET v = 'untold'; DELETE FROM t WHERE id = 2";
const ANEW: &str = "DROP PUBLICATION {pub}; UPDATE t SET v = 'untold'";

async fn bank(name: &str) -> Bank<'static> {
    let lines = "create = true\ndiscovery = \"200 ms\"\nfollow = [\"public.t\", \"public.other\"]";
    let bank = Bank::new(PostgresServer::shared(), name, TABLES, lines).await;
    bank.catch_up().await;
    bank
}

async fn happens(bank: &Bank<'_>, sql: &str) {
    bank.sql(&sql.replace("{pub}", &format!("pub_{}", bank.database))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_became_another_one_meanwhile_is_copied_again() {
    for sql in [DROPPED, RENAMED, OUT, ANEW] {
        let bank = bank("meanwhile").await;
        happens(&bank, sql).await;
        bank.sql("INSERT INTO t VALUES (11, 'later'); INSERT INTO other VALUES (3)").await;
        bank.catch_up().await;
        bank.agrees(T, &["public.t"]).await;
        bank.agrees("SELECT * FROM public.other", &["public.other"]).await;
        bank.catch_up().await;
        assert_eq!(bank.copied_again("public.t"), 1, "it is copied once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_becomes_another_one_before_our_eyes_is_copied_again() {
    for sql in [DROPPED, RENAMED, OUT, ANEW] {
        let bank = bank("eyes").await;
        let mut service = bank.site.run("service", &bank.config);
        bank.sql("INSERT INTO other VALUES (2)").await;
        bank.until_released().await;
        happens(&bank, sql).await;
        let there = bank.there(T).await;
        wait_until("the copy is there", async || bank.here(T, &["public.t"]).await == there).await;
        bank.sql("INSERT INTO t VALUES (11, 'later')").await;
        let there = bank.there(T).await;
        wait_until("it is followed", async || bank.here(T, &["public.t"]).await == there).await;
        service.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_all_changes_that_became_another_one_stops_and_the_others_go_on() {
    let lines = "create = true\nfollow = [\"public.other\"]\n\
                 [pipelines.bank.tables.t]\ntable = \"public.t\"\nmode = \"append\"\nmetadata = [\"__op\"]";
    for sql in [DROPPED, OUT] {
        let bank = Bank::new(PostgresServer::shared(), "kept", TABLES, lines).await;
        bank.catch_up().await;
        happens(&bank, sql).await;
        bank.sql("INSERT INTO other VALUES (3)").await;
        let (code, said) = bank.refused().await;
        assert_eq!(code, 65, "{said}");
        assert!(
            said.contains("relation_changed") && said.contains("name another `location`"),
            "{said}"
        );
        assert_eq!(bank.here("SELECT id, v FROM t", &["t"]).await, [["1", "old"], ["2", "old"]]);
        bank.agrees("SELECT * FROM public.other", &["public.other"]).await;
    }
}

/// What `/status` says that has stopped a table, or `nothing`.
fn stopped(port: u16, table: &str) -> Option<String> {
    let told = status(port)?;
    let why = told["pipelines"]["bank"]["tables"][table]["stopped"].as_str();
    Some(why.unwrap_or("nothing").to_owned())
}

async fn is_ready(port: u16) {
    wait_until("it is ready", async || get(port, "/readyz").is_some_and(|(code, _)| code == 200)).await;
}

/// A service that puts nothing into the publication, where it follows what is there.
async fn watched(name: &str, tables: &str, lines: &str) -> (Bank<'static>, u16) {
    let mut bank = Bank::new(PostgresServer::shared(), name, tables, &format!("create = true\n{lines}")).await;
    bank.catch_up().await;
    let port = free_port();
    bank.reconfigure_with(&http(port), &format!("discovery = \"200 ms\"\n{lines}"));
    (bank, port)
}

/// Somebody may have meant it, so nothing waits for help.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_source_is_gone_is_named_while_that_is_so() {
    for (sql, back) in GONE {
        let (bank, port) = watched("gone", TABLES, "follow = [\"public.*\"]").await;
        let mut service = bank.site.run("service", &bank.config);
        is_ready(port).await;
        happens(&bank, sql).await;
        let why = "its source is gone";
        wait_until("it is told", async || {
            stopped(port, "public.t").is_some_and(|told| told.contains(why))
        })
        .await;
        assert_eq!(stopped(port, "public.other").as_deref(), Some("nothing"));
        is_ready(port).await;
        let said = service.log_text();
        assert!(said.contains("\"public.t\"") && said.matches(why).count() == 1, "{said}");
        assert_eq!(bank.here("SELECT id FROM public.t", &["public.t"]).await, [["1"], ["2"]]);
        happens(&bank, back).await;
        let there = bank.there(T).await;
        wait_until("it is copied again", async || bank.here(T, &["public.t"]).await == there).await;
        assert_eq!(stopped(port, "public.t").as_deref(), Some("nothing"));
        service.stop().await;
    }
}

/// What takes a table away, and what brings it back.
const GONE: [(&str, &str); 2] = [
    (
        "DROP TABLE t",
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (10, 'new'); ALTER PUBLICATION {pub} ADD TABLE t",
    ),
    (OUT, "ALTER PUBLICATION {pub} ADD TABLE t"),
];

/// The configuration names it, so somebody has to say whether it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_a_section_that_is_gone_stops_alone_until_it_is_there_again() {
    let lines = "follow = [\"public.other\"]\n[pipelines.bank.tables.t]\ntable = \"public.t\"";
    let (bank, port) = watched("missing", TABLES, lines).await;
    let (there, here) = ("SELECT id, v FROM public.t", "SELECT id, v FROM t");
    let why = "take [pipelines.bank.tables.t] out of the configuration";
    for (sql, back) in GONE {
        let mut service = bank.site.run("service", &bank.config);
        is_ready(port).await;
        happens(&bank, sql).await;
        wait_until("it is told", async || {
            let is_told = |(code, said): (u16, String)| code == 503 && said.contains("table t has stopped") && said.contains(why);
            get(port, "/readyz").is_some_and(is_told)
        })
        .await;
        bank.sql("INSERT INTO other SELECT 1 + count(*) FROM other").await;
        bank.until_released().await;
        bank.agrees("SELECT * FROM public.other", &["public.other"]).await;
        let said = service.log_text();
        assert!(
            said.contains("the table stopped; the others go on") && !said.contains("its source is gone"),
            "{said}"
        );
        happens(&bank, back).await;
        let rows = bank.there(there).await;
        wait_until("it is copied again", async || bank.here(here, &["t"]).await == rows).await;
        is_ready(port).await;
        service.stop().await;
    }
    // It is the same for a run that begins when it is gone.
    happens(&bank, "DROP TABLE t; INSERT INTO other SELECT 1 + count(*) FROM other").await;
    let (code, said) = bank.refused().await;
    assert!(code == 78 && said.contains(why), "{code}: {said}");
    bank.agrees("SELECT * FROM public.other", &["public.other"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_with_sections_that_were_never_there_are_named_all_at_once() {
    let section = |name: &str| format!("[pipelines.bank.tables.{name}]\ntable = \"public.{name}\"\n");
    let lines = format!("create = true\nfollow = [\"public.other\"]\n{}{}", section("one"), section("two"));
    let bank = Bank::new(PostgresServer::shared(), "never", TABLES, &lines).await;
    let (code, said) = bank.refused().await;
    let all = "does not have \\\"public\\\".\\\"one\\\", \\\"public\\\".\\\"two\\\"";
    assert!(code == 78 && said.contains(all), "{code}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_has_stopped_needs_nobody_when_its_source_is_gone() {
    let tables = "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE loose (v int); INSERT INTO loose VALUES (1)";
    let (bank, port) = watched("loose", tables, "follow = [\"public.*\"]").await;
    let mut service = bank.site.run("service", &bank.config);
    is_ready(port).await;
    // It has no key, so its Delta table holds inserts alone.
    bank.sql("UPDATE loose SET v = 2").await;
    wait_until("it stops", async || {
        get(port, "/readyz").is_some_and(|(code, said)| code == 503 && said.contains("public.loose has stopped"))
    })
    .await;
    bank.sql("DROP TABLE loose").await;
    is_ready(port).await;
    bank.sql("INSERT INTO t VALUES (1)").await;
    // The server keeps nothing for it any more.
    bank.until_released().await;
    service.stop().await;
}

/// What a table is for a while, with changes meanwhile; it is what it was when anybody looks.
const AWAY: [&str; 4] = [
    "BEGIN; ALTER TABLE t RENAME TO away; UPDATE away SET v = 'fixed' WHERE id = 1; DELETE FROM away WHERE id = 2; ALTER TABLE away RENAME TO t; COMMIT",
    "ALTER TABLE t SET SCHEMA aside; UPDATE aside.t SET v = 'aside' WHERE id = 1; ALTER TABLE aside.t SET SCHEMA public; INSERT INTO t VALUES (3, 'later')",
    "BEGIN; ALTER TABLE t RENAME v TO vv; UPDATE t SET vv = 'renamed' WHERE id = 1; ALTER TABLE t RENAME vv TO v; COMMIT; INSERT INTO t VALUES (4, 'later')",
    "ALTER TABLE t ADD w text; INSERT INTO t VALUES (5, 'v', 'w'); BEGIN; ALTER TABLE t RENAME v TO x; ALTER TABLE t RENAME w TO v; ALTER TABLE t RENAME x TO w; \
     INSERT INTO t VALUES (6, 'w', 'v'); ALTER TABLE t RENAME v TO x; ALTER TABLE t RENAME w TO v; ALTER TABLE t RENAME x TO w; COMMIT",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_table_and_its_columns_have_other_names_for_a_while() {
    for is_watched in [true, false] {
        let bank = bank("away").await;
        bank.sql("CREATE SCHEMA aside").await;
        let mut service = is_watched.then(|| bank.site.run("service", &bank.config));
        for sql in AWAY {
            if is_watched {
                bank.sql("INSERT INTO other SELECT 1 + count(*) FROM other").await;
                bank.until_released().await;
            }
            bank.sql(sql).await;
            let there = bank.there(T).await;
            if is_watched {
                wait_until(sql, async || bank.here(T, &["public.t"]).await == there).await;
            } else {
                bank.catch_up().await;
                bank.agrees(T, &["public.t"]).await;
            }
        }
        if let Some(service) = &mut service {
            service.stop().await;
        }
    }
}

/// A publication of all tables has them whatever becomes of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_gone_for_a_while_is_copied_again_and_the_others_go_on() {
    let bank = Bank::new(
        PostgresServer::shared(),
        "gone",
        TABLES,
        "create = true\ndiscovery = \"200 ms\"\nfollow = [\"public.*\"]",
    )
    .await;
    happens(
        &bank,
        "CREATE PUBLICATION {pub} FOR ALL TABLES WITH (publish_via_partition_root = true)",
    )
    .await;
    bank.catch_up().await;
    for is_watched in [true, false] {
        let mut service = is_watched.then(|| bank.site.run("service", &bank.config));
        bank.sql("ALTER TABLE t SET UNLOGGED; UPDATE t SET v = v || '!'; INSERT INTO other SELECT 1 + count(*) FROM other")
            .await;
        match &service {
            Some(service) => wait_until("it is gone", async || service.log_text().contains("its source is gone")).await,
            None => bank.catch_up().await,
        }
        bank.sql("INSERT INTO other SELECT 1 + count(*) FROM other").await;
        if is_watched {
            bank.until_released().await;
        }
        bank.sql("DELETE FROM t WHERE id = 2; ALTER TABLE t SET LOGGED; UPDATE t SET v = v || '?'; INSERT INTO other SELECT 1 + count(*) FROM other")
            .await;
        if let Some(service) = &mut service {
            let there = bank.there(T).await;
            wait_until("the copy is there", async || bank.here(T, &["public.t"]).await == there).await;
            service.stop().await;
        } else {
            // What it lacks, the slot is past by now; a copy does not ask for it.
            let (code, said) = bank.check().await;
            assert_eq!(code, 0, "{said}");
        }
        bank.catch_up().await;
        bank.agrees(T, &["public.t"]).await;
        bank.agrees("SELECT * FROM public.other", &["public.other"]).await;
    }
    assert_eq!(bank.copied_again("public.t"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_between_two_answers_of_the_catalog_is_no_table_without_columns() {
    let server = PostgresServer::shared();
    let database = server.database("answers").await;
    server.sql(&database, "CREATE PUBLICATION p FOR ALL TABLES").await;
    let (_proxy, session) = server.slow_session(&database, Duration::from_millis(20)).await;
    let mut was_between = false;
    for step in 0..40 {
        server.sql(&database, "CREATE TABLE t (id int PRIMARY KEY)").await;
        let (tables, ()) = tokio::join!(catalog::tables(&session, "p"), async {
            tokio::time::sleep(Duration::from_millis(10) * step).await;
            server.sql(&database, "DROP TABLE t").await;
        });
        match tables {
            Ok(tables) => assert!(tables.iter().all(|table| table.columns.len() == 1), "{step}: {tables:?}"),
            Err(error) => {
                assert_eq!((error.kind, error.code), (Kind::Transient, "table_changed"), "{step}: {error}");
                was_between = true;
            }
        }
    }
    assert!(was_between, "it was never dropped between two answers");
}
