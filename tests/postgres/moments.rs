//! Tables at one mark show one moment of the database, whatever came between.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alluvium::error::Result;
use alluvium::log::{Log, When};
use alluvium::position::{Checkpoint, Lane, Position};
use alluvium::query::query;

use crate::support::bank::{Bank, rows};
use crate::support::postgres::{Options, PostgresServer, wait_until};
use crate::support::proxy::Proxy;

const ALL: &str = "create = true\nfollow = [\"public.*\"]";
const PATIENCE: Duration = Duration::from_secs(120);
const BOTH: [&str; 2] = ["ahead", "behind"];
const TABLES: &str = "CREATE TABLE ahead (id int PRIMARY KEY); CREATE TABLE behind (id int PRIMARY KEY);";

/// Where the versions of a table stand.
async fn marks(bank: &Bank<'_>, name: &str) -> BTreeSet<u64> {
    let table = bank.table(name);
    let Some(log) = Log::open(&table.url, Arc::clone(&table.store), "").await.expect("a log") else {
        return BTreeSet::new(); // Its copy is not there yet.
    };
    let history = log.history(usize::MAX).await.expect("a history");
    let said = history.iter().filter_map(|version| version.said.as_ref());
    said.flat_map(|said| said.positions.values().map(|(_, to)| *to)).collect()
}

/// The highest ids that both tables show at a mark.
async fn shown(bank: &Bank<'_>, mark: u64) -> Result<[String; 2]> {
    let at = Checkpoint::from_iter([(Lane::new(bank.slot()), Position(mark))]);
    let tables = [bank.table("public.ahead"), bank.table("public.behind")];
    let sql = "SELECT (SELECT max(id) FROM public.ahead) AS a, (SELECT max(id) FROM public.behind) AS b";
    let answer = query(sql, &tables, &When::Mark(at)).await?;
    let newest = rows(&answer.collect().await.expect("rows")).remove(0);
    Ok(newest.try_into().expect("two columns"))
}

/// Both tables show one moment at each of these marks.
async fn agree(bank: &Bank<'_>, marks: BTreeSet<u64>) {
    for mark in marks {
        let [ahead, behind] = shown(bank, mark).await.expect("an answer");
        assert_eq!(ahead, behind, "at {mark}");
    }
}

/// Writes a row, or one in both tables, and waits until it is published in the one that is ahead.
async fn write(bank: &Bank<'_>, id: i32, tables: &[&str]) {
    let inserts: Vec<_> = tables.iter().map(|table| format!("INSERT INTO {table} VALUES ({id})")).collect();
    bank.sql(&format!("BEGIN; {}; COMMIT", inserts.join("; "))).await;
    wait_until("it is published", async || {
        bank.here("SELECT max(id) FROM public.ahead", &["public.ahead"]).await == [[id.to_string()]]
    })
    .await;
}

/// Puts a pipe where a file is to be: whoever looks what it says will wait for ever. False: there is something already.
fn put_pipe(path: &Path) -> bool {
    let text = CString::new(path.as_os_str().as_bytes()).expect("a path");
    // SAFETY: a plain system call, with a string that ends.
    let made = unsafe { libc::mkfifo(text.as_ptr(), 0o644) } == 0;
    assert!(made || path.exists(), "{}", std::io::Error::last_os_error());
    made
}

