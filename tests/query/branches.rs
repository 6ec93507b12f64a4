//! What a branch of CASE guards is not evaluated for other rows.

use alluvium::log::When;

use super::{lake, text};

const VALUES: &str =
    "with b as (select cast(n as int) as n, s from (values (0, 'x'), (5, '7'), (50, '1'), (null, 'x'), (100, '9')) as r(n, s))";

#[tokio::test]
async fn a_branch_is_evaluated_for_its_own_rows_only() {
    let (tables, _) = lake().await;
    for (from, count) in [
        ("b where case when n <> 0 then 100 / n > 5 else false end", 1),
        ("b where not case when n <> 0 then 100 / n > 5 else false end", 4),
        ("b where case when n = 0 then false when 100 / n > 5 then true end", 1),
        (
            "b where case when n = 0 then 'none' when 100 / n > 5 then 'few' else 'many' end = 'few'",
            1,
        ),
        (
            "b where case when n = 0 then 'none' when 100 / n > 5 then 'few' else 'many' end <> 'few'",
            4,
        ),
        ("b where case when n = 0 then true else 100 % n = 0 end", 4),
        ("b where case when s <> 'x' then cast(s as int) > 5 else false end", 2),
        (
            "b join b as c on b.n = c.n and case when c.n <> 0 then 100 / c.n > 5 else false end",
            1,
        ),
        ("(select case when n <> 0 then 100 / n > 5 end as few from b) as g where few", 1),
        ("(select case when n <> 0 then 100 / n > 5 end as few from b group by 1) as g", 3),
        ("audit where case when id <> 0 then 100 / id > 15 else false end", 6),
    ] {
        let sql = format!("{VALUES} select count(*) from {from}");
        let text = text(&sql, &tables, &When::Latest).await.unwrap_or_else(|e| panic!("{from}: {e}"));
        assert!(text.contains(&format!("| {count} ")), "{from}: {text}");
    }
}

#[tokio::test]
async fn a_branch_that_fails_for_its_own_rows_fails() {
    let (tables, _) = lake().await;
    let sql = format!("{VALUES} select count(*) from b where case when n is not null then 100 / n > 5 else false end");
    let error = text(&sql, &tables, &When::Latest).await.expect_err("a division by zero");
    assert!(error.to_string().to_lowercase().contains("divide by zero"), "{error}");
}
