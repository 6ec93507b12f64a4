//! Casts that lose something lose it in filters, too.

use alluvium::log::When;

use super::{answer_has, lake, text};

/// Decimals and their numbers; bigints; and times.
const VALUES: &str = "with d as (select cast(x as decimal(10, 2)) as x, n
        from (values (12.34, 1), (12.31, 2), (12.00, 3), (1.20, 4), (null, 5), (13.00, 6)) as r(x, n)),
    i as (select cast(a as bigint) as a from (values (1), (3000000000)) as r(a)),
    t as (select cast(at as timestamp) as at
        from (values ('2024-01-01T00:00:00'), ('2024-01-01T12:30:00.5'), ('2024-01-02T00:00:00')) as r(at))";

#[tokio::test]
async fn a_cast_that_loses_something_is_compared_as_what_it_gives() {
    let (tables, _) = lake().await;
    for (from, count) in [
        ("d where cast(x as int) = 12", 3),
        ("d where 12 = cast(x as int)", 3),
        ("d where cast(x as bigint) = 12", 3),
        ("d where cast(x as int) = cast(12 as bigint)", 3),
        ("d where cast(x as int) > 12", 1),
        ("d where cast(x as int) <> 12", 2),
        ("d where cast(x as int) is distinct from 12", 3),
        ("d where cast(x as int) in (12, 1)", 4),
        ("d where cast(x as int) not in (12, 1)", 1),
        ("d where cast(x as int) between 12 and 12", 3),
        ("d where try_cast(x as int) = 12", 3),
        ("d where arrow_cast(x, 'Int32') = 12", 3),
        ("d where cast(x as decimal(10, 1)) = 12.3", 2),
        ("d where cast(x as decimal(10, 1)) in (12.3, 1.2)", 3),
        ("d where cast(x as decimal(10, 1)) between 12.3 and 12.3", 2),
        ("d where cast(x as decimal(10, 4)) = 12.34", 1),
        ("d join (values (1)) as o(k) on cast(d.x as int) = 12", 3),
        ("d join d as e on d.n = e.n and cast(e.x as int) in (12, 1)", 4),
        ("d left join d as e on d.n = e.n and cast(e.x as int) = 12 where e.n is not null", 3),
        ("(select cast(x as int) as y from d) as s where y = 12", 3),
        (
            "(select cast(x as int) as y, count(*) as n from d group by 1) as s where y = 12 and n = 3",
            1,
        ),
        ("audit where cast(cast(id as decimal(10, 1)) + 0.4 as int) = 3", 1),
        ("i where try_cast(a as int) = 1", 1),
        ("i where try_cast(a as int) <> 1", 0),
        ("i where try_cast(a as int) > 0", 1),
        ("i where try_cast(a as int) is null", 1),
        ("t where cast(at as date) = date '2024-01-01'", 2),
        ("t where cast(at as date) in (date '2024-01-01', date '2024-01-03')", 2),
        ("t where cast(at as date) between date '2024-01-01' and date '2024-01-01'", 2),
        ("t join (values (1)) as o(k) on cast(t.at as date) > date '2024-01-01'", 1),
        (
            "t where arrow_cast(at, 'Timestamp(Second, None)') = timestamp '2024-01-01 12:30:00'",
            1,
        ),
        (
            "t where arrow_cast(at, 'Timestamp(Second, None)') = timestamp '2024-01-01 12:30:00.5'",
            0,
        ),
        // Midnight in New York.
        (
            "t where arrow_cast(at, 'Timestamp(Microsecond, Some(\"America/New_York\"))')
                = arrow_cast('2024-01-01T05:00:00Z', 'Timestamp(Microsecond, Some(\"America/New_York\"))')",
            1,
        ),
    ] {
        let sql = format!("{VALUES} select count(*) from {from}");
        let text = text(&sql, &tables, &When::Latest).await.unwrap_or_else(|e| panic!("{from}: {e}"));
        assert!(text.contains(&format!("| {count} ")), "{from}: {text}");
    }
}

#[tokio::test]
async fn a_cast_that_does_not_fit_fails_in_a_filter_as_it_does_in_a_column() {
    let (tables, _) = lake().await;
    for ask in [
        "select cast(a as int) from i",
        "select count(*) from i where cast(a as int) > 0",
        "select count(*) from i where cast(a as int) in (1, 2)",
        "select count(*) from d where cast(x * 100000 as smallint) > 0",
    ] {
        let error = text(&format!("{VALUES} {ask}"), &tables, &When::Latest).await.expect_err(ask);
        let said = error.to_string();
        assert!(
            ["Can't cast value", "out of range"].iter().any(|why| said.contains(why)),
            "{ask}: {said}"
        );
    }
}

#[tokio::test]
async fn columns_of_casts_are_called_what_they_were_called() {
    let (tables, _) = lake().await;
    for (ask, says) in [
        ("select cast(x as int) as y, x from d where n = 1", "| y | x |"),
        ("select cast(x as int) from d where n = 1", "x | +"),
        (
            "select cast(x as int), count(*) from d group by rollup(cast(x as int)) order by 2 desc limit 1",
            "| | 6 |",
        ),
        (
            "select cast(x as int), count(*) from d group by cast(x as int) order by cast(x as int) limit 2",
            "| 12 | 3 |",
        ),
    ] {
        answer_has(&format!("{VALUES} {ask}"), &tables, says).await;
    }
}
