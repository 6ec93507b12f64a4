//! Kafka as a source: topics by name or pattern, each partition a lane, one read for all tables that a topic feeds.
//!
//! ```text
//!            directed to queues        runs of records        portions                    rows + marks
//!  brokers ─────────────────────► queue ──► decoding thread ──┐
//!                    librdkafka   queue ──► decoding thread ──┴──► KafkaSource::next ────────────────────►
//! ```
//!
//! - Where lanes begin is decided by what the tables hold, and by nothing else: `start` and `lanes`, pure.
//! - Offsets are assigned by hand. A group, where there is one, only says which lanes are ours (`consumer/member`).
//! - Records are decoded in runs, on threads of their own, straight from librdkafka's memory (`consumer/reading`, `batches`).
//! - A lane that comes, goes or is lost ends the flow: it is opened again from the tables.
//! - Before a table publishes, the ids of its topics are asked again behind what was read (`consumer/identity`).

mod accounting;
mod batches;
mod catch_up;
mod consumer;
mod lanes;
pub mod options;
mod progress;
pub mod start;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

pub use self::consumer::{KafkaClient, Sample, partitions_waiting};
pub use self::start::Policy;

use self::accounting::Accounting;
use self::batches::{Batcher, Limits, Portion, Streaks};
use self::catch_up::Left;
use self::consumer::{Change, OwnedWanted, Reading};
use self::lanes::Plan;
use self::progress::Progress;
use crate::batch::Flow;
use crate::budget::{Budget, Permit};
use crate::error::{Error, Result};
use crate::position::{Checkpoint, Lane, Position};
use crate::reject::DeadLetters;
use crate::reject::delivered::Delivered;
use crate::sources::decode::{Decoder, Terms};
use crate::sources::{Confirm, Resume, Source};
use crate::status::Board;
use crate::table::{Lanes, TableId};
use crate::telemetry;

/// A record may take this part of the memory for rows; of a larger one none is made.
const RECORD_SHARE: usize = 8;
/// How often tables are looked at for what other members have read. Commits of theirs are some seconds apart.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// Makes a decoder: each decoding thread needs one of its own.
pub type MakeDecoder = Arc<dyn Fn(Terms) -> Result<Box<dyn Decoder>> + Send + Sync>;

/// What feeds one table.
#[derive(Clone)]
pub struct Route {
    pub table: TableId,
    pub lanes: Lanes,
    /// Tables with the same `Arc` share one decoding of each record and the columns that come of it.
    pub decoder: MakeDecoder,
}

/// How a flow is read.
#[derive(Clone, Debug)]
pub struct Settings {
    pub pipeline: String,
    pub policy: Policy,
    /// End when every lane has reached the end that it had at the start, be it read here or by other members of the group.
    pub until_caught_up: bool,
    pub dead_letters: TableId,
    /// Those that the dead-letter table holds already.
    pub delivered: Arc<Delivered>,
    /// So many rejects in a row, without a readable record between them, stop the pipeline.
    pub stop_after: u64,
    /// Threads that decode: as many queues as the client's properties were made for.
    pub threads: usize,
}

/// One flow: from what the tables hold to the next change of lanes.
pub struct KafkaSource {
    reading: Reading,
    client: Arc<KafkaClient>,
    plan: Plan,
    changes: watch::Receiver<Change>,
    /// How often lanes had been lost when the flow was opened.
    losses: u64,
    progress: Arc<Progress>,
    accounting: Accounting,
    /// What was handed over.
    mark: Checkpoint,
    /// What has not been read of what was there at the start; None where the end is of no interest.
    left: Option<Left>,
    /// When the tables are looked at again for what others have left.
    look_again: Instant,
    /// To be handed over before anything else is taken.
    ready: VecDeque<Flow>,
    released: Checkpoint,
    ended: bool,
    /// Memory for what librdkafka fetches ahead.
    _prefetch: Permit,
}

