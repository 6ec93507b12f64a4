//! Threads that fetch and decode: each has a queue of its own and the lanes that are directed to it, so lanes are decoded side by side
//! and each in its order.
//!
//! As many queues and threads as there are cores, not as there are lanes: a topic may have a thousand partitions, and what is fetched ahead is
//! bounded by queue, so each would have a thread, and a thousandth of that. A lane is in one queue, which keeps its order, and gets its turn
//! there: brokers put a bounded piece of each partition into an answer. The price: two busy lanes may come to share a core.
//!
//! A thread takes what has come in one run, asks for the memory that its rows will take, decodes, and hands the portion over.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use rdkafka::error::RDKafkaErrorCode;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::faults::explain;
use super::identity::{Identity, Served};
use super::queue::{Fetched, Item, Queue};
use super::{KafkaClient, Opened};
use crate::budget::{Budget, Permit};
use crate::error::{Error, Result};
use crate::sources::Confirm;
use crate::sources::decode::Message;
use crate::sources::kafka::batches::{Batcher, Portion, Run};
use crate::sources::kafka::lanes::Plan;

/// Records of a run: enough to make columns worth their while, few enough that rows are soon on their way.
const RUN_RECORDS: usize = 8192;
/// Bytes of a portion: larger runs are divided.
const PORTION_BYTES_MAX: usize = 4 << 20;
/// What a portion may take of the budget, so that several fit in it side by side.
const PORTION_SHARE: usize = 16;
/// What a portion may ask for at most: what is fetched ahead has a part of the budget for good, so the whole will never be free.
const PERMIT_SHARE: usize = 2;
/// How long a run that has begun waits for more. Short beside what a commit takes, long enough for a run of hundreds at a busy topic.
const LINGER: Duration = Duration::from_millis(5);
/// How long a quiet queue is waited for before the thread looks up.
const IDLE: Duration = Duration::from_millis(500);
/// How long rejects are held back in case more follow.
const DOUBT: Duration = Duration::from_millis(50);
/// Portions held back at most: they hold memory, and a doubt must not stop the flow.
const DOUBTFUL_MAX: usize = 8;
/// Portions that wait to be taken. They hold their memory; more would only be more of it.
const HANDED_MAX: usize = 4;

/// The threads of one flow. They end with it.
pub(in crate::sources::kafka) struct Reading {
    client: Arc<KafkaClient>,
    flow: Option<u64>,
    identity: Arc<Identity>,
    portions: mpsc::Receiver<Result<Portion>>,
    stop: CancellationToken,
    workers: Vec<(Arc<Queue>, thread::JoinHandle<()>)>,
}

impl Reading {
    /// Starts one thread for each batcher. Must be called within a runtime.
    pub(in crate::sources::kafka) fn start(
        client: &Arc<KafkaClient>,
        opened: &Opened,
        batchers: Vec<Batcher>,
        budget: &Budget,
    ) -> Result<Self> {
        let (sender, portions) = mpsc::channel(HANDED_MAX);
        let identity = Identity::new(&client.shared.reader, &opened.plan);
        let mut reading = Self {
            client: Arc::clone(client),
            flow: opened.flow,
            identity: Arc::clone(&identity),
            portions,
            stop: CancellationToken::new(),
            workers: Vec::new(),
        };
        let reader = &client.shared.reader;
        let threads = batchers.len();
        for (number, batcher) in batchers.into_iter().enumerate() {
            let queue = Arc::new(Queue::new(reader)?);
            // Neighbouring partitions to different threads: a topic's load is spread.
            for lane in opened.plan.lanes.iter().skip(number).step_by(threads) {
                queue.direct(&lane.topic, lane.partition)?;
            }
            let worker = Worker {
                queue: Arc::clone(&queue),
                batcher,
                lanes: LaneTable::new(&opened.plan),
                next: opened.plan.lanes.iter().map(|lane| lane.start).collect(),
                topics: opened.plan.lanes.iter().map(|lane| Arc::clone(&lane.topic)).collect(),
                identity: Arc::clone(&identity),
                brokers: reader.brokers.clone(),
                budget: budget.clone(),
                portion_bytes: PORTION_BYTES_MAX.min(budget.limit() / PORTION_SHARE),
                runtime: Handle::current(),
                stop: reading.stop.clone(),
                sender: sender.clone(),
            };
            let thread = thread::Builder::new()
                .name(format!("kafka-decode-{number}"))
                .spawn(move || worker.run());
            let thread = thread.map_err(|error| Error::transient("no_thread", "no thread could be started to decode").because(error))?;
            reading.workers.push((queue, thread));
        }
        reader.assign(&opened.plan)?;
        Ok(reading)
    }

