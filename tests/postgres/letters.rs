//! Dead letters of a database: each is there once, however often the program is killed, and though a table stops and comes back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use crate::letters::difference;
use crate::support::bank::Bank;
use crate::support::postgres::{Options, PostgresServer, wait_until};

const ALL: &str = "create = true\nfollow = [\"public.*\"]";
const TABLES: [&str; 2] = ["t", "u"];

/// What transactions leave in the dead letters: of each, in their order, the table and the number of each change that no column holds.
#[derive(Default)]
struct Model {
    transactions: Vec<Vec<(String, u64)>>,
    next_id: u64,
}

impl Model {
    /// A random transaction: rows of both tables, in any order, some of them good and some rolled back.
    fn transaction(&mut self, rng: &mut SmallRng) -> String {
        let mut sql = "BEGIN;".to_owned();
        let (mut changes, mut letters) = (BTreeMap::new(), Vec::new());
        for _ in 0..rng.random_range(1..7) {
            let table = *TABLES.choose(rng).expect("there are two");
            let rolled_back = rng.random_ratio(1, 6);
            let rows: Vec<bool> = (0..if rng.random_ratio(1, 5) { 300 } else { 1 })
                .map(|_| rng.random_ratio(1, 3))
                .collect();
            let value = |bad: &bool, id: u64| match bad {
                false => format!("({id}, '2026-01-01', 1)"),
                true if id.is_multiple_of(2) => format!("({id}, 'infinity', 1)"),
                true => format!("({id}, '2026-01-01', 'NaN')"),
            };
            let values: Vec<String> = rows.iter().zip(self.next_id..).map(|(bad, id)| value(bad, id)).collect();
            self.next_id += rows.len() as u64;
            let insert = format!("INSERT INTO {table} VALUES {}", values.join(","));
            if rolled_back {
                let _ = write!(sql, "SAVEPOINT s; {insert}; ROLLBACK TO s;");
                continue;
            }
            let _ = write!(sql, "{insert};");
            let count: &mut u64 = changes.entry(table).or_default();
            for bad in rows {
                letters.extend(bad.then(|| (table.to_owned(), *count)));
                *count += 1;
            }
        }
        if rng.random_ratio(1, 8) {
            return sql + "ROLLBACK;";
        }
        if !letters.is_empty() {
            self.transactions.push(letters);
        }
        sql + "COMMIT;"
    }

    /// Each letter with the number of its transaction among those that have letters.
    fn letters(&self) -> Vec<Vec<String>> {
        let mut letters: Vec<_> = self
            .transactions
            .iter()
            .enumerate()
            .flat_map(|(number, letters)| {
                letters
                    .iter()
                    .map(move |(table, change)| vec![number.to_string(), format!("public.{table}"), change.to_string()])
            })
            .collect();
        letters.sort();
        letters
    }
}

/// The dead letters, in the model's words.
async fn letters(bank: &Bank<'_>) -> Vec<Vec<String>> {
    let sql = "SELECT DENSE_RANK() OVER (ORDER BY position) - 1, \"table\", id FROM bank_dead_letters";
    let mut letters = bank.here(sql, &["bank_dead_letters"]).await;
    for letter in &mut letters {
        letter[2] = letter[2].rsplit('/').next().expect("an id has an ordinal").to_owned();
    }
    letters.sort();
    letters
}

