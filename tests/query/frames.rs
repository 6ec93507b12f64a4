//! Functions over the rows around a row.

use super::{answer_has, lake};

/// Four rows: the first number is to be filled in, and 1, 2 and 4 follow.
fn numbers(first: &str) -> String {
    format!("with n as (select * from (values (1, cast('{first}' as double)), (2, 1e0), (3, 2e0), (4, 4e0)) as r(id, f))")
}

const TWO: &str = "over (order by id rows between 1 preceding and current row)";

#[tokio::test]
async fn what_has_left_a_frame_leaves_no_mark() {
    let (tables, _) = lake().await;
    for first in ["Infinity", "-Infinity", "NaN", "1e300", "-1e300"] {
        for (function, says) in [
            ("sum(f)", "| 3.0 | | 6.0 |"),
            ("avg(f)", "| 1.5 | | 3.0 |"),
            ("var_pop(f)", "| 0.25 | | 1.0 |"),
            ("var_samp(f)", "| 0.5 | | 2.0 |"),
            ("stddev_pop(f)", "| 0.5 | | 1.0 |"),
            ("covar_pop(f, f)", "| 0.25 | | 1.0 |"),
            ("covar_samp(f, f)", "| 0.5 | | 2.0 |"),
            ("corr(f, f)", "| 1.0 | | 1.0 |"),
            ("regr_slope(f, f)", "| 1.0 | | 1.0 |"),
            ("regr_sxx(f, f)", "| 0.5 | | 2.0 |"),
            ("regr_avgx(f, f)", "| 1.5 | | 3.0 |"),
            ("regr_count(f, f)", "| 2 | | 2 |"),
            ("count(f)", "| 2 | | 2 |"),
            ("min(f)", "| 1.0 | | 2.0 |"),
            ("any_value(f)", "| 1.0 | | 2.0 |"),
            ("median(f)", "| 1.5 | | 3.0 |"),
        ] {
            let ask = format!("select x from (select id, {function} {TWO} as x from n) as w where id > 2 order by id");
            answer_has(&format!("{} {ask}", numbers(first)), &tables, says).await;
        }
    }
}

#[tokio::test]
async fn a_frame_has_the_rows_that_it_names() {
    let (tables, _) = lake().await;
    for (ask, says) in [
        (
            "sum(f) over (order by id rows between 1 preceding and current row)",
            "| inf | | inf | | 3.0 | | 6.0 |",
        ),
        (
            "sum(f) over (order by id range between 1 preceding and current row)",
            "| inf | | inf | | 3.0 | | 6.0 |",
        ),
        // No frame has a row in common with the one before.
        (
            "sum(f) over (order by id * 10 range between 15 preceding and 5 preceding)",
            "| | | inf | | 1.0 | | 2.0 |",
        ),
        ("any_value(f) over ()", "| inf | | inf | | inf | | inf |"),
        (
            "sum(f) over (order by id rows between current row and 1 following)",
            "| inf | | 3.0 | | 6.0 | | 4.0 |",
        ),
        // The first rows are never in it, and behind the last there are none.
        (
            "sum(f) over (order by id rows between 2 following and 3 following)",
            "| 6.0 | | 4.0 | | | | |",
        ),
        (
            "sum(f) over (order by id rows between current row and unbounded following)",
            "| inf | | 7.0 | | 6.0 | | 4.0 |",
        ),
        (
            "sum(f) over (order by id desc rows between unbounded preceding and current row)",
            "| inf | | 7.0 | | 6.0 | | 4.0 |",
        ),
        (
            "sum(f) over (partition by id % 2 order by id rows between 1 preceding and current row)",
            "| inf | | 1.0 | | inf | | 5.0 |",
        ),
        (
            "sum(f) filter (where id <> 2) over (order by id rows between 1 preceding and current row)",
            "| inf | | inf | | 2.0 | | 6.0 |",
        ),
        (
            "sum(nullif(f, 1e0)) over (order by id rows between current row and current row)",
            "| inf | | | | 2.0 | | 4.0 |",
        ),
    ] {
        let sql = format!(
            "{} select x from (select id, {ask} as x from n) as w order by id",
            numbers("Infinity")
        );
        answer_has(&sql, &tables, says).await;
    }
}

#[tokio::test]
async fn nulls_are_left_out_and_a_frame_of_nothing_else_gives_null() {
    let (tables, _) = lake().await;
    for (function, says) in [
        ("sum(f)", "| 1.0 | | 1.0 | | | | 2.0 |"),
        ("avg(f)", "| 1.0 | | 1.0 | | | | 2.0 |"),
        ("var_pop(f)", "| 0.0 | | 0.0 | | | | 0.0 |"),
        ("covar_pop(f, f)", "| 0.0 | | 0.0 | | | | 0.0 |"),
    ] {
        let sql = format!(
            "select x from (select id, {function} {TWO} as x
             from (values (1, 1e0), (2, null), (3, null), (4, 2e0)) as n(id, f)) as w order by id"
        );
        answer_has(&sql, &tables, says).await;
    }
}
