//! Tables with whatever names Postgres allows: each is a Delta table of its own, which a query finds by the name that it has in SQL.

use std::time::Duration;

use crate::support::bank::Bank;
use crate::support::postgres::PostgresServer;

const TABLES: &[&str] = &[
    "\"x.y\".z",
    "x.\"y.z\"",
    "\"schön {x}\".\"grün\"",
    "public.a",
    "public.\"a/b\"",
    "public.\"a%2Fb\"",
    "public.\".\"",
    "public.\"..\"",
    "public._delta_log",
    "public.\"Ünï 日\"",
    "public.\"a?b#c\"",
    "public.\"a?b#d\"",
    "public.\"q\"\"uote\"",
    "public.\"select\"",
    "public.\"A\"",
    "public.\"back\\slash\"",
    "public.\"x\"\";DROP TABLE a;--\"",
    "\"S\"\";DROP\\ü\".t",
    // As many bytes as Postgres takes: 63.
    "public.n23456789_123456789_123456789_123456789_123456789_123456789_123",
    "public.\"日日日日日日日日日日日日日日日日日日日日日\"",
];
/// What Delta can have as columns, of the same kinds.
const COLUMNS: [&str; 6] = [
    "\"Key\"\"\\é\"",
    "\"it's\"\"$1\\\"",
    "\"\"\"DROP\"",
    "\"UPPER\"",
    "n23456789_123456789_123456789_123456789_123456789_123456789_123",
    "\"日日日日日日日日日日日日日日日日日日日日日\"",
];

/// What `alluvium query` prints.
async fn asked(bank: &Bank<'_>, sql: &str) -> String {
    let config = bank.config.to_str().expect("a path");
    let mut program = bank.site.start("query", &["query", "--format", "json", "--config", config, sql]);
    let exit = program.wait(Duration::from_secs(120)).await;
    assert!(exit.status.success(), "{sql}: {}", program.log_tail());
    program.log_text().lines().last().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn p22_tables_of_any_name_are_tables_of_their_own() {
    let table = |(number, name): (usize, &&str)| {
        format!("CREATE TABLE {name} (id int PRIMARY KEY, v text); INSERT INTO {name} VALUES (1, '{number}');")
    };
    let tables: String = TABLES.iter().enumerate().map(table).collect();
    let schemas = "CREATE SCHEMA \"x.y\"; CREATE SCHEMA x; CREATE SCHEMA \"schön {x}\"; CREATE SCHEMA \"S\"\";DROP\\ü\"";
    let sql = format!("{schemas}; {tables} CREATE TABLE nothing ()");
    let bank = Bank::new(PostgresServer::shared(), "names", &sql, "create = true\nfollow = [\"*.*\"]").await;
    let (code, said) = bank.check().await;
    assert!(
        code == 78 && said.contains("\"public\".\"nothing\" has no columns that are published"),
        "{code}: {said}"
    );
    assert!(!said.contains("table public.nothing: a run adds it"), "{said}");
    let (code, said) = bank.refused().await;
    assert_eq!(code, 78, "{said}");
    assert!(
        said.contains("`public.nothing` has no columns"),
        "it stops, and the others go on: {said}"
    );
    for name in TABLES {
        bank.sql(&format!("UPDATE {name} SET v = v || '!'")).await;
    }
    bank.refused().await;
    for (number, name) in TABLES.iter().enumerate() {
        let here = asked(&bank, &format!("SELECT v FROM {name}")).await;
        assert_eq!(here, format!(r#"{{"v":"{number}!"}}"#), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tables_that_cannot_be_followed_stop_together_and_hold_up_no_other() {
    let bad: String = (0..40)
        .map(|number| format!("CREATE TABLE bad_{number} (id int PRIMARY KEY, \"a b\" int);"))
        .collect();
    let sql = format!("{bad} CREATE TABLE good (id int PRIMARY KEY); INSERT INTO good VALUES (1)");
    let bank = Bank::new(PostgresServer::shared(), "many", &sql, "create = true\nfollow = [\"public.*\"]").await;
    let (code, said) = bank.refused().await;
    assert_eq!(code, 78, "{said}");
    assert_eq!(said.matches("the table stopped; the others go on").count(), 40, "{said}");
    bank.agrees("SELECT id FROM public.good", &["public.good"]).await;
    // The server is asked for all of them at once, in a few sessions: to open the pipeline anew for each takes one for each.
    let counted = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()";
    let sessions = bank.value(counted).await;
    assert!(sessions.parse::<u32>().expect("a number") < 30, "{sessions} sessions: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_would_lie_around_another_stops_alone() {
    let sql = "CREATE TABLE around (id int PRIMARY KEY); CREATE TABLE within (id int PRIMARY KEY); CREATE TABLE good (id int PRIMARY KEY); \
               INSERT INTO good VALUES (1)";
    let lines = "create = true\nfollow = [\"public.*\"]\n[pipelines.bank.tables.inner]\ntable = \"public.within\"\nlocation = \"{dir}/lake/public/around/in\"";
    let bank = Bank::new(PostgresServer::shared(), "nested", sql, lines).await;
    for (code, said) in [bank.check().await, bank.refused().await, bank.check().await] {
        assert_eq!(code, 78, "{said}");
        assert!(
            said.contains("public.around would lie at ") && said.contains("`pipelines.bank.tables.inner` lies there, too"),
            "{said}"
        );
    }
    bank.agrees("SELECT id FROM public.good", &["public.good"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_are_named_like_metadata_are_columns_as_others_are() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, \"__op\" text, \"__lsn\" bigint, v text); INSERT INTO t VALUES (1, 'a', 7, 'b')";
    let bank = Bank::new(PostgresServer::shared(), "metadata", sql, "create = true\nfollow = [\"public.t\"]").await;
    bank.catch_up().await;
    bank.sql("UPDATE t SET \"__op\" = 'c', v = 'd'; INSERT INTO t VALUES (2, 'e', 8, 'f')")
        .await;
    bank.catch_up().await;
    bank.agrees("SELECT * FROM public.t", &["public.t"]).await;
    assert_eq!(bank.copied_again("public.t"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn p22_columns_of_any_name_that_delta_can_have_are_copied_and_followed() {
    let [key, second, third, ..] = COLUMNS;
    let (columns, all) = (COLUMNS.map(|name| format!("{name} text")).join(", "), COLUMNS.join(", "));
    let sql = format!(
        "CREATE TABLE t ({columns}, PRIMARY KEY ({key})); INSERT INTO t SELECT i, 'b', 'c', 'd', 'e', 'f' FROM generate_series(1, 4) i"
    );
    let bank = Bank::new(PostgresServer::shared(), "columns", &sql, "create = true\nfollow = [\"public.t\"]").await;
    bank.catch_up().await;
    bank.sql(&format!(
        "UPDATE t SET {second} = 'changed', {third} = NULL WHERE {key} = '1'; UPDATE t SET {key} = '20' WHERE {key} = '2'; \
         DELETE FROM t WHERE {key} = '3'; INSERT INTO t VALUES ('5', 'b', 'c', 'd', 'e', 'f')"
    ))
    .await;
    bank.catch_up().await;
    bank.agrees(&format!("SELECT {all} FROM public.t"), &["public.t"]).await;
    assert_eq!(bank.copied_again("public.t"), 0);
}
