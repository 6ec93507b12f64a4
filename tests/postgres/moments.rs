//! Tables at one mark show one moment of the database, whatever came between.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use alluvium::log::{Log, When};
use alluvium::position::{Checkpoint, Lane, Position};
use alluvium::query::query;

use crate::support::bank::{Bank, rows};
use crate::support::postgres::{PostgresServer, wait_until};

const ALL: &str = "create = true\nfollow = [\"public.*\"]";

/// Where the versions of a table stand.
async fn marks(bank: &Bank<'_>, name: &str) -> BTreeSet<u64> {
    let table = bank.table(name);
    let log = Log::open(&table.url, Arc::clone(&table.store), "")
        .await
        .expect("a log")
        .expect("a table");
    let history = log.history(usize::MAX).await.expect("a history");
    let said = history.iter().filter_map(|version| version.said.as_ref());
    said.flat_map(|said| said.positions.values().map(|(_, to)| *to)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_fell_behind_by_several_marks_comes_to_each_of_them() {
    let sql = "CREATE TABLE ahead (id int PRIMARY KEY); CREATE TABLE behind (id int PRIMARY KEY)";
    let bank = Bank::new(PostgresServer::shared(), "behind", sql, ALL).await;
    bank.catch_up().await;
    let mut service = bank.site.run("service", &bank.config);
    let follows = |log: String| log.contains("\"following\"").then_some(());
    let log = bank.site.path("service.log");
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    service.until("it follows", Duration::from_secs(30), || follows(text())).await;
    // Where the next version of the one is to be, there is a pipe already: whoever looks what it says will wait for ever.
    let next = bank.versions("public.behind").await + 1;
    let pipe = bank.site.table(&format!("public/behind/_delta_log/{next:020}.json"));
    let path = CString::new(pipe.as_os_str().as_bytes()).expect("a path");
    // SAFETY: a plain system call, with a string that ends.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o644) }, 0);
    for id in 0..4 {
        let before = marks(&bank, "public.ahead").await.len();
        bank.sql(&format!(
            "BEGIN; INSERT INTO ahead VALUES ({id}); INSERT INTO behind VALUES ({id}); COMMIT"
        ))
        .await;
        wait_until("the one is published", async || marks(&bank, "public.ahead").await.len() > before).await;
    }
    service.kill().await;
    std::fs::remove_file(&pipe).expect("the pipe");
    let ahead = marks(&bank, "public.ahead").await;
    bank.catch_up().await;
    assert!(marks(&bank, "public.behind").await.is_superset(&ahead));
    let tables = [bank.table("public.ahead"), bank.table("public.behind")];
    for mark in &marks(&bank, "public.ahead").await | &marks(&bank, "public.behind").await {
        let at = Checkpoint::from_iter([(Lane::new(bank.slot()), Position(mark))]);
        let sql = "SELECT (SELECT count(*) FROM public.ahead) AS a, (SELECT count(*) FROM public.behind) AS b";
        let answer = query(sql, &tables, &When::Mark(at)).await.expect("a query");
        let counts = rows(&answer.collect().await.expect("rows")).remove(0);
        assert_eq!(counts[0], counts[1], "at {mark}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_table_shows_the_moment_of_a_busy_one() {
    let sql = "CREATE TABLE busy (id int PRIMARY KEY); CREATE TABLE quiet (id int PRIMARY KEY)";
    let bank = Bank::new(PostgresServer::shared(), "quiet", sql, ALL).await;
    bank.catch_up().await;
    let mut service = bank.site.run("service", &bank.config);
    for (id, both) in [(1, true), (2, false), (3, true)] {
        let before = marks(&bank, "public.busy").await.len();
        let quiet = if both {
            format!("INSERT INTO quiet VALUES ({id});")
        } else {
            String::new()
        };
        bank.sql(&format!("BEGIN; INSERT INTO busy VALUES ({id}); {quiet} COMMIT")).await;
        wait_until("it is published", async || marks(&bank, "public.busy").await.len() > before).await;
    }
    service.signal(libc::SIGTERM);
    service.wait(Duration::from_secs(30)).await;
    let tables = [bank.table("public.busy"), bank.table("public.quiet")];
    let mut seen = Vec::new();
    for mark in marks(&bank, "public.busy").await {
        let at = Checkpoint::from_iter([(Lane::new(bank.slot()), Position(mark))]);
        let sql = "SELECT (SELECT count(*) FROM public.busy) AS a, (SELECT count(*) FROM public.quiet) AS b";
        let answer = query(sql, &tables, &When::Mark(at)).await.expect("a query");
        seen.push(rows(&answer.collect().await.expect("rows")).remove(0));
    }
    for counts in [["1", "1"], ["2", "1"], ["3", "2"]] {
        assert!(seen.contains(&counts.map(str::to_owned).to_vec()), "{counts:?} is not in {seen:?}");
    }
    assert!(!seen.contains(&["2".to_owned(), "2".to_owned()].to_vec()), "{seen:?}");
}
