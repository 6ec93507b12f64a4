//! What whoever watches a pipeline sees of it: its endpoints, its log, its commands; of Kafka and of Postgres alike.

use std::time::Duration;

use alluvium::position::Lsn;
use serde_json::Value;

use crate::support::bank::Bank;
use crate::support::changes::{Changes, Encoding};
use crate::support::kafka::Broker;
use crate::support::model::Model;
use crate::support::postgres::PostgresServer;
use crate::support::program::{Program, Site, free_port, get, http, labelled, metric, status};
use crate::support::proxy::Proxy;
use crate::support::shop::{PARTITIONS, Shop, Source};
use crate::support::terminal::Terminal;

const PATIENCE: Duration = Duration::from_secs(120);
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

/// Waits until a table of a database is published, and returns what it holds.
async fn published(program: &mut Program, port: u16, table: &str) -> String {
    let mark = || {
        let status = status(port)?;
        let mark = status["pipelines"]["bank"]["tables"][table]["mark"].as_str()?;
        (!mark.is_empty()).then(|| mark.to_owned())
    };
    program.until("the table is published", PATIENCE, mark).await
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
    // In this order: a commit that comes in between is in the count and before `now`, if it is in the sum.
    let sum = labelled(port, "alluvium_freshness_seconds_sum", &of).expect("a histogram");
    let count = labelled(port, "alluvium_freshness_seconds_count", &of).expect("a histogram");
    let now = now_s();
    // The source tells milliseconds.
    assert!(committed > before - 0.002 && committed < now, "{before} {committed} {now}");
    assert!(
        count >= 1.0 && sum > 0.0 && sum <= (now - before + 0.002) * count,
        "{before} {now} {count} {sum}"
    );
    // The status is told a moment after the metrics, and another commit may come in between.
    let same = || {
        let committed = labelled(port, "alluvium_committed_source_timestamp_seconds", &of)?;
        let told = status(port)?["pipelines"][pipeline]["tables"][table]["source_ms"].as_f64()?;
        ((told / 1e3 - committed).abs() < 0.002).then_some(())
    };
    program.until("the status to tell the same time", PATIENCE, same).await;
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
    // The first version may have come before this partition was read.
    let mark = || {
        let status = status(port)?;
        let mark = status["pipelines"]["shop"]["tables"]["audit"]["mark"].as_str()?;
        mark.contains(&format!("{}/0:", source.topic)).then_some(())
    };
    program.until("the first partition in the mark", PATIENCE, mark).await;
    program.kill().await;
    let versions = history(&site, config.to_str().expect("a path in UTF-8"), "audit").await;
    let last = versions.last().expect("a version");
    assert!(
        last["alluvium"]["source_ms"].as_f64().expect("a time") / 1e3 >= before - 0.002,
        "{last}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_told_of_before_its_first_commit() {
    let source = Source::new(Broker::shared(), 4).await;
    let (site, port) = (Site::new(), free_port());
    let top = http(port);
    let shop = Shop {
        top: &top,
        ..Shop::on(&source)
    };
    let config = shop.configure(&site);
    source.fill(100);
    site.catch_up(&config).await;
    let mut program = site.run("again", &config);
    let both = || {
        let tables = status(port)?["pipelines"]["shop"]["tables"].clone();
        (tables["orders"]["version"].is_u64() && tables["audit"]["version"].is_u64()).then_some(tables)
    };
    let tables = program.until("both tables", PATIENCE, both).await;
    for table in ["orders", "audit"] {
        let of = format!("table=\"{table}\"");
        let told = |name: &str, label: &str| labelled(port, name, &[of.as_str(), label]);
        assert_eq!(told("alluvium_records_total", "outcome=\"dead_letter\""), Some(0.0));
        assert_eq!(
            told("alluvium_commits_total", "result=\"ok\""),
            Some(0.0),
            "nothing is to be written"
        );
        let made = told("alluvium_last_commit_timestamp_seconds", "").expect("its newest version's time");
        assert!(made > now_s() - 600.0 && made < now_s() + 1.0, "{made}");
        let told = &tables[table];
        assert!(told["version"].as_u64() > Some(0), "{told}");
        assert!(told["positions"][format!("{}/0", source.topic)].is_u64(), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn freshness_runs_from_a_transactions_commit_to_that_of_its_table() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";
    let mut bank = Bank::new(PostgresServer::shared(), "fresh", sql, FOLLOWED).await;
    let port = free_port();
    bank.reconfigure_with(&http(port), FOLLOWED);
    let mut program = bank.site.run("service", &bank.config);
    let copied = published(&mut program, port, "public.t").await;
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
    let sql = "CREATE TABLE loose (v int); CREATE TABLE retyped (id int PRIMARY KEY, v int); CREATE TABLE t (id int PRIMARY KEY)";
    let mut bank = Bank::new(PostgresServer::shared(), "degraded", sql, FOLLOWED).await;
    let port = free_port();
    bank.reconfigure_with(&http(port), FOLLOWED);
    let mut program = bank.site.run("service", &bank.config);
    // A table whose copy is not there yet would be copied as it is then, and not stop.
    for table in ["public.loose", "public.retyped", "public.t"] {
        published(&mut program, port, table).await;
    }
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
    // The metrics are told a moment after the status.
    let told = || ((state("degraded"), state("running")) == (Some(1.0), Some(0.0))).then_some(());
    program.until("the state in the metrics", PATIENCE, told).await;
    assert_eq!(get(port, "/livez").map(|(code, _)| code), Some(200));
    let rows = |port| labelled(port, "alluvium_rows_total", &["table=\"public.t\"", "op=\"put\""]).filter(|rows| *rows > 0.0);
    bank.sql("INSERT INTO t VALUES (1)").await;
    program.until("the row of the other table", PATIENCE, || rows(port)).await;
    bank.sql("ALTER TABLE retyped ALTER COLUMN v TYPE text; INSERT INTO retyped VALUES (1, 'one')")
        .await;
    until_readyz(
        &mut program,
        port,
        503,
        &["public.loose has stopped", "public.retyped has stopped", "`v`"],
    )
    .await;
    let refused = labelled(
        port,
        "alluvium_schema_changes_total",
        &["table=\"public.retyped\"", "outcome=\"refused\""],
    );
    assert_eq!(refused, Some(1.0));
    let before = rows(port);
    bank.sql("INSERT INTO t VALUES (2)").await;
    program
        .until("another row", PATIENCE, || rows(port).filter(|rows| Some(*rows) > before))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_a_pipeline_whose_brokers_are_gone_is_not_ready_until_they_are_back_and_its_lag_stays_at_what_was_known() {
    let mut broker = Broker::start("");
    let source = Source::new(&broker, PARTITIONS).await;
    let (site, port) = (Site::new(), free_port());
    let top = http(port);
    let shop = Shop {
        top: &top,
        kafka: "discovery = \"500 ms\"",
        ..Shop::on(&source)
    };
    let config = shop.configure(&site);
    let mut program = site.run("program", &config);
    until_readyz(&mut program, port, 200, &["ok"]).await;
    let told = || ["alluvium_kafka_high_watermark", "alluvium_kafka_lag_records"].map(|name| metric(port, name));
    let all_read = |records: usize| (told() == [records as f64, 0.0]).then_some(());
    let before = source.fill(400).model.records();
    program.until("everything read", PATIENCE, || all_read(before)).await;
    broker.kill();
    until_readyz(&mut program, port, 503, &["shop is", &source.brokers]).await;
    assert_eq!(get(port, "/livez").map(|(code, _)| code), Some(200));
    let fault = [
        "pipeline=\"shop\"",
        "stage=\"kafka\"",
        "code=\"broker_unreachable\"",
        "kind=\"transient\"",
    ];
    let faults = || labelled(port, "alluvium_errors_total", &fault).filter(|faults| *faults > 0.0);
    program.until("what the client met", PATIENCE, faults).await;
    assert_eq!(told(), [before as f64, 0.0], "nobody can tell what comes to the topic meanwhile");
    broker.resume();
    until_readyz(&mut program, port, 200, &["ok"]).await;
    let after = before + source.fill(100).model.records();
    program.until("everything read once more", PATIENCE, || all_read(after)).await;
}

/// What `/status` says of the slot's lane.
fn lane(port: u16, slot: &str) -> Option<Value> {
    let status = status(port)?;
    let lane = &status["pipelines"]["bank"]["lanes"][slot];
    lane["slot"].is_object().then(|| lane.clone())
}

fn lsn(value: &Value) -> Option<u64> {
    Some(Lsn::parse(value.as_str()?).expect("an LSN").0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_tells_where_it_is_and_how_far_behind_in_numbers_and_as_postgres_writes_them() {
    let mut bank = Bank::new(PostgresServer::shared(), "lane", "CREATE TABLE t (id int PRIMARY KEY)", FOLLOWED).await;
    let port = free_port();
    bank.reconfigure_with(&http(port), FOLLOWED);
    let mut program = bank.site.run("service", &bank.config);
    bank.sql("INSERT INTO t SELECT generate_series(1, 1000)").await;
    let end = lsn(&Value::String(bank.value("SELECT pg_current_wal_lsn()").await)).expect("a position");
    // A slot that is made behind the rows is there at once, while the table is still copied.
    let there = || {
        lane(port, &bank.slot()).filter(|lane| {
            let slot = &lane["slot"];
            lane["read"].as_u64() >= Some(end) && lsn(&slot["committed"]) >= Some(end) && slot["phase"] == "streaming"
        })
    };
    let lane = program.until("all is committed", PATIENCE, there).await;
    let slot = &lane["slot"];
    assert_eq!(
        (lsn(&slot["end"]), lsn(&slot["read"])),
        (lane["end"].as_u64(), lane["read"].as_u64()),
        "{lane}"
    );
    let (end, read) = (lane["end"].as_u64().expect("an end"), lane["read"].as_u64().expect("a position"));
    assert_eq!(slot["lag_bytes"].as_u64(), Some(end - read), "{lane}");
    assert!(
        slot["committed_lag_bytes"].as_u64() >= slot["lag_bytes"].as_u64() && slot["retained_bytes"].is_u64(),
        "{lane}"
    );
    assert_eq!(lane["lag"], Value::Null, "nobody counts the records of a slot: {lane}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_tells_rows_bytes_and_the_time_left_in_the_status_the_metrics_and_the_log() {
    let server = PostgresServer::shared();
    let sql = "CREATE TABLE large (id int PRIMARY KEY, v text); INSERT INTO large SELECT i, repeat('x', 1000) FROM generate_series(1, 30000) i; \
               CREATE TABLE small (id int PRIMARY KEY); INSERT INTO small VALUES (1)";
    let mut bank = Bank::new(server, "copying", sql, FOLLOWED).await;
    let (port, proxy) = (free_port(), Proxy::before(server.port()).await);
    bank.reconfigure_with(&http(port), FOLLOWED);
    let text = std::fs::read_to_string(&bank.config).expect("the configuration");
    let text = text.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()));
    std::fs::write(&bank.config, text).expect("the configuration");
    // A line of some 1 MB a second and connection.
    proxy.delay(Duration::from_millis(60));
    let (terminal, stdout) = Terminal::open();
    let config = bank.config.to_str().expect("a path in UTF-8");
    let mut program = bank.site.start_with("service", &["run", "--config", config], |command| {
        command.stdout(stdout).env("TERM", "xterm");
    });
    let size: u64 = bank.value("SELECT pg_table_size('large')").await.parse().expect("a number");
    let of = "table=\"public.large\"";
    let pipeline = || Some(status(port)?["pipelines"]["bank"].clone());
    // The slot is told of once in a second: for the first time perhaps before anything was to be copied.
    let under_way = || {
        pipeline().filter(|pipeline| {
            let copy = &pipeline["tables"]["public.large"]["copy"];
            copy["left_seconds"].is_u64() && pipeline["lanes"][bank.slot()]["slot"]["phase"] == "copying"
        })
    };
    let pipeline = program.until("some of it is copied", PATIENCE, under_way).await;
    let copy = &pipeline["tables"]["public.large"]["copy"];
    let number = |of: &Value, what: &str| of[what].as_u64().expect("a number");
    // A vacuum of the server's may add a page at any time.
    let whole = number(copy, "total_bytes");
    assert!(whole.abs_diff(size) < size / 100, "{size}: {copy}");
    assert!(
        (1..30_000).contains(&number(copy, "rows")) && (1..whole).contains(&number(copy, "bytes")),
        "{copy}"
    );
    let sum = &pipeline["copy"];
    assert!(
        number(sum, "total_bytes") >= whole && number(sum, "bytes") >= number(copy, "bytes"),
        "{pipeline}"
    );
    let told = |name: &str| labelled(port, name, &[of]).expect("a metric");
    assert_eq!(told("alluvium_snapshot_size_bytes"), whole as f64);
    assert!(told("alluvium_snapshot_done_bytes") > 0.0 && told("alluvium_snapshot_rows_total") > 0.0);
    let left = told("alluvium_snapshot_left_seconds");
    assert!(left >= 1.0, "{left} s are left");
    let log = bank.site.path("service.log");
    let lines = || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let of_copies: Vec<Value> = lines.into_iter().filter(|line| line["message"] == "copy under way").collect();
        (of_copies.len() > 1).then_some(of_copies) // The sum and the table, one line after the other.
    };
    let lines = program.until("the log tells of it", PATIENCE, lines).await;
    assert!(
        lines[0]["table"].is_null() && number(&lines[0], "total_bytes") >= whole,
        "{lines:?}"
    );
    assert!(
        lines[1]["table"] == "public.large" && number(&lines[1], "rows") > 0 && lines[1]["left_seconds"].is_u64(),
        "{lines:?}"
    );
    proxy.delay(Duration::ZERO);
    let done = || {
        let pipeline = status(port)?["pipelines"]["bank"].clone();
        let gone = pipeline["copy"].is_null() && pipeline["tables"]["public.large"]["copy"].is_null();
        (gone && lane(port, &bank.slot())?["slot"]["phase"] == "streaming").then_some(())
    };
    program.until("the copy is there", PATIENCE, done).await;
    let told = |name: &str| labelled(port, name, &[of]).expect("a metric");
    assert_eq!(told("alluvium_snapshot_done_bytes"), whole as f64);
    assert_eq!(told("alluvium_snapshot_rows_total"), 30_000.0);
    assert_eq!(told("alluvium_snapshot_left_seconds"), 0.0);
    program.kill().await;
    // Nothing is drawn where the log is no terminal, nor on the terminal that stdout is.
    let text = std::fs::read_to_string(&log).expect("the log");
    let stray = text.lines().find(|line| serde_json::from_str::<Value>(line).is_err());
    assert_eq!(stray, None);
    let screen = terminal.end();
    assert!(screen.lines.is_empty() && screen.erased.is_empty(), "{screen:?}");
}
