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
];

/// What `alluvium query` prints.
async fn asked(bank: &Bank<'_>, sql: &str) -> String {
    let config = bank.config.to_str().expect("a path");
    let mut program = bank.site.start("query", &["query", "--format", "json", "--config", config, sql]);
    let exit = program.wait(Duration::from_secs(30)).await;
    assert!(exit.status.success(), "{sql}: {}", program.log_tail());
    program.log_text().lines().last().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_any_name_are_tables_of_their_own() {
    let table = |(number, name): (usize, &&str)| {
        format!("CREATE TABLE {name} (id int PRIMARY KEY, v text); INSERT INTO {name} VALUES (1, '{number}');")
    };
    let tables: String = TABLES.iter().enumerate().map(table).collect();
    let sql = format!("CREATE SCHEMA \"x.y\"; CREATE SCHEMA x; CREATE SCHEMA \"schön {{x}}\"; {tables} CREATE TABLE nothing ()");
    let bank = Bank::new(PostgresServer::shared(), "names", &sql, "create = true\nfollow = [\"*.*\"]").await;
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
    let begun = tokio::time::Instant::now();
    let (code, said) = bank.refused().await;
    let took = begun.elapsed();
    assert_eq!(code, 78, "{said}");
    assert_eq!(said.matches("the table stopped; the others go on").count(), 40, "{said}");
    bank.agrees("SELECT id FROM public.good", &["public.good"]).await;
    // The server is asked for all of them at once, which takes a second or two: to open the pipeline anew for each takes twenty.
    assert!(took < Duration::from_secs(18), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_would_lie_around_another_stops_alone() {
    let sql = "CREATE TABLE around (id int PRIMARY KEY); CREATE TABLE within (id int PRIMARY KEY); CREATE TABLE good (id int PRIMARY KEY); \
               INSERT INTO good VALUES (1)";
    let lines = "create = true\nfollow = [\"public.*\"]\n[pipelines.bank.tables.inner]\ntable = \"public.within\"\nlocation = \"{dir}/lake/public/around/in\"";
    let bank = Bank::new(PostgresServer::shared(), "nested", sql, lines).await;
    // What is to be seen of a table is seen once it is published.
    for (code, said) in [bank.refused().await, bank.check().await] {
        assert_eq!(code, 78, "{said}");
        assert!(
            said.contains("public.around would lie at ") && said.contains("`pipelines.bank.tables.inner` lies there, too"),
            "{said}"
        );
    }
    bank.agrees("SELECT id FROM public.good", &["public.good"]).await;
}