    /// Tells whether what was read is of the topics that were planned.
    pub(in crate::sources::kafka) fn identity(&self) -> Arc<dyn Confirm> {
        Arc::<Identity>::clone(&self.identity)
    }

    /// The next portion. Cancel safe. Waits for ever when there are no lanes.
    pub(in crate::sources::kafka) async fn next(&mut self) -> Result<Portion> {
        match self.portions.recv().await {
            Some(portion) => portion,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stop.cancel();
        self.portions.close();
        self.client.shared.reader.unassign();
        for (queue, thread) in self.workers.drain(..) {
            queue.wake();
            // Within one run. What was not handed over is read again.
            drop(thread.join());
        }
        self.client.close(self.flow);
    }
}

struct Worker {
    queue: Arc<Queue>,
    batcher: Batcher,
    lanes: LaneTable,
    /// By number of the lane: the first offset that has not come yet.
    next: Vec<u64>,
    /// The name of each lane's topic.
    topics: Arc<[Arc<str>]>,
    identity: Arc<Identity>,
    brokers: String,
    budget: Budget,
    portion_bytes: usize,
    runtime: Handle,
    stop: CancellationToken,
    sender: mpsc::Sender<Result<Portion>>,
}

impl Worker {
    fn run(mut self) {
        let sender = self.sender.clone();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.read()));
        let outcome = outcome.unwrap_or_else(|_| Err(Error::bug("a decoding thread panicked; its message stands in the log")));
        if let Err(error) = outcome {
            // Nobody listens any more when the flow has ended first.
            drop(sender.blocking_send(Err(error)));
        }
    }

    fn read(&mut self) -> Result<()> {
        let mut fetched = Fetched::with_capacity(RUN_RECORDS);
        let mut doubtful: Vec<Portion> = Vec::new();
        while !self.stop.is_cancelled() {
            self.queue
                .fill(&mut fetched, if doubtful.is_empty() { IDLE } else { DOUBT }, LINGER);
            if fetched.is_empty() {
                self.hand_over(&mut doubtful);
            } else {
                self.decode(&fetched, &mut doubtful)?;
            }
        }
        Ok(())
    }

    /// Hands a portion over, behind those in doubt, or leaves it among them.
    fn pass(&self, portion: Portion, doubtful: &mut Vec<Portion>) {
        let doubt = portion.doubtful && doubtful.len() < DOUBTFUL_MAX;
        doubtful.push(portion);
        if !doubt {
            self.hand_over(doubtful);
        }
    }

    fn hand_over(&self, portions: &mut Vec<Portion>) {
        for portion in portions.drain(..) {
            // Fails when the flow has ended; then `stop` is set as well.
            drop(self.sender.blocking_send(Ok(portion)));
        }
    }

    /// Decodes what was fetched, in portions that fit into memory one by one: each is handed over before there is memory for the next.
    fn decode(&mut self, fetched: &Fetched, doubtful: &mut Vec<Portion>) -> Result<()> {
        let (mut messages, mut lanes) = (Vec::with_capacity(RUN_RECORDS), Vec::with_capacity(RUN_RECORDS));
        let (mut ends, mut served, mut last) = (Vec::new(), Served::new(), None);
        let topics = Arc::clone(&self.topics);
        for item in fetched.iter() {
            let error = item.error();
            let lane = self.lanes.find(item).ok_or_else(|| stray(item, error, &self.brokers))?;
            let at = u64::try_from(item.offset()).unwrap_or(0);
            match error {
                None => {
                    messages.push(item.message(&topics[lane]));
                    lanes.push(lane);
                    self.next[lane] = at + 1;
                }
                // Where it passes nothing it says nothing, and nobody has to be asked for it.
                Some(RDKafkaErrorCode::PartitionEOF) if at <= self.next[lane] => continue,
                Some(RDKafkaErrorCode::PartitionEOF) => {
                    // As the last offset contained.
                    ends.push((lane, at - 1));
                    self.next[lane] = at;
                }
                Some(code) => {
                    let place = format!(
                        "{}/{} at offset {}: {}",
                        item.topic(),
                        item.partition(),
                        item.offset(),
                        item.reason()
                    );
                    return Err(explain(code, &place, &self.brokers));
                }
            }
            let place = (item.broker(), lane);
            // Neighbours are mostly of one lane.
            if last != Some(place) {
                last = Some(place);
                served.insert(place);
            }
        }
        self.identity.served(&served);
        let (mut from, mut apart) = (0, true);
        while from < messages.len() {
            // A record of a new schema may stop its table: a mark in front of it lets the table have what came before.
            let is_apart = |at: usize| apart && self.batcher.is_new(&messages[at], lanes[at]);
            let (upto, bytes) = divide(&messages, from, self.portion_bytes, is_apart);
            let Some(permit) = self.permit(self.batcher.weight(upto - from, bytes), doubtful) else {
                return Ok(());
            };
            let run = Run {
                messages: &messages[from..upto],
                lanes: &lanes[from..upto],
            };
            let mut portion = self.batcher.portion(run, permit)?;
            if upto == messages.len() {
                // The ends of lanes come behind their records. They pass what is no record: markers of transactions, what was aborted or
                // compacted.
                portion.reached.append(&mut ends);
            }
            self.pass(portion, doubtful);
            // What is still new is no row. There may be many, and each would be a portion.
            apart &= !self.batcher.is_new(&messages[from], lanes[from]);
            from = upto;
        }
        if !ends.is_empty() {
            self.pass(Portion::only_reached(ends), doubtful);
        }
        Ok(())
    }

    /// Waits for memory, and holds none back meanwhile: threads would wait for each other. None when the flow ends first.
    fn permit(&self, bytes: usize, doubtful: &mut Vec<Portion>) -> Option<Permit> {
        let bytes = bytes.min(self.budget.limit() / PERMIT_SHARE);
        if let Some(permit) = self.budget.acquire(bytes).now_or_never() {
            return Some(permit);
        }
        self.hand_over(doubtful);
        self.runtime.block_on(self.stop.run_until_cancelled(self.budget.acquire(bytes)))
    }
}

