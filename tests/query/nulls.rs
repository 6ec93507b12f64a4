//! Null is neither equal nor unequal, in conditions, subqueries and joins; IS [NOT] DISTINCT FROM tells it from other values.

use alluvium::error::Kind;
use alluvium::log::When;

use super::{answer_has, lake, text};

/// `o` and `j` have rows with nulls, `i` is a list with one and `n` is one without.
const ROWS: &str = "with o(id, a, b) as (values (1, 1, 1), (2, null, 1), (3, 3, null), (4, 4, 4)),
    j(id, a, b) as (values (1, 1, 1), (2, null, 2), (3, 3, null), (4, null, null)),
    i(a, b) as (values (1, 1), (null, 1), (9, null)), n(a) as (values (1), (9)),
    counted(c) as (select count(*) from o group by a)";

async fn answers(asked: &[(&str, &str)]) {
    let (tables, _) = lake().await;
    for (ask, says) in asked {
        answer_has(&format!("{ROWS} {ask}"), &tables, says).await;
    }
}

async fn refused(asked: &[&str], says: &str) {
    let (tables, _) = lake().await;
    for ask in asked {
        let error = text(&format!("{ROWS} {ask}"), &tables, &When::Latest).await.expect_err(ask);
        assert_eq!((error.kind, error.code), (Kind::Config, "usage"), "{ask}: {error}");
        assert!(error.to_string().contains(says), "{ask}: {error}");
    }
}

#[tokio::test]
async fn is_distinct_from_ends_before_and_and_or() {
    answers(&[
        ("select true is distinct from true and false as x", "| false |"),
        ("select true is distinct from false or true as x", "| true |"),
        ("select not true is not distinct from true and false as x", "| false |"),
        ("select false and true is distinct from true or true as x", "| true |"),
        ("select 1 is distinct from 2 and 3 is distinct from 3 or false as x", "| false |"),
        ("select false or 1 is distinct from 2 and 3 is distinct from 3 as x", "| false |"),
        ("select true is distinct from not true and false as x", "| false |"),
        ("select 1 is not distinct from 1 and 2 between 1 and 3 as x", "| true |"),
        ("select 1 + 1 is not distinct from 2 and 1 = 1 as x", "| true |"),
        ("select true is distinct from 1 = 2 as x", "| true |"),
        // Brackets stay where they were put.
        ("select true is distinct from (true and false) as x", "| true |"),
        ("select (true is distinct from true) and false as x", "| false |"),
        ("select true is not distinct from (false or true) as x", "| true |"),
        (
            "select case when 1 is distinct from 1 or 2 is distinct from 2 then 'a' else 'b' end as x",
            "| b |",
        ),
        ("select count(*) from o where a is not distinct from 1 and id < 4", "| 1 |"),
        (
            "select count(*) from o where a is distinct from 1 and b is not distinct from null",
            "| 1 |",
        ),
        ("select count(*) from o where (b = 1) is not distinct from false or id < 3", "| 3 |"),
        (
            "select id from o where id in (select id from j where a is distinct from 1 and id = 2)",
            "| 2 |",
        ),
    ])
    .await;
    refused(
        &[
            "select 1 is distinct from 2 is null",
            "select true is not distinct from 1 = 2 is true and false",
            "select true is distinct from 1 is distinct from 2",
        ],
        "put brackets around the right side",
    )
    .await;
}