impl KafkaSource {
    /// Opens a flow: compares what the tables hold with what the topics have, and begins to read.
    ///
    /// Errors: `broker_unreachable` while the brokers do not answer, `partitions_waiting` where some do not and nothing can be read without
    /// them; `broker_denied`, `broker_tls` and `topic_missing` are for the operator; `retention_gap`, `topic_recreated` and
    /// `topic_truncated` are for the owner of the data.
    pub async fn open(
        client: &Arc<KafkaClient>,
        routes: &[Route],
        resume: &Resume,
        settings: &Settings,
        budget: &Budget,
        board: &Board,
    ) -> Result<Self> {
        let wanted = OwnedWanted {
            tables: routes.iter().map(|route| (route.table.clone(), route.lanes.clone())).collect(),
            resume: resume.clone(),
            policy: settings.policy,
            until_caught_up: settings.until_caught_up,
        };
        let prefetch = budget.acquire(client.prefetch_bytes().min(budget.limit() / 2)).await;
        let (opened, changes) = client.open(wanted).await?;
        let pipeline: Arc<str> = settings.pipeline.as_str().into();
        let limits = Limits {
            rejects_in_a_row: settings.stop_after,
            record_bytes: budget.limit() / RECORD_SHARE,
        };
        let threads = settings.threads.clamp(1, opened.plan.lanes.len().max(1));
        let letters = || DeadLetters::new(&pipeline, &settings.delivered);
        let streaks = Streaks::new(routes.len());
        let batcher = || Batcher::new(routes, &opened.plan, &settings.dead_letters, letters(), limits, &streaks);
        let batchers: Vec<Batcher> = (0..threads).map(|_| batcher()).collect::<Result<_>>()?;
        let progress = Arc::new(Progress::new(&pipeline, board, &opened.plan));
        let reading = Reading::start(client, &opened, batchers, budget)?;
        client.show(&progress, board);
        let (plan, left) = (opened.plan, opened.left);
        let losses = changes.borrow().losses;
        // What is read here is published at once: others wait for it, as we do for them.
        let pause = if left.as_ref().is_some_and(|left| left.ours.is_empty()) {
            LOOK_AGAIN
        } else {
            Duration::ZERO
        };
        let mut source = Self {
            reading,
            client: Arc::clone(client),
            losses,
            changes,
            progress,
            accounting: Accounting::new(&pipeline, routes, &plan),
            mark: plan.mark(),
            left,
            look_again: Instant::now() + pause,
            ready: VecDeque::new(),
            released: Checkpoint::default(),
            ended: false,
            plan,
            _prefetch: prefetch,
        };
        source.begin(&pipeline, board);
        Ok(source)
    }

    /// Where lanes begin for a route, which feeds this table: those that are read, and those that others read and that the table is begun
    /// with.
    pub fn begins(&self, route: usize, table: &TableId) -> impl Iterator<Item = (&Lane, u64)> {
        let read = self.plan.lanes.iter();
        let read = read.filter_map(move |planned| Some((&planned.lane, planned.wants[route]?)));
        let begun = self.plan.begins.get(table).into_iter().flat_map(Checkpoint::iter);
        read.chain(begun.filter(|(lane, _)| lane.has_positions()).map(|(lane, at)| (lane, at.0 + 1)))
    }

    /// What stands before the first record: gaps, and where the tables and the lanes are begun.
    fn begin(&mut self, pipeline: &str, board: &Board) {
        // Tables that lag apart miss one lane from different offsets on, to one end: the longest gap has the others in it.
        let mut gone: BTreeMap<&Lane, u64> = BTreeMap::new();
        for gap in &self.plan.gaps {
            let missing = gap.missing.end - gap.missing.start;
            warn!(pipeline, table = %gap.table, lane = %gap.lane, missing, "records are gone by retention; the gap is put on record");
            let most = gone.entry(&gap.lane).or_default();
            *most = missing.max(*most);
            self.ready.push_back(Flow::Gap(gap.clone()));
        }
        for (lane, missing) in gone {
            let topic = lane.topic_partition().map_or("", |(topic, _)| topic).to_owned();
            metrics::counter!(telemetry::GAP_RECORDS, "pipeline" => pipeline.to_owned(), "source" => topic).increment(missing);
        }
        let begins = self.plan.begins.clone();
        // Before the flow counts as running: whoever waits for that to write the first records may lose none of them.
        board.update(pipeline, |status| {
            status.tables.values_mut().for_each(|table| table.is_beginning = false);
            for table in begins.keys() {
                status.tables.entry(table.to_string()).or_default().is_beginning = true;
            }
        });
        self.ready
            .extend(begins.into_iter().map(|(table, mark)| Flow::Begin { table, mark }));
        if !self.mark.is_empty() {
            self.ready.push_back(Flow::Mark(self.mark.clone()));
        }
        let (lanes, start) = (self.plan.lanes.len(), self.mark.to_string());
        info!(pipeline, lanes, start, "reading from Kafka");
        // With lanes that have come meanwhile it is opened again at once.
        let reads = !self.changes.has_changed().unwrap_or(false);
        let waits = |left: &&Left| reads && left.ours.is_empty() && !left.others.is_empty();
        if let Some(Left { others, .. }) = self.left.as_ref().filter(waits) {
            let lanes = others.iter().map(|lane| lane.name()).collect::<Vec<_>>().join(" ");
            info!(
                pipeline,
                lanes, "caught up; waiting for the partitions that other members of the group read"
            );
        }
    }

