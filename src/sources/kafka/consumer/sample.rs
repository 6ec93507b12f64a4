//! A look at the newest records of some topics, before there is a table: where columns come from the schema inside of the messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use super::faults::explain;
use super::queue::{Fetched, Queue};
use super::{KafkaClient, Shared, blocking};
use crate::error::Result;
use crate::sources::decode::Message;
use crate::sources::kafka::lanes::{Plan, Planned};
use crate::table::Lanes;

/// Records of each partition: some of them are tombstones and heartbeats, which carry no schema.
const RECORDS: u64 = 100;
/// How long the records may take to come.
const WAIT_MAX: Duration = Duration::from_secs(10);
const LINGER: Duration = Duration::from_millis(100);

impl KafkaClient {
    /// Shows the newest records of the topics that `lanes` takes to `look`, which gets none where the topics are empty. Not while a flow
    /// is open: the client reads one thing at a time.
    pub async fn sample<T: Send + 'static>(
        &self,
        lanes: Lanes,
        look: impl FnOnce(&[Message<'_>]) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.sample(&lanes, look)).await
    }
}

impl Shared {
    fn sample<T>(&self, lanes: &Lanes, look: impl FnOnce(&[Message<'_>]) -> Result<T>) -> Result<T> {
        self.reader.faults.clear();
        let topics = self.reader.topics(std::slice::from_ref(lanes))?;
        let partitions = self.reader.partitions(&topics, |_, _| true)?;
        let mut plan = Plan::default();
        for partition in partitions.iter().filter(|partition| partition.low < partition.high) {
            plan.lanes.push(Planned {
                lane: partition.lane(),
                topic: Arc::clone(&partition.topic),
                partition: partition.partition,
                start: partition.high.saturating_sub(RECORDS).max(partition.low),
                end: partition.high,
                wants: Vec::new(),
            });
        }
        let queue = Queue::new(&self.reader)?;
        for lane in &plan.lanes {
            queue.direct(&lane.topic, lane.partition)?;
        }
        self.reader.assign(&plan)?;
        let runs = self.newest(&queue, plan.lanes.len());
        self.reader.unassign();
        let runs = runs?;
        let records = runs.iter().flat_map(Fetched::iter).filter(|item| item.error().is_none());
        let messages: Vec<Message<'_>> = records.map(|item| item.message(item.topic())).collect();
        look(&messages)
    }

    /// Reads until the end of every lane was reached, or time is up.
    fn newest(&self, queue: &Queue, lanes: usize) -> Result<Vec<Fetched>> {
        let (mut runs, mut ends, deadline) = (Vec::new(), 0, Instant::now() + WAIT_MAX);
        while ends < lanes && Instant::now() < deadline {
            let mut run = Fetched::with_capacity(1024);
            queue.fill(&mut run, LINGER, LINGER);
            for item in run.iter() {
                match item.error() {
                    None => {}
                    Some(RDKafkaErrorCode::PartitionEOF) => ends += 1,
                    Some(code) => return Err(explain(code, &item.reason(), &self.reader.brokers)),
                }
            }
            runs.push(run);
        }
        Ok(runs)
    }
}
