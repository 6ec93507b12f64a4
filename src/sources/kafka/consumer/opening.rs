//! What a flow is opened with: the topics as they are, and the plan of what is read of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::waiting::{names, partitions_waiting};
use super::{CatchUp, KafkaClient, Left, Shared, Topics, blocking};
use crate::config::Start;
use crate::error::Result;
use crate::position::Lane;
use crate::sources::Resume;
use crate::sources::kafka::lanes::{Partition, Plan, Wanted, plan};
use crate::sources::kafka::start::Policy;
use crate::table::{Lanes, TableId};

/// What [`plan`] borrows, owned, so that it can be taken to another thread.
pub(in crate::sources::kafka) struct OwnedWanted {
    pub tables: Vec<(TableId, Lanes)>,
    pub resume: Resume,
    pub policy: Policy,
    pub until_caught_up: bool,
}

impl KafkaClient {
    /// Fails where one of the topics that any of `lanes` takes may be described and not be read, as far as the brokers tell that. For
    /// whoever only looks: who reads is told so at once.
    pub async fn must_be_readable(&self, lanes: Vec<Lanes>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            shared.reader.faults.begin();
            let names: Vec<String> = shared.find(&lanes)?.keys().map(|name| name.to_string()).collect();
            shared.reader.must_be_readable(&names)
        })
        .await
    }
}

impl Shared {
    /// The topics as they are now, kept to see changes, and told to the group.
    pub(super) fn topics(&self, lanes: Vec<Lanes>) -> Result<Topics> {
        self.reader.faults.begin();
        let topics = self.find(&lanes)?;
        if let Some(member) = &self.member {
            member.subscribe(topics.keys().map(|name| name.to_string()).collect(), &self.reader.brokers)?;
        }
        let mut watched = self.watched();
        watched.lanes = lanes;
        watched.topics.clone_from(&topics);
        Ok(topics)
    }

    pub(super) fn plan(&self, topics: &Topics, is_ours: impl Fn(&str, i32) -> bool, wanted: &OwnedWanted) -> Result<(Plan, Option<Left>)> {
        let OwnedWanted {
            tables,
            resume,
            policy,
            until_caught_up,
        } = wanted;
        let begun = self.watched().begun.clone();
        let wanted = Wanted {
            tables,
            resume,
            policy: *policy,
            begun: &begun,
            is_ours: &is_ours,
        };
        // Where a table begins with a topic, it begins with all its partitions, whoever reads them.
        let begun_now = topics.iter().filter(|(name, topic)| wanted.begins(name, topic.id.as_deref()));
        let begun_now: BTreeSet<&str> = begun_now.map(|(name, _)| &**name).collect();
        let (mut partitions, waiting) = self.reader.partitions(topics)?;
        if waiting.is_empty() {
            self.reader.faults.answered();
        }
        self.leave_waiting(&waiting);
        // So a topic that one begins with waits as a whole. Where a table itself begins, and with the newest records, the moment is to be one
        // for all topics; a table that has begun reads what comes later from its beginning, whenever that is.
        let topics_waiting = waiting.keys().map(|(topic, _)| &**topic);
        let begun_later: BTreeSet<&str> = topics_waiting.filter(|topic| begun_now.contains(*topic)).collect();
        if policy.start == Start::Latest && begun_later.iter().any(|topic| wanted.begins_tables(topic)) {
            return Err(partitions_waiting(
                "No table begins with the newest records before all partitions can be asked",
                &names(&waiting),
            ));
        }
        partitions.retain(|Partition { topic, partition, .. }| {
            let is_wanted = *until_caught_up || is_ours(topic, *partition) || begun_now.contains(&**topic);
            is_wanted && !begun_later.contains(&**topic)
        });
        let mut plan = plan(&partitions, &wanted)?;
        let fed_from = |lanes: &Lanes| {
            let taken = topics.iter().filter(|(name, _)| lanes.takes_topic(name));
            taken.map(|(_, topic)| topic.partitions.len()).sum()
        };
        plan.partitions = tables.iter().map(|(_, lanes)| fed_from(lanes)).collect();
        let (mut watched, now) = (self.watched(), Instant::now());
        watched.begun.extend(plan.begun.clone());
        if !until_caught_up {
            return Ok((plan, None));
        }
        let places = topics
            .iter()
            .flat_map(|(name, topic)| topic.partitions.iter().map(move |partition| (name, topic, *partition)));
        let waits =
            places.filter(|(name, _, partition)| begun_later.contains(&***name) || waiting.contains_key(&(Arc::clone(name), *partition)));
        let waits = waits.map(|(name, topic, partition)| Lane::kafka(name, partition, topic.id.as_deref()));
        // What one has alone, it reads to its end in each flow; others, and brokers, may be waited for over many.
        let kept = watched.catch_up.take().filter(|kept| self.member.is_some() || kept.is_waiting());
        let mut catch_up = kept.unwrap_or_else(|| CatchUp::begin(&partitions, self.session, now));
        catch_up.go_on(&partitions, waits.collect());
        let (left, waits_for_brokers) = (catch_up.left(&plan, now), catch_up.waits_for_brokers_alone());
        watched.catch_up = Some(catch_up);
        match left? {
            left if left.ours.is_empty() && waits_for_brokers => Err(partitions_waiting(
                "All other partitions are read to the ends that they had at the start",
                &names(&waiting),
            )),
            left => Ok((plan, Some(left))),
        }
    }
}
