//! What `/readyz` promises of a pipeline that reads Kafka: where its tables begin is on record, and its topics are there.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::changes::Changes;
use crate::support::history;
use crate::support::kafka::Broker;
use crate::support::program::{Program, Site, free_port, get, http};
use crate::support::readback::{self, Ranges};
use crate::support::shop::{LIVE_MAX, PARTITIONS, Shop, Source};

const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `/readyz` answers so, and its text has this word.
async fn until_readyz(program: &mut Program, port: u16, code: u16, word: &str) {
    let says = || {
        get(port, "/readyz")
            .filter(|(said, text)| *said == code && text.contains(word))
            .map(drop)
    };
    program.until(&format!("/readyz {code} with {word}"), PATIENCE, says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_ready_when_it_is_on_record_where_its_tables_begin() {
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let mut producer = source.fill(1_000);
    let (site, port) = (Site::new(), free_port());
    let config = Shop {
        top: &http(port),
        kafka: "start = \"latest\"",
        ..Shop::on(&source)
    }
    .configure(&site);
    let mut program = site.run("program", &config);
    until_readyz(&mut program, port, 200, "ok").await;
    let begins = producer.model.end();
    for table in ["orders", "audit"] {
        assert_eq!(history::marks(&site.table(table)), begins, "{table}");
    }
    // Whatever ends the program before it has read a record, all that are written from then on are read.
    program.kill().await;
    Changes::new(44, LIVE_MAX).take(100).for_each(|change| producer.send(&change));
    producer.flush();
    site.catch_up(&config).await;
    let audit = site.table("audit");
    let added = history::read(&audit).into_iter().flat_map(|commit| commit.added);
    let files: Vec<PathBuf> = added.map(|path| audit.join(path)).collect();
    let end = producer.model.end();
    let later: Ranges = end
        .iter()
        .map(|(partition, last)| (*partition, begins[partition] + 1..=*last))
        .collect();
    readback::check_records(&files, &later, &producer.model).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_a_topic_that_goes_is_named_and_waited_for_and_another_of_its_name_stops_the_pipeline() {
    let broker = Broker::shared();
    let source = Source::new(broker, PARTITIONS).await;
    let producer = source.fill(1_000);
    let (site, port) = (Site::new(), free_port());
    let config = Shop {
        top: &http(port),
        kafka: "discovery = \"500 ms\"",
        commit: "interval = \"100 ms\"",
        ..Shop::on(&source)
    }
    .configure(&site);
    let mut program = site.run("program", &config);
    let end = producer.model.end();
    let is_read = || {
        ["orders", "audit"]
            .iter()
            .all(|table| history::marks(&site.table(table)) == end)
            .then_some(())
    };
    program.until("all to be read", PATIENCE, is_read).await;
    broker.delete_topic(&source.topic).await;
    until_readyz(&mut program, port, 503, &source.topic).await;
    assert_eq!(get(port, "/livez").map(|(code, _)| code), Some(200), "it lives, and waits");
    broker.create_topic(&source.topic, PARTITIONS, &[]).await;
    let exit = program.wait(PATIENCE).await;
    assert_eq!(exit.status.code(), Some(65), "{}", program.log_tail());
    assert!(program.log_text().contains("topic_recreated"), "{}", program.log_tail());
}
