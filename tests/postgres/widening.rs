//! Columns that ALTER TABLE gives another type.

use crate::support::bank::Bank;
use crate::support::postgres::{PostgresServer, wait_until};
use crate::support::python::Reader;
use crate::support::widening::{FOLLOW, WIDENING, agrees, alter, copied, read};

#[tokio::test(flavor = "multi_thread")]
async fn s9_a_table_follows_alter_column_type_where_that_is_asked_for() {
    let mut bank = copied(PostgresServer::shared(), "widening", FOLLOW).await;
    let version = bank.versions("public.grow").await;
    alter(&bank).await;
    let (code, said) = bank.refused().await;
    assert!(code == 65 || code == 78, "{code}: {said}");
    let in_types_of_the_server = [
        "`i` is bigint now and was integer",
        "`d` is numeric(9,4) now and was numeric(5,2)",
        "`t` is timestamp without time zone now and was date",
        "`l` is bigint[] now and was integer[]",
        "set `type_widening = true`",
    ];
    let (_, looked) = bank.check().await;
    for part in in_types_of_the_server {
        assert!(said.contains(part) && looked.contains(part), "{part}: {said}\n{looked}");
    }
    bank.reconfigure(WIDENING);
    bank.catch_up().await;
    agrees(&bank).await;
    read(Reader::Duckdb, &bank, version).await;
    // The index is made from files of both types, and rows of the older ones are changed in part.
    std::fs::remove_dir_all(bank.site.path(".alluvium")).unwrap();
    bank.sql("UPDATE grow SET d = 9.999 WHERE id IN (1, 6); DELETE FROM grow WHERE id IN (7, 20)")
        .await;
    bank.catch_up().await;
    agrees(&bank).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s10_types_that_make_other_values_of_the_rows_that_are_there_have_the_table_copied_again() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, at timestamp, n numeric(8,2), d numeric(9,4), w numeric, j json, c char(5), x text, f float8, day timestamp); \
               INSERT INTO t VALUES (1, '2026-01-01 10:00:00.7', 1.25, 1.2345, 1.5, '{\"b\":  1, \"a\": 2}', 'ab', 'ab', 0.1, '2026-01-01 10:00')";
    let alter = "ALTER TABLE t ALTER at TYPE timestamp(0), ALTER n TYPE numeric(7,1), ALTER d TYPE numeric(12,1), ALTER w TYPE numeric(60,0), \
                 ALTER j TYPE jsonb, ALTER c TYPE text, ALTER x TYPE char(5), ALTER f TYPE float4, ALTER day TYPE date";
    let rows = "SELECT id, CAST(date_part('epoch', at) * 10 AS bigint), CAST(n * 100 AS int), CAST(d * 10000 AS int), w, j, c, x, \
                CAST(f * 1e9 AS bigint), CAST(date_part('epoch', day) AS bigint) FROM public.t";
    let insert = |id: u32| format!("INSERT INTO t SELECT {id}, at, n, d, w, j, c, x, f, day FROM t WHERE id = 1");
    for seen in [true, false] {
        let bank = Bank::new(PostgresServer::shared(), "rewritten", sql, WIDENING).await;
        bank.catch_up().await;
        let service = seen.then(|| bank.site.run("service", &bank.config));
        bank.sql(&insert(2)).await;
        if seen {
            bank.until_released().await;
        }
        bank.sql(alter).await;
        bank.sql(&insert(3)).await;
        if let Some(mut service) = service {
            let there = bank.there("SELECT id, j FROM t").await;
            wait_until("it is copied again", async || {
                bank.here("SELECT id, j FROM public.t", &["public.t"]).await == there
            })
            .await;
            service.stop().await;
        }
        bank.catch_up().await;
        bank.agrees(rows, &["public.t"]).await;
        assert_eq!(bank.copied_again("public.t"), 1, "it is copied once");
    }
}

/// What keeps all values costs no copy.
#[tokio::test(flavor = "multi_thread")]
async fn s11_types_that_keep_all_values_copy_nothing() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, v varchar(5), n numeric(8,2), at timestamp(3)); INSERT INTO t VALUES (1, 'ab', 1.25, '2026-01-01 10:00:00.7')";
    let bank = Bank::new(PostgresServer::shared(), "kept", sql, WIDENING).await;
    bank.catch_up().await;
    for (id, v) in [(2, "text"), (3, "varchar")] {
        bank.sql(&format!(
            "INSERT INTO t VALUES (1{id}, 'b', 2, now()); ALTER TABLE t ALTER v TYPE {v}, ALTER n TYPE numeric({}, 2), ALTER at TYPE timestamp({}); \
             INSERT INTO t VALUES ({id}, 'b', 2, '2026-01-01')",
            8 + id,
            2 + id
        ))
        .await;
        bank.catch_up().await;
    }
    bank.agrees("SELECT id, v, CAST(n * 100 AS int) FROM public.t", &["public.t"]).await;
    assert_eq!(bank.copied_again("public.t"), 0);
}
