//! What whoever watches a pipeline sees of it: its endpoints, its log, its commands; of Kafka and of Postgres alike.

use std::time::Duration;

use serde_json::Value;

use crate::support::bank::Bank;
use crate::support::changes::{Changes, Encoding};
use crate::support::kafka::Broker;
use crate::support::model::Model;
use crate::support::postgres::PostgresServer;
use crate::support::program::{Program, Site, free_port, get, http, labelled, status};
use crate::support::shop::{Shop, Source};

const PATIENCE: Duration = Duration::from_secs(60);
const FOLLOWED: &str = "create = true\nfollow = [\"public.*\"]\ndiscovery = \"200 ms\"";

/// Waits until `/readyz` answers so, and its text has these words.
async fn until_readyz(program: &mut Program, port: u16, code: u16, words: &[&str]) {
    let says = || {
        get(port, "/readyz")
            .filter(|(said, text)| *said == code && words.iter().all(|word| text.contains(word)))
            .map(drop)
    };
    program.until(&format!("/readyz {code} with {words:?}"), PATIENCE, says).await;
}

/// The newest versions of a table, as `alluvium history` tells them, oldest first.
async fn history(site: &Site, config: &str, table: &str) -> Vec<Value> {
    let mut program = site.start(
        &format!("history-{table}"),
        &["history", table, "--format", "json", "--config", config],
    );
    assert!(program.wait(PATIENCE).await.status.success(), "{}", program.log_tail());
    let text = program.log_text();
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON"));
    lines.rev().collect()
}

fn now_s() -> f64 {
    alluvium::telemetry::now_us() as f64 / 1e6
}

/// What is told of the time from the source to the table, which has been written once since `before`.
async fn freshness_is_told(program: &mut Program, port: u16, pipeline: &str, table: &str, before: f64) {
    let of = [format!("pipeline=\"{pipeline}\""), format!("table=\"{table}\"")];
    let of = of.each_ref().map(String::as_str);
    let committed = program
        .until("the time of the newest record", PATIENCE, || {
            labelled(port, "alluvium_committed_source_timestamp_seconds", &of)
        })
        .await;
    let now = now_s();
    // The source tells milliseconds.
    assert!(committed > before - 0.002 && committed < now, "{before} {committed} {now}");
    let count = labelled(port, "alluvium_freshness_seconds_count", &of).expect("a histogram");
    let sum = labelled(port, "alluvium_freshness_seconds_sum", &of).expect("a histogram");
    assert!(count >= 1.0 && sum > 0.0 && sum <= (now - before) * count, "{count} {sum}");
    let status = status(port).expect("a status");
    let told = status["pipelines"][pipeline]["tables"][table]["source_ms"]
        .as_f64()
        .expect("a time");
    assert!((told / 1e3 - committed).abs() < 0.002, "{told} {committed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn freshness_runs_from_a_records_time_to_the_commit_of_its_table() {
    let source = Source::new(Broker::shared(), 4).await;
    let (site, port) = (Site::new(), free_port());
    let top = http(port);
    let shop = Shop {
        top: &top,
        commit: "interval = \"100 ms\"",
        ..Shop::on(&source)
    };
    let config = shop.configure(&site);
    let before = now_s();
    let mut producer = source.producer(Model::new(4, Encoding::Json));
    Changes::new(1, 100).take(100).for_each(|change| producer.send(&change));
    producer.flush();
    let mut program = site.run("program", &config);
    for table in ["orders", "audit"] {
        freshness_is_told(&mut program, port, "shop", table, before).await;
    }
    let status = status(port).expect("a status");
    let mark = status["pipelines"]["shop"]["tables"]["audit"]["mark"].as_str().expect("a mark");
    assert!(mark.contains(&format!("{}/0:", source.topic)), "{mark}");
    program.kill().await;
    let versions = history(&site, config.to_str().expect("a path in UTF-8"), "audit").await;
    let last = versions.last().expect("a version");
    assert!(
        last["alluvium"]["source_ms"].as_f64().expect("a time") / 1e3 >= before - 0.002,
        "{last}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn freshness_runs_from_a_transactions_commit_to_that_of_its_table() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";
    let mut bank = Bank::new(PostgresServer::shared(), "fresh", sql, FOLLOWED).await;
    let port = free_port();
    bank.reconfigure_with(&http(port), FOLLOWED);
    let mut program = bank.site.run("service", &bank.config);
    let mark = |table: &str| {
        let status = status(port)?;
        let mark = &status["pipelines"]["bank"]["tables"][table]["mark"];
        mark.as_str().map(str::to_owned)
    };
    let copied = program
        .until("the copy", PATIENCE, || mark("public.t").filter(|mark| !mark.is_empty()))
        .await;
    assert!(copied.starts_with(&format!("{}:0/", bank.slot())), "{copied}");
    let of = ["table=\"public.t\""];
    assert_eq!(
        labelled(port, "alluvium_freshness_seconds_count", &of),
        None,
        "nobody knows when a row that is copied was written"
    );
    let before = now_s();
    bank.sql("INSERT INTO t VALUES (2)").await;
    freshness_is_told(&mut program, port, "bank", "public.t", before).await;
    program.kill().await;
    let versions = history(&bank.site, bank.config.to_str().expect("a path in UTF-8"), "public.t").await;
    let told = versions.iter().filter_map(|version| version["alluvium"]["source_ms"].as_f64());
    assert_eq!(told.filter(|ms| ms / 1e3 >= before - 0.002).count(), 1, "{versions:?}");
    let last = versions.last().expect("a version")["positions"]
        .as_str()
        .expect("positions")
        .to_owned();
    assert!(last.starts_with(&format!("{}:0/", bank.slot())), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_a_database_that_stopped_makes_the_pipeline_degraded_and_the_others_go_on() {
    let sql = "CREATE TABLE loose (v int); CREATE TABLE t (id int PRIMARY KEY)";
    let mut bank = Bank::new(PostgresServer::shared(), "degraded", sql, FOLLOWED).await;
    let port = free_port();
    bank.reconfigure_with(&http(port), FOLLOWED);
    let mut program = bank.site.run("service", &bank.config);
    until_readyz(&mut program, port, 200, &["ok"]).await;
    bank.sql("ALTER TABLE loose REPLICA IDENTITY FULL; INSERT INTO loose VALUES (1)")
        .await;
    bank.sql("UPDATE loose SET v = 2").await;
    until_readyz(
        &mut program,
        port,
        503,
        &["bank is degraded", "public.loose has stopped", "UPDATE", "__op"],
    )
    .await;
    let pipeline = &status(port).expect("a status")["pipelines"]["bank"];
    assert_eq!(pipeline["state"], "degraded", "{pipeline}");
    assert!(pipeline["tables"]["public.loose"]["stopped"].is_string(), "{pipeline}");
    let state = |state: &str| labelled(port, "alluvium_pipeline_state", &[&format!("state=\"{state}\"")]);
    assert_eq!((state("degraded"), state("running")), (Some(1.0), Some(0.0)));
    assert_eq!(get(port, "/livez").map(|(code, _)| code), Some(200));
    let rows = |port| labelled(port, "alluvium_rows_total", &["table=\"public.t\"", "op=\"put\""]).filter(|rows| *rows > 0.0);
    bank.sql("INSERT INTO t VALUES (1)").await;
    program.until("the row of the other table", PATIENCE, || rows(port)).await;
}
