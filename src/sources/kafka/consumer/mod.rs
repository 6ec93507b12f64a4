//! The client of a Kafka cluster: the only part of the program that knows rdkafka.
//!
//! It lives longer than one flow. A flow asks what there is to read ([`KafkaClient::open`]), and reads it with [`reading::Reading`]; when
//! lanes come or go the client tells it, and the flow is opened again. Offsets are always assigned by hand, with and without a group: what
//! a table holds decides where its lanes are read, never an offset that a broker remembers.

mod absent;
mod admin;
mod client;
mod context;
mod coordinator;
mod discovery;
mod faults;
mod identity;
mod member;
mod offsets;
mod opening;
mod properties;
mod queue;
mod reading;
mod sample;
mod silence;
mod suspicion;
mod topics;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::types::RDKafka;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::watch;
use tracing::{error, warn};

use self::absent::Absent;
use self::client::Client;
use self::context::Context;
use self::faults::Faults;
use self::member::{Group, Joined, Member};
use self::silence::Silence;
use self::topics::Topics;
use self::waiting::Waiting;
use super::catch_up::{CatchUp, Left};
use super::lanes::{Begun, Plan, no_topic};
use super::options::Properties;
use super::progress::{Gauged, Progress};
use crate::config::Start;
use crate::error::{Error, Result};
use crate::position::{Checkpoint, Lane};
use crate::status::Board;
use crate::table::{Lanes, TableId};

pub(super) use self::opening::OwnedWanted;
pub(super) use self::properties::misfit;
pub(super) use self::reading::Reading;
pub use self::sample::Sample;
pub use self::waiting::partitions_waiting;

/// How often the client's events are served, and its thread looks whether it shall end.
const POLL_EVERY: Duration = Duration::from_millis(100);
/// How often lag and watermarks are shown.
const SHOW_EVERY: Duration = Duration::from_secs(1);
/// How often unreachable brokers are asked whether they are back.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How long a group may take to give us lanes. A rebalance of a large group takes some seconds.
const JOIN_MAX: Duration = Duration::from_secs(20);
/// How long the client that reads may take to close. A broker that answers takes some milliseconds to hear of it.
const CLOSE_MAX: Duration = Duration::from_secs(3);
/// librdkafka's default of `session.timeout.ms`.
const SESSION_MS: u64 = 45_000;

/// Tells flows that lanes have come or gone.
#[derive(Clone, Debug)]
pub(super) struct Changes(watch::Sender<Change>);

/// The last change, and how often lanes were lost: what is staged of them must not be published.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    pub why: String,
    pub losses: u64,
}

impl Changes {
    fn new() -> Self {
        Self(watch::Sender::new(Change::default()))
    }

    fn tell(&self, why: String, lost: bool) {
        self.0.send_modify(|change| {
            change.why = why;
            change.losses += u64::from(lost);
        });
    }
}

/// The client that reads.
pub(super) struct Reader {
    consumer: Client,
    faults: Arc<Faults>,
    brokers: String,
    stopping: AtomicBool,
    unheard: Mutex<BTreeSet<Option<i32>>>,
}

impl Reader {
    fn native(&self) -> *mut RDKafka {
        self.consumer.client().native_ptr()
    }

    fn assign(&self, plan: &Plan) -> Result<()> {
        let mut list = TopicPartitionList::with_capacity(plan.lanes.len());
        for lane in &plan.lanes {
            let offset = i64::try_from(lane.start).map_err(|_| Error::bug(format!("{} has no offset {}", lane.lane, lane.start)))?;
            let added = list.add_partition_offset(&lane.topic, lane.partition, Offset::Offset(offset));
            added.map_err(|error| faults::failed("read the lanes", error, &self.brokers))?;
        }
        self.consumer
            .assign(&list)
            .map_err(|error| faults::failed("read the lanes", error, &self.brokers))
    }

    fn unassign(&self) {
        if let Err(error) = self.consumer.unassign() {
            warn!(%error, "the client did not stop to read");
        }
    }
}

