//! A transaction that is larger than the memory, beside small ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use alluvium::log::When;
use alluvium::query::query;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::support::bank::{Bank, rows};
use crate::support::postgres::{Options, PostgresServer, wait_within};

const MIB: u64 = 1 << 20;
/// Beside the budget: the program itself, what the allocator keeps, the index of keys.
const BESIDE_BUDGET: u64 = 200 * MIB;

/// `ALLUVIUM_LARGE` says how many rows it has, and that the budget is 256 MiB: 5 million in `make proofs`.
#[tokio::test(flavor = "multi_thread")]
async fn i7_p11_a_transaction_larger_than_the_memory_is_seen_whole_or_not_at_all_and_holds_up_no_other() {
    let (count, budget_mib) = match std::env::var("ALLUVIUM_LARGE") {
        Ok(text) => (text.parse::<u64>().expect("ALLUVIUM_LARGE is a number"), 256),
        Err(_) => (300_000, 32),
    };
    let patience = Duration::from_secs(180 + count / 20_000);
    // The server sends it before its end, and is patient with nobody.
    let options = Options::default()
        .set("logical_decoding_work_mem", "4MB")
        .set("wal_sender_timeout", "10s");
    let server = PostgresServer::start(options);
    let sql = "CREATE TABLE t (id bigint PRIMARY KEY, body text); CREATE TABLE small (id bigint PRIMARY KEY)";
    let bank = Bank::new(&server, "large", sql, "create = true\nfollow = [\"public.*\"]").await;
    bank.edit("lake = \"lake\"", &format!("lake = \"lake\"\nmemory = \"{budget_mib} MiB\""));
    bank.edit("interval = \"100 ms\"", "interval = \"500 ms\"");
    bank.catch_up().await;
    let mut service = bank.site.run("service", &bank.config);
    let walsender = async || server.walsender(&bank.slot()).await;
    server.until_read(&bank.slot()).await;
    let before = walsender().await;
    let ended = Arc::new(AtomicBool::new(false));
    let small = tokio::spawn(write_small(server.client(&bank.database).await, Arc::clone(&ended)));

    let (kept, undone) = (server.client(&bank.database).await, server.client(&bank.database).await);
    let insert = |first: u64| {
        let last = first + count - 1;
        format!("BEGIN; INSERT INTO t SELECT i, repeat(md5(i::text), 4) FROM generate_series({first}, {last}) i")
    };
    let (insert_kept, insert_undone) = (insert(1), insert(count + 1));
    let (one, other) = tokio::join!(kept.batch_execute(&insert_kept), undone.batch_execute(&insert_undone));
    one.and(other).expect("rows");
    // While both are open, what others have written behind them comes.
    follows_small(&bank, patience).await;
    let spooled = |path: &std::path::PathBuf| path.to_string_lossy().contains("/spool/");
    assert!(service.open_files().iter().any(spooled), "it lies in no file");
    assert_eq!(walsender().await, before, "{}", service.log_tail());
    undone.batch_execute("ROLLBACK").await.expect("an end");
    kept.batch_execute("COMMIT").await.expect("an end");
    let whole = format!("SELECT count(*) = {count} FROM public.t WHERE id > 0");
    wait_within(patience, "the transaction is there", async || {
        sleep(Duration::from_millis(200)).await;
        bank.here(&whole, &["public.t"]).await == [["true"]]
    })
    .await;
    follows_small(&bank, patience).await;
    assert_eq!(walsender().await, before, "{}", service.log_tail());
    ended.store(true, Ordering::Relaxed);
    small.await.expect("the small transactions");
    let peak = service.stop().await.peak_rss_bytes;
    println!("{count} rows in one transaction, {budget_mib} MiB: at most {} MiB", peak / MIB);
    let most = budget_mib * MIB + BESIDE_BUDGET;
    assert!(peak <= most, "it took {} MiB, and may take {} MiB", peak / MIB, most / MIB);

    bank.catch_up().await;
    bank.agrees("SELECT id FROM public.small", &["public.small"]).await;
    bank.agrees("SELECT count(*), sum(id), count(DISTINCT id) FROM public.t", &["public.t"])
        .await;
    let other = "SELECT count(*) FROM public.t WHERE id > 0 AND body IS DISTINCT FROM repeat(md5(CAST(id AS varchar)), 4)";
    assert_eq!(bank.here(other, &["public.t"]).await, [["0"]], "rows are not as they were written");
    every_version_has_all_of_it_or_nothing(&bank, count).await;
}

