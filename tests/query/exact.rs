//! Numbers and times are what they are, or refused.

use alluvium::error::Kind;
use alluvium::log::When;

use super::{answer_has, lake, text};

/// The last bigint, the last int, and as many nines as a decimal has digits.
const LAST: &str = "with l as (select cast(i as bigint) i, cast(j as int) j, cast(repeat('9', 38) as decimal(38, 0)) d,
    cast(repeat('9', 20) || '.' || repeat('9', 18) as decimal(38, 18)) f from (values (9223372036854775807, 2147483647), (1, 1)) as r(i, j))";

#[tokio::test]
async fn what_has_no_place_in_its_type_is_refused_and_never_another_number() {
    let (tables, _) = lake().await;
    for ask in [
        "select sum(i) from l",
        "select sum(distinct i) from l",
        "select sum(i) over (order by i) from l",
        "select sum(i) over (order by i rows between 1 preceding and current row) from l",
        "select j % 2, sum(i) from l group by 1",
        "select sum(i) from (select i from l union all select 1) as u group by i > 0",
        "select sum(d) from l",
        "select f > 0, sum(f) from l group by 1",
        "select sum(f) over () from l",
        "select sum(timestamp '9999-12-31' - timestamp '0001-01-01') from audit as a, audit as b",
        "select i + 1 from l",
        "select i * 2 from l",
        "select -2 - i from l",
        "select -(-i - 1) from l",
        "select j + j from l",
        "select count(*) from l where i + 1 > 0",
        "select count(*) from l join l as m on l.i + 1 = m.i",
        "select sum(i + 1) from l",
        "select i + 1, count(*) from l group by i + 1",
        "select i + 1, count(*) from l group by rollup(i + 1)",
        "select 1 from l where exists (select 1 from l as m where m.i + l.i > 0)",
        "select 9223372036854775807 + 1",
        "select 1 where 9223372036854775807 + 1 > 0",
        "select cast(repeat('9', 38) as decimal(38, 0)) + 1",
        "select d + 1 from l",
        "select d - -1 from l",
        "select d * 10 from l",
        "select d / 0.1 from l",
        "select count(*) from l where d + 1 > 0",
    ] {
        let error = text(&format!("{LAST} {ask}"), &tables, &When::Latest).await.expect_err(ask);
        let said = error.to_string().to_lowercase();
        assert!(
            ["overflow", "too large to store", "does not fit"]
                .iter()
                .any(|why| said.contains(why)),
            "{ask}: {said}"
        );
    }
}

#[tokio::test]
async fn what_has_a_place_in_its_type_is_reckoned_as_ever() {
    let (tables, _) = lake().await;
    for (ask, says) in [
        // In between it may be more than the type holds.
        (
            "select sum(i) from (select i from l union all select -5) as u",
            "| 9223372036854775803 |",
        ),
        ("select sum(x) from (select d as x from l union all select -d from l) as u", "| 0 |"),
        (
            "select sum(i), arrow_typeof(sum(i)) from l where i = 1",
            "| sum(l.i) | arrow_typeof(sum(l.i)) |",
        ),
        ("select sum(i), arrow_typeof(sum(i)) from l where i = 1", "| 1 | Int64 |"),
        ("select sum(i) from l where i = 0", "| |"),
        ("select sum(distinct j), sum(j), avg(j) from l where i = 1", "| 1 | 1 | 1.0 |"),
        ("select arrow_typeof(sum(x)) from (values (0.5)) as v(x)", "Decimal128("),
        ("select sum(f) from l where i = 1", "| 99999999999999999999.999999999999999999 |"),
        (
            "select max(s) from (select sum(i) over (order by i rows between 1 preceding and 1 preceding) s from l) as w",
            "| 1 |",
        ),
        (
            "select avg(timestamp '9999-12-31' - timestamp '0001-01-01') = timestamp '9999-12-31' - timestamp '0001-01-01'
                from audit as a, audit as b",
            "| true |",
        ),
        (
            "select i + 1, -j, j * 2 - 1 from l where i = 1",
            "| l.i + Int64(1) | (- l.j) | l.j * Int64(2) - Int64(1) |",
        ),
        ("select i + 1, -j, j * 2 - 1 from l where i = 1", "| 2 | -1 | 1 |"),
        (
            "select arrow_typeof(i + 1), arrow_typeof(j + j) from l where i = 1",
            "| Int64 | Int32 |",
        ),
        ("select i + null, abs(j + 1), 7 / 2 from l where i = 1", "| | 2 | 3 |"),
        (
            "select -2 as a, 2 - 5 as b, i - 1 + 2 * 3 as c from l where i = 1",
            "| -2 | -3 | 6 |",
        ),
        (
            "select -j, count(*) from l group by rollup(-j) order by 1 desc nulls first limit 1",
            "| | 2 |",
        ),
        ("select count(*) from l order by count(*) + 1 limit 0 + 1", "| 2 |"),
        ("select count(*) from l where j / 2 + 1 = 1", "| 1 |"),
        ("select d - 1 < d from l limit 1", "| true |"),
        (
            "select date '2024-03-01' - interval '1 day', date '2024-03-01' - date '2024-02-01' as days",
            "| 29 |",
        ),
    ] {
        answer_has(&format!("{LAST} {ask}"), &tables, says).await;
    }
}

