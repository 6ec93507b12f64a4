//! Writes changes into a real topic as fast as the broker takes them, in order, each exactly once.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::changes::Change;
use super::model::Model;

/// A producer that keeps a [`Model`] of all it wrote.
pub struct Producer {
    client: BaseProducer,
    topic: String,
    pub model: Model,
    /// Of all values that were sent.
    pub bytes: usize,
}

impl Producer {
    /// One that gathers large batches.
    pub fn new(brokers: &str, topic: &str, model: Model) -> Self {
        Self::with_linger(brokers, topic, model, "20")
    }

    /// One that sends each record at once.
    pub fn prompt(brokers: &str, topic: &str, model: Model) -> Self {
        Self::with_linger(brokers, topic, model, "0")
    }

    fn with_linger(brokers: &str, topic: &str, model: Model, linger_ms: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        // Idempotent: a retry neither doubles a record nor changes the order, so a record's offset is its place in the model.
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", linger_ms)
            .set("batch.size", "1000000");
        config.set("compression.type", "zstd").set("queue.buffering.max.messages", "200000");
        let client = config.create().expect("a producer");
        Self {
            client,
            topic: topic.to_owned(),
            model,
            bytes: 0,
        }
    }

    pub fn send(&mut self, change: &Change) {
        let (partition, messages) = self.model.push(change);
        for message in messages {
            let mut record = BaseRecord::to(&self.topic).partition(partition).key(&message.key);
            if let Some(value) = &message.value {
                record = record.payload(value);
                self.bytes += value.len();
            }
            while let Err((error, back)) = self.client.send(record) {
                assert!(
                    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)),
                    "cannot produce: {error}"
                );
                self.client.poll(Duration::from_millis(10));
                record = back;
            }
        }
    }

    /// Gives the client time for its answers.
    pub fn poll(&self, within: Duration) {
        self.client.poll(within);
    }

    /// Waits until the broker has all that was sent.
    pub fn flush(&self) {
        self.client.flush(Duration::from_secs(180)).expect("the broker takes all records");
    }
}
