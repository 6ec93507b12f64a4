//! What tells rows apart: keys that change on the server, keys that hold late, and keys that no column holds.

use crate::support::bank::Bank;
use crate::support::postgres::{PostgresServer, wait_until};

const ALL: &str = "create = true\nfollow = [\"public.*\"]";

/// A table, how its key is changed and what its rows then do, and what is said of it.
const CHANGES: [(&str, &str, &str); 4] = [
    (
        "more",
        "ALTER TABLE more DROP CONSTRAINT more_pkey, ADD PRIMARY KEY (id, v); INSERT INTO more VALUES (1, 'second')",
        "changes tell `id`, `v` now",
    ),
    (
        "indexed",
        "CREATE UNIQUE INDEX indexed_v ON indexed (v); ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_v; \
         DELETE FROM indexed WHERE id = 1; UPDATE indexed SET v = 'other' WHERE id = 2",
        "changes tell `v` now",
    ),
    (
        "other",
        "ALTER TABLE other DROP CONSTRAINT other_pkey, ADD PRIMARY KEY (v); DELETE FROM other WHERE id = 1; INSERT INTO other VALUES (2, 'same id')",
        "changes tell `v` now",
    ),
    (
        "whole",
        "ALTER TABLE whole DROP CONSTRAINT whole_pkey, ADD PRIMARY KEY (id, v); INSERT INTO whole VALUES (1, 'second')",
        "holds one row per `id`",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn p10_a_table_whose_key_is_changed_stops_before_its_next_row_and_the_others_go_on() {
    let table =
        |name: &str| format!("CREATE TABLE {name} (id int PRIMARY KEY, v text NOT NULL); INSERT INTO {name} VALUES (1, 'a'), (2, 'b');");
    let sql: String = CHANGES.iter().map(|(name, ..)| table(name)).collect();
    let sql = format!("{sql} ALTER TABLE whole REPLICA IDENTITY FULL; {}", table("good"));
    let bank = Bank::new(PostgresServer::shared(), "rekeyed", &sql, ALL).await;
    bank.catch_up().await;
    let mut service = bank.site.run("service", &bank.config);
    for (name, ..) in CHANGES {
        bank.sql(&format!("INSERT INTO {name} VALUES (3, 'c')")).await;
    }
    bank.until_released().await;
    for (number, (name, sql, said)) in CHANGES.iter().enumerate() {
        bank.sql(sql).await;
        bank.sql(&format!("INSERT INTO good VALUES (1{number}, 'later')")).await;
        let there = bank.there("SELECT * FROM good").await;
        wait_until("the others go on", async || {
            bank.here("SELECT * FROM public.good", &["public.good"]).await == there
        })
        .await;
        let table = format!("public.{name}");
        let here = bank.here(&format!("SELECT * FROM {table}"), &[&table]).await;
        assert_eq!(here, [["1", "a"], ["2", "b"], ["3", "c"]], "{table} is as it was");
        assert!(service.log_text().contains(said), "{said}: {}", service.log_tail());
    }
    service.stop().await;
    // And so it is where it was not looked at meanwhile.
    let (code, said) = bank.refused().await;
    assert_eq!(code, 65, "{said}");
    bank.agrees("SELECT * FROM public.good", &["public.good"]).await;
    assert!(
        bank.here("SELECT * FROM bank_dead_letters", &["bank_dead_letters"])
            .await
            .is_empty()
    );
}

/// Tables in the order in which a run tells of them: what is set for each, what is said of it, and what helps.
const UNTOLD: [(&str, &str, &str, &str); 4] = [
    (
        "a_loose",
        "mode = \"upsert\"",
        "public.a_loose has no key by which its rows could be told apart: add a primary key, or set `key` and ALTER TABLE \"public\".\"a_loose\" \
         REPLICA IDENTITY FULL, or set `mode = \"append\"`",
        "ALTER TABLE a_loose ADD PRIMARY KEY (id)",
    ),
    (
        "b_chosen",
        "key = [\"id\"]",
        "updates and deletes of public.b_chosen do not tell what `id` was: ALTER TABLE \"public\".\"b_chosen\" REPLICA IDENTITY FULL",
        "ALTER TABLE b_chosen REPLICA IDENTITY FULL",
    ),
    (
        "c_other",
        "key = [\"v\"]",
        "do not tell what `v` was: ALTER TABLE \"public\".\"c_other\" REPLICA IDENTITY FULL, or take `id` as the `key`",
        "ALTER TABLE c_other REPLICA IDENTITY FULL",
    ),
    (
        "d_nothing",
        "key = [\"id\"]",
        "do not tell what `id` was: ALTER TABLE \"public\".\"d_nothing\" REPLICA IDENTITY FULL",
        "ALTER TABLE d_nothing REPLICA IDENTITY DEFAULT",
    ),
];

/// Nobody but us may give them an identity here: without `create`, a run changes nothing on the server.
#[tokio::test(flavor = "multi_thread")]
async fn p6_rows_that_changes_do_not_tell_apart_are_refused_with_what_helps() {
    let sql = "CREATE TABLE a_loose (id int, v text); CREATE TABLE b_chosen (id int, v text); CREATE TABLE c_other (id int PRIMARY KEY, v text); \
               CREATE TABLE d_nothing (id int PRIMARY KEY, v text); ALTER TABLE d_nothing REPLICA IDENTITY NOTHING";
    let sections = UNTOLD.map(|(name, option, ..)| format!("[pipelines.bank.tables.{name}]\ntable = \"public.{name}\"\n{option}"));
    let bank = Bank::new(PostgresServer::shared(), "untold", sql, &sections.join("\n")).await;
    bank.sql(&format!(
        "CREATE PUBLICATION pub_{} FOR TABLE a_loose, b_chosen, c_other, d_nothing",
        bank.database
    ))
    .await;
    bank.sql(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", bank.slot()))
        .await;
    for (name, _, says, helps) in UNTOLD {
        bank.sql(&format!("INSERT INTO {name} VALUES (1, 'a'), (2, 'b')")).await;
        for (code, said) in [bank.check().await, bank.refused().await] {
            // In the log, which is JSON, quotes stand behind a backslash.
            let said = said.replace("\\\"", "\"");
            assert!(code == 78 && said.contains(says), "{code}: `{says}` is missing:\n{said}");
            assert!(!said.contains("take ``"), "{said}");
        }
        bank.sql(helps).await;
    }
    let (code, said) = bank.check().await;
    assert_eq!(code, 0, "{said}");
    bank.catch_up().await;
    for (name, ..) in UNTOLD {
        bank.sql(&format!("UPDATE {name} SET v = 'c' WHERE id = 1; DELETE FROM {name} WHERE id = 2"))
            .await;
    }
    bank.catch_up().await;
    for (name, ..) in UNTOLD {
        assert_eq!(
            bank.here(&format!("SELECT id, v FROM {name}"), &[name]).await,
            [["1", "c"]],
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_two_rows_may_have_at_once_is_refused() {
    let sql = "CREATE TABLE late (id int PRIMARY KEY DEFERRABLE, v text); ALTER TABLE late REPLICA IDENTITY FULL; \
               CREATE TABLE chosen (id int PRIMARY KEY, email text NOT NULL UNIQUE DEFERRABLE); ALTER TABLE chosen REPLICA IDENTITY FULL; \
               CREATE TABLE good (id int PRIMARY KEY); INSERT INTO good VALUES (1)";
    let mut bank = Bank::new(PostgresServer::shared(), "deferrable", sql, ALL).await;
    for (code, said) in [bank.check().await, bank.refused().await, bank.check().await] {
        assert_eq!(code, 78, "{said}");
        assert!(said.contains("the key `id` of public.late is deferrable"), "{said}");
    }
    bank.agrees("SELECT * FROM public.good", &["public.good"]).await;
    bank.agrees("SELECT * FROM public.chosen", &["public.chosen"]).await;
    bank.reconfigure("create = true\n[pipelines.bank.tables.chosen]\ntable = \"public.chosen\"\nkey = [\"email\"]");
    let (code, said) = bank.refused().await;
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("the key `email` of public.chosen is deferrable"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_by_which_no_table_can_tell_rows_apart_is_refused() {
    let sql = "CREATE EXTENSION hstore; CREATE TABLE floating (v float8 PRIMARY KEY); CREATE TABLE listed (v varchar(5)[] PRIMARY KEY); \
               CREATE TABLE mapped (v hstore PRIMARY KEY); CREATE TABLE good (id int PRIMARY KEY); INSERT INTO good VALUES (1)";
    let bank = Bank::new(PostgresServer::shared(), "keytypes", sql, ALL).await;
    for (code, said) in [bank.check().await, bank.refused().await, bank.check().await] {
        assert_eq!(code, 78, "{said}");
        for (table, kind) in [
            ("floating", "double precision"),
            ("listed", "character varying(5)[]"),
            ("mapped", "hstore"),
        ] {
            let refused = format!("the key column `v` of public.{table} is {kind}, by which a Delta table cannot tell rows apart");
            assert!(said.contains(&refused), "{refused}: {said}");
        }
    }
    bank.agrees("SELECT * FROM public.good", &["public.good"]).await;
}

/// With `special_values = "null"` as well: no row is told apart by a null.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_key_no_column_holds_is_a_dead_letter_until_it_has_another() {
    let sql = "CREATE TABLE h (id int, upto date, v text, PRIMARY KEY (id, upto));
               INSERT INTO h VALUES (1, 'infinity', 'copied'), (2, '2026-01-02', 'copied'), (3, 'infinity', 'copied');
               CREATE TABLE n (email text UNIQUE, v text); ALTER TABLE n REPLICA IDENTITY FULL;
               INSERT INTO n VALUES (NULL, 'one'), ('a', 'two'), (NULL, 'three'), ('b', 'four')";
    let lines = "follow = [\"public.h\"]\n[pipelines.bank.tables.n]\ntable = \"public.n\"\nkey = [\"email\"]";
    for specials in ["dead_letter", "null"] {
        let lines = format!("create = true\nspecial_values = \"{specials}\"\n{lines}");
        let bank = Bank::new(PostgresServer::shared(), "keyless", sql, &lines).await;
        bank.catch_up().await;
        let letters = async || bank.here("SELECT code FROM bank_dead_letters", &["bank_dead_letters"]).await;
        assert_eq!(
            letters().await,
            [["missing_key"], ["missing_key"], ["out_of_range"], ["out_of_range"]]
        );
        bank.sql(
            "UPDATE h SET upto = '2026-01-01' WHERE id = 1; UPDATE h SET upto = 'infinity' WHERE id = 2; INSERT INTO h VALUES (4, 'infinity', 'new');
             UPDATE n SET email = 'was null' WHERE v = 'one'; UPDATE n SET email = NULL WHERE email = 'a'",
        )
        .await;
        bank.catch_up().await;
        let there = bank
            .there("SELECT id, to_char(upto, 'YYYY-MM-DD'), v FROM h WHERE upto <> 'infinity'")
            .await;
        let here = bank.here("SELECT id, CAST(upto AS VARCHAR), v FROM public.h", &["public.h"]).await;
        assert_eq!(here, there);
        let there = bank.there("SELECT email, v FROM n WHERE email IS NOT NULL").await;
        assert_eq!(bank.here("SELECT email, v FROM n", &["n"]).await, there);
        assert_eq!(letters().await.len(), 7, "two that have no key any more, and one that never had");
    }
}
