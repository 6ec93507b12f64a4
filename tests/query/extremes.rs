//! The least and the greatest floating point number of each group: NaN is greater than all others, and nulls are none.

use super::{answer_has, lake};

const GROUPS: &str = "with n as (select k, cast(f as double) f, cast(f as real) r from (values
    ('a', '-Infinity'), ('a', null), ('b', 'NaN'), ('b', '-1'), ('b', null), ('c', null), ('d', 'Infinity'), ('d', 'NaN'), ('d', 'Infinity'),
    ('e', '-0.0'), ('e', '0'), ('f', 'NaN'), ('g', 'Infinity'), ('h', '2'), ('h', '-3'), ('h', '1')) as v(k, f))";

#[tokio::test]
async fn each_group_has_its_least_and_its_greatest_number() {
    let (tables, _) = lake().await;
    for (ask, says) in [
        (
            "select k, min(f) as least, max(f) as greatest from n group by k order by k",
            "| a | -inf | -inf | | b | -1.0 | NaN | | c | | | | d | inf | NaN | | e | 0.0 | 0.0 | | f | NaN | NaN | | g | inf | inf | \
             | h | -3.0 | 2.0 |",
        ),
        (
            "select k, min(r) as least, max(r) as greatest from n group by k order by k",
            "| a | -inf | -inf | | b | -1.0 | NaN | | c | | | | d | inf | NaN | | e | 0.0 | 0.0 | | f | NaN | NaN | | g | inf | inf | \
             | h | -3.0 | 2.0 |",
        ),
        (
            "select k, max(f) filter (where f < 1) as greatest from n group by k order by k",
            "| a | -inf | | b | -1.0 | | c | | | d | | | e | 0.0 | | f | | | g | | | h | -3.0 |",
        ),
        // All rows are a group, too.
        (
            "select k, min(f) as least, max(f) as greatest from n where k > 'f' group by rollup(k) order by k nulls first",
            "| | -3.0 | inf | | g | inf | inf | | h | -3.0 | 2.0 |",
        ),
        ("select min(f) as least, max(f) as greatest from n where k = 'c'", "| | |"),
        (
            "select min(f) as least, max(r) as greatest, arrow_typeof(min(f)) as a, arrow_typeof(max(r)) as b from n where k <> 'f'",
            "| -inf | NaN | Float64 | Float32 |",
        ),
    ] {
        answer_has(&format!("{GROUPS} {ask}"), &tables, says).await;
    }
}

#[tokio::test]
async fn groups_that_are_put_together_of_parts_have_them_of_all_rows() {
    let (tables, _) = lake().await;
    // 0 to 999: of each last digit there are a hundred.
    let sql = "with n as (select a.id * 100 + b.id * 10 + c.id as v from audit as a, audit as b, audit as c)
        select count(*) from (select v % 10 as k, max(cast(v as double)) as most, min(cast(-v as real)) as least from n group by v % 10) as g
        where most = 990 + k and least = -990 - k";
    answer_has(sql, &tables, "| 10 |").await;
}
