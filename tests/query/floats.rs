//! Floating point numbers in files of other writers, whose statistics leave NaN out.

use std::sync::Arc;

use alluvium::log::When;
use alluvium::query::Named;
use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use deltalake::kernel::{DataType, StructField};

use super::filters::made;
use super::{answer_has, text};

/// A table `t` of one column `f`, in two files.
async fn numbers(files: [Vec<f64>; 2]) -> [Named; 1] {
    let batches = files.map(|file| {
        let numbers: ArrayRef = Arc::new(Float64Array::from(file));
        RecordBatch::try_from_iter_with_nullable([("f", numbers, true)]).expect("columns fit")
    });
    made(vec![StructField::nullable("f", DataType::DOUBLE)], &[], batches.into()).await
}

#[tokio::test]
async fn all_numbers_that_are_equal_or_greater_are_found_zeros_and_nan_included() {
    let tables = numbers([vec![-0.0, 0.0, 1.0, 7.0, f64::NAN], vec![8.0, 9.0]]).await;
    for (condition, count) in [
        ("f = 0", 2),
        ("f = cast('-0.0' as double)", 2),
        ("f < 0", 0),
        ("f >= 0", 7),
        ("f between 0 and 1", 3),
        ("f in (0, 1, 2, 3)", 3),
        ("f in (cast('-0.0' as double), 1, 2, 3)", 3),
        ("f not in (0.0, 1, 2, 3)", 4),
        ("f > 1000", 1),
        ("f = cast('NaN' as double)", 1),
        ("f <> 1 and f <> 7", 5),
    ] {
        let sql = format!("select count(*) from t where {condition}");
        let text = text(&sql, &tables, &When::Latest).await.expect("an answer");
        assert!(text.contains(&format!("| {count} ")), "{condition}: {text}");
    }
    for (sql, says) in [
        ("select max(f) as greatest from t", "| NaN "),
        ("select f from t order by f desc limit 1", "| NaN "),
        (
            "select f > 0 as positive, count(*) as n from t group by rollup(f > 0) order by n desc limit 1",
            "| 7 ",
        ),
    ] {
        let text = text(sql, &tables, &When::Latest).await.expect("an answer");
        assert!(text.contains(says), "{sql}: {text}");
    }
}

/// NaN with its sign set: what x86 makes of an infinity times zero.
const SIGNED_NAN: f64 = f64::from_bits(0xfff8_0000_0000_0000);

#[tokio::test]
async fn there_is_one_zero_and_one_nan_wherever_numbers_are_held_against_each_other() {
    let tables = numbers([vec![-0.0, 0.0, 1.0, SIGNED_NAN], vec![f64::NAN, f64::INFINITY, 9.0]]).await;
    for (condition, count) in [
        ("f = cast('NaN' as double)", 2),
        ("f > 1000", 3),
        ("f < 0", 0),
        ("f * 0 = cast('NaN' as double)", 3),
        ("f * 0 > 1", 3),
        ("f * 0 < 1", 4),
        ("f * 0 is distinct from cast('NaN' as double)", 4),
        ("f * 0 in (cast('NaN' as double), 5)", 3),
        ("f * 0 between 1 and cast('NaN' as double)", 3),
        ("f * 0 in (select f from t)", 7),
        ("f not in (select f * 0 from t)", 3),
        ("exists (select 1 from t as u where u.f = t.f * 0)", 7),
        ("(select count(*) from t as u where u.f = t.f) = 2", 4),
        ("case f when cast(0 as double) then true else false end", 2),
        ("nullif(f, cast(0 as double)) is null", 2),
        ("greatest(f * 0, cast(1 as double)) > 1", 3),
    ] {
        let sql = format!("select count(*) from t where {condition}");
        let text = text(&sql, &tables, &When::Latest)
            .await
            .unwrap_or_else(|e| panic!("{condition}: {e}"));
        assert!(text.contains(&format!("| {count} ")), "{condition}: {text}");
    }
    for (sql, says) in [
        ("select count(distinct f), count(*) from t", "| 5 | 7 |"),
        ("select count(distinct f) from t", "| 5 |"),
        ("select count(*) from (select distinct f * 0 from t) as d", "| 2 |"),
        ("select count(*) from (select distinct on (f) f from t order by f) as d", "| 5 |"),
        ("select count(*) from (select f * 0 from t group by 1) as g", "| 2 |"),
        (
            "select count(*) from (select f, f * 0, count(*) from t group by 1, 2) as g",
            "| 5 |",
        ),
        (
            "select count(*) from (select f * 0, count(*) from t group by rollup(f * 0)) as g",
            "| 3 |",
        ),
        ("select count(*) from (select f, count(*) from t group by rollup(f)) as g", "| 6 |"),
        (
            "select f, count(*) as n from t group by f having f > 1000 order by f desc limit 1",
            "| NaN | 2 |",
        ),
        (
            "select min(n), max(n) from (select count(*) over (partition by f * 0) as n from t) as w",
            "| 3 | 4 |",
        ),
        (
            "select min(n), max(n) from (select count(*) over (partition by f) as n from t) as w",
            "| 1 | 2 |",
        ),
        (
            "select max(n) from (select dense_rank() over (order by f) as n from t) as w",
            "| 5 |",
        ),
        ("select max(f * 0), min(f * 0), min(f) from t", "| NaN | 0.0 | 0.0 |"),
        (
            "select max(n) from (select min(f) over (order by f desc) as n from t) as w",
            "| NaN |",
        ),
        ("select max(f), min(f) from t group by f >= 0", "| NaN | 0.0 |"),
        (
            "select max(f), min(f), max(-f) from t where f = cast('Infinity' as double) group by f >= 0",
            "| inf | inf | -inf |",
        ),
        ("select median(f) from t", "| 9.0 |"),
        ("select percentile_cont(0.5) within group (order by f) from t", "| 9.0 |"),
        (
            "select z < 1 as less from (select f * 0 as z from t) as o order by z limit 1",
            "| true |",
        ),
        ("select f * 0 as z from t order by z desc limit 1", "| NaN |"),
        (
            "select x from (values (cast('0' as double), 1), (cast('-0.0' as double), 2)) as v(z, x) order by z, x limit 1",
            "| 1 |",
        ),
        ("select count(*) from t as a join t as b on a.f * 0 = b.f * 0", "| 25 |"),
        ("select count(*) from t as a join t as b on a.f = b.f", "| 11 |"),
        ("select count(*) from t as a join t as b using (f)", "| 11 |"),
        ("select count(*) from t as a join t as b using (f) join t as c using (f)", "| 19 |"),
        ("select count(*) from (select f from t intersect select f * 0 from t) as s", "| 2 |"),
        ("select count(*) from (select f from t except select f * 0 from t) as s", "| 3 |"),
        ("select count(*) from (select f from t union select f * 0 from t) as s", "| 5 |"),
    ] {
        answer_has(sql, &tables, says).await;
    }
}
