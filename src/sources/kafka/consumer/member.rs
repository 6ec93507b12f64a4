//! Membership in a consumer group: which lanes are ours, and when they are given back.
//!
//! A member has a client of its own, which fetches nothing. So the reading of lanes is the same with and without a group, and a member
//! outlives the flows: to leave and join at each start would make the whole group rebalance each time.
//!
//! New lanes are taken at once. Lanes that go to another member are given back when the flow that read them has ended, which publishes
//! what it had staged; or when that takes too long. Whoever is too late is fenced by the log, not here.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, RebalanceProtocol};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, TopicPartitionList};
use tracing::{info, warn};

use super::{Changes, Client, Context, faults};
use crate::error::{Error, Result};

/// How often events of the group are looked at, and whether lanes are due to be given back.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// How long it may take to leave. In a rebalance the broker hears nothing of us before all others have joined, which they do with their next
/// heartbeat (3 s); librdkafka waits 5 s for the answer. Who ends sooner is waited for as one that has died.
const LEAVE_MAX: Duration = Duration::from_secs(6);

pub(super) type Lanes = BTreeSet<(String, i32)>;

/// What the group gives to a flow.
pub(super) struct Joined {
    pub flow: u64,
    pub lanes: Lanes,
    /// It is to be opened again before it reads anything.
    pub again: bool,
}

/// What the group has given to us. Changed by the client's events, read by the flow.
pub(super) struct Group {
    state: Mutex<State>,
    changes: Changes,
    drain_max: Duration,
}

#[derive(Default)]
struct State {
    assigned: Lanes,
    /// The group has given us something, be it nothing, and has not taken all back since.
    joined: bool,
    /// Why the group did not let us in when it was last asked.
    refused: Option<Refusal>,
    /// Lanes came while no flow was open: perhaps after the tables were read from which the next one begins.
    fresh: bool,
    /// Flows are counted; the one that is open.
    flow: Option<u64>,
    flows: u64,
    revoking: Option<Revoking>,
    leaving: bool,
}

/// Why a group does not let us in.
pub(super) enum Refusal {
    /// Its members share out lanes in another way.
    Strategy,
    /// We may not, as the brokers say it.
    Denied(String),
}

struct Revoking {
    lanes: Lanes,
    /// The flow that still has rows of them.
    flow: u64,
    deadline: Instant,
}

impl Group {
    /// `drain_max`: how long a flow may take to publish what it has of lanes that go away. Below the session time-out.
    pub(super) fn new(changes: &Changes, drain_max: Duration) -> Self {
        Self {
            state: Mutex::default(),
            changes: changes.clone(),
            drain_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A flow opens: its number and its lanes, or None while the group has not said which. No lanes are given when some came since the
    /// last flow: whoever had them may have published since the tables were read, so they have to be read once more.
    pub(super) fn open(&self) -> Option<Joined> {
        let mut state = self.lock();
        if !state.joined {
            return None;
        }
        state.flows += 1;
        state.flow = Some(state.flows);
        if std::mem::take(&mut state.fresh) {
            return Some(Joined {
                flow: state.flows,
                lanes: Lanes::new(),
                again: true,
            });
        }
        let going = state.revoking.as_ref().map(|revoking| &revoking.lanes);
        let lanes = state
            .assigned
            .iter()
            .filter(|lane| going.is_none_or(|going| !going.contains(*lane)));
        Some(Joined {
            flow: state.flows,
            lanes: lanes.cloned().collect(),
            again: false,
        })
    }

    /// The group does not let us in.
    pub(super) fn refuse(&self, why: Refusal) {
        self.lock().refused = Some(why);
        self.changes.tell("the group does not let us in".to_owned(), false);
    }

    /// The flow of this number has ended, and with it all that it staged.
    pub(super) fn ended(&self, flow: u64) {
        let mut state = self.lock();
        if state.flow == Some(flow) {
            state.flow = None;
        }
    }

    /// A rebalance, from the client's events.
    pub(super) fn rebalance(&self, consumer: &BaseConsumer<Context>, event: RDKafkaRespErr, list: &TopicPartitionList) {
        let lanes: Lanes = list
            .elements()
            .iter()
            .map(|element| (element.topic().to_owned(), element.partition()))
            .collect();
        if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.take(consumer, lanes);
        } else {
            self.revoke(consumer, lanes);
        }
    }

    fn take(&self, consumer: &BaseConsumer<Context>, lanes: Lanes) {
        // An empty list: this client reads nothing, and the group only needs to know that the event was seen.
        let empty = TopicPartitionList::new();
        let (answer, whole) = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => (consumer.incremental_assign(&empty), false),
            _ => (consumer.assign(&empty), true),
        };
        if let Err(error) = answer {
            warn!(%error, "the group client did not take an assignment");
        }
        let why = format!("the group gave us {} lanes", lanes.len());
        info!(lanes = ?lanes, "lanes were assigned");
        let mut state = self.lock();
        state.fresh |= state.flow.is_none() && !lanes.is_empty();
        if whole {
            state.assigned = lanes;
        } else {
            state.assigned.extend(lanes);
        }
        (state.joined, state.refused) = (true, None);
        drop(state);
        self.changes.tell(why, false);
    }