    /// Makes a portion part of the flow: its rows, then the mark that contains them.
    fn take(&mut self, portion: Portion) {
        self.accounting.count(&portion);
        self.ready.extend(portion.batches.into_iter().map(Flow::Rows));
        let mut moved = false;
        for (number, offset) in portion.reached {
            let lane = &self.plan.lanes[number];
            if self.mark.get(&lane.lane).is_some_and(|at| at.0 >= offset) {
                continue; // The end of a lane that stands where it stood.
            }
            moved = true;
            self.mark.set(lane.lane.clone(), Position(offset));
            self.progress.read(number, offset);
            if let Some(left) = &mut self.left
                && left.ours.get(&number).is_some_and(|end| offset + 1 >= *end)
            {
                left.ours.remove(&number);
            }
        }
        if moved {
            self.ready.push_back(Flow::Mark(self.mark.clone()));
        }
    }

    fn changed(&mut self) -> Result<Flow> {
        self.ended = true;
        let change = self.changes.borrow_and_update().clone();
        if change.losses > self.losses {
            return Err(Error::fenced(format!("{}: what is staged of them is dropped.", change.why)));
        }
        Ok(Flow::Reopen(change.why))
    }
}

impl Source for KafkaSource {
    async fn next(&mut self) -> Result<Option<Flow>> {
        loop {
            if let Some(flow) = self.ready.pop_front() {
                return Ok(Some(flow));
            }
            // With no lanes at all there is nothing to catch up with; but perhaps some have come.
            let done = self
                .left
                .as_ref()
                .filter(|left| left.ours.is_empty() && !self.changes.has_changed().unwrap_or(false));
            let waits = done.is_some_and(|left| !left.others.is_empty());
            if self.ended || (done.is_some() && !waits) {
                return Ok(None);
            }
            tokio::select! {
                biased;
                // First, for lanes that go to another member must not grow any more. Cancel safe: a change stays unseen.
                changed = self.changes.changed() => {
                    changed.map_err(|_| Error::bug("the Kafka client has gone"))?;
                    return self.changed().map(Some);
                }
                // Before further rows, for there may be no end of them. Cancel safe: the time stays.
                () = sleep_until(self.look_again), if waits => {
                    self.ended = true;
                    return Ok(Some(Flow::Reopen("partitions that are not read here are looked at again".to_owned())));
                }
                // Cancel safe: a portion stays in its channel.
                portion = self.reading.next() => self.take(portion?),
            }
        }
    }

    fn confirm(&self) -> Option<Arc<dyn Confirm>> {
        Some(self.reading.identity())
    }

    /// Tells the brokers, for dashboards, how far the tables are.
    async fn release(&mut self, upto: &Checkpoint) -> Result<()> {
        let ours = upto.only(|lane| self.plan.lanes.iter().any(|planned| planned.lane == *lane));
        if ours != self.released {
            self.client.commit(&ours)?;
            self.progress.committed(&ours);
            self.released = ours;
        }
        Ok(())
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        // The last word: a catch-up that ends within a second has been shown too.
        self.progress.publish(|_, _| None);
    }
}
