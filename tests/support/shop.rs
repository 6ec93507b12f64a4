//! The pipeline of most tests against a real Kafka: one topic feeds an upsert table `orders` and an append-only table
//! `audit`.

use std::path::PathBuf;

use super::changes::{Changes, Encoding};
use super::kafka::Broker;
use super::model::Model;
use super::producer::Producer;
use super::program::{Site, free_port, http};

/// Of the topics in most tests.
pub const PARTITIONS: i32 = 4;
/// Few keys, so that every commit replaces rows of many before it, and reading each version is quick.
pub const LIVE_MAX: usize = 3_000;

/// A topic of a broker.
pub struct Source {
    pub brokers: String,
    pub topic: String,
}

impl Source {
    /// A new topic of this broker, empty.
    pub async fn new(broker: &Broker, partitions: i32) -> Self {
        Self {
            brokers: broker.bootstrap(),
            topic: broker.topic("orders", partitions, &[]).await,
        }
    }

    /// A producer for it, which keeps the model of all that it writes.
    pub fn producer(&self, model: Model) -> Producer {
        Producer::new(&self.brokers, &self.topic, model)
    }

    /// Produces so many changes of a few keys at once, into four partitions.
    pub fn fill(&self, changes: usize) -> Producer {
        let mut producer = self.producer(Model::new(PARTITIONS as usize, Encoding::Json));
        Changes::new(43, LIVE_MAX).take(changes).for_each(|change| producer.send(&change));
        producer.flush();
        producer
    }
}

/// Its configuration. The texts are further lines of the sections that they are named after.
#[derive(Clone, Copy)]
pub struct Shop<'a> {
    /// Of the configuration file; instances with different names share tables, and nothing else.
    pub name: &'a str,
    pub encoding: Encoding,
    pub top: &'a str,
    pub kafka: &'a str,
    pub commit: &'a str,
    pub brokers: &'a str,
    pub topic: &'a str,
}

impl<'a> Shop<'a> {
    pub fn on(source: &'a Source) -> Self {
        let Source { brokers, topic } = source;
        Self {
            name: "shop",
            encoding: Encoding::Json,
            top: "http = { address = \"\" }",
            kafka: "",
            commit: "",
            brokers,
            topic,
        }
    }

    /// Writes the configuration file, and returns its path.
    pub fn configure(&self, site: &Site) -> PathBuf {
        let Self {
            name,
            top,
            kafka,
            commit,
            brokers,
            topic,
            ..
        } = self;
        let tables = match self.encoding {
            Encoding::Json => JSON_TABLES,
            Encoding::Debezium => DEBEZIUM_TABLE,
        };
        let text = format!(
            "lake = \"{{dir}}/lake\"\nstate = \"{{dir}}/state-{name}\"\nmemory = \"128 MiB\"\n{top}\n\
             [pipelines.shop.kafka]\nbrokers = \"{brokers}\"\n{kafka}\n\
             [pipelines.shop.commit]\n{commit}\n{tables}"
        );
        site.configure(name, &text.replace("{topic}", topic))
    }
}

/// A site with the configuration of a program that publishes so often, and the port at which it can be asked.
pub fn served(source: &Source, interval: &str) -> (Site, PathBuf, u16) {
    let (site, port) = (Site::new(), free_port());
    let config = Shop {
        top: &http(port),
        commit: &format!("interval = \"{interval}\""),
        ..Shop::on(source)
    }
    .configure(&site);
    (site, config, port)
}

const JSON_TABLES: &str = r#"
[pipelines.shop.tables.orders]
topic = "{topic}"
schema = "{dir}/orders.avsc"
key = ["id"]
key_from = "message_key"

[pipelines.shop.tables.audit]
topic = "{topic}"
schema = "{dir}/audit.avsc"
tombstones = "keep"
metadata = ["__partition", "__offset"]
"#;

const DEBEZIUM_TABLE: &str = r#"
[pipelines.shop.tables.orders]
topic = "{topic}"
format = "debezium-json"
schema = "{dir}/orders.avsc"
key = ["id"]
"#;
