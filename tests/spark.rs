//! Spark with Delta Lake reads what the program wrote. A test binary of its own, which only `make test-spark` runs: Spark is large to fetch.

#[allow(dead_code, reason = "the support is shared with the other test binary, which uses all of it")]
mod support;

use support::changes::{Changes, Encoding};
use support::history;
use support::kafka::Broker;
use support::model::Model;
use support::postgres::PostgresServer;
use support::program::Site;
use support::python::Reader;
use support::shop::{Shop, Source};
use support::verdict;
use support::widening;

#[tokio::test(flavor = "multi_thread")]
async fn spark_reads_every_fifth_version_and_the_audit_table() {
    let source = Source::new(Broker::shared(), 4).await;
    let mut producer = source.producer(Model::new(4, Encoding::Json));
    Changes::new(20_260_102, 100_000)
        .take(400_000)
        .for_each(|change| producer.send(&change));
    producer.flush();
    let site = Site::new();
    site.catch_up(
        &Shop {
            commit: "rows = 4000",
            ..Shop::on(&source)
        }
        .configure(&site),
    )
    .await;

    let (orders, audit) = (site.table("orders"), site.table("audit"));
    let history = history::read(&orders);
    let newest = history.last().expect("the table has versions");
    assert_eq!(newest.marks, producer.model.end(), "the table holds the whole topic");
    // None twice: Spark would write over what is being compared.
    let fifth = |commit: &&history::Commit| commit.version % 5 == 3 && commit.version != newest.version;
    let mut versions: Vec<_> = history.iter().filter(fifth).collect();
    assert!(
        versions.len() >= 8,
        "a history of {} versions is too short to be travelled",
        history.len()
    );
    versions.push(newest);
    verdict::versions_equal_their_folds(Reader::Spark, &orders, &versions, &producer.model, &site.out()).await;

    let newest = history::read(&audit).last().expect("the table has versions").version;
    verdict::every_record_is_there_once(Reader::Spark, &audit, newest, &producer.model, &site.out()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spark_reads_columns_that_got_wider() {
    let bank = widening::copied(PostgresServer::shared(), "spark", widening::WIDENING).await;
    let version = bank.versions("public.grow").await;
    widening::alter(&bank).await;
    bank.catch_up().await;
    widening::read(Reader::Spark, &bank, version).await;
}
