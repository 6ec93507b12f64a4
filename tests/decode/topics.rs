//! A broker within this process, and the beginning of a configuration that reads it.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, Producer, ThreadedProducer};

use crate::support::kafka::send;

pub(super) struct Topics {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Topics {
    /// Topics by their names and numbers of partitions.
    pub fn new(topics: &[(&str, i32)]) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        for (name, partitions) in topics {
            cluster.create_topic(name, *partitions, 1).unwrap();
        }
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", cluster.bootstrap_servers());
        Self {
            producer: client.create().unwrap(),
            cluster,
        }
    }

    /// A record in the first partition of a topic.
    pub fn produce(&self, topic: &str, key: &str, value: &str) {
        send(&self.producer, topic, 0, key, Some(value));
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// A pipeline `p`, to which further options of its source and its tables can be added.
    pub fn pipeline(&self) -> String {
        format!(
            "lake = \"{{dir}}/lake\"\nstate = \"{{dir}}/state\"\nmemory = \"64 MiB\"\nhttp = {{ address = \"\" }}\n\
             [pipelines.p.kafka]\nbrokers = \"{}\"\n",
            self.cluster.bootstrap_servers()
        )
    }
}
