//! Types that are made while a database is followed.

use alluvium::sources::postgres::catalog;
use alluvium::sources::postgres::connection::control;

use crate::support::bank::Bank;
use crate::support::postgres::{Installation, Options, PostgresServer, wait_until};
use crate::support::program::{free_port, http, labelled};

const MAKE: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN small AS int CHECK (VALUE < 100); CREATE TYPE pair AS (a int, b mood); \
    ALTER TABLE t ADD m mood, ADD ms mood[], ADD d small, ADD p pair; UPDATE t SET m = 'sad' WHERE id <= 2; \
    INSERT INTO t VALUES (7, 'z', 'ok', '{ok,sad}', 9, '(1,ok)')";
const SQL: &str = "SELECT id, v, m, array_to_string(ms, ','), d, p FROM public.t";
const THERE: &str = "SELECT id, v, m::text, array_to_string(ms, ','), d::int, p::text FROM public.t";

async fn agree(bank: &Bank<'_>) {
    assert_eq!(bank.here(SQL, &["public.t"]).await, bank.there(THERE).await);
    assert!(
        bank.here("SELECT * FROM bank_dead_letters", &["bank_dead_letters"])
            .await
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p21_rows_of_types_that_are_made_meanwhile_are_read_as_they_are() {
    // Where a table has a type that is only known as text, all values come as text.
    for more in ["", "CREATE TABLE other (id int PRIMARY KEY, q tsquery);"] {
        let sql =
            format!("{more} CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'copied' FROM generate_series(1, 5) i");
        let bank = Bank::new(PostgresServer::shared(), "types", &sql, "create = true\nfollow = [\"public.*\"]").await;
        bank.catch_up().await;
        let mut service = bank.site.run("service", &bank.config);
        bank.sql("UPDATE t SET v = 'streamed' WHERE id = 1").await;
        bank.until_released().await;
        bank.sql(MAKE).await;
        bank.sql("UPDATE t SET v = 'later' WHERE id = 3").await;
        bank.until_released().await;
        agree(&bank).await;
        // An enum that has got a value, among those that it had.
        bank.sql("ALTER TYPE mood ADD VALUE 'so so' BEFORE 'ok'").await;
        bank.sql("UPDATE t SET m = 'so so', ms = '{so so,sad}' WHERE id = 5; UPDATE t SET p = '(3,\"so so\")' WHERE id = 7")
            .await;
        bank.until_released().await;
        agree(&bank).await;
        // A type that has got more parts, of a new type too. Rows that are there keep what they have.
        bank.sql("CREATE TYPE hue AS ENUM ('red'); ALTER TYPE pair ADD ATTRIBUTE c hue; UPDATE t SET p = '(2,sad,red)' WHERE id IN (3, 7)")
            .await;
        bank.until_released().await;
        agree(&bank).await;
        // One that is gone before it is read: the server still knows how to print it.
        service.stop().await;
        bank.sql("CREATE TYPE gone AS ENUM ('x'); ALTER TABLE t ADD g gone; UPDATE t SET g = 'x' WHERE id = 4; ALTER TABLE t DROP g; DROP TYPE gone; UPDATE t SET v = 'last' WHERE id = 4")
            .await;
        bank.catch_up().await;
        agree(&bank).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_server_can_print_is_named_and_counted() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, q tsquery); INSERT INTO t VALUES (1, 'a & b'), (2, NULL)";
    let (lines, port) = ("create = true\nfollow = [\"public.*\"]", free_port());
    let mut bank = Bank::new(PostgresServer::shared(), "unknown", sql, lines).await;
    bank.reconfigure_with(&http(port), lines);
    let named = "public.t.q (tsquery)";
    let (code, said) = bank.check().await;
    assert!(code == 0 && said.contains(named), "{said}");
    let mut service = bank.site.run("service", &bank.config);
    let counted = async |values: f64| {
        let count = || labelled(port, "alluvium_unknown_types_total", &["table=\"public.t\""]);
        wait_until("the values are counted", async || count() == Some(values)).await;
    };
    counted(1.0).await;
    bank.sql("INSERT INTO t VALUES (3, 'c | d'), (4, NULL)").await;
    counted(2.0).await;
    let (code, said) = bank.check().await;
    assert!(code == 0 && said.contains(named), "{said}");
    bank.until_released().await;
    service.stop().await;
    assert_eq!(service.log_text().matches(named).count(), 1, "it is said once");
    bank.agrees("SELECT id, q FROM public.t", &["public.t"]).await;
}

/// Of as many decimal places as its country counts: none, or three, with the minus behind it.
#[tokio::test(flavor = "multi_thread")]
async fn p21_money_is_exact_whatever_the_country_of_the_server() {
    const LOCALES: [&str; 2] = ["ja_JP.UTF-8", "ar_TN.UTF-8"];
    let server = PostgresServer::start(Options::default().locales(&LOCALES));
    for (locale, printed) in LOCALES.into_iter().zip(["-1235", "-1234.500"]) {
        // Where a table has a type that is only known as text, all values come as text.
        for more in ["", "CREATE TABLE other (id int PRIMARY KEY, q tsquery);"] {
            let bank = Bank::new(&server, "money", "", "create = true\nfollow = [\"public.*\"]").await;
            bank.sql(&format!("ALTER DATABASE {} SET lc_monetary = '{locale}'", bank.database))
                .await;
            let values = "(-1234.5)::money), (2, 0::money), (3, 9223372036854775::money), (4, (-9223372036854775)::money), (5, NULL";
            bank.sql(&format!(
                "{more} CREATE TABLE t (id int PRIMARY KEY, m money); INSERT INTO t VALUES (1, {values})"
            ))
            .await;
            bank.catch_up().await;
            bank.sql("INSERT INTO t SELECT id + 10, m FROM t; UPDATE t SET m = m + 1::money WHERE id = 12")
                .await;
            bank.catch_up().await;
            let here = bank.here("SELECT id, m FROM public.t", &["public.t"]).await;
            assert_eq!(here, bank.there("SELECT id, m::numeric FROM t").await, "{locale} {more}");
            assert!(here.contains(&vec!["11".to_owned(), printed.to_owned()]), "{locale}: {here:?}");
        }
    }
}

#[tokio::test]
async fn types_are_named_as_the_server_names_them() {
    let named = [
        "bool",
        "int2",
        "int4",
        "int8",
        "float4",
        "float8",
        "numeric",
        "numeric(8,2)",
        "numeric(38)",
        "varchar",
        "varchar(5)",
        "char(5)",
        "bit(3)",
        "varbit",
        "varbit(7)",
        "time",
        "time(3)",
        "timetz(0)",
        "timestamp",
        "timestamp(0)",
        "timestamptz",
        "timestamptz(6)",
        "date",
        "interval",
        "text",
        "jsonb",
        "uuid",
        "bytea",
        "mood",
        "int4[]",
        "varchar(5)[]",
        "timestamp(3)[]",
        "numeric(4,1)[]",
        "mood[]",
        "int4range",
        "oid",
    ];
    for installation in Installation::all() {
        let server = PostgresServer::start(Options::default().on(&installation));
        let columns: Vec<String> = named.iter().enumerate().map(|(number, kind)| format!("c{number} {kind}")).collect();
        let sql = format!("CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE t ({})", columns.join(", "));
        server.sql("postgres", &sql).await;
        let session = control(&server.address("postgres")).await.expect("a session");
        let types = catalog::types(&session).await.expect("types");
        let sql =
            "SELECT atttypid, atttypmod, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0";
        for row in server.rows("postgres", sql).await {
            let cells: Vec<String> = row.into_iter().flatten().collect();
            let declared: (u32, i32) = (cells[0].parse().expect("a number"), cells[1].parse().expect("a number"));
            assert_eq!(types.column(declared.0, declared.1).name(), cells[2]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_without_an_encoding_is_a_dead_letter_where_it_is_no_text() {
    let server = PostgresServer::shared();
    let bank = Bank::new(server, "ascii", "", "create = true\nfollow = [\"public.*\"]").await;
    server
        .sql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", bank.database))
        .await;
    let make = format!(
        "CREATE DATABASE {} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0",
        bank.database
    );
    server.sql("postgres", &make).await;
    bank.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'good'), (2, E'bad\\351'); CREATE TABLE other (id int PRIMARY KEY)")
        .await;
    for round in [0, 10] {
        bank.catch_up().await;
        bank.agrees("SELECT id FROM public.other", &["public.other"]).await;
        let good = bank.there("SELECT id FROM t WHERE position('bad' IN v) = 0").await;
        assert_eq!(bank.here("SELECT id FROM public.t", &["public.t"]).await, good);
        bank.sql(&format!(
            "INSERT INTO t VALUES (1{round}, 'good'), (2{round}, E'bad\\351'); INSERT INTO other VALUES ({round})"
        ))
        .await;
    }
    assert_eq!(
        bank.here("SELECT code FROM bank_dead_letters", &["bank_dead_letters"]).await,
        [["malformed"], ["malformed"]]
    );
}