#[tokio::test]
async fn a_row_is_in_what_a_subquery_has_or_is_not_or_it_is_not_known() {
    answers(&[
        ("select count(*) from o where a in (select a from n) or id = 4", "| 2 |"),
        (
            "select count(*) from o where id > 0 and (a in (select a from i) or a in (select a from n) and id > 0)",
            "| 1 |",
        ),
        ("select count(*) from o where a not in (select a from n)", "| 2 |"),
        ("select count(*) from o where not a in (select a from n) and id > 0", "| 2 |"),
        ("select count(*) from o where a not in (select a from i)", "| 0 |"),
        ("select count(*) from o where a > 2 and a not in (select a from i)", "| 0 |"),
        (
            "select count(*) from o where a not in (select a from n) and b not in (select a from n)",
            "| 1 |",
        ),
        ("select count(*) from o where a not in (select a from n where a > 100)", "| 4 |"),
        (
            "select count(*) from o where case when a in (select a from i) then 1 else 0 end = 0",
            "| 3 |",
        ),
        ("select count(*) from o where (a in (select a from n)) is not true", "| 3 |"),
        (
            "select count(*) from (select a from o group by a having a not in (select n.a from n)) as h",
            "| 2 |",
        ),
        ("select count(*) from o join j on o.id = j.id and o.a in (select a from n)", "| 1 |"),
        (
            "select count(j.id) from o left join j on o.id = j.id and j.a not in (select a from i)",
            "| 0 |",
        ),
        // None of these may be null.
        (
            "select count(*) from o where not exists (select 1 from i where i.a = o.a) or id < 0",
            "| 3 |",
        ),
        (
            "select count(*) from o where coalesce(a, -1) not in (select coalesce(a, -2) from i) or id < 0",
            "| 3 |",
        ),
        (
            "select count(*) from counted where c not in (select count(*) from n) or c < 0",
            "| 4 |",
        ),
        ("select count(*) from o where a <> all (select a from i) or id < 0", "| 0 |"),
    ])
    .await;
    refused(
        &[
            "select count(*) from o where a not in (select a from n) or id < 0",
            "select count(*) from o where a not in (select a from i) or id < 0",
            "select count(*) from o where not (a in (select a from n) and id > 0)",
            "select count(*) from o where (a in (select a from n)) = false",
            "select count(*) from o where case when a not in (select a from n) then 1 else 0 end = 0",
            "select id from (select id, a in (select n.a from n) as m from o) as s where not m or id < 0",
            "select count(*) from o where 5 not in (select a from i)",
            "select count(*) from o where null not in (select a from n)",
            "select count(*) from o where a not in (select i.a from i where i.b > o.b)",
            "select count(*) from counted where nullif(c, 1) not in (select count(*) from n)",
            "select count(*) from o where exists (select 1 from j where o.id = j.id and (j.a not in (select a from n) or j.id < 0))",
        ],
        "EXISTS (SELECT",
    )
    .await;
}

#[tokio::test]
async fn a_join_takes_null_for_equal_only_where_it_says_so() {
    answers(&[
        ("select count(*) from o join j on o.a is not distinct from j.a", "| 4 |"),
        (
            "select count(*) from o join j on o.a is not distinct from j.a where o.b = j.b",
            "| 1 |",
        ),
        (
            "select count(*) from o join j on o.a is not distinct from j.a and o.b = j.b",
            "| 1 |",
        ),
        (
            "select count(*) from o, j where o.b = j.b and o.a is not distinct from j.a",
            "| 1 |",
        ),
        (
            "select count(o.id) from o right join j on o.a is not distinct from j.a where o.b = j.b",
            "| 1 |",
        ),
        (
            "select count(*), count(o.id) from o right join j on o.a is not distinct from j.a and o.b = j.b",
            "| 4 | 1 |",
        ),
        (
            "select count(*), count(j.id) from o full join j on o.a is not distinct from j.a",
            "| 5 | 4 |",
        ),
        // Several joins, of which one is by it.
        (
            "select count(*) from o join j on o.a is not distinct from j.a join o p on p.id = o.id",
            "| 4 |",
        ),
        (
            "select count(*) from o join j on o.a = j.a join o p on p.b is not distinct from o.b",
            "| 3 |",
        ),
        (
            "select count(*) from o, j, o p where o.a = j.a and p.b is not distinct from o.b",
            "| 3 |",
        ),
        (
            "select count(*) from o p join (o join j on o.a is not distinct from j.a) on p.b = o.b",
            "| 6 |",
        ),
        (
            "select count(*) from o join j on o.a is not distinct from j.a, o p where p.b = o.b",
            "| 6 |",
        ),
        (
            "select count(*) from o left join j on o.a is not distinct from j.a join o p on p.b = o.b where j.id > 0",
            "| 6 |",
        ),
        (
            "select count(*) from o where exists (select 1 from j where j.a is not distinct from o.a and j.b = o.b)",
            "| 1 |",
        ),
        ("select count(*) from (select a from o intersect select a from j) as s", "| 3 |"),
    ])
    .await;
}

#[tokio::test]
async fn a_join_by_is_not_distinct_from_alone_hashes_its_rows() {
    let (tables, _) = lake().await;
    let sql = "explain select a.v from audit a join audit c on a.v is not distinct from c.v";
    let plan = text(sql, &tables, &When::Latest).await.expect("a plan");
    assert!(plan.contains("HashJoinExec"), "{plan}");
}
