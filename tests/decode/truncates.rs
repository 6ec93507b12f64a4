//! A truncate of Debezium's in topics of one partition and of two: from a topic to the table.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, Producer, ThreadedProducer};

use crate::support::bank::read;
use crate::support::kafka::send;
use crate::support::program::Site;

const SCHEMA: &str = r#"{"type": "record", "name": "r", "fields": [{"name": "id", "type": "long"}]}"#;
const TRUNCATE: &str = r#"{"op":"t","before":null,"after":null}"#;

#[tokio::test(flavor = "multi_thread")]
async fn u7_a_truncate_empties_a_table_that_one_partition_feeds_and_is_a_dead_letter_of_others() {
    let cluster: MockCluster<'static, DefaultProducerContext> = MockCluster::new(1).unwrap();
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", cluster.bootstrap_servers());
    let producer: ThreadedProducer<DefaultProducerContext> = client.create().unwrap();
    let site = Site::new();
    std::fs::write(site.path("r.avsc"), SCHEMA).unwrap();
    let mut text = format!(
        "lake = \"{{dir}}/lake\"\nstate = \"{{dir}}/state\"\nmemory = \"64 MiB\"\nhttp = {{ address = \"\" }}\n\
         [pipelines.p.kafka]\nbrokers = \"{}\"\n",
        cluster.bootstrap_servers()
    );
    cluster.create_topic("alone", 1, 1).unwrap();
    cluster.create_topic("divided", 2, 1).unwrap();
    for (table, topics) in [
        ("one", "[\"alone\"]"),
        ("two", "[\"divided\"]"),
        ("three", "[\"alone\", \"divided\"]"),
    ] {
        text += &format!(
            "[pipelines.p.tables.{table}]\ntopic = {topics}\nformat = \"debezium-json\"\nkey = [\"id\"]\nschema = \"{{dir}}/r.avsc\"\n"
        );
    }
    let config = site.configure("p", &text);
    for (id, value) in [
        (1, r#"{"op":"c","after":{"id":1}}"#),
        (0, TRUNCATE),
        (2, r#"{"op":"c","after":{"id":2}}"#),
    ] {
        for topic in ["alone", "divided"] {
            send(&producer, topic, 0, &format!("{{\"id\":{id}}}"), Some(value));
        }
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    site.catch_up(&config).await;

    for (table, rows) in [("one", vec![["2"]]), ("two", vec![["1"], ["2"]]), ("three", vec![["1"], ["2"]])] {
        assert_eq!(
            read(&site, &format!("SELECT id FROM {table} ORDER BY id"), &[table]).await,
            rows,
            "{table}"
        );
    }
    let letters = "SELECT \"table\", lane, position, code FROM p_dead_letters ORDER BY 1, 2";
    let code = "truncate_over_partitions";
    assert_eq!(
        read(&site, letters, &["p_dead_letters"]).await,
        [
            ["three", "alone/0", "1", code],
            ["three", "divided/0", "1", code],
            ["two", "divided/0", "1", code]
        ]
    );
}
