//! The pipeline of most tests against a real Kafka: one topic feeds an upsert table `orders` and an append-only table
//! `audit`.

use std::path::PathBuf;
use std::time::Duration;

use super::changes::{Changes, Encoding};
use super::kafka::Broker;
use super::model::Model;
use super::producer::Producer;
use super::program::{Program, Site, free_port, http, status};

/// Of the topics in most tests.
pub const PARTITIONS: i32 = 4;
/// Few keys, so that every commit replaces rows of many before it, and reading each version is quick.
pub const LIVE_MAX: usize = 3_000;
/// As long as a client takes to go on behind a broker that was frozen for long.
const ALL_MAX: Duration = Duration::from_secs(300);

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
    /// `{dir}` in it is the site's folder.
    pub lake: &'a str,
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
            lake: "{dir}/lake",
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
            lake,
            brokers,
            topic,
            ..
        } = self;
        let tables = match self.encoding {
            Encoding::Json => JSON_TABLES,
            Encoding::Debezium => DEBEZIUM_TABLE,
        };
        let text = format!(
            "lake = \"{lake}\"\nstate = \"{{dir}}/state-{name}\"\nmemory = \"128 MiB\"\n{top}\n\
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

/// Waits until both tables hold all of the topic, by what the program says at this port.
pub async fn until_all_published(program: &mut Program, port: u16, topic: &str, model: &Model) {
    let all_published = || {
        let status = status(port)?;
        let tables = &status["pipelines"]["shop"]["tables"];
        let holds = |table: &str, partition: i32| tables[table]["positions"][format!("{topic}/{partition}")].as_u64();
        let all = |table: &&str| model.end().iter().all(|(partition, last)| holds(table, *partition) == Some(*last));
        ["orders", "audit"].iter().all(all).then_some(())
    };
    program.until("everything published", ALL_MAX, all_published).await;
}

/// Waits until the program has read all of the topic, which need not be in the tables yet.
pub async fn until_all_read(program: &mut Program, port: u16, topic: &str, model: &Model) {
    let all_read = || {
        let status = status(port)?;
        let lanes = &status["pipelines"]["shop"]["lanes"];
        let read = |partition: &i32| lanes[format!("{topic}/{partition}")]["read"].as_u64();
        let all = model.end().iter().all(|(partition, last)| read(partition) >= Some(*last));
        all.then_some(())
    };
    program.until("everything read", ALL_MAX, all_read).await;
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
