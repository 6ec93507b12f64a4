//! Tables that are dropped and made anew, or out of the publication for a while: what they hold is copied again, for no change tells it.

use crate::support::bank::Bank;
use crate::support::postgres::{PostgresServer, wait_until};

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
    // Without a publication the server sends nothing at all: that stops the pipeline.
    for sql in [DROPPED, RENAMED, OUT] {
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
async fn a_table_of_all_changes_that_became_another_one_stops() {
    let lines = "create = true\n[pipelines.bank.tables.t]\ntable = \"public.t\"\nmode = \"append\"\nmetadata = [\"__op\"]";
    let bank = Bank::new(PostgresServer::shared(), "kept", TABLES, lines).await;
    bank.catch_up().await;
    bank.sql(DROPPED).await;
    let (code, said) = bank.refused().await;
    assert_eq!(code, 65, "{said}");
    assert!(
        said.contains("relation_changed") && said.contains("name another `location`"),
        "{said}"
    );
    assert_eq!(bank.here("SELECT id, v FROM t", &["t"]).await, [["1", "old"], ["2", "old"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_source_is_gone_is_named() {
    let bank = Bank::new(
        PostgresServer::shared(),
        "gone",
        TABLES,
        "create = true\ndiscovery = \"200 ms\"\nfollow = [\"public.*\"]",
    )
    .await;
    bank.catch_up().await;
    let mut service = bank.site.run("service", &bank.config);
    happens(&bank, "DROP TABLE t").await;
    wait_until("it is said", async || service.log_text().contains("its source is gone")).await;
    service.kill().await;
    let said = service.log_text();
    assert!(
        said.contains("\"public.t\"") && !said.contains("\"public.other\",\"its source"),
        "{said}"
    );
    assert_eq!(bank.here("SELECT id FROM public.t", &["public.t"]).await, [["1"], ["2"]]);
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
        }
        bank.catch_up().await;
        bank.agrees(T, &["public.t"]).await;
        bank.agrees("SELECT * FROM public.other", &["public.other"]).await;
    }
    assert_eq!(bank.copied_again("public.t"), 2);
}