/// A client of a Kafka cluster, for one pipeline.
pub struct KafkaClient {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shared {
    pipeline: Arc<str>,
    reader: Arc<Reader>,
    member: Option<Member>,
    changes: Changes,
    discovery: Duration,
    prefetch_bytes: usize,
    /// How members share out lanes.
    strategy: String,
    /// How long the group waits for a member that is silent.
    session: Duration,
    /// What is to be answered: while a flow is read, whoever looks for what has changed; else the opening of one, which asks for more.
    silence: Silence,
    watched: Mutex<Watched>,
}

/// What the client's thread keeps an eye on.
#[derive(Default)]
struct Watched {
    lanes: Vec<Lanes>,
    topics: Topics,
    absent: Absent,
    waiting: Waiting,
    progress: Weak<Progress>,
    board: Option<Board>,
    gauged: Gauged,
    begun: Begun,
    catch_up: Option<CatchUp>,
    /// Topics of which nothing is read before records are there that say what their tables are.
    awaited: Vec<Lanes>,
    /// Where the records end of each lane that do not say it.
    looked: BTreeMap<Lane, u64>,
}

/// A flow that is about to be read.
pub(super) struct Opened {
    pub plan: Plan,
    /// What is left of a catch-up; None where it is no catch-up.
    pub left: Option<Left>,
    /// The group's number for it.
    flow: Option<u64>,
}

impl KafkaClient {
    /// Makes a client. It connects in the background: a broker that cannot be reached is told by [`Self::open`]. `grouped`: the lanes
    /// are shared with the other members of the group.
    pub fn new(pipeline: &str, properties: &Properties, grouped: bool, discovery: Duration) -> Result<Arc<Self>> {
        let mut config = ClientConfig::new();
        for (name, value) in properties.iter() {
            config.set(name, value);
        }
        // Who sets `debug` wants to read it. That a broker hung up is information.
        config.set_log_level(if properties.get("debug").is_some() {
            RDKafkaLogLevel::Debug
        } else {
            RDKafkaLogLevel::Info
        });
        let pipeline: Arc<str> = pipeline.into();
        let (faults, changes) = (Arc::new(Faults::default()), Changes::new());
        let brokers = properties.get("bootstrap.servers").unwrap_or_default().to_owned();
        let group_id = properties.get("group.id").unwrap_or_default().to_owned();
        let context = |group| Context {
            pipeline: Arc::clone(&pipeline),
            faults: Arc::clone(&faults),
            group_id: group_id.clone(),
            group,
        };
        let consumer: BaseConsumer<Context> = config.create_with_context(context(None)).map_err(faults::refused)?;
        let reader = Arc::new(Reader {
            consumer: Client::new(consumer, CLOSE_MAX),
            faults: Arc::clone(&faults),
            brokers: brokers.clone(),
            stopping: AtomicBool::new(false),
            unheard: Mutex::default(),
        });
        let session_ms = properties.get("session.timeout.ms").and_then(|ms| ms.parse().ok());
        let session = Duration::from_millis(session_ms.unwrap_or(SESSION_MS));
        let member = if grouped {
            let group = Arc::new(Group::new(&changes, session * 2 / 3));
            Some(Member::join(&config, context(Some(Arc::clone(&group))), group, &brokers)?)
        } else {
            None
        };
        let watched = Mutex::default();
        let shared = Shared {
            pipeline,
            reader,
            member,
            changes,
            discovery,
            prefetch_bytes: properties.prefetch_bytes,
            strategy: properties.get("partition.assignment.strategy").unwrap_or_default().to_owned(),
            session,
            silence: Silence::default(),
            watched,
        };
        let shared = Arc::new(shared);
        let watch = {
            let shared = Arc::clone(&shared);
            move || shared.watch()
        };
        let thread = thread::Builder::new().name("kafka-client".to_owned()).spawn(watch);
        let thread = thread.map_err(|error| Error::transient("no_thread", "no thread could be started for the client").because(error))?;
        Ok(Arc::new(Self {
            shared,
            thread: Some(thread),
        }))
    }

