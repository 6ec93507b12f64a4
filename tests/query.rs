//! SQL over tables at a moment.

mod branches;
mod casts;
mod exact;
mod extremes;
mod filters;
mod floats;
mod frames;
mod nulls;
mod zones;

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium::error::{Error, Kind};
use alluvium::log::{Change, Log, When, maintain};
use alluvium::query::{Named, query};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::support::delta::{
    COLUMNS, PIPELINE, append_table, by_hand, change, data_file, library, mark, opened, row_numbers, rows_of, upsert_table, url,
};

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

/// The same with one blank between words, however wide its columns are.
async fn words(sql: &str, tables: &[Named], when: &When) -> Result<String, Error> {
    let text = text(sql, tables, when).await?;
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A query of the newest rows has these words among its answer's.
async fn answer_has(sql: &str, tables: &[Named], says: &str) {
    let words = words(sql, tables, &When::Latest).await;
    assert!(words.as_ref().is_ok_and(|words| words.contains(says)), "{sql}: {words:?}");
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
        let words = words(sql, &tables, &when).await.expect("an answer");
        assert!(words.contains(says), "{when:?}: {words}");
    }
}

#[tokio::test]
async fn what_stands_beside_the_commits_of_a_log_is_a_hint_and_no_more() {
    let at = |name: &str| Path::from(format!("_delta_log/{name}"));
    let hint = "_last_checkpoint";
    for (name, text) in [
        (hint, r#"{"version":1,"size":4}"#), // Its checkpoint is gone.
        (hint, r#"{"version":1,"size":4,"parts":3}"#),
        (
            hint,
            r#"{"version":2,"size":4,"v2Checkpoint":{"path":"00000000000000000002.checkpoint.x.parquet"}}"#,
        ),
        (hint, r#"{"version":77,"size":4}"#),
        (hint, r#"{"version":-1}"#),
        (hint, "{"),
        (hint, ""),
        ("00000000000000000002.crc", "{"),
    ] {
        let (tables, _) = lake().await;
        let store = &tables[0].store;
        store.put(&at(name), text.to_owned().into()).await.expect("put");
        // Two commits in one, as others write them beside: of these two the second says it all.
        let second = store.get(&at("00000000000000000002.json")).await.expect("version 2").bytes().await;
        let second = String::from_utf8(second.expect("bytes").to_vec()).expect("text");
        let both: Vec<&str> = second.lines().filter(|line| !line.contains("commitInfo")).collect();
        let compacted = at("00000000000000000001.00000000000000000002.compacted.json");
        store.put(&compacted, both.join("\n").into()).await.expect("put");
        let sql = r#"select count(*) as n, min(v) as v from "Orders""#;
        for (when, says) in [(When::Latest, "| 8 | a5 |"), (When::Version(1), "| 10 | a0 |")] {
            let words = words(sql, &tables, &when).await.unwrap_or_else(|e| panic!("{name} {text}: {e}"));
            assert!(words.contains(says), "{words}");
        }
        let log = Log::open(&url(), Arc::clone(store), PIPELINE)
            .await
            .expect("opens")
            .expect("a table");
        assert_eq!(log.history(10).await.expect("a history").len(), 3);
        maintain::checkpoint(&url(), Arc::clone(store), 2)
            .await
            .unwrap_or_else(|e| panic!("{name} {text}: {e}"));
        // From now on the hint is true, for readers that take it for more.
        let now = store.get(&at(hint)).await.expect("a hint").bytes().await.expect("bytes");
        assert!(String::from_utf8_lossy(&now).contains("\"version\":2"), "{now:?}");
        assert_eq!(rows_of(library(store).await).await.len(), 8);
    }
}

#[tokio::test]
async fn a_table_that_asks_something_of_those_who_vacuum_is_read_and_written() {
    let features = r#"["vacuumProtocolCheck"]"#;
    let protocol = format!(r#"{{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":{features},"writerFeatures":{features}}}"#);
    let store = by_hand(&protocol, &COLUMNS, &[]).await;
    let mut log = opened(&store, &append_table()).await;
    let adds = vec![data_file(&store, 0..3, "a").await];
    log.commit(&Change { adds, ..change(None, 2) }).await.expect("a commit");
    let named = Named {
        name: "t".to_owned(),
        url: url(),
        store,
    };
    let text = text("select max(v) as v from t", &[named], &When::Latest).await.expect("an answer");
    assert!(text.contains("a2"), "{text}");
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
async fn tables_of_different_lanes_are_read_at_one_moment_and_each_is_asked_for_its_own() {
    let (mut tables, _) = lake().await;
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut users = opened(&store, &append_table()).await;
    for (at, ids) in [(0, 0..1), (1, 1..3)] {
        let added = data_file(&store, ids, "u").await;
        let base = if at == 0 { mark(&[]) } else { mark(&[("users/0", 0)]) };
        let change = Change {
            adds: vec![added],
            base,
            mark: mark(&[("users/0", at)]),
            ..Change::default()
        };
        users.commit(&change).await.expect("a commit");
    }
    tables.push(Named {
        name: "users".to_owned(),
        url: url(),
        store,
    });
    let sql = "select (select count(*) from users) as users, (select count(*) from audit) as audit";
    let at = |positions: &[(&str, u64)]| When::Mark(mark(positions));
    let answer = text(sql, &tables, &at(&[("orders/0", 9), ("users/0", 0)]))
        .await
        .expect("an answer");
    assert!(answer.contains("| 1     | 10    |"), "{answer}");
    for (positions, says) in [
        (&[("orders/0", 9)][..], "users/0"),
        (&[("orders/0", 9), ("users/0", 0), ("other/0", 3)], "other/0"),
        (&[("orders/0", 9), ("users/0", 7)], "users/0"),
    ] {
        let error = text(sql, &tables, &at(positions)).await.expect_err("not all of it is there");
        assert!(error.to_string().contains(says), "{positions:?}: {error}");
    }
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
async fn an_answer_has_as_many_rows_as_were_asked_for_and_its_numbers_are_those_that_were_written() {
    let (tables, _) = lake().await;
    for (sql, says) in [
        ("select count(*) from (select 1 from audit limit 4)", "| 4 |"),
        ("select count(*) from (select 1 from audit limit 4 offset 8)", "| 2 |"),
        (r#"select count(*) from (select 1 from "Orders" limit 3)"#, "| 3 |"),
        ("select count(*) from (select id from audit limit 4)", "| 4 |"),
        ("select 0.1 + 0.2 = 0.3 from audit limit 1", "| true |"),
        ("select 1.5e300, arrow_typeof(-2E-1) from audit limit 1", "| 1.5e300 | Float64 |"),
        (
            "select cast('1234567890.12' as decimal(12, 2)) = 1234567890.12 from audit limit 1",
            "| true |",
        ),
        (
            "select 12345678901234567890123456789012345678 from audit limit 1",
            "| 12345678901234567890123456789012345678 |",
        ),
    ] {
        answer_has(sql, &tables, says).await;
    }
}

/// Of doubles: 1e-20, NaN, 1e300 and 0.30000000000000004; of a real: 0.1; of a decimal column: what is beyond the digits of a double.
const NUMBERS: &str = "with n as (select v, cast(0.1 as real) f, d from (
    select 1e-20 v, cast('12345678901234567890.12' as decimal(22, 2)) d union all select cast('NaN' as double), 0.5
    union all select 1e300, 0.5 union all select cast('0.30000000000000004' as double), 0.3) as r)";

#[tokio::test]
async fn a_decimal_that_meets_a_floating_point_number_is_one_and_among_decimals_it_is_exact() {
    let (tables, _) = lake().await;
    for (ask, says) in [
        ("select count(*) from n where v = 0.0", "| 0 |"),
        ("select count(*) from n where v > 1.5", "| 2 |"),
        ("select count(*) from n where 0.0 < v and v < 0.1", "| 1 |"),
        ("select count(*) from n where v between 0.0 and 0.5", "| 2 |"),
        ("select count(*) from n where v in (0.0, 0.5, 1)", "| 0 |"),
        ("select count(*) from n where v not in (0.0, 0.5)", "| 4 |"),
        ("select count(*) from n where v in (select 0.0)", "| 0 |"),
        ("select count(*) from n where 0.0 in (select v from n)", "| 0 |"),
        ("select count(*) from n where v > (select 1.5)", "| 2 |"),
        ("select count(*) from n where v = any(select 0.0)", "| 0 |"),
        ("select count(*) from n join (select 0.0 z) as o on v = z", "| 0 |"),
        ("select count(*) from (select v from n intersect select 0.0) as o", "| 0 |"),
        ("select count(*) from n where v = 0.30000000000000004", "| 1 |"),
        ("select count(*) from n where v = 0.3", "| 0 |"),
        ("select count(*) from n where v in (select 0.30000000000000004)", "| 1 |"),
        (
            "select coalesce(v, 0.0), arrow_typeof(nullif(v, 0.0)) from n where v < 0.1",
            "| 1e-20 | Float64 |",
        ),
        ("select greatest(v, 0.0), least(v, 0.5) from n where v < 0.1", "| 1e-20 | 1e-20 |"),
        ("select case when v > 0.5 then 0.5 else v end from n where v < 0.1", "| 1e-20 |"),
        (
            "select case v when 0.0 then 'zero' else 'more' end from n where v < 0.1",
            "| more |",
        ),
        ("select case when v < 0.1 then 1 else 0.5 end > v from n where v < 0.1", "| true |"),
        ("select v + 0.5, v * 0.5, -v - 0.5 from n where v < 0.1", "| 0.5 | 5e-21 | -0.5 |"),
        ("select [v, 0.5] from n where v < 0.1", "| [1e-20, 0.5] |"),
        (
            "select max(z) from (select 0.5 z union all select v from n where v = 1e300) as u",
            "| 1e300 |",
        ),
        ("select min(z) from (values (0.5), (1e-20), (1)) as u(z)", "| 1e-20 |"),
        ("select sum(case when v = 0.0 then 1 else 0 end) from n", "| 0 |"),
        (
            "select coalesce(v, 0.0) c, count(*) from n where v < 0.1 group by coalesce(v, 0.0) having coalesce(v, 0.0) > 0.0",
            "| 1e-20 | 1 |",
        ),
        (
            "select coalesce(v, 0.0) c, grouping(coalesce(v, 0.0)) g from n where v < 0.1 group by rollup(coalesce(v, 0.0)) order by g",
            "| 1e-20 | 0 |",
        ),
        // A real is compared as the double that it is, as in Postgres.
        (
            "select f = 0.1 as a, f = cast(0.1 as real) as b, arrow_typeof(f + 0.1) from n limit 1",
            "| false | true | Float64 |",
        ),
        // Columns of decimals: with floating point numbers as those, else to the last digit.
        ("select count(*) from n where d = v", "| 0 |"),
        ("select count(*) from n where d > v", "| 1 |"),
        (
            "select d = 12345678901234567890.12, d = 12345678901234567890.13 from n where v < 0.1",
            "| true | false |",
        ),
        ("select count(*) from n where d in (0.5, 0.3)", "| 3 |"),
        ("select concat(v, ' ', d) from n where v < 0.1", "| 1e-20 12345678901234567890.12 |"),
        (
            "select case v when 0.5 then 0.5 else d end from n where v < 0.1",
            "| 12345678901234567890.12 |",
        ),
        (
            "select 0.1 + 0.2 = 0.3, 1 / 4.0 = 0.25, arrow_typeof(coalesce(1, 0.5))",
            "| true | true | Decimal128(",
        ),
    ] {
        answer_has(&format!("{NUMBERS} {ask}"), &tables, says).await;
    }
}

#[tokio::test]
async fn v2_times_beyond_what_nanoseconds_reach_are_read_or_refused_and_never_null() {
    let (tables, _) = lake().await;
    const TIMES: &str = "with t as (select arrow_cast(s, 'Timestamp(Microsecond, Some(\"UTC\"))') at, cast(substr(s, 1, 10) as date) as day
        from (values ('9999-12-31T00:00:00'), ('2020-06-01T12:34:56.000001'), ('1600-01-01T00:00:00'), (null)) as r(s))";
    for (ask, says) in [
        ("select count(*) from t where at = timestamp '9999-12-31'", "| 1 |"),
        ("select count(*) from t where at < cast('9999-12-31' as timestamp)", "| 2 |"),
        (
            "select at::timestamp from t where at > '2020-01-01' and at < timestamp '2500-01-01'",
            "| 2020-06-01T12:34:56.000001 |",
        ),
        ("select count(*) from t where at = '9999-12-31T00:00:00Z'", "| 1 |"),
        ("select count(*) from t where '0001-01-01' < at", "| 3 |"),
        ("select count(*) from t where at in ('9999-12-31', '1600-01-01')", "| 2 |"),
        ("select count(*) from t where at + interval '1 day' > '9999-12-31'", "| 1 |"),
        (
            "select count(*) from t where at > date '2020-01-01' and day < timestamp '9999-12-31'",
            "| 1 |",
        ),
        ("select max(cast(day as timestamp)) from t", "| 9999-12-31T00:00:00 |"),
        (
            "select arrow_typeof(timestamp '2020-01-01') a, arrow_typeof(cast('2020-01-01' as timestamp(3))) b",
            "| Timestamp(µs) | Timestamp(ms) |",
        ),
        (
            "select date_bin(interval '1 hour', at) from t where at between '2000-01-01' and '2100-01-01'",
            "| 2020-06-01T12:00:00Z |",
        ),
        ("select count(date_bin(interval '1 day', null)) from t", "| 0 |"),
    ] {
        answer_has(&format!("{TIMES} {ask}"), &tables, says).await;
    }
    for ask in [
        "select date_bin(interval '1 day', at), count(*) from t group by 1",
        "select date_bin(interval '1 month', timestamp '9999-12-31')",
        "select date_trunc('month', at) from t",
    ] {
        let error = text(&format!("{TIMES} {ask}"), &tables, &When::Latest).await.expect_err(ask);
        let said = error.to_string();
        assert!(
            ["out of range", "outside of the years", "exceeds"]
                .iter()
                .any(|why| said.contains(why)),
            "{ask}: {said}"
        );
    }
}

#[tokio::test]
async fn a_recursive_query_keeps_its_types_or_is_refused() {
    let (tables, _) = lake().await;
    let recursive = |first: &str, other: &str| {
        format!("with recursive t(x) as ({first} union all select {other} from t where x between 0.1 and 5) select count(x), max(x) from t")
    };
    for (first, other, says) in [
        ("select 1e0", "x * 0.5", "| 5 | 1.0 |"),
        ("select 1", "x + 1", "| 6 | 6 |"),
        ("select 1.5", "x + 1.0", "| 5 | 5.5 |"),
        (
            "select cast(1 as decimal(20, 10))",
            "cast(x * 0.5 as decimal(20, 10))",
            "| 5 | 1.0000000000 |",
        ),
    ] {
        answer_has(&recursive(first, other), &tables, says).await;
    }
    for (first, other) in [
        ("select 1.0", "x * 0.5"),
        ("select 1", "x * 1.5"),
        ("select 1.0", "x * 2e0"),
        ("values (0.5), (1e-20)", "x * 2"),
        ("select cast(1 as real)", "x * cast(2 as double)"),
        ("select 1", "x / 2e0"),
    ] {
        for sql in [recursive(first, other), format!("explain {}", recursive(first, other))] {
            let error = text(&sql, &tables, &When::Latest).await.expect_err(&sql);
            assert_eq!((error.kind, error.code), (Kind::Config, "usage"), "{sql}: {error}");
            assert!(
                error.to_string().contains("column `x` of the recursive query `t`"),
                "{sql}: {error}"
            );
        }
    }
    // What does not name itself is a union, which has a type for both.
    let plain = "with recursive t(x) as (select 1 union all select 2.5) select max(x) from t";
    assert!(text(plain, &tables, &When::Latest).await.expect("an answer").contains("2.5"));
}

#[tokio::test]
async fn what_tables_there_are_is_told_and_of_what_columns() {
    let (tables, _) = lake().await;
    for (sql, says) in [
        ("show tables", vec!["Orders", "audit"]),
        ("describe audit", vec!["id", "Int64"]),
        ("select table_name from information_schema.tables", vec!["Orders", "audit"]),
        ("show columns from audit", vec!["id", "Int64"]),
        (
            "select column_name, id from information_schema.columns, audit where table_name = 'Orders'",
            vec!["v", "9"],
        ),
    ] {
        let text = text(sql, &tables, &When::Latest).await.expect("an answer");
        assert!(says.iter().all(|part| text.contains(part)), "{sql}: {text}");
    }
}

#[tokio::test]
async fn a_file_that_a_vacuum_took_is_named() {
    let (tables, _) = lake().await;
    let audit = &tables[1];
    let listed = audit.store.list_with_delimiter(None).await.expect("a list");
    for file in &listed.objects {
        audit.store.delete(&file.location).await.expect("deleted");
    }
    let error = text("select * from audit", &tables, &When::Latest).await.expect_err("it is gone");
    let told = error.to_string();
    assert!(
        error.code == "bad_file" && told.contains(listed.objects[0].location.as_ref()),
        "{told}"
    );
}

#[tokio::test]
async fn rows_are_counted_in_intersect_and_except_as_the_refusal_of_all_says() {
    let (tables, _) = lake().await;
    for (sets, count) in [("intersect", 2), ("except", 1)] {
        let sql = format!(
            "with l as (select * from (values ('a'), ('a'), ('a')) as l(v)), r as (select * from (values ('a'), ('a'), ('b')) as r(v))
             select count(*) from (select v, row_number() over (partition by v) from l {sets} select v, row_number() over (partition by v) from r) as s"
        );
        let text = text(&sql, &tables, &When::Latest).await.expect("an answer");
        assert!(text.contains(&format!("| {count} ")), "{sets}: {text}");
    }
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
        ("select * from audit tablesample (10 percent)", "TABLESAMPLE"),
        (
            "select count(*) from (select * from audit) as a tablesample bernoulli (10)",
            "TABLESAMPLE",
        ),
        ("explain select * from audit tablesample (10 percent)", "TABLESAMPLE"),
        ("select (select max(id) from audit partition (p0))", "PARTITION"),
        ("with a as (select * from audit prewhere id > 5) select * from a", "PREWHERE"),
        ("select v, count(*) from audit group by v with rollup", "ROLLUP"),
        ("select id from audit start with id = 1 connect by prior id = id - 1", "CONNECT BY"),
        ("select * into other from audit", "INTO"),
        ("select * from generate_series(1, 3) with ordinality", "WITH ORDINALITY"),
        (
            "select v from audit intersect all select v from audit",
            "INTERSECT ALL (write INTERSECT",
        ),
        ("select v from audit except all select v from audit", "EXCEPT ALL (write EXCEPT"),
        (
            "select 1 union all (select 1 union select v from audit except all select 2)",
            "EXCEPT ALL (write EXCEPT",
        ),
        (
            "select count(*) from audit where id in (select 1 intersect all select 2)",
            "INTERSECT ALL (write INTERSECT",
        ),
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