/// Writes a row into each table, transaction by transaction, until it is told to end.
async fn write_small(client: Client, ended: Arc<AtomicBool>) {
    let mut number = 0;
    while !ended.load(Ordering::Relaxed) {
        number += 1;
        let sql = format!("BEGIN; INSERT INTO small VALUES ({number}); INSERT INTO t VALUES (-{number}, 'small'); COMMIT");
        client.batch_execute(&sql).await.expect("a small transaction");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the lake has the small rows that the server has now.
async fn follows_small(bank: &Bank<'_>, patience: Duration) {
    let newest: u64 = bank.value("SELECT max(id) FROM small").await.parse().expect("a number");
    wait_within(patience, "small transactions come", async || {
        let seen = bank.here("SELECT coalesce(max(id), 0) FROM public.small", &["public.small"]).await;
        seen[0][0].parse::<u64>().expect("a number") >= newest
    })
    .await;
}

/// What a table holds of a transaction, it holds until its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_larger_than_the_memory_waits_for_no_others_of_its_transaction() {
    let sql = "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE m (id int PRIMARY KEY, v text); CREATE TABLE z (id int PRIMARY KEY, v text)";
    let bank = Bank::new(PostgresServer::shared(), "larger", sql, "create = true\nfollow = [\"public.*\"]").await;
    bank.edit("lake = \"lake\"", "lake = \"lake\"\nmemory = \"16 MiB\"");
    bank.catch_up().await;
    let small = |table: &str, id: u32| format!("INSERT INTO {table} VALUES ({id}, 'small');");
    let large = |table: &str, id: u32| format!("INSERT INTO {table} VALUES ({id}, repeat('x', 20000000));");
    for (id, order) in [["a", "m", "z"], ["z", "m", "a"], ["m", "a", "z"]].into_iter().enumerate() {
        let id = 10 * id as u32;
        let [first, second, third] = order;
        let of_one = [small(first, id), small(second, id), large(third, id), small(first, id + 1)].concat();
        let of_two = [
            large(first, id + 2),
            small(third, id + 1),
            large(second, id + 2),
            small(second, id + 3),
        ]
        .concat();
        bank.sql(&format!("BEGIN; {of_one} COMMIT; BEGIN; {of_two} COMMIT")).await;
        bank.catch_up().await;
    }
    for table in ["a", "m", "z"] {
        let sql = format!("SELECT id, length(v), md5(v) FROM public.{table}");
        bank.agrees(&sql, &[&format!("public.{table}")]).await;
    }
}

async fn every_version_has_all_of_it_or_nothing(bank: &Bank<'_>, count: u64) {
    let (table, last) = (bank.table("public.t"), bank.versions("public.t").await);
    let sql = format!(
        "SELECT count(*) FILTER (WHERE id BETWEEN 1 AND {count}), count(*) FILTER (WHERE id > {count}), \
         count(*) FILTER (WHERE id < 1) FROM public.t"
    );
    let (mut large, mut small) = (0, 0);
    for version in 0..=last {
        let answer = query(&sql, std::slice::from_ref(&table), &When::Version(version)).await;
        let seen = rows(&answer.expect("a query").collect().await.expect("rows"));
        let seen: Vec<u64> = seen[0].iter().map(|cell| cell.parse().expect("a number")).collect();
        let is_whole = seen[0] == 0 || seen[0] == count;
        assert!(
            is_whole && seen[0] >= large && seen[1] == 0 && seen[2] >= small,
            "version {version} has {seen:?}"
        );
        (large, small) = (seen[0], seen[2]);
    }
    assert_eq!(large, count);
}