    /// Bytes that the client may take for records fetched ahead.
    pub fn prefetch_bytes(&self) -> usize {
        self.shared.prefetch_bytes
    }

    /// Asks the brokers and the group what there is to read, and plans it. From before it asks, `changes` sees whatever changes.
    pub(super) async fn open(&self, wanted: OwnedWanted) -> Result<(Opened, watch::Receiver<Change>)> {
        let shared = Arc::clone(&self.shared);
        let mut changes = shared.changes.0.subscribe();
        let lanes: Vec<Lanes> = wanted.tables.iter().map(|(_, lanes)| lanes.clone()).collect();
        let held = wanted.resume.values().flat_map(Checkpoint::iter);
        let held = held.filter_map(|(lane, _)| Some(lane.topic_partition()?.0.to_owned()));
        shared.watched().absent.saw(held);
        let topics = blocking({
            let shared = Arc::clone(&shared);
            move || shared.topics(lanes)
        })
        .await?;
        for (table, _) in wanted
            .tables
            .iter()
            .filter(|(_, lanes)| !topics.keys().any(|name| lanes.takes_topic(name)))
        {
            warn!(pipeline = %shared.pipeline, %table, "no topic matches its `topic_pattern` yet");
        }
        let (flow, ours) = match &shared.member {
            None => (None, None),
            // A pattern that matches nothing yet: there is no group to be in.
            Some(_) if topics.is_empty() => (None, Some(BTreeSet::new())),
            Some(member) => {
                // A catch-up without lanes is none. Members that have died may be found out one after the other.
                let dying = if wanted.until_caught_up {
                    shared.session * 2
                } else {
                    Duration::ZERO
                };
                let joined = shared.joined(member, &mut changes, JOIN_MAX.max(shared.session) + dying).await?;
                if joined.again {
                    changes.mark_changed();
                }
                (Some(joined.flow), Some(joined.lanes))
            }
        };
        let planned = blocking(move || {
            let is_ours = |topic: &str, partition: i32| ours.as_ref().is_none_or(|ours| ours.contains(&(topic.to_owned(), partition)));
            shared.plan(&topics, is_ours, &wanted)
        });
        match planned.await {
            Ok((plan, left)) => {
                let opened = Opened { plan, left, flow };
                Ok((opened, changes))
            }
            Err(error) => {
                self.close(flow);
                Err(error)
            }
        }
    }

    /// A flow has ended, and with it what it staged.
    fn close(&self, flow: Option<u64>) {
        if let (Some(member), Some(flow)) = (&self.shared.member, flow) {
            member.group.ended(flow);
        }
    }

    /// Ends the flow that is opened next when further records of one of these have come. A table that begins with the newest ones begins
    /// with these.
    pub fn await_records(&self, of: Vec<(TableId, Lanes)>, start: Start) {
        let mut watched = self.shared.watched();
        for (table, lanes) in of.iter().filter(|_| start == Start::Latest) {
            watched.begun.insert((table.clone(), no_topic()), 0); // Be there a topic or not.
            let looked = watched.looked.iter().filter(|(lane, _)| lanes.takes(lane));
            let begun: Vec<_> = looked.map(|(lane, at)| ((table.clone(), lane.clone()), *at)).collect();
            for (lane, at) in begun {
                watched.begun.entry(lane).or_insert(at);
            }
        }
        watched.awaited = of.into_iter().map(|(_, lanes)| lanes).collect();
    }

    /// Shows how far a flow is from now on.
    pub(super) fn show(&self, progress: &Arc<Progress>, board: &Board) {
        let mut watched = self.shared.watched();
        progress.take_over(&mut watched.gauged);
        watched.progress = Arc::downgrade(progress);
        watched.board = Some(board.clone());
        drop(watched);
        self.shared.show_waiting();
    }

