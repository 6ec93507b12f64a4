//! What independent readers see of tables that the program made from a real Kafka: the whole of it, and any moment of its history.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;

use crate::support::changes::{Changes, Encoding};
use crate::support::history::{self, Commit};
use crate::support::kafka::Broker;
use crate::support::model::Model;
use crate::support::program::Site;
use crate::support::python::Reader;
use crate::support::shop::{Shop, Source};
use crate::support::verdict;

/// Fills a topic of four partitions, drains it into an upsert and an audit table, and returns what must be in them.
async fn drain(site: &Site, encoding: Encoding, changes: usize, live_max: usize) -> Model {
    let source = Source::new(Broker::shared(), 4).await;
    let mut producer = source.producer(Model::new(4, encoding));
    for change in Changes::new(20_260_101, live_max).take(changes) {
        producer.send(&change);
    }
    producer.flush();
    let shop = Shop {
        encoding,
        commit: "rows = 20000",
        ..Shop::on(&source)
    };
    site.catch_up(&shop.configure(site)).await;
    producer.model
}

fn versions_with_marks(history: &[Commit]) -> Vec<&Commit> {
    history.iter().filter(|commit| !commit.marks.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_changes_are_read_back_by_every_reader_at_any_version() {
    let site = Site::new();
    let model = drain(&site, Encoding::Json, 1_000_000, 300_000).await;

    let (orders, audit) = (site.table("orders"), site.table("audit"));
    let history = history::read(&orders);
    assert_eq!(history.last().unwrap().marks, model.end(), "the table holds the whole topic");
    let mut versions = versions_with_marks(&history);
    assert!(
        versions.len() > 20,
        "a history of {} versions is too short to be travelled",
        versions.len()
    );
    let newest = versions.pop().unwrap();
    let mut chosen = versions.into_iter().choose_multiple(&mut SmallRng::seed_from_u64(1), 10);
    // Whatever else is chosen, a version in which compaction has just moved rows.
    let mut compacted = history.iter().filter(|commit| commit.info["operation"] == "OPTIMIZE");
    chosen.extend(compacted.next_back());
    assert!(chosen.len() > 10, "compaction came to nothing");
    chosen.push(newest);
    chosen.sort_by_key(|commit| commit.version);
    chosen.dedup_by_key(|commit| commit.version);
    for reader in [Reader::Deltalake, Reader::Polars, Reader::Duckdb] {
        verdict::versions_equal_their_folds(reader, &orders, &chosen, &model, &site.out()).await;
    }

    let history = history::read(&audit);
    assert_eq!(history.last().unwrap().marks, model.end());
    verdict::every_version_added_what_its_marks_say(&audit, &history, &model);
    for reader in [Reader::Deltalake, Reader::Polars, Reader::Duckdb] {
        verdict::every_record_is_there_once(reader, &audit, history.last().unwrap().version, &model, &site.out()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn debezium_envelopes_are_read_back_at_every_version() {
    let site = Site::new();
    let model = drain(&site, Encoding::Debezium, 200_000, 10_000).await;
    let orders = site.table("orders");
    let history = history::read(&orders);
    assert_eq!(history.last().unwrap().marks, model.end(), "the table holds the whole topic");
    verdict::versions_equal_their_folds(Reader::Deltalake, &orders, &versions_with_marks(&history), &model, &site.out()).await;
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
