//! A Kafka broker inside of this process: librdkafka's mock cluster, on a free port of the loopback.
//!
//! It keeps some 5 MiB of a partition and forgets what is older, so changes are published in waves that fit, each when the one before
//! it is in the tables.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use super::changes::Event;
use crate::error::{Error, Result};

/// How long the broker may take for what is under way; it is this process, so something is wrong long before.
const ANSWER_MAX: Duration = Duration::from_secs(30);

pub(super) struct Broker {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
    topic: &'static str,
    /// Records in each partition so far.
    ends: Vec<u64>,
}

impl Broker {
    pub(super) fn start(topic: &'static str, partitions: usize) -> Result<Self> {
        let cluster = MockCluster::new(1).map_err(broken)?;
        cluster.create_topic(topic, partitions as i32, 1).map_err(broken)?;
        // Without idempotence a retry could put an event behind its successor.
        let options = [
            ("bootstrap.servers", cluster.bootstrap_servers().as_str()),
            ("enable.idempotence", "true"),
            ("linger.ms", "5"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let producer = options.into_iter().collect::<ClientConfig>().create().map_err(broken)?;
        Ok(Self {
            cluster,
            producer,
            topic,
            ends: vec![0; partitions],
        })
    }

    pub(super) fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// The offset behind the last record of each partition.
    pub(super) fn ends(&self) -> &[u64] {
        &self.ends
    }

    /// Sends an event. All events of a key go to one partition, so that they stay in order.
    pub(super) fn send(&mut self, event: &Event) -> Result<()> {
        let partition = usize::try_from(event.id).unwrap_or(0) % self.ends.len();
        loop {
            let mut record = BaseRecord::to(self.topic).partition(partition as i32).key(&event.key);
            if let Some(value) = &event.value {
                record = record.payload(value);
            }
            match self.producer.send(record) {
                Ok(()) => break,
                // The producer's queue is full: let it work.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(broken(error)),
            }
        }
        self.ends[partition] += 1;
        Ok(())
    }

    /// Waits until everything that was sent is in the topic.
    pub(super) fn flush(&self) -> Result<()> {
        tokio::task::block_in_place(|| self.producer.flush(ANSWER_MAX)).map_err(broken)
    }
}

fn broken(error: KafkaError) -> Error {
    Error::bug("the broker of the demo does not work").because(error)
}