#[tokio::test]
async fn filters_of_a_table_are_reckoned_as_its_columns_are() {
    let (tables, _) = lake().await;
    let error = text("select v from audit where id + 9223372036854775800 > 0", &tables, &When::Latest).await;
    assert!(error.as_ref().is_err_and(|e| e.to_string().contains("Overflow")), "{error:?}");
    for (ask, says) in [
        ("select count(*) from audit where id + 1 > 5 and -id < -6", "| 3 |"),
        ("select sum(id), sum(id * 2), sum(id + 1) from audit", "| 45 | 90 | 55 |"),
        (r#"select count(*) from audit a join "Orders" o on a.id + 1 = o.id + 1"#, "| 8 |"),
        (
            "select id % 2 as odd, sum(id) from audit group by id % 2 order by odd",
            "| 1 | 25 |",
        ),
    ] {
        answer_has(ask, &tables, says).await;
    }
}

#[tokio::test]
async fn what_is_cut_is_cut_as_the_readme_says() {
    let (tables, _) = lake().await;
    for (ask, says) in [
        (
            "select 2.0 / 3 as a, 1 / 3.0 as b, -2.0 / 3 as c",
            "| 0.66666 | 0.3333 | -0.66666 |",
        ),
        ("select avg(x) as a from (values (1.0), (1.0), (0.0)) as v(x)", "| 0.66666 |"),
        (
            "select cast(2.5 as int) as a, cast(-2.5 as int) as b, cast(1.5e0 as int) as c",
            "| 2 | -2 | 1 |",
        ),
        ("select extract(second from timestamp '2024-01-01 00:00:01.25') as a", "| 1 |"),
        ("select 2 ^ 3 as a, power(2, 3) as b", "| 1 | 8.0 |"),
    ] {
        answer_has(ask, &tables, says).await;
    }
}

#[tokio::test]
async fn a_time_that_is_finer_than_a_timestamp_is_refused() {
    let (tables, _) = lake().await;
    const TIMES: &str = "with t as (select arrow_cast('2024-02-29T12:00:00.000001', 'Timestamp(Microsecond, Some(\"UTC\"))') at,
        timestamp '2024-02-29 12:00:00.000001' as dt)";
    for ask in [
        "select timestamp '2024-02-29 12:00:00.0000014'",
        "select cast('2024-02-29 12:00:00.0000014Z' as timestamp)",
        "select try_cast('2024-02-29 12:00:00.0000014' as timestamp)",
        "select cast('2024-02-29 12:00:00.0014' as timestamp(3))",
        "select count(*) from t where dt = timestamp '2024-02-29 12:00:00.0000014'",
        "select count(*) from t where dt = '2024-02-29 12:00:00.0000014'",
        "select count(*) from t where '2024-02-29 12:00:00.0000014' = at",
        "select count(*) from t where at between '2024-02-29' and '2024-02-29 12:00:00.000001999999+00:00'",
        "select count(*) from t where at in ('2024-02-28', '2024-02-29 12:00:00.0000014')",
        "select (select max(1) from t where dt < '2024-02-29 12:00:00.0000014')",
        "select count(*) from t where cast('2024-02-29 12:00:00.0000014' as timestamp(9)) > dt",
    ] {
        let error = text(&format!("{TIMES} {ask}"), &tables, &When::Latest).await.expect_err(ask);
        assert_eq!(error.kind, Kind::Config, "{ask}: {error}");
        assert!(error.to_string().contains("is finer than a timestamp of m"), "{ask}: {error}");
    }
    for ask in [
        "select count(*) from t where dt = '2024-02-29 12:00:00.000001000'",
        "select count(*) from t where at = '2024-02-29 13:00:00.000001+01:00'",
        "select count(*) from t where '2024-02-29 12:00:00.0000014' = '2024-02-29 12:00:00.0000014'",
    ] {
        let text = text(&format!("{TIMES} {ask}"), &tables, &When::Latest)
            .await
            .unwrap_or_else(|e| panic!("{ask}: {e}"));
        assert!(text.contains("| 1 "), "{ask}: {text}");
    }
}
