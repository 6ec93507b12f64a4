//! Columns that ALTER TABLE gives another type.

use crate::support::bank::Bank;
use crate::support::postgres::PostgresServer;
use crate::support::python::Reader;
use crate::support::widening::{FOLLOW, WIDENING, agrees, alter, copied, read};

#[tokio::test(flavor = "multi_thread")]
async fn s9_a_table_follows_alter_column_type_where_that_is_asked_for() {
    let mut bank = copied(PostgresServer::shared(), "widening", FOLLOW).await;
    let version = bank.versions("public.grow").await;
    alter(&bank).await;
    let (code, said) = bank.refused().await;
    assert!(code == 65 || code == 78, "{code}: {said}");
    for part in ["`i` is Int32 in the table and Int64 here", "set `type_widening = true`"] {
        assert!(said.contains(part), "{part}: {said}");
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
async fn s10_a_type_that_rounds_the_rows_that_are_there_stops_the_table() {
    let bank = Bank::new(
        PostgresServer::shared(),
        "rounding",
        "CREATE TABLE t (id int PRIMARY KEY, n numeric(9,4)); INSERT INTO t VALUES (1, 1.2345)",
        WIDENING,
    )
    .await;
    bank.catch_up().await;
    bank.sql("INSERT INTO t VALUES (2, 2.3456)").await;
    bank.sql("ALTER TABLE t ALTER n TYPE numeric(12,1)").await;
    bank.sql("INSERT INTO t VALUES (3, 3.5)").await;
    let (code, said) = bank.refused().await;
    assert_eq!(code, 65, "{said}");
    assert!(said.contains("column `n` of public.t is numeric now and was numeric"), "{said}");
}
