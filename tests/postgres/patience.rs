//! A lake, and first copies, that take longer than the server waits for its clients.

use std::time::{Duration, Instant};

use alluvium::log::{When, store};
use alluvium::query::{Named, query};
use url::Url;

use super::stops::stopped_and_started;
use crate::support::bank::{Bank, rows};
use crate::support::bucket::{Bucket, Service};
use crate::support::postgres::{Options, PostgresServer, wait_until};
use crate::support::program::{free_port, http, metric};
use crate::support::proxy::Proxy;

#[tokio::test(flavor = "multi_thread")]
async fn p12_the_session_lives_while_a_commit_takes_longer_than_the_server_waits() {
    let mut server = PostgresServer::start(Options::default().set("wal_sender_timeout", "8s"));
    let bucket = Bucket::of(Service::S3).await;
    let proxy = Proxy::before(bucket.port()).await;
    let lines = format!("create = true\nfollow = [\"public.*\"]\n{}", Service::S3.section(proxy.port()));
    let sql = "CREATE TABLE t (id int PRIMARY KEY, body text); INSERT INTO t SELECT i, 'copied' FROM generate_series(1, 10) i";
    let mut bank = Bank::new(&server, "patience", sql, &lines).await;
    let port = free_port();
    // Little memory: what comes is far more than what may be read ahead, so that the server itself has to wait.
    bank.reconfigure_with(&format!("memory = \"32 MiB\"\n{}", http(port)), &lines);
    bank.edit("lake = \"lake\"", "lake = \"s3://bucket/lake\"");
    bank.catch_up().await;

    let mut service = bank.site.run("service", &bank.config);
    let walsender = async || server.walsender(&bank.slot()).await;
    server.until_read(&bank.slot()).await;
    let before = walsender().await;
    proxy.stall();
    for part in 1..=50 {
        bank.sql(&format!(
            "INSERT INTO t SELECT {part} * 1000 + i, repeat(md5(i::text), 32) FROM generate_series(1, 1000) i"
        ))
        .await;
    }
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!(walsender().await, before, "{}", service.log_tail());
    let received = metric(port, "alluvium_records_total");
    assert!(received < 50_000.0, "the lake has stalled, and all has been read");
    proxy.flow();
    bank.until_released().await;
    assert_eq!(walsender().await, before, "{}", service.log_tail());
    assert_eq!(metric(port, "alluvium_records_total"), 50_000.0, "nothing is read twice");

    // Nor does the lake keep the server from stopping, with more on its way than was read.
    proxy.stall();
    bank.sql("INSERT INTO t SELECT 1000000 + i, repeat(md5(i::text), 32) FROM generate_series(1, 40000) i")
        .await;
    wait_until("some is read", async || metric(port, "alluvium_records_total") > 50_000.0).await;
    let parts = bank.parts();
    let bank = stopped_and_started(&mut server, parts);
    proxy.flow();
    bank.until_released().await;
    service.stop().await;

    let url = Url::parse("s3://bucket/lake/public/t/").expect("a URL");
    let table = Named {
        name: "public.t".to_owned(),
        store: store::open(&url, &Service::S3.options(bucket.port())).expect("a store"),
        url,
    };
    let sql = "SELECT count(*), sum(id) FROM public.t";
    let answer = query(sql, &[table], &When::Latest).await.expect("a query");
    assert_eq!(rows(&answer.collect().await.expect("rows")), bank.there(sql).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn p12_the_slot_is_held_however_long_the_first_copies_take() {
    let server = PostgresServer::start(Options::default().set("wal_sender_timeout", "3s"));
    let sql = "CREATE TABLE t (id int PRIMARY KEY, body text); CREATE TABLE o (id int PRIMARY KEY)";
    let bank = Bank::new(&server, "held", sql, "create = true\nfollow = [\"public.*\"]").await;
    let slot = bank.slot();
    bank.sql(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"))
        .await;
    // Until its end no table can be copied.
    let long = server.client(&bank.database).await;
    long.batch_execute("BEGIN; INSERT INTO o VALUES (1)")
        .await
        .expect("a long transaction");
    let mut service = bank.site.run("service", &bank.config);
    server.until_read(&slot).await;
    let before = server.walsender(&slot).await;
    let (until, mut part) = (Instant::now() + Duration::from_secs(8), 0);
    // More than anybody takes unread.
    while Instant::now() < until {
        part += 1;
        bank.sql(&format!(
            "INSERT INTO t SELECT {part} * 1000 + i, repeat(md5(i::text), 32) FROM generate_series(1, 999) i"
        ))
        .await;
    }
    assert_eq!(server.walsender(&slot).await, before, "{}", service.log_tail());
    assert!(!service.log_text().contains("\"copying\""), "{}", service.log_tail());
    long.batch_execute("COMMIT").await.expect("the end");
    bank.until_released().await;
    service.stop().await;
    bank.agrees("SELECT count(*), sum(id) FROM public.t", &["public.t"]).await;
    bank.agrees("SELECT id FROM public.o", &["public.o"]).await;
}