    /// Tells the brokers how far the tables are. Not waited for.
    pub(super) fn commit(&self, upto: &Checkpoint) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for (lane, at) in upto.iter() {
            let (Some((topic, partition)), Ok(next)) = (lane.topic_partition(), i64::try_from(at.0 + 1)) else {
                continue;
            };
            let added = list.add_partition_offset(topic, partition, Offset::Offset(next));
            added.map_err(|error| faults::failed("commit offsets", error, &self.shared.reader.brokers))?;
        }
        if list.count() == 0 {
            return Ok(());
        }
        match &self.shared.member {
            Some(member) => member.commit(&list),
            None => {
                if let Err(error) = self.shared.reader.consumer.commit(&list, CommitMode::Async) {
                    warn!(%error, "offsets were not committed");
                }
            }
        }
        Ok(())
    }
}

impl Drop for KafkaClient {
    fn drop(&mut self) {
        self.shared.reader.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client's thread: serves its events, looks for new topics and partitions, shows how far the flow is.
    fn watch(&self) {
        let (mut discovered, mut shown, mut down, mut expelled) = (Instant::now(), Instant::now(), false, false);
        let mut told = false;
        while !self.reader.stopping.load(Ordering::Relaxed) {
            if let Some(Ok(_)) = self.reader.consumer.poll(POLL_EVERY) {
                // All partitions are directed to queues before they are assigned.
                error!(pipeline = %self.pipeline, "a record came past its queue; reading again from the tables");
                self.changes.tell("a record came past its queue".to_owned(), false);
            }
            if shown.elapsed() >= SHOW_EVERY {
                shown = Instant::now();
                self.show();
                let fatal = self.member.as_ref().and_then(|member| member.fatal(&self.reader.brokers));
                if let Some(fatal) = fatal.filter(|_| !expelled) {
                    // The flow ends with what it has staged dropped; opening again tells the operator.
                    expelled = true;
                    self.changes.tell(fatal.what, true);
                }
            }
            down |= self.reader.faults.take_down();
            let is_silent = down || !self.watched().waiting.is_empty();
            if discovered.elapsed() >= self.discovery || is_silent && discovered.elapsed() >= ASK_AGAIN {
                down = !self.discover(down);
                discovered = Instant::now();
                if down || self.watched().progress.strong_count() > 0 {
                    self.silence.heard(!down);
                }
                let is_worn_out = self.silence.is_long();
                if is_worn_out && !told {
                    self.changes.tell("the brokers do not answer".to_owned(), false);
                }
                told = is_worn_out;
            }
        }
    }

    /// Waits until the group has said which lanes are ours.
    async fn joined(&self, member: &Member, changes: &mut watch::Receiver<Change>, patience: Duration) -> Result<Joined> {
        let began = tokio::time::Instant::now();
        let mut told = patience <= JOIN_MAX;
        loop {
            changes.mark_unchanged();
            let brokers = &self.reader.brokers;
            if let Some(refusal) = member.fatal(brokers).or_else(|| member.refusal(brokers)) {
                return Err(refusal);
            }
            if let Some(joined) = member.group.open() {
                return Ok(joined);
            }
            // Cancel safe: a change is looked at once more, and times stay.
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| Error::bug("the Kafka client has gone"))?,
                () = tokio::time::sleep_until(began + patience) => {
                    return Err(self.reader.faults.hopeless(brokers).unwrap_or_else(not_joined));
                }
                () = tokio::time::sleep_until(began + JOIN_MAX), if !told => {
                    told = true;
                    warn!(pipeline = %self.pipeline, "the group gives us no lanes yet; it is waited for");
                }
            }
        }
    }

    fn show(&self) {
        let progress = self.watched().progress.upgrade();
        if let Some(progress) = progress {
            // What the last answers to fetches said; nothing is asked for it.
            progress.publish(|topic, partition| self.reader.known_end(topic, partition));
        }
    }
}

fn not_joined() -> Error {
    Error::transient(
        "group_not_joined",
        "The group has given us no lanes: its other members have not given any back, one has died and is still waited for, or the broker \
         that coordinates the group does not answer. Check that all brokers are up, and see what the other members do.",
    )
}

/// Runs a call that waits for the brokers where it holds up nobody.
async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(call)
        .await
        .map_err(|error| Error::bug("a call to the brokers did not end").because(error))?
}
