//! A table of Postgres whose columns ALTER TABLE gives wider types, and what a reader must see of it.

use super::bank::Bank;
use super::postgres::PostgresServer;
use super::python::Reader;
use super::readback::texts;

pub const FOLLOW: &str = "create = true\nfollow = [\"public.*\"]";
/// For tables that are followed by pattern.
pub const WIDENING: &str = "create = true\nfollow = [\"public.*\"]\n[pipelines.bank]\ntype_widening = true";
/// A column for each change of type that Delta allows and Postgres can make, and text that is kept out of line.
const TABLE: &str =
    "CREATE TABLE grow (id int PRIMARY KEY, i int, s smallint, x int, e int, f real, d numeric(5,2), t date, l int[], body text);
    INSERT INTO grow SELECT i, i, i, i, i, i / 8.0, i / 4.0, date '2024-02-29' + i, ARRAY[i, NULL], repeat(md5(i::text), 300)
        FROM generate_series(1, 9) i";
const WIDER: &str =
    "ALTER TABLE grow ALTER id TYPE bigint, ALTER i TYPE bigint, ALTER s TYPE bigint, ALTER x TYPE float8, ALTER e TYPE numeric(20,3),
    ALTER f TYPE float8, ALTER d TYPE numeric(9,4), ALTER t TYPE timestamp, ALTER l TYPE bigint[]";
/// In words that mean the same on both sides.
const ROWS: &str = "SELECT id, i, s, CAST(x AS int), CAST(e AS int), CAST(f * 1000 AS int), CAST(d * 1000 AS int), \
    CAST(date_part('epoch', t) AS bigint), l[1], md5(body) FROM public.grow";

/// The table, copied.
pub async fn copied<'s>(server: &'s PostgresServer, name: &str, lines: &str) -> Bank<'s> {
    let bank = Bank::new(server, name, TABLE, lines).await;
    bank.catch_up().await;
    agrees(&bank).await;
    bank
}

/// Changes before and after the columns get wider, while nobody looks: so the catalog is ahead of the WAL.
pub async fn alter(bank: &Bank<'_>) {
    bank.sql("UPDATE grow SET i = 100 WHERE id = 1; DELETE FROM grow WHERE id = 2; INSERT INTO grow (id, l) VALUES (20, '{7}')")
        .await;
    bank.sql(WIDER).await;
    bank.sql(
        "INSERT INTO grow VALUES (1::bigint << 40, 1::bigint << 41, 1::bigint << 42, 0.5, 3.125, 0.1, 1.125, '2024-02-29 12:34:56',
             ARRAY[1::bigint << 43], 'b');
         UPDATE grow SET i = 101 WHERE id = 1; UPDATE grow SET f = 0.25 WHERE id = 3; DELETE FROM grow WHERE id = 4;
         UPDATE grow SET id = 50 WHERE id = 5",
    )
    .await;
}

/// The lake has the rows that the server has.
pub async fn agrees(bank: &Bank<'_>) {
    bank.agrees(ROWS, &["public.grow"]).await;
}

/// What this reader sees of the table before and after the columns got wider. `copied`: its version after the copy.
pub async fn read(reader: Reader, bank: &Bank<'_>, copied: u64) {
    let table = bank.site.table("public/grow");
    let last = bank.versions("public.grow").await;
    let columns = ["id", "i", "s", "x", "e", "f", "d", "t", "l"];
    let read = reader.read(&table, &[copied, last], &bank.site.out()).await;
    let narrow = |i: u32| {
        format!(
            "{i}|{i}|{i}|{i}|{i}|{:?}|{:.2}|2024-03-{i:02}|[{i}, NULL]",
            f64::from(i) / 8.0,
            f64::from(i) / 4.0
        )
    };
    assert_eq!(texts(&read[0], &columns), (1..10).map(narrow).collect::<Vec<_>>(), "{reader:?}");
    let wide = |id: u32, i: u32, f: f64| {
        let d = f64::from(i) / 4.0;
        format!("{id}|{i}|{i}|{i}.0|{i}.000|{f:?}|{d:.4}|2024-03-{i:02}T00:00:00|[{i}, NULL]")
    };
    let mut expected: Vec<String> = [6, 7, 8, 9].map(|i| wide(i, i, f64::from(i) / 8.0)).into();
    expected.extend([wide(3, 3, 0.25), wide(50, 5, 0.625)]);
    expected.push(wide(1, 1, 0.125).replacen("1|1", "1|101", 1));
    expected.push("20|NULL|NULL|NULL|NULL|NULL|NULL|NULL|[7]".to_owned());
    let large = [40, 41, 42, 43].map(|bits| (1_i64 << bits).to_string());
    expected.push(format!(
        "{}|{}|{}|0.5|3.125|0.1|1.1250|2024-02-29T12:34:56|[{}]",
        large[0], large[1], large[2], large[3]
    ));
    expected.sort();
    assert_eq!(texts(&read[1], &columns), expected, "{reader:?}");
}