    fn revoke(&self, consumer: &BaseConsumer<Context>, lanes: Lanes) {
        // Lost: the session timed out, and another member may read them already. What is staged of them must not be published.
        let lost = consumer.assignment_lost();
        info!(lanes = ?lanes, lost, "lanes were revoked");
        let why = if lost {
            "the group has given our lanes to others"
        } else {
            "lanes go to another member of the group"
        };
        let mut state = self.lock();
        // What is left is told by the next assignment; until then nobody knows whether there is any.
        state.joined &= !lost && matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        match state.flow {
            Some(flow) if !lost && !state.leaving => {
                state.revoking = Some(Revoking {
                    lanes,
                    flow,
                    deadline: Instant::now() + self.drain_max,
                });
                drop(state);
            }
            _ => {
                drop(state);
                self.give_back(consumer, &lanes);
            }
        }
        self.changes.tell(why.to_owned(), lost);
    }

    /// Gives back what is due.
    fn tick(&self, consumer: &BaseConsumer<Context>) {
        let due =
            |state: &State, revoking: &Revoking| state.leaving || state.flow != Some(revoking.flow) || Instant::now() >= revoking.deadline;
        let mut state = self.lock();
        if !state.revoking.as_ref().is_some_and(|revoking| due(&state, revoking)) {
            return;
        }
        if let Some(revoking) = state.revoking.take() {
            drop(state);
            self.give_back(consumer, &revoking.lanes);
        }
    }

    fn give_back(&self, consumer: &BaseConsumer<Context>, lanes: &Lanes) {
        let answer = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(&TopicPartitionList::new()),
            _ => consumer.unassign(),
        };
        if let Err(error) = answer {
            warn!(%error, "the group client did not give lanes back");
        }
        self.lock().assigned.retain(|lane| !lanes.contains(lane));
    }
}

/// A member of a group. Leaves it when it is dropped.
pub(super) struct Member {
    consumer: Arc<Client>,
    /// The group's name, and how we ask it to share out lanes.
    id: String,
    strategy: String,
    pub(super) group: Arc<Group>,
    topics: Mutex<Vec<String>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Member {
    pub(super) fn join(config: &ClientConfig, context: Context, group: Arc<Group>, brokers: &str) -> Result<Self> {
        let consumer: BaseConsumer<Context> = config
            .create_with_context(context)
            .map_err(|error| faults::failed("join the group", error, brokers))?;
        let consumer = Arc::new(Client::new(consumer, LEAVE_MAX));
        let thread = thread::Builder::new()
            .name("kafka-group".to_owned())
            .spawn({
                let (consumer, group) = (Arc::clone(&consumer), Arc::clone(&group));
                move || serve(&consumer, &group)
            })
            .map_err(|error| Error::transient("no_thread", "no thread could be started for the group").because(error))?;
        let property = |name| config.get(name).unwrap_or_default().to_owned();
        Ok(Self {
            consumer,
            id: property("group.id"),
            strategy: property("partition.assignment.strategy"),
            group,
            topics: Mutex::default(),
            thread: Some(thread),
        })
    }

    /// Says which topics we take part in. The same list again is no news.
    pub(super) fn subscribe(&self, topics: Vec<String>, brokers: &str) -> Result<()> {
        let mut subscribed = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if *subscribed != topics && !topics.is_empty() {
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            self.consumer
                .subscribe(&names)
                .map_err(|error| faults::failed("subscribe to the topics", error, brokers))?;
            *subscribed = topics;
        }
        Ok(())
    }

    /// Tells the group how far the tables are. Not waited for: the offsets are for dashboards.
    pub(super) fn commit(&self, offsets: &TopicPartitionList) {
        if let Err(error) = self.consumer.commit(offsets, CommitMode::Async) {
            warn!(%error, "group offsets were not committed");
        }
    }

    /// Why the group has not let us in, told once for each time that it was asked. The client asks again every ten seconds or so.
    pub(super) fn refusal(&self, brokers: &str) -> Option<Error> {
        let refusal = self.group.lock().refused.take()?;
        Some(match refusal {
            Refusal::Strategy => refused(&self.id, &self.strategy),
            Refusal::Denied(reason) => {
                let what = format!("group `{}`: {reason}", self.id);
                faults::explain(RDKafkaErrorCode::GroupAuthorizationFailed, &what, brokers)
            }
        })
    }

    /// Why the group will never take us back (K19: another instance has our `group.instance.id`).
    pub(super) fn fatal(&self, brokers: &str) -> Option<Error> {
        let (code, reason) = self.consumer.client().fatal_error()?;
        let code = if code == RDKafkaErrorCode::FencedInstanceId {
            code
        } else {
            RDKafkaErrorCode::Fatal
        };
        Some(faults::explain(code, &reason, brokers))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.group.lock().leaving = true;
        if let Some(thread) = self.thread.take() {
            // Within one poll. Then the client is ours alone, and its end leaves the group, if the brokers answer.
            drop(thread.join());
        }
    }
}

/// Why a group does not let us in, who ask it to share out lanes this way.
pub(super) fn refused(group: &str, strategy: &str) -> Error {
    Error::transient(
        "group_refused",
        format!(
            "Group `{group}` does not let us in: its members share out partitions in another way than ours, `{strategy}`. Set `group` to one \
             that no other program has; or, if they are instances of alluvium, give all of them the same \
             `kafka.options.\"partition.assignment.strategy\"`."
        ),
    )
}

/// Serves the group's events for as long as we are a member, however long a commit of the tables takes.
fn serve(consumer: &BaseConsumer<Context>, group: &Group) {
    while !group.lock().leaving {
        if let Some(Ok(_)) = consumer.poll(POLL_EVERY) {
            warn!("a record came to the group client, which reads nothing; it is passed over");
        }
        group.tick(consumer);
    }
}
