//! What happens to rows and to tables of a database, and what becomes of it.

use std::fmt::Write as _;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::support::bank::Bank;
use crate::support::postgres::{Options, PostgresServer, wait_until};

const ALL: &str = "create = true\nfollow = [\"public.*\"]";

/// A large text that Postgres keeps out of line, and does not send where it did not change.
const LARGE: &str = "(SELECT string_agg(md5(i::text || random()::text), '') FROM generate_series(1, 200) i)";

#[tokio::test(flavor = "multi_thread")]
async fn rows_follow_every_kind_of_change_with_every_identity() {
    let sql = "CREATE TABLE plain (id int PRIMARY KEY, v text, body text);
               CREATE TABLE whole (id int PRIMARY KEY, v text, body text); ALTER TABLE whole REPLICA IDENTITY FULL;
               CREATE TABLE indexed (a int NOT NULL, b text NOT NULL, v text, body text);
               CREATE UNIQUE INDEX indexed_key ON indexed (a, b); ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_key;
               CREATE TABLE \"Odd.name \"\"x\"\"\" (\"Id\" bigint PRIMARY KEY, \"the-value\" text);
               INSERT INTO plain SELECT i, 'copied', repeat('x', 10) FROM generate_series(1, 5) i;
               INSERT INTO whole SELECT i, 'copied', repeat('x', 10) FROM generate_series(1, 5) i;";
    let odd = "[pipelines.bank.tables.odd]\ntable = 'public.\"Odd.name \"\"x\"\"\"'";
    let bank = Bank::new(
        PostgresServer::shared(),
        "identities",
        sql,
        &format!("create = true\nfollow = [\"public.plain\", \"public.whole\", \"public.indexed\"]\n{odd}"),
    )
    .await;
    bank.catch_up().await;
    for table in ["plain", "whole"] {
        bank.sql(&format!(
            "INSERT INTO {table} SELECT i, 'large', {LARGE} FROM generate_series(11, 16) i;
             UPDATE {table} SET v = 'changed' WHERE id IN (1, 11, 12);
             DELETE FROM {table} WHERE id IN (2, 13);
             UPDATE {table} SET id = id + 100 WHERE id = 3"
        ))
        .await;
        // Large texts go with their rows to new keys, from the table and from changes that are not in it yet.
        bank.sql(&format!(
            "UPDATE {table} SET id = id + 100 WHERE id = 14; UPDATE {table} SET v = 'moved' WHERE id = 114"
        ))
        .await;
        bank.catch_up().await;
        bank.sql(&format!(
            "UPDATE {table} SET v = 'before' WHERE id = 15; UPDATE {table} SET id = 115 WHERE id = 15; UPDATE {table} SET id = 215, v = 'after' WHERE id = 115;
             INSERT INTO {table} VALUES (15, 'another', 'small')"
        ))
        .await;
        bank.sql(&format!(
            "UPDATE {table} SET id = 99 WHERE id = 11; UPDATE {table} SET id = 11 WHERE id = 12; UPDATE {table} SET id = 12 WHERE id = 99"
        ))
        .await;
        bank.sql(&format!(
            "UPDATE {table} SET v = 'again' WHERE id = 12; INSERT INTO {table} VALUES (2, 'back', NULL)"
        ))
        .await;
    }
    bank.sql(&format!(
        "INSERT INTO indexed SELECT i, 'k' || i, 'v', {LARGE} FROM generate_series(1, 6) i;
         UPDATE indexed SET v = 'changed' WHERE a = 1; UPDATE indexed SET b = 'moved' WHERE a = 2; DELETE FROM indexed WHERE a = 3"
    ))
    .await;
    bank.sql("INSERT INTO \"Odd.name \"\"x\"\"\" VALUES (1, 'a'), (2, 'b'); DELETE FROM \"Odd.name \"\"x\"\"\" WHERE \"Id\" = 1")
        .await;
    bank.catch_up().await;
    for table in ["plain", "whole"] {
        let sql = format!("SELECT id, v, md5(body) FROM public.{table}");
        bank.agrees(&sql, &[&format!("public.{table}")]).await;
    }
    bank.agrees("SELECT a, b, v, md5(body) FROM public.indexed", &["public.indexed"])
        .await;
    let here = bank.here("SELECT \"Id\", \"the-value\" FROM odd", &["odd"]).await;
    assert_eq!(here, [["2", "b"]]);
    bank.sql("TRUNCATE plain, whole; INSERT INTO whole VALUES (1, 'after', NULL)").await;
    bank.catch_up().await;
    assert!(bank.here("SELECT * FROM public.plain", &["public.plain"]).await.is_empty());
    bank.agrees("SELECT id, v, body FROM public.whole", &["public.whole"]).await;
}

