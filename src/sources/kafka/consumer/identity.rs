//! Whether topics still are those that were planned: asked behind what was read, before a table publishes it.
//!
//! The client knows topics by their names. One that is deleted and made anew it follows in silence, and reads on in it at the offset where
//! it stood. Looking for that now and then would find it when the rows are published. So, before each commit, the brokers that records
//! came from are asked for the ids of their topics: a broker that has served a topic knows it by its new id from before that on, and the
//! id of a topic that is gone never comes back. Where all ids are as they were, so were those of all records before the question.
//!
//! A broker that has died answers nothing. Brokers hear of all changes in one order, and that one of them is gone comes behind whatever that
//! one had heard: so, once its cluster has given it up, the word of any broker that says so is as good. Until then it is waited for a while,
//! and then what it served is dropped.
//!
//! That is one question for each commit and broker, and none where no record was read since the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use tokio::time::sleep;

use super::topics::{Told, Topic};
use super::{Reader, blocking};
use crate::error::{Error, Result};
use crate::sources::Confirm;
use crate::sources::kafka::lanes::Plan;

/// A broker, and the number of a lane that it served.
pub(super) type Served = BTreeSet<(i32, usize)>;

/// No broker in particular: of what the plan was made from.
const ANY: i32 = -1;
/// How often it is looked whether a broker that does not answer was given up. A broker that is asked over a fast link has answered before.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The topics of one flow.
pub(in crate::sources::kafka) struct Identity {
    reader: Arc<Reader>,
    /// By number of the lane: its topic, and the id that it was planned with.
    topics: Vec<(Arc<str>, Option<String>)>,
    unasked: Mutex<Unasked>,
    /// One asks at a time: who comes meanwhile mostly has nothing left to ask.
    asking: tokio::sync::Mutex<()>,
}

/// Which brokers have served which topics since they were last asked.
struct Unasked {
    /// Runs of records are counted.
    runs: u64,
    /// By broker and topic: the last run.
    served: BTreeMap<(i32, Arc<str>), u64>,
}

impl Identity {
    pub(in crate::sources::kafka) fn new(reader: &Arc<Reader>, plan: &Plan) -> Arc<Self> {
        let topics: Vec<_> = plan
            .lanes
            .iter()
            .map(|lane| (Arc::clone(&lane.topic), lane.lane.incarnation().map(str::to_owned)))
            .collect();
        // The ends of lanes, which a first mark may be made of, were told by name as well.
        let served = topics.iter().map(|(name, _)| ((ANY, Arc::clone(name)), 0)).collect();
        Arc::new(Self {
            reader: Arc::clone(reader),
            topics,
            unasked: Mutex::new(Unasked { runs: 0, served }),
            asking: tokio::sync::Mutex::new(()),
        })
    }

    fn unasked(&self) -> MutexGuard<'_, Unasked> {
        self.unasked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run came from these brokers. To be told before its rows are handed over.
    pub(super) fn served(&self, by: &Served) {
        let mut unasked = self.unasked();
        unasked.runs += 1;
        let run = unasked.runs;
        for &(broker, lane) in by {
            unasked.served.insert((broker, Arc::clone(&self.topics[lane].0)), run);
        }
    }

    async fn ask(&self) -> Result<()> {
        let _one = self.asking.lock().await;
        let asked = self.unasked().served.clone();
        let mut brokers: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        for (broker, topic) in asked.keys() {
            brokers.entry(*broker).or_default().push(topic.to_string());
        }
        let answers = brokers.into_iter().map(|(broker, names)| self.told(broker, names));
        for (name, topic) in try_join_all(answers).await?.into_iter().flatten() {
            self.compare(&name, topic.as_ref())?;
        }
        // What has come meanwhile is asked for the next time.
        self.unasked().served.retain(|place, run| asked.get(place) != Some(run));
        Ok(())
    }

    /// What a broker tells about these topics, or another one that says that it is gone.
    async fn told(&self, broker: i32, names: Vec<String>) -> Result<Told> {
        let (reader, asked) = (Arc::clone(&self.reader), names.clone());
        let own = blocking(move || reader.topics_at(Some(broker).filter(|&broker| broker != ANY), &asked));
        let told = tokio::select! {
            biased;
            // First, for nobody knows better. Cancelled, it ends by itself: within the time that brokers have to answer.
            told = own => told,
            // Cancel safe: it only asks.
            told = self.told_without(broker, names) => told,
        };
        told.map_err(|error| {
            if broker == ANY || error.code != "broker_unreachable" {
                return error;
            }
            self.reader.unheard().insert(Some(broker));
            let what = format!(
                "Broker {broker} does not answer whether the topics still are what they were when it served records of them: what was \
                 read since the last commit is dropped, and read again from the brokers that answer. Check that broker {broker} is up."
            );
            Error::transient("broker_unreachable", what)
        })
    }

    /// What another broker tells about these topics, once it says that this one is gone.
    async fn told_without(&self, broker: i32, names: Vec<String>) -> Result<Told> {
        loop {
            sleep(LOOK_EVERY).await;
            let (reader, names) = (Arc::clone(&self.reader), names.clone());
            if let Some(told) = blocking(move || reader.topics_without(broker, &names)).await? {
                return Ok(told);
            }
        }
    }

    fn compare(&self, name: &str, now: Option<&Topic>) -> Result<()> {
        let planned = self.topics.iter().find(|(topic, _)| **topic == *name);
        let Some(planned) = planned.and_then(|(_, id)| id.as_ref()) else {
            return Ok(()); // These brokers tell no ids.
        };
        let dropped = "what was read of it since the last commit is dropped, for it may be of another topic than what was read before";
        match now {
            Some(Topic { id: Some(id), .. }) if id == planned => Ok(()),
            None => Err(Error::transient(
                "topic_missing",
                format!("Topic `{name}` was deleted while it was read: {dropped}"),
            )),
            Some(Topic { id, .. }) => {
                let now = id.as_deref().unwrap_or("none");
                let what = format!("Topic `{name}` was deleted and made anew while it was read (its id was {planned}, and is {now} now)");
                Err(Error::transient("topic_recreated", format!("{what}: {dropped}")))
            }
        }
    }
}

impl Confirm for Identity {
    fn confirm(&self) -> Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> {
        Box::pin(self.ask())
    }
}
