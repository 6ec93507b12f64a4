//! The list of what a source promises, kept by the Kafka source on a real broker and on the client's own mock cluster.

use std::sync::Arc;

use alluvium::batch::Op;
use alluvium::error::Result;
use alluvium::position::{Lane, Position};
use alluvium::sources::Resume;
use alluvium::sources::decode::{Decoded, Decoder, Message};
use alluvium::sources::kafka::{KafkaSource, MakeDecoder};
use alluvium::table::TableId;
use arrow::datatypes::SchemaRef;

use super::{Lake, PATIENCE, Pipe};
use crate::conformance::{SourceUnderTest, the_list_of_sources};
use crate::support::kafka::{Broker, send};
use crate::support::rows::{rows, schema};

/// Takes numbers as keys: even ones or odd ones. What is no number is no change.
struct Parity {
    schema: SchemaRef,
    remainder: i64,
}

impl Parity {
    fn make(remainder: i64) -> MakeDecoder {
        Arc::new(move |_| {
            Ok(Box::new(Parity {
                schema: schema(),
                remainder,
            }))
        })
    }
}

impl Decoder for Parity {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn decode(&mut self, messages: &[Message<'_>]) -> Result<Decoded> {
        let number = |message: &Message<'_>| std::str::from_utf8(message.value?).ok()?.parse::<i64>().ok();
        let numbers = (0..).zip(messages).filter_map(|(origin, message)| Some((origin, number(message)?)));
        let taken: Vec<(u32, i64)> = numbers.filter(|(_, number)| number % 2 == self.remainder).collect();
        let pairs: Vec<(i64, i64)> = taken.iter().map(|(_, number)| (*number, 0)).collect();
        Ok(Decoded {
            rows: rows(&pairs),
            ops: vec![Op::Put; taken.len()],
            origins: taken.iter().map(|(origin, _)| *origin).collect(),
            unchanged: None,
            rejects: Vec::new(),
            tombstones: 0,
            filtered: messages.len() - taken.len(),
            unknown_members: 0,
        })
    }
}

/// Values of the records of one partition, in order.
const VALUES: [&str; 7] = ["2", "-", "1", "4", "-", "3", "-"];

struct InKafka {
    pipe: Pipe,
    lane: Lane,
}

impl InKafka {
    async fn new(bootstrap: &str, topic: &str) -> Self {
        let mut pipe = Pipe::new(bootstrap, "", &[("all", topic)]);
        let mut lake = Lake::default();
        pipe.catch_up(&mut lake).await.unwrap();
        let lane = lake.mark("all").iter().next().unwrap().0.clone();
        let all = pipe.routes.remove(0);
        pipe.routes = [("even", 0), ("odd", 1)]
            .map(|(table, remainder)| alluvium::sources::kafka::Route {
                table: TableId::new(table),
                lanes: all.lanes.clone(),
                decoder: Parity::make(remainder),
            })
            .into();
        Self { pipe, lane }
    }
}

impl SourceUnderTest for InKafka {
    type Source = KafkaSource;

    async fn open(&self, resume: Resume) -> KafkaSource {
        let lake = Lake {
            marks: resume,
            ..Lake::default()
        };
        self.pipe.open(&lake).await.unwrap()
    }

    fn lane(&self) -> Lane {
        self.lane.clone()
    }

    fn expected(&self) -> Vec<(Position, TableId, i64)> {
        let numbers = (0..)
            .zip(VALUES)
            .filter_map(|(offset, value)| Some((Position(offset), value.parse::<i64>().ok()?)));
        let table = |number: i64| TableId::new(["even", "odd"][number as usize % 2]);
        numbers.map(|(at, number)| (at, table(number), number)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kafka_source_conforms_on_a_real_broker() {
    conforms(Broker::shared()).await;
}

pub(super) async fn conforms(broker: &Broker) {
    let topic = broker.topic("contract", 1, &[]).await;
    broker.produce(&topic, 0, VALUES.map(|value| ("k", Some(value))));
    the_list_of_sources(&InKafka::new(&broker.bootstrap(), &topic).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kafka_source_conforms_on_the_mock_cluster() {
    use rdkafka::producer::Producer;
    let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
    cluster.create_topic("contract", 1, 1).unwrap();
    let mut config = rdkafka::ClientConfig::new();
    let producer = config.set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    for value in VALUES {
        send::<rdkafka::producer::DefaultProducerContext>(&producer, "contract", 0, "k", Some(value));
    }
    producer.flush(PATIENCE).unwrap();
    the_list_of_sources(&InKafka::new(&cluster.bootstrap_servers(), "contract").await).await;
}