/// A random transaction on two tables: some rows are large, some parts are rolled back, and so are some of all.
fn transaction(rng: &mut SmallRng) -> String {
    let mut sql = "BEGIN;".to_owned();
    for _ in 0..rng.random_range(1..6) {
        let table = ["short", "long"].choose(rng).expect("there are two");
        let (id, other) = (rng.random_range(1..30), rng.random_range(1..30));
        let savepoint = rng.random_ratio(1, 3);
        if savepoint {
            sql += "SAVEPOINT s;";
        }
        let _ = match rng.random_range(0..10) {
            0..3 => write!(
                sql,
                "INSERT INTO {table} VALUES ({id}, {other}, {LARGE}) ON CONFLICT (id) DO UPDATE SET n = excluded.n;"
            ),
            3 => write!(
                sql,
                "INSERT INTO {table} SELECT i, {other}, 'many' FROM generate_series(100, 300) i ON CONFLICT DO NOTHING;"
            ),
            4 => write!(sql, "DELETE FROM {table} WHERE id >= 100;"),
            5..8 => write!(sql, "UPDATE {table} SET n = n + 1 WHERE id = {id};"),
            8 => write!(sql, "UPDATE {table} SET body = 'small' WHERE id = {id};"),
            _ => write!(sql, "DELETE FROM {table} WHERE id = {id};"),
        };
        if savepoint && rng.random_ratio(1, 2) {
            sql += "ROLLBACK TO s;";
        }
    }
    sql + if rng.random_ratio(1, 5) { "ROLLBACK;" } else { "COMMIT;" }
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_transactions_leave_what_the_server_has() {
    // Nearly everything is streamed before it is committed.
    let server = PostgresServer::start(Options::default().set("logical_decoding_work_mem", "64kB"));
    let seed: u64 = rand::random();
    let mut rng = SmallRng::seed_from_u64(seed);
    let sql = "CREATE TABLE short (id int PRIMARY KEY, n int, body text); CREATE TABLE long (id int PRIMARY KEY, n int, body text);
               ALTER TABLE long REPLICA IDENTITY FULL";
    let bank = Bank::new(&server, "generated", sql, ALL).await;
    for round in 0..6 {
        let client = server.client(&bank.database).await;
        for _ in 0..rng.random_range(0..40) {
            client.batch_execute(&transaction(&mut rng)).await.expect("a transaction");
        }
        bank.catch_up().await;
        for table in ["short", "long"] {
            let sql = format!("SELECT id, n, md5(body) FROM public.{table}");
            let (here, there) = (bank.here(&sql, &[&format!("public.{table}")]).await, bank.there(&sql).await);
            assert!(here == there, "seed {seed}, round {round}, {table}: {here:?}\n{there:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_without_a_key_hold_what_is_inserted_or_every_change() {
    let sql = "CREATE TABLE events (at int, what text); INSERT INTO events VALUES (1, 'copied');
               CREATE TABLE accounts (id int PRIMARY KEY, balance int); INSERT INTO accounts VALUES (1, 10)";
    let lines = "create = true\nfollow = [\"public.*\"]\n[pipelines.bank.tables.audit]\ntable = \"public.accounts\"\nmode = \"append\"\n\
                 metadata = [\"__op\", \"__table\"]\n[pipelines.bank.tables.state]\ntable = \"public.accounts\"";
    let bank = Bank::new(PostgresServer::shared(), "appended", sql, lines).await;
    bank.catch_up().await;
    bank.sql("INSERT INTO events VALUES (2, 'streamed'); INSERT INTO accounts VALUES (2, 20); UPDATE accounts SET balance = 11 WHERE id = 1; DELETE FROM accounts WHERE id = 2").await;
    bank.catch_up().await;
    bank.agrees("SELECT at, what FROM public.events", &["public.events"]).await;
    assert_eq!(bank.here("SELECT id, balance FROM state", &["state"]).await, [["1", "11"]]);
    let audit = bank.here("SELECT id, balance, __op, __table FROM audit", &["audit"]).await;
    let expected = [["1", "10", "r"], ["1", "11", "u"], ["2", "20", "c"], ["2", "NULL", "d"]];
    assert_eq!(audit, expected.map(|[id, balance, op]| [id, balance, op, "accounts"]));
    // An update has no place in a table of inserts: it stops, names the table, and says what to do; the others go on.
    bank.sql("ALTER TABLE events REPLICA IDENTITY FULL; UPDATE events SET what = 'rewritten' WHERE at = 1")
        .await;
    let (code, said) = bank.refused().await;
    assert_eq!(code, 65, "{said}");
    assert!(said.contains("public.events") && said.contains("__op"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_columns_come_and_go_with_the_tables() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'one')";
    let bank = Bank::new(PostgresServer::shared(), "columns", sql, ALL).await;
    bank.catch_up().await;
    bank.sql("ALTER TABLE t ADD COLUMN b int DEFAULT 7; INSERT INTO t VALUES (2, 'two', 8)")
        .await;
    bank.sql("ALTER TABLE t DROP COLUMN a; INSERT INTO t VALUES (3, 9); UPDATE t SET b = 10 WHERE id = 2")
        .await;
    bank.sql("ALTER TABLE t RENAME COLUMN b TO c; INSERT INTO t VALUES (4, 11); CREATE TYPE mood AS ENUM ('sad', 'ok'); ALTER TABLE t ADD COLUMN m mood; UPDATE t SET m = 'ok' WHERE id = 4").await;
    bank.catch_up().await;
    bank.agrees("SELECT id, c, m FROM public.t", &["public.t"]).await;
    // What has gone stays as a column, and becomes null.
    bank.sql("ALTER TABLE t DROP COLUMN m; INSERT INTO t VALUES (5, 12)").await;
    bank.catch_up().await;
    let here = bank.here("SELECT id, a, m FROM public.t WHERE id >= 4", &["public.t"]).await;
    assert_eq!(here, [["4", "NULL", "ok"], ["5", "NULL", "NULL"]]);
    // Narrower values of the same kind fit; others do not, and that is said.
    bank.sql("ALTER TABLE t ALTER COLUMN c TYPE text USING 'x' || c; INSERT INTO t VALUES (6, 'text')")
        .await;
    let (code, said) = bank.refused().await;
    assert!([65, 78].contains(&code), "{code}: {said}");
    assert!(said.contains("`c`") && said.contains("public.t"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p19_p20_partitions_filters_and_lists_of_columns_are_the_publication_s() {
    let server = PostgresServer::shared();
    let sql = "CREATE TABLE parted (id int, day date, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
               CREATE TABLE parted_a PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
               CREATE TABLE parted_b (v text, day date NOT NULL, id int NOT NULL, PRIMARY KEY (id, day));
               ALTER TABLE parted ATTACH PARTITION parted_b FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
               INSERT INTO parted VALUES (1, '2026-01-10', 'a'), (2, '2026-02-10', 'b');
               CREATE TABLE filtered (id int PRIMARY KEY, secret text, kept boolean, twice int GENERATED ALWAYS AS (id * 2) STORED);
               INSERT INTO filtered VALUES (1, 's', true), (2, 's', false)";
    let bank = Bank::new(server, "parted", sql, "follow = [\"public.*\"]").await;
    // Lists of columns and filters of rows are of PostgreSQL 15 and newer.
    let lists = server.version() >= 15;
    let of = if lists { "filtered (id, kept) WHERE (id < 10)" } else { "filtered" };
    bank.sql(&format!(
        "CREATE PUBLICATION pub_{} FOR TABLE parted, {of} WITH (publish_via_partition_root = true)",
        bank.database
    ))
    .await;
    bank.sql(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", bank.slot()))
        .await;
    bank.catch_up().await;
    bank.sql("INSERT INTO parted VALUES (3, '2026-01-11', 'c'); UPDATE parted SET day = '2026-02-11' WHERE id = 1; DELETE FROM parted WHERE id = 2").await;
    bank.sql("INSERT INTO filtered VALUES (3, 's', true), (11, 's', true); UPDATE filtered SET id = 12 WHERE id = 2; UPDATE filtered SET id = 4 WHERE id = 11").await;
    bank.catch_up().await;
    bank.agrees(
        "SELECT id, CAST(EXTRACT(DAY FROM day) AS INT), v FROM public.parted",
        &["public.parted"],
    )
    .await;
    bank.agrees(
        "SELECT id, CAST(kept AS text) FROM public.filtered WHERE id < 10",
        &["public.filtered"],
    )
    .await;
    let columns = bank.here("SELECT * FROM public.filtered WHERE id = 1", &["public.filtered"]).await;
    let shown = if lists { vec!["1", "true"] } else { vec!["1", "s", "true"] };
    assert_eq!(columns, [shown]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_no_column_holds_is_a_dead_letter_or_null_as_is_asked_for() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, day date, n numeric(5, 2)); INSERT INTO t VALUES (1, 'infinity', 1), (2, '2026-01-01', 'NaN'), (3, '2026-01-02', 3)";
    let bank = Bank::new(PostgresServer::shared(), "special", sql, ALL).await;
    bank.catch_up().await;
    bank.sql("INSERT INTO t VALUES (4, '-infinity', 1), (5, '2026-01-05', 5)").await;
    bank.catch_up().await;
    assert_eq!(bank.here("SELECT id FROM public.t", &["public.t"]).await, [["3"], ["5"]]);
    let letters = bank
        .here("SELECT code, message FROM bank_dead_letters", &["bank_dead_letters"])
        .await;
    assert_eq!(letters.len(), 3, "{letters:?}");
    assert!(
        letters
            .iter()
            .all(|letter| letter[0] == "out_of_range" && letter[1].starts_with("column `")),
        "{letters:?}"
    );

    // A row goes by its key, whatever else is told of it.
    bank.sql("ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET day = 'infinity' WHERE id = 3; DELETE FROM t WHERE id = 3")
        .await;
    bank.catch_up().await;
    assert_eq!(bank.here("SELECT id FROM public.t", &["public.t"]).await, [["5"]]);

    let nulls = Bank::new(PostgresServer::shared(), "nulls", sql, &format!("{ALL}\nspecial_values = \"null\"")).await;
    nulls.catch_up().await;
    let here = nulls.here("SELECT id, day, n FROM public.t", &["public.t"]).await;
    assert_eq!(
        here,
        [["1", "NULL", "1.00"], ["2", "2026-01-01", "NULL"], ["3", "2026-01-02", "3.00"]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_columns_that_come_with_values_in_all_rows_are_in_all_rows() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, i FROM generate_series(1, 9) i";
    let bank = Bank::new(PostgresServer::shared(), "untold", sql, ALL).await;
    bank.catch_up().await;
    let alterations = [
        "ADD COLUMN constant int DEFAULT 7",
        "ADD COLUMN plain int",
        "ADD COLUMN volatile int DEFAULT (random() * 1e9)::int",
        "RENAME COLUMN v TO renamed",
        "ADD COLUMN numbered int GENERATED ALWAYS AS IDENTITY",
    ];
    let mut service = bank.site.run("service", &bank.config);
    for (number, alter) in alterations.iter().enumerate() {
        let id = 100 + number;
        bank.sql(&format!(
            "INSERT INTO t (id) VALUES ({id}); ALTER TABLE t {alter}; INSERT INTO t (id) VALUES (1{id}); DELETE FROM t WHERE id = {id}"
        ))
        .await;
        // Both while it is followed and when nobody looks.
        if number % 2 == 0 {
            wait_until(alter, async || {
                bank.here("SELECT id FROM public.t", &["public.t"]).await == bank.there("SELECT id FROM t").await
            })
            .await;
        } else {
            service.stop().await;
            service = bank.site.run("service", &bank.config);
        }
    }
    service.stop().await;
    bank.catch_up().await;
    let sql = |table: &str| format!("SELECT id, constant, plain, volatile, renamed, numbered FROM {table}");
    assert_eq!(bank.here(&sql("public.t"), &["public.t"]).await, bank.there(&sql("t")).await);
}

/// No row of the table changes, and so nothing of it is told.
#[tokio::test(flavor = "multi_thread")]
async fn columns_that_come_with_values_are_seen_where_no_row_changes() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1); CREATE TABLE other (id int PRIMARY KEY)";
    let bank = Bank::new(PostgresServer::shared(), "resting", sql, &format!("{ALL}\ndiscovery = \"200 ms\"")).await;
    bank.catch_up().await;
    let mut service = bank.site.run("service", &bank.config);
    bank.sql("INSERT INTO other VALUES (1)").await;
    bank.until_released().await;
    // What has gone stays as a column, and becomes null.
    let alterations: [(&str, &[&str]); 2] = [
        ("ADD d int DEFAULT 7", &["1", "1", "7"]),
        ("RENAME v TO renamed", &["1", "NULL", "7", "1"]),
    ];
    for (alter, row) in alterations {
        bank.sql(&format!("ALTER TABLE t {alter}")).await;
        wait_until(alter, async || bank.here("SELECT * FROM public.t", &["public.t"]).await == [row]).await;
    }
    // One whose type does not fit is told, too.
    bank.sql("ALTER TABLE t DROP d; ALTER TABLE t ADD d text DEFAULT 'x'").await;
    wait_until("it is said", async || service.log_text().contains("schema_changed")).await;
    service.stop().await;
    bank.sql("ALTER TABLE t DROP d").await;
    bank.catch_up().await;
    bank.agrees("SELECT id, renamed FROM public.t", &["public.t"]).await;
}

/// A table that only grows cannot be copied again: the log says which columns its rows lack.
#[tokio::test(flavor = "multi_thread")]
async fn columns_that_come_with_values_in_a_table_that_only_grows_are_named_once() {
    let sql = "CREATE TABLE e (a int, b text); INSERT INTO e VALUES (1, 'x')";
    let bank = Bank::new(PostgresServer::shared(), "grows", sql, &format!("{ALL}\ndiscovery = \"200 ms\"")).await;
    bank.catch_up().await;
    let alterations = [
        ("RENAME b TO c", "`c`"),
        ("ADD d int DEFAULT 7", "`d`"),
        ("ALTER c TYPE char(5)", "`c`"),
        ("ADD plain int", ""),
    ];
    let mut service = bank.site.run("service", &bank.config);
    for (alter, named) in alterations {
        let said = format!("{named} came with values");
        let before = service.log_text().matches(&said).count();
        bank.sql(&format!("ALTER TABLE e {alter}; INSERT INTO e (a) VALUES (2)")).await;
        if named.is_empty() {
            bank.until_released().await;
            assert_eq!(service.log_text().matches(&said).count(), before, "{}", service.log_text());
        } else {
            wait_until(alter, async || service.log_text().matches(&said).count() == before + 1).await;
        }
    }
    service.stop().await;
    let mut again = bank.start();
    assert_eq!(again.wait(std::time::Duration::from_secs(120)).await.status.code(), Some(0));
    assert!(!again.log_text().contains("came with values"), "{}", again.log_text());
    let here = bank.here("SELECT a, b, c, d FROM public.e WHERE a = 1", &["public.e"]).await;
    assert_eq!(here, [["1", "x", "NULL", "NULL"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_columns_that_only_have_the_names_of_others_are_copied_again() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, a text, b text, c int); INSERT INTO t SELECT i, 'a' || i, 'b' || i, i FROM generate_series(1, 9) i";
    let (all, without_a) = ("SELECT id, a, b, c FROM", "SELECT id, b, c FROM");
    let alterations = [
        // The last column looks the same to whoever knows its name.
        ("DROP COLUMN c, ADD COLUMN c int", all),
        ("DROP COLUMN a, ADD COLUMN a text", all),
        ("RENAME a TO x; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME x TO b", all),
        ("DROP COLUMN b; ALTER TABLE t RENAME a TO b", without_a),
        // Rows were told while it was away.
        (
            "DROP COLUMN c; UPDATE t SET id = id + 100 WHERE id < 5; ALTER TABLE t ADD COLUMN c int",
            all,
        ),
    ];
    for (alter, read) in alterations {
        for seen in [true, false] {
            let lines = format!("{ALL}\ndiscovery = \"200 ms\"");
            let bank = Bank::new(PostgresServer::shared(), "namesakes", sql, &lines).await;
            bank.catch_up().await;
            let service = seen.then(|| bank.site.run("service", &bank.config));
            bank.sql("UPDATE t SET c = 100 WHERE id = 9").await;
            if seen {
                bank.until_released().await;
            }
            bank.sql(&format!("ALTER TABLE t {alter}; INSERT INTO t (id, b) VALUES (10, 'new')"))
                .await;
            if let Some(mut service) = service {
                let there = bank.there(&format!("{read} t")).await;
                wait_until(alter, async || bank.here(&format!("{read} public.t"), &["public.t"]).await == there).await;
                service.stop().await;
            }
            bank.catch_up().await;
            bank.agrees(&format!("{read} public.t"), &["public.t"]).await;
            bank.sql("INSERT INTO t (id) VALUES (11)").await;
            bank.catch_up().await;
            assert_eq!(bank.copied_again("public.t"), 1, "{alter}: it is copied once");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_come_and_go_plainly_are_not_copied_again() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'a')";
    let bank = Bank::new(PostgresServer::shared(), "plainly", sql, ALL).await;
    bank.catch_up().await;
    let alter = async |alter: String| {
        let insert = "INSERT INTO t (id) SELECT max(id) + 1 FROM t";
        bank.sql(&format!("ALTER TABLE t {alter}; {insert}")).await;
    };
    for seen in [true, false] {
        let service = seen.then(|| bank.site.run("service", &bank.config));
        alter(format!("ADD COLUMN plain_{seen} int")).await;
        alter(format!("ADD COLUMN gone_{seen} int")).await;
        if let Some(mut service) = service {
            bank.until_released().await;
            service.stop().await;
        }
        bank.catch_up().await;
        alter(format!("DROP COLUMN gone_{seen}")).await;
    }
    bank.catch_up().await;
    bank.agrees("SELECT id, a, plain_true, plain_false FROM public.t", &["public.t"])
        .await;
    assert_eq!(bank.copied_again("public.t"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_followed_any_more_stops_alone() {
    let sql = "CREATE TABLE bent (id int PRIMARY KEY, v int); CREATE TABLE straight (id int PRIMARY KEY)";
    let bank = Bank::new(PostgresServer::shared(), "bent", sql, &format!("{ALL}\ndiscovery = \"200 ms\"")).await;
    bank.catch_up().await;
    let bend = "ALTER TABLE bent DROP COLUMN v; ALTER TABLE bent ADD COLUMN v text; INSERT INTO bent VALUES (1, 'x')";
    for service in [true, false] {
        let mut program = bank.site.run("service", &bank.config);
        if service {
            bank.sql("INSERT INTO bent VALUES (0, 0)").await;
            wait_until("it is followed", async || {
                bank.here("SELECT id FROM public.bent", &["public.bent"]).await == [["0"]]
            })
            .await;
            // One that comes with a name that Delta does not know, and one that changed.
            bank.sql("CREATE TABLE crooked (id int PRIMARY KEY, \"a b\" int)").await;
            bank.sql(bend).await;
        }
        let next = bank
            .value("INSERT INTO straight SELECT 1 + count(*) FROM straight RETURNING id")
            .await;
        wait_until("the others go on", async || {
            let log = program.log_text();
            ["`public.bent`", "\"public.crooked\""].iter().all(|table| log.contains(table))
                && bank.here("SELECT max(id) FROM public.straight", &["public.straight"]).await == [[next.clone()]]
        })
        .await;
        program.stop().await;
    }
    let (code, said) = bank.refused().await;
    assert_eq!(code, 78, "the code of the first one: {said}");
    assert_eq!(bank.here("SELECT id FROM public.bent", &["public.bent"]).await, [["0"]]);
    bank.sql("DROP TABLE crooked; DROP TABLE bent").await;
    bank.catch_up().await;
}