/// Where a portion that begins at `from` ends, and its bytes: at the limit or where one stands apart, but with one message at least.
fn divide(messages: &[Message<'_>], from: usize, limit: usize, is_apart: impl Fn(usize) -> bool) -> (usize, usize) {
    let mut bytes = 0;
    for (index, message) in messages.iter().enumerate().skip(from) {
        let more = message.bytes();
        if index > from && (bytes + more > limit || is_apart(index)) {
            return (index, bytes);
        }
        bytes += more;
    }
    (messages.len(), bytes)
}

pub(super) fn stray(item: Item<'_>, error: Option<RDKafkaErrorCode>, brokers: &str) -> Error {
    match error {
        Some(code) => explain(code, &item.reason(), brokers),
        None => Error::bug(format!("a record of {}/{} came, which is not read", item.topic(), item.partition())),
    }
}

/// Numbers of lanes. Records come in runs of one lane, and a topic's handle stays the same: names are compared once.
pub(super) struct LaneTable {
    names: HashMap<(Arc<str>, i32), usize>,
    handles: HashMap<(usize, i32), usize>,
    last: Option<((usize, i32), usize)>,
}

impl LaneTable {
    pub(super) fn new(plan: &Plan) -> Self {
        let names = plan
            .lanes
            .iter()
            .enumerate()
            .map(|(number, lane)| ((Arc::clone(&lane.topic), lane.partition), number))
            .collect();
        Self {
            names,
            handles: HashMap::new(),
            last: None,
        }
    }

    pub(super) fn find(&mut self, item: Item<'_>) -> Option<usize> {
        let handle = (item.topic_handle(), item.partition());
        if let Some((last, number)) = self.last
            && last == handle
        {
            return Some(number);
        }
        let number = match self.handles.get(&handle) {
            Some(&number) => number,
            None => {
                let number = *self.names.get(&(item.topic().into(), item.partition()))?;
                self.handles.insert(handle, number);
                number
            }
        };
        self.last = Some((handle, number));
        Some(number)
    }
}
