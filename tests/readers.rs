//! What independent readers see of tables that the program made from a real Kafka: the whole of it, and any moment of its history.

use std::time::Duration;

use crate::support::changes::{Changes, Encoding};
use crate::support::kafka::Broker;
use crate::support::model::Model;
use crate::support::program::Site;
use crate::support::python::{READERS, Reader};
use crate::support::shop::{Shop, Source};
use crate::support::{edges, history, kinds, million, verdict};

#[tokio::test(flavor = "multi_thread")]
async fn a_million_changes_are_read_back_by_every_reader_at_any_moment() {
    million::is_read_by(&READERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reader_that_filters_finds_the_rows_at_the_edges_of_their_types() {
    edges::are_found_by(&READERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_and_every_partition_is_read_as_it_was_produced() {
    kinds::are_read_by(&READERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn debezium_envelopes_are_read_back_at_every_version() {
    let site = Site::new();
    let (model, _) = million::drain(&site, Encoding::Debezium, Changes::new(20_260_101, 10_000), 200_000).await;
    let orders = site.table("orders");
    let history = history::read(&orders);
    assert_eq!(history.last().unwrap().marks, model.end(), "the table holds the whole topic");
    verdict::versions_equal_their_folds(
        Reader::Deltalake,
        &orders,
        &million::versions_with_marks(&history),
        &model,
        &site.out(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_table_keeps_its_version() {
    let site = Site::new();
    let source = Source::new(Broker::shared(), 1).await;
    let mut producer = source.producer(Model::new(1, Encoding::Json));
    Changes::new(7, 100).take(500).for_each(|change| producer.send(&change));
    producer.flush();
    let config = Shop {
        commit: "interval = \"100 ms\"",
        ..Shop::on(&source)
    }
    .configure(&site);
    site.catch_up(&config).await;
    let before = history::read(&site.table("orders")).len();
    let mut program = site.start("idle", &["run", "--config", config.to_str().unwrap()]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    program.kill().await;
    assert_eq!(
        history::read(&site.table("orders")).len(),
        before,
        "nothing was produced, so nothing is committed"
    );
}
