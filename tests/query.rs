//! SQL over tables at a moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium::error::{Error, Kind};
use alluvium::log::{Change, Log, When};
use alluvium::query::{Named, query};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use crate::support::delta::{PIPELINE, append_table, change, data_file, mark, opened, row_numbers, upsert_table, url};

/// Two tables of one lane: `Orders` is upserted, `audit` only grows and is one step behind.
async fn lake() -> (Vec<Named>, Log) {
    let (orders, audit): (Arc<dyn ObjectStore>, Arc<dyn ObjectStore>) = (Arc::new(InMemory::new()), Arc::new(InMemory::new()));
    let mut log = opened(&orders, &upsert_table()).await;
    let first = data_file(&orders, 0..10, "a").await;
    log.commit(&Change {
        adds: vec![first.clone()],
        ..change(None, 9)
    })
    .await
    .expect("a commit");
    let vectors = BTreeMap::from([(first.path, row_numbers(0..5))]);
    log.commit(&Change {
        adds: vec![data_file(&orders, 0..3, "b").await],
        vectors,
        ..change(Some(9), 14)
    })
    .await
    .expect("a commit");
    let mut grown = opened(&audit, &append_table()).await;
    grown
        .commit(&Change {
            adds: vec![data_file(&audit, 0..10, "a").await],
            ..change(None, 9)
        })
        .await
        .expect("a commit");
    let named = |name: &str, store| Named {
        name: name.to_owned(),
        url: url(),
        store,
    };
    (vec![named("Orders", orders), named("audit", audit)], log)
}

async fn text(sql: &str, tables: &[Named], when: &When) -> Result<String, Error> {
    let batches = query(sql, tables, when).await?.collect().await?;
    Ok(arrow::util::pretty::pretty_format_batches(&batches).expect("text").to_string())
}

#[tokio::test]
async fn a_table_is_read_as_it_was_by_version_time_and_position() {
    let (tables, log) = lake().await;
    let sql = r#"select count(*) as n, min(v) as v from "Orders""#;
    let made = log.history(10).await.expect("a history");
    for (when, says) in [
        (When::Latest, "| 8 | a5 |"),
        (When::Version(1), "| 10 | a0 |"),
        (When::Time(made[1].timestamp_ms), "| 10 | a0 |"),
        (When::Mark(mark(&[("orders/0", 3)])), "| 10 | a0 |"),
        (When::Mark(mark(&[("orders/0", 10)])), "| 8 | a5 |"),
    ] {
        let text = text(sql, &tables, &when).await.expect("an answer");
        assert!(
            text.split_whitespace().collect::<Vec<_>>().join(" ").contains(says),
            "{when:?}: {text}"
        );
    }
}

#[tokio::test]
async fn several_tables_are_read_at_one_position_or_not_at_all() {
    let (tables, _) = lake().await;
    let sql = r#"select count(*) as n from "Orders" o join audit a on o.id = a.id"#;
    let both = When::Mark(mark(&[("orders/0", 9)]));
    assert!(text(sql, &tables, &both).await.expect("an answer").contains("10"));
    let error = text(sql, &tables, &When::Mark(mark(&[("orders/0", 14)])))
        .await
        .expect_err("one table is behind");
    assert_eq!((error.kind, error.code), (Kind::Transient, "not_yet"));
    assert!(
        error.to_string().contains("it holds orders/0:9"),
        "it says how far the table is: {error}"
    );
}

#[tokio::test]
async fn only_the_tables_that_the_query_names_are_opened() {
    let (mut tables, _) = lake().await;
    tables.push(Named {
        name: "empty".to_owned(),
        url: url(),
        store: Arc::new(InMemory::new()),
    });
    let rows = query("with empty as (select 1 as one) select * from audit, empty", &tables, &When::Latest)
        .await
        .expect("a plan");
    assert_eq!(rows.versions, [("audit".to_owned(), 1)]);
    let error = text("select * from empty", &tables, &When::Latest)
        .await
        .expect_err("no table there");
    assert!(
        error.kind == Kind::Config && error.to_string().contains("no table `empty`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_query_that_makes_no_sense_says_why() {
    let (tables, _) = lake().await;
    for (sql, says) in [
        ("select * from audti", "did you mean `audit`?"),
        ("selec 1", "selec"),
        ("select nothing from audit", "nothing"),
        ("create table x as select 1", "only read"),
        ("insert into audit values (1, 'x')", "only read"),
        ("copy audit to '/tmp/out.parquet'", "only read"),
        ("select 1; select 2", "single"),
    ] {
        let error = text(sql, &tables, &When::Latest).await.expect_err(sql);
        assert_eq!(error.kind, Kind::Config, "{sql}: {error}");
        assert!(error.to_string().to_lowercase().contains(&says.to_lowercase()), "{sql}: {error}");
    }
    assert!(
        Log::open(&url(), Arc::clone(&tables[1].store), PIPELINE)
            .await
            .expect("opens")
            .expect("a table")
            .snapshot()
            .version
            == 1
    );
}