/// The bank's server is behind a proxy, and tables are published often.
async fn hurried(bank: &Bank<'_>) -> Proxy {
    let text = std::fs::read_to_string(&bank.config).expect("the configuration");
    std::fs::write(&bank.config, text.replace("\"100 ms\"", "\"10 ms\"")).expect("the configuration");
    bank.behind_proxy().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_fell_behind_by_several_marks_comes_to_each_of_them() {
    let bank = Bank::new(PostgresServer::shared(), "behind", TABLES, ALL).await;
    bank.catch_up().await;
    let mut service = bank.site.run("service", &bank.config);
    wait_until("it follows", async || service.log_text().contains("\"following\"")).await;
    // A table may get a version of a mark alone at any time.
    let pipe = loop {
        let next = bank.versions("public.behind").await + 1;
        let pipe = bank.site.table(&format!("public/behind/_delta_log/{next:020}.json"));
        if put_pipe(&pipe) {
            break pipe;
        }
    };
    for id in 0..4 {
        write(&bank, id, &BOTH).await;
    }
    service.kill().await;
    std::fs::remove_file(&pipe).expect("the pipe");
    let ahead = marks(&bank, "public.ahead").await;
    bank.catch_up().await;
    assert!(marks(&bank, "public.behind").await.is_superset(&ahead));
    agree(&bank, &marks(&bank, "public.ahead").await | &marks(&bank, "public.behind").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_copy_took_long_comes_to_every_mark_that_the_others_had_meanwhile() {
    let filled = format!("{TABLES} INSERT INTO ahead VALUES (0); INSERT INTO behind SELECT -generate_series(0, 300000)");
    let bank = Bank::new(PostgresServer::shared(), "copied", &filled, ALL).await;
    bank.catch_up().await;
    let first = *marks(&bank, "public.ahead").await.last().expect("a mark");
    let proxy = hurried(&bank).await;
    let again = ["resnapshot", "--config", bank.config.to_str().expect("a path"), "public.behind"];
    let mut asked = bank.site.start("ask", &again);
    assert!(asked.wait(PATIENCE).await.status.success());
    // The copy is under way, and goes no further. The stream does: it brings less, also where the server tells often how far it is.
    proxy.stall_behind(2 << 20);
    let mut service = bank.site.run("service", &bank.config);
    wait_until("the copy begins", async || service.log_text().contains("\"copying\"")).await;
    for id in 1..=60 {
        write(&bank, id, &BOTH).await;
    }
    proxy.flow();
    wait_until("the copy is there", async || service.log_text().contains("tables have been copied")).await;
    service.kill().await;
    bank.catch_up().await;
    let copied = *marks(&bank, "public.behind").await.range(first + 1..).next().expect("a copy");
    let later = marks(&bank, "public.ahead").await.split_off(&copied);
    assert!(later.len() >= 60, "only {} marks came behind the copy", later.len());
    agree(&bank, later).await;
    let refused = shown(&bank, copied - 1).await.expect_err("it was copied later").to_string();
    assert!(refused.contains("is a copy that was taken at"), "{refused}");
    assert_eq!(shown(&bank, first).await.expect("what was there before"), ["0", "0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_not_published_with_the_others_shows_nothing_before_its_own_copy() {
    let filled = format!("{TABLES} INSERT INTO ahead VALUES (0); INSERT INTO behind SELECT -generate_series(0, 50000)");
    let bank = Bank::new(PostgresServer::shared(), "partly", &filled, ALL).await;
    let proxy = hurried(&bank).await;
    proxy.stall_behind(256 << 10);
    let mut service = bank.site.run("service", &bank.config);
    wait_until("the copy begins", async || service.log_text().contains("\"copying\"")).await;
    // The table is made, and then comes to a halt.
    let pipe = bank.site.table(&format!("public/behind/_delta_log/{:020}.json", 1));
    std::fs::create_dir_all(pipe.parent().expect("a folder")).expect("the folder of the log");
    assert!(put_pipe(&pipe), "the table is there before its copy");
    proxy.flow();
    wait_until("the one is published", async || !marks(&bank, "public.ahead").await.is_empty()).await;
    let first = pipe.with_file_name(format!("{:020}.json", 0));
    wait_until("the other is made", async || first.exists()).await;
    service.kill().await;
    std::fs::remove_file(&pipe).expect("the pipe");
    bank.sql("INSERT INTO ahead VALUES (1); INSERT INTO behind VALUES (1)").await;
    bank.catch_up().await;
    let copied = *marks(&bank, "public.behind").await.first().expect("a copy");
    let early = *marks(&bank, "public.ahead").await.first().expect("a copy");
    assert!(early < copied, "both were copied at {copied}");
    let refused = shown(&bank, early).await.expect_err("it was copied later").to_string();
    assert!(refused.contains("is a copy that was taken at"), "{refused}");
    assert_eq!(shown(&bank, copied).await.expect("an answer"), ["1", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_copy_waited_for_a_transaction_has_the_others_at_its_first_moment() {
    // A server of its own: a consistent point waits for all transactions of the server.
    let server = PostgresServer::start(Options::default());
    let bank = Bank::new(&server, "waited", "CREATE TABLE ahead (id int PRIMARY KEY)", ALL).await;
    bank.catch_up().await;
    let open = server.client(&bank.database).await;
    open.batch_execute("BEGIN; SELECT txid_current()").await.expect("a transaction");
    bank.sql("CREATE TABLE behind (id int PRIMARY KEY)").await;
    let mut service = bank.site.run("service", &bank.config);
    wait_until("a point is waited for", async || {
        service.log_text().contains("taking a consistent point")
    })
    .await;
    // Without a pause, so that whoever is late is past the point.
    let client = server.client(&bank.database).await;
    let writing = tokio::spawn(async move {
        for id in 1.. {
            let sql = format!("BEGIN; INSERT INTO ahead VALUES ({id}); INSERT INTO behind VALUES ({id}); COMMIT");
            if client.batch_execute(&sql).await.is_err() {
                return;
            }
        }
    });
    // The stream does not wait for ever.
    wait_until("the others go on", async || marks(&bank, "public.ahead").await.len() > 5).await;
    open.batch_execute("COMMIT").await.expect("the end");
    wait_until("the copy is there", async || !marks(&bank, "public.behind").await.is_empty()).await;
    writing.abort();
    service.stop().await;
    bank.catch_up().await;
    let copied = *marks(&bank, "public.behind").await.first().expect("a copy");
    let later = marks(&bank, "public.ahead").await.split_off(&copied);
    assert!(later.contains(&copied), "nothing was published at {copied} beside the copy");
    agree(&bank, later).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_table_shows_the_moment_of_a_busy_one() {
    let bank = Bank::new(PostgresServer::shared(), "quiet", TABLES, ALL).await;
    bank.catch_up().await;
    let mut service = bank.site.run("service", &bank.config);
    write(&bank, 1, &BOTH).await;
    write(&bank, 2, &["ahead"]).await;
    write(&bank, 3, &BOTH).await;
    service.signal(libc::SIGTERM);
    service.wait(PATIENCE).await;
    let mut seen = BTreeSet::new();
    for mark in marks(&bank, "public.ahead").await {
        seen.insert(shown(&bank, mark).await.expect("an answer"));
    }
    let expected = [["NULL", "NULL"], ["1", "1"], ["2", "1"], ["3", "3"]].map(|pair| pair.map(str::to_owned));
    assert_eq!(seen, BTreeSet::from(expected));
}
