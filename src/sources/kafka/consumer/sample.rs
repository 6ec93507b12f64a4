//! A look at the records of some topics, before there is a table: where columns come from the schema inside of the messages.
//!
//! The newest records have the newest schema, so they are shown first. But tombstones and heartbeats carry none, and there may be any number
//! of them: then all that the topics have is shown, once in the life of the client, and what comes later is waited for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use super::faults::explain;
use super::queue::{Fetched, Queue};
use super::reading::{LaneTable, stray};
use super::waiting::{Waiting, names};
use super::{KafkaClient, Shared, blocking};
use crate::error::Result;
use crate::sources::decode::Message;
use crate::sources::kafka::lanes::{Plan, Planned};
use crate::table::Lanes;

/// Records of each partition that are its newest ones.
const RECORDS: u64 = 100;
/// How many are shown at once.
const RUN_RECORDS: usize = 1024;
/// How long further records may take to come.
const WAIT_MAX: Duration = Duration::from_secs(10);
const LINGER: Duration = Duration::from_millis(100);

/// Which records are shown: of those that have not all been shown before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    Newest,
    All,
}

impl KafkaClient {
    /// Shows records of the topics that `lanes` takes to `look`, run by run, until it says that it has seen enough. Returns what it keeps
    /// of them, and the names of the partitions of which it saw nothing because they wait. Not while a flow is open: the client reads one
    /// thing at a time.
    pub async fn sample<T: Default + Send + 'static>(
        &self,
        lanes: Lanes,
        sample: Sample,
        mut look: impl FnMut(&mut T, &[Message<'_>]) -> Result<bool> + Send + 'static,
    ) -> Result<(T, Vec<String>)> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let mut seen = T::default();
            let waiting = shared.sample(&lanes, sample, |messages| look(&mut seen, messages))?;
            Ok((seen, names(&waiting)))
        })
        .await
    }
}

impl Shared {
    fn sample(&self, lanes: &Lanes, sample: Sample, look: impl FnMut(&[Message<'_>]) -> Result<bool>) -> Result<Waiting> {
        self.reader.faults.begin();
        let topics = self.find(std::slice::from_ref(lanes))?;
        // Of those that wait there is nothing to be seen. When they come, their records have come.
        let (partitions, waiting) = self.reader.partitions(&topics)?;
        if waiting.is_empty() {
            self.reader.faults.answered();
        }
        let looked = self.watched().looked.clone();
        let mut plan = Plan::default();
        for partition in &partitions {
            let first = looked.get(&partition.lane()).map_or(partition.low, |at| partition.low.max(*at));
            let start = match sample {
                Sample::Newest => first.max(partition.high.saturating_sub(RECORDS)),
                Sample::All => first,
            };
            plan.lanes.push(Planned {
                lane: partition.lane(),
                topic: Arc::clone(&partition.topic),
                partition: partition.partition,
                start,
                end: partition.high.max(start),
                wants: Vec::new(),
            });
        }
        let next = if plan.lanes.iter().all(|lane| lane.start == lane.end) {
            Some(plan.lanes.iter().map(|lane| lane.start).collect())
        } else {
            let queue = Queue::new(&self.reader)?;
            for lane in &plan.lanes {
                queue.direct(&lane.topic, lane.partition)?;
            }
            self.reader.assign(&plan)?;
            let next = self.show_records(&queue, &plan, look);
            self.reader.unassign();
            next?
        };
        if let (Some(next), Sample::All) = (next, sample) {
            self.watched().looked.extend(plan.lanes.into_iter().map(|lane| lane.lane).zip(next));
        }
        Ok(waiting)
    }

    /// Shows what comes, until every lane has been shown to its end or nothing comes any more. Returns what would be shown next of each; None
    /// where enough was seen.
    fn show_records(&self, queue: &Queue, plan: &Plan, mut look: impl FnMut(&[Message<'_>]) -> Result<bool>) -> Result<Option<Vec<u64>>> {
        let mut next: Vec<u64> = plan.lanes.iter().map(|lane| lane.start).collect();
        let left = |next: &[u64]| {
            plan.lanes
                .iter()
                .zip(next)
                .map(|(lane, at)| lane.end.saturating_sub(*at))
                .sum::<u64>()
        };
        let (mut lanes, mut run) = (LaneTable::new(plan), Fetched::with_capacity(RUN_RECORDS));
        let (mut missing, mut moved) = (left(&next), Instant::now());
        while missing > 0 && moved.elapsed() < WAIT_MAX && !self.reader.stopping.load(Ordering::Relaxed) {
            queue.fill(&mut run, LINGER, LINGER);
            let mut messages = Vec::with_capacity(RUN_RECORDS);
            for item in run.iter() {
                let error = item.error();
                let lane = lanes.find(item).ok_or_else(|| stray(item, error, &self.reader.brokers))?;
                let at = u64::try_from(item.offset()).unwrap_or(0);
                match error {
                    None => {
                        messages.push(item.message(item.topic()));
                        next[lane] = at + 1;
                    }
                    Some(RDKafkaErrorCode::PartitionEOF) => next[lane] = next[lane].max(at),
                    Some(code) => return Err(explain(code, &item.reason(), &self.reader.brokers)),
                }
            }
            if look(&messages)? {
                return Ok(None);
            }
            if left(&next) < missing {
                (missing, moved) = (left(&next), Instant::now());
            }
        }
        Ok(Some(next))
    }
}