#[tokio::test(flavor = "multi_thread")]
async fn each_letter_is_there_once_however_often_the_program_is_killed() {
    let kills: usize = std::env::var("ALLUVIUM_KILLS").map_or(12, |text| text.parse().expect("ALLUVIUM_KILLS is a number"));
    // Long transactions are streamed before they are committed, at one reading and not at another.
    let server = PostgresServer::start(Options::default().set("logical_decoding_work_mem", "64kB"));
    let sql =
        "CREATE TABLE t (id int PRIMARY KEY, day date, n numeric(5, 2)); CREATE TABLE u (id int PRIMARY KEY, day date, n numeric(5, 2))";
    let bank = Bank::new(&server, "letters", sql, ALL).await;
    bank.catch_up().await;
    let (mut rng, mut model, mut between) = (SmallRng::seed_from_u64(rand::random()), Model::default(), 0);
    let table = bank.site.table("bank_dead_letters");
    for kill in 0..kills {
        let client = server.client(&bank.database).await;
        let work = async {
            for _ in 0..rng.random_range(10..60) {
                client.batch_execute(&model.transaction(&mut rng)).await.expect("a transaction");
                sleep(Duration::from_millis(5)).await;
            }
        };
        let mut program = bank.site.run("program", &bank.config);
        let life = async {
            if kill % 3 < 2 {
                between += usize::from(program.kill_at_commit(&table, Duration::from_secs(60)).await);
            } else {
                sleep(Duration::from_millis(rand::rng().random_range(100..1_500))).await;
                assert!(program.poll().is_none(), "{}", program.log_tail());
                program.kill().await;
            }
        };
        tokio::join!(work, life);
    }
    bank.catch_up().await;
    assert!(
        between > kills / 3,
        "it was killed only {between} times between the letters and the data"
    );
    let (there, expected) = (letters(&bank).await, model.letters());
    assert!(there == expected, "{}", difference(&there, &expected));
    for table in TABLES {
        let good = format!("SELECT id FROM public.{table} WHERE day <> 'infinity' AND n <> 'NaN'");
        let (here, there) = (
            bank.here(&format!("SELECT id FROM public.{table}"), &[&format!("public.{table}")])
                .await,
            bank.there(&good).await,
        );
        assert!(here == there, "{table}: {} rows here, {} there", here.len(), there.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p17_letters_of_a_copy_are_published_with_it_and_not_with_another_one() {
    let sql = "CREATE TABLE large (id int PRIMARY KEY, body text, day date); CREATE TABLE small (id int PRIMARY KEY); \
               INSERT INTO large SELECT i, repeat('x', 100), CASE i WHEN 7 THEN 'infinity'::date END FROM generate_series(1, 40000) i; \
               INSERT INTO small SELECT generate_series(1, 10)";
    let bank = Bank::new(
        PostgresServer::shared(),
        "copied_letters",
        sql,
        &format!("copy_connections = 2\n{ALL}"),
    )
    .await;
    let proxy = bank.behind_proxy().await;
    // Behind the bad row, and before the end.
    proxy.stall_behind(4 << 20);
    let mut service = bank.site.run("killed", &bank.config);
    wait_until("the large copy is in the middle", async || proxy.held() > 0).await;
    wait_until("the small table is there", async || {
        !bank.here("SELECT id FROM public.small", &["public.small"]).await.is_empty()
    })
    .await;
    service.kill().await;
    proxy.flow();
    let letters = async || {
        bank.here("SELECT \"table\", key FROM bank_dead_letters", &["bank_dead_letters"])
            .await
    };
    assert_eq!(letters().await, Vec::<Vec<String>>::new(), "{}", service.log_tail());
    bank.catch_up().await;
    let letters = letters().await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0][0], "public.large");
    bank.agrees("SELECT count(*) FROM public.large WHERE id <> 7", &["public.large"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p17_letters_of_a_copy_are_there_once_though_it_is_killed_between_them_and_its_table() {
    let sql = "CREATE TABLE keyed (id int PRIMARY KEY, day date); CREATE TABLE loose (day date)";
    let bank = Bank::new(PostgresServer::shared(), "copied_once", sql, ALL).await;
    let there = |table: &str| {
        let log = bank.site.table(table).join("_delta_log");
        let versions = (0..).map(move |version| std::fs::read_to_string(log.join(format!("{version:020}.json"))));
        versions.map_while(Result::ok).filter(|commit| commit.contains("\"add\"")).count()
    };
    let (mut bad, mut between) = (0, 0);
    while bad < 5 {
        bad += 1;
        // Some of them hold the same, and nothing tells these from each other.
        bank.sql(&format!(
            "INSERT INTO keyed VALUES ({bad}, 'infinity'), (-{bad}, '2026-01-01'); INSERT INTO loose VALUES ('infinity')"
        ))
        .await;
        let before = there("bank_dead_letters");
        let mut program = bank.site.run("program", &bank.config);
        let deadline = Instant::now() + Duration::from_secs(60);
        while there("bank_dead_letters") == before {
            assert!(Instant::now() < deadline, "no letters come: {}", program.log_tail());
            tokio::task::yield_now().await;
        }
        program.kill().await;
        between += usize::from(there("public/keyed") == 0 || there("public/loose") == 0);
    }
    assert!(between > 1, "it was killed {between} times between the letters and a table");
    bank.catch_up().await;
    let sql = "SELECT \"table\", count(*), count(DISTINCT id) FROM bank_dead_letters GROUP BY 1 ORDER BY 1";
    let bad = bad.to_string();
    let once = [["public.keyed", &bad, &bad], ["public.loose", &bad, &bad]];
    assert_eq!(bank.here(sql, &["bank_dead_letters"]).await, once);
    // Nor does another copy bring what is there.
    assert_eq!(bank.resnapshot("public.keyed").await, Some(0));
    bank.catch_up().await;
    assert_eq!(bank.here(sql, &["bank_dead_letters"]).await, once);
    bank.agrees("SELECT id FROM public.keyed WHERE id < 0", &["public.keyed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_a_copy_wait_for_the_stream_as_their_table_does() {
    let sql = "CREATE TABLE busy (id int PRIMARY KEY, n int); INSERT INTO busy SELECT i, 0 FROM generate_series(1, 500) i";
    let bank = Bank::new(PostgresServer::shared(), "behind", sql, ALL).await;
    bank.catch_up().await;
    let before = bank.versions("public.busy").await;
    for _ in 0..300 {
        bank.sql("UPDATE busy SET n = n + 1").await;
    }
    bank.sql("CREATE TABLE new (id int PRIMARY KEY, day date); INSERT INTO new VALUES (1, 'infinity'), (2, '2026-01-01')")
        .await;
    let proxy = bank.behind_proxy().await;
    // In the middle of what has come meanwhile: the copy is whole long before the stream comes to it.
    proxy.stall_behind(4 << 20);
    let mut service = bank.site.run("service", &bank.config);
    wait_until("the copy is whole", async || service.log_text().contains("\"message\":\"copied\"")).await;
    // A little at a time, for a server that says nothing is given up. Behind a minute there is a mark behind the next transaction.
    for more in 1..4 {
        sleep(Duration::from_secs(21)).await;
        proxy.stall_behind((4 << 20) + more * (512 << 10));
    }
    wait_until("the stream is published", async || bank.versions("public.busy").await > before).await;
    service.kill().await;
    proxy.flow();
    assert_eq!(
        bank.here("SELECT id FROM public.new", &["public.new"]).await,
        Vec::<Vec<String>>::new()
    );
    let letters = async || bank.here("SELECT \"table\" FROM bank_dead_letters", &["bank_dead_letters"]).await;
    assert_eq!(letters().await, Vec::<Vec<String>>::new(), "{}", service.log_tail());
    bank.catch_up().await;
    assert_eq!(letters().await, [["public.new"]]);
    assert_eq!(bank.here("SELECT id FROM public.new", &["public.new"]).await, [["2"]]);
    bank.agrees("SELECT id, n FROM public.busy", &["public.busy"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_stopped_and_comes_back_brings_the_letters_that_it_lacks() {
    let sql =
        "CREATE TABLE t (id int PRIMARY KEY, day date); CREATE TABLE events (id int, day date); ALTER TABLE events REPLICA IDENTITY FULL";
    let stopped =
        |more: &str| format!("create = true\nfollow = [\"public.t\"]\n[pipelines.bank.tables.events]\ntable = \"public.events\"\n{more}");
    let mut bank = Bank::new(PostgresServer::shared(), "stopped", sql, &stopped("")).await;
    bank.catch_up().await;
    let bad =
        |id: i32| format!("INSERT INTO events VALUES ({id}, '2026-01-01'), ({id}, 'infinity'); INSERT INTO t VALUES ({id}, 'infinity')");
    bank.sql(&bad(1)).await;
    bank.catch_up().await;
    // A table of inserts stops at an update; the other one goes on, and so do its letters.
    bank.sql(&bad(2)).await;
    bank.sql("UPDATE events SET day = '2026-01-02' WHERE id = 1 AND day = '2026-01-01'")
        .await;
    bank.sql(&bad(3)).await;
    let (code, said) = bank.refused().await;
    assert_eq!(code, 65, "{said}");
    let of = |table: &str| format!("SELECT COUNT(*), COUNT(DISTINCT id) FROM bank_dead_letters WHERE \"table\" = '{table}'");
    assert_eq!(bank.here(&of("public.t"), &["bank_dead_letters"]).await, [["3", "3"]], "{said}");
    bank.reconfigure(&stopped("metadata = [\"__op\"]"));
    bank.catch_up().await;
    for table in ["public.t", "events"] {
        assert_eq!(bank.here(&of(table), &["bank_dead_letters"]).await, [["3", "3"]], "{table}");
    }
    assert_eq!(bank.here("SELECT id, __op FROM events", &["events"]).await.len(), 4);
}

/// A row of which nothing is known any more is not filled from what it was: neither its own old value, nor one of its key before.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_change_is_a_dead_letter_is_not_there_until_it_can_be_read() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, day date, body text, n int DEFAULT 0); ALTER TABLE t ALTER body SET STORAGE EXTERNAL; \
               INSERT INTO t SELECT i, '2026-01-01', repeat('a', 9000) FROM generate_series(1, 6) i; CREATE TABLE other (id int PRIMARY KEY)";
    let bank = Bank::new(PostgresServer::shared(), "unread", sql, ALL).await;
    bank.catch_up().await;
    // With another body that is lost with them, in a transaction of its own and in one with others; the row that makes the key, too.
    bank.sql(
        "UPDATE t SET day = 'infinity', body = repeat('b', 9000) WHERE id = 1; UPDATE t SET day = 'infinity' WHERE id = 2; \
         BEGIN; UPDATE t SET n = 1 WHERE id = 3; UPDATE t SET day = 'infinity', body = repeat('b', 9000) WHERE id = 3; COMMIT; \
         UPDATE t SET id = 40, day = 'infinity' WHERE id = 4; INSERT INTO t VALUES (7, 'infinity', repeat('c', 9000))",
    )
    .await;
    bank.catch_up().await;
    let readable = "SELECT id, substr(body, 8000, 1), length(body), n FROM public.t";
    let there = format!("{readable} WHERE day <> 'infinity'");
    assert_eq!(bank.here(readable, &["public.t"]).await, bank.there(&there).await);
    assert_eq!(bank.here("SELECT id FROM bank_dead_letters", &["bank_dead_letters"]).await.len(), 5);
    let kept = "SELECT count(*) FROM bank_dead_letters WHERE arrow_cast(\"key\", 'Utf8') = '{\"id\":\"7\"}' AND \
                arrow_cast(\"value\", 'Utf8') LIKE '%\"day\":\"infinity\"%' AND value_bytes > 9000";
    assert_eq!(bank.here(kept, &["bank_dead_letters"]).await, [["1"]]);
    // What is told whole is there again, and what is deleted stays away.
    bank.sql("UPDATE t SET day = '2026-01-02', body = repeat('d', 9000) WHERE id IN (1, 7); DELETE FROM t WHERE id = 2")
        .await;
    bank.catch_up().await;
    assert_eq!(bank.here(readable, &["public.t"]).await, bank.there(&there).await);
    // The others lack their bodies: this table stops, and is whole when it has been copied again.
    bank.sql("UPDATE t SET day = '2026-01-02' WHERE id = 3; INSERT INTO other VALUES (1)")
        .await;
    let (code, said) = bank.refused().await;
    assert_eq!(code, 65, "{said}");
    for what in ["unknown_row", "public.t", "`id` = 3", "`body`", "resnapshot"] {
        assert!(said.contains(what), "{what}: {said}");
    }
    assert_eq!(bank.here("SELECT id FROM public.other", &["public.other"]).await, [["1"]], "{said}");
    assert_eq!(bank.resnapshot("public.t").await, Some(0));
    bank.catch_up().await;
    assert_eq!(bank.here(readable, &["public.t"]).await, bank.there(&there).await);
}

/// A log of changes whose null may mean that a large value did not change would tell another row than there was.
#[tokio::test(flavor = "multi_thread")]
async fn p7_a_change_of_a_log_that_leaves_a_large_value_out_is_a_dead_letter() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, body text, n int); ALTER TABLE t ALTER body SET STORAGE EXTERNAL; \
               INSERT INTO t SELECT i, repeat('a', 9000), 1 FROM generate_series(1, 4) i";
    let log = |name: &str, metadata: &str| {
        format!("[pipelines.bank.tables.{name}]\ntable = \"public.t\"\nmode = \"append\"\nmetadata = [{metadata}]\n")
    };
    let lines = format!(
        "create = true\n{}{}",
        log("log", "\"__op\""),
        log("told", "\"__op\", \"__unchanged\"")
    );
    let bank = Bank::new(PostgresServer::shared(), "left_out", sql, &lines).await;
    bank.catch_up().await;
    bank.sql("UPDATE t SET n = 2 WHERE id = 1; UPDATE t SET body = NULL WHERE id = 2; UPDATE t SET id = 30 WHERE id = 3; DELETE FROM t WHERE id = 4")
        .await;
    bank.catch_up().await;
    let changes = async |table: &str| {
        let sql = format!("SELECT __op, id, body IS NULL, n FROM {table} WHERE __op <> 'r'");
        bank.here(&sql, &[table]).await
    };
    assert_eq!(changes("log").await, [["d", "4", "true", "NULL"], ["u", "2", "true", "1"]]);
    let letters = "SELECT \"table\", code, message LIKE 'column `body`%REPLICA IDENTITY FULL%' FROM bank_dead_letters";
    let letter = ["log", "unavailable_value", "true"];
    assert_eq!(bank.here(letters, &["bank_dead_letters"]).await, [letter, letter]);
    let told = "SELECT id, __unchanged FROM told WHERE __op = 'u'";
    assert_eq!(bank.here(told, &["told"]).await, [["1", "[body]"], ["2", "[]"], ["30", "[body]"]]);
    // With all of the old row, the change is whole.
    bank.sql("ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET n = 5 WHERE id = 1")
        .await;
    bank.catch_up().await;
    let whole = bank.here("SELECT length(body) FROM log WHERE n = 5", &["log"]).await;
    assert_eq!(whole, [["9000"]]);
}

/// In the copy and in the stream: a value that Delta cannot write as a partition's stops nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_no_partition_can_hold_is_a_dead_letter_or_has_a_null_there() {
    let rows = |first: i32| {
        let (day, moment) = ("'2026-01-01'", "'2026-01-01 00:00+00'");
        let row = |(place, (day, moment, raw, word)): (i32, (&str, &str, &str, &str))| {
            format!("({}, {day}, {moment}, {raw}, {word})", first + place)
        };
        let rows = [
            (day, moment, "'abc'", "'w'"),
            ("'0044-03-15 BC'", moment, "'abc'", "'w'"),
            ("'10000-01-01'", moment, "'abc'", "'w'"),
            (day, "'10000-01-01 00:00+00'", "'abc'", "'w'"),
            (day, moment, "'\\xff'", "'w'"),
            // An empty value can be none of a partition, and null is written as it is.
            (day, moment, "''", "''"),
        ];
        let rows: Vec<String> = (0..).zip(rows).map(row).collect();
        format!("INSERT INTO events VALUES {}", rows.join(", "))
    };
    let table = "CREATE TABLE events (id int PRIMARY KEY, dated date, moment timestamptz, raw bytea, word text)";
    let feed = "[pipelines.bank.tables.events]\ntable = \"public.events\"\nmode = \"append\"\npartition_by = [\"dated\", \"moment\", \"raw\", \"word\"]";
    let (whole, empty) = (["0", "2", "2", "2", "2", "2"], ["5", "2", "2", "2", "0", "0"]);
    let holds_all = [
        whole,
        ["1", "2", "0", "2", "2", "2"],
        ["2", "2", "0", "2", "2", "2"],
        ["3", "2", "2", "0", "2", "2"],
        ["4", "2", "2", "2", "0", "2"],
        empty,
    ];
    for (specials, expected) in [("dead_letter", &[whole, empty][..]), ("null", &holds_all[..])] {
        let lines = format!("create = true\nspecial_values = \"{specials}\"\n{feed}");
        let bank = Bank::new(PostgresServer::shared(), "unparted", &format!("{table}; {}", rows(0)), &lines).await;
        bank.catch_up().await;
        bank.sql(&rows(10)).await;
        bank.catch_up().await;
        let held = "SELECT id % 10, count(*), count(dated), count(moment), count(raw), count(word) FROM events GROUP BY 1";
        assert_eq!(bank.here(held, &["events"]).await, expected, "{specials}");
        let letters = "SELECT split_part(message, ':', 1), code, count(*) FROM bank_dead_letters \
                       WHERE \"table\" = 'events' AND message LIKE '%special_values = \"null\"%' GROUP BY 1, 2";
        let letters = bank.here(letters, &["bank_dead_letters"]).await;
        if specials == "null" {
            assert!(
                bank.here("SELECT id FROM bank_dead_letters", &["bank_dead_letters"])
                    .await
                    .is_empty()
            );
            continue;
        }
        let letter = |column: &str, count: &str| [format!("column `{column}`"), "out_of_range".to_owned(), count.to_owned()];
        assert_eq!(letters, [letter("dated", "4"), letter("moment", "2"), letter("raw", "2")]);
        let kept = "SELECT count(*) FROM bank_dead_letters WHERE arrow_cast(\"value\", 'Utf8') LIKE '%\"dated\":\"0044-03-15 BC\"%'";
        assert_eq!(bank.here(kept, &["bank_dead_letters"]).await, [["2"]]);
    }
}
