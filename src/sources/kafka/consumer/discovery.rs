//! Looks now and then for what has come to the topics or gone from them: new ones and new partitions, ones that were made anew, brokers that
//! fall silent or answer again, and records that a table waits for. Whatever changes the lanes ends the flow.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::{info, warn};

use super::Shared;
use super::topics::Topics;
use crate::sources::kafka::lanes::Partition;

impl Shared {
    /// Looks for new topics and partitions, and for topics that were made anew. Returns whether the brokers answered.
    pub(super) fn discover(&self, was_down: bool) -> bool {
        let (lanes, known, board) = {
            let watched = self.watched();
            (watched.lanes.clone(), watched.topics.clone(), watched.board.clone())
        };
        if lanes.is_empty() {
            return true; // No flow has been opened yet.
        }
        let reason = |text: Option<String>| {
            if let Some(board) = &board {
                board.update(&self.pipeline, |status| status.reason = text);
            }
        };
        self.reader.faults.begin();
        let asked = self.find(&lanes).and_then(|now| Ok((self.reader.partitions(&now)?, now)));
        match asked {
            Ok(((_, waiting), now)) => {
                if waiting.is_empty() {
                    self.reader.faults.answered();
                }
                if was_down {
                    info!(pipeline = %self.pipeline, "the brokers answer again");
                    reason(None);
                }
                self.compare(&known, now);
                let again = self.leave_waiting(&waiting);
                if !again.is_empty() {
                    let why = format!("their brokers answer again: {}", again.join(", "));
                    self.changes.tell(why, false);
                }
                self.look_for_awaited_records();
                true
            }
            Err(error) if error.code == "topic_missing" => {
                self.changes.tell(error.what, false);
                true
            }
            Err(error) => {
                warn!(pipeline = %self.pipeline, %error, "the brokers do not answer");
                reason(Some(error.to_string()));
                false
            }
        }
    }

    fn look_for_awaited_records(&self) {
        let (awaited, looked) = {
            let watched = self.watched();
            (watched.awaited.clone(), watched.looked.clone())
        };
        if awaited.is_empty() {
            return;
        }
        let topics = self.find(&awaited);
        match topics.and_then(|topics| self.reader.partitions(&topics)) {
            Ok((partitions, _)) => {
                let seen = |partition: &Partition| looked.get(&partition.lane()).map_or(partition.low, |at| partition.low.max(*at));
                let new = partitions.iter().find(|partition| seen(partition) < partition.high);
                if let Some(Partition { topic, .. }) = new {
                    self.watched().awaited.clear();
                    self.changes
                        .tell(format!("records of topic {topic} have come, which a table waits for"), false);
                }
            }
            Err(error) => warn!(pipeline = %self.pipeline, %error, "cannot see whether records have come that a table waits for"),
        }
    }

    fn compare(&self, known: &Topics, now: Topics) {
        if *known == now {
            return;
        }
        let names: BTreeSet<&Arc<str>> = known.keys().chain(now.keys()).collect();
        let changed: Vec<&str> = names
            .into_iter()
            .filter(|name| known.get(*name) != now.get(*name))
            .map(|name| &**name)
            .collect();
        let why = format!("topics or partitions have changed: {}", changed.join(", "));
        info!(pipeline = %self.pipeline, why, "lanes have changed");
        let anew = now
            .iter()
            .any(|(name, topic)| known.get(name).is_some_and(|known| known.id != topic.id));
        let names = now.keys().map(|name| name.to_string()).collect();
        self.watched().topics = now;
        match &self.member {
            // The group shares out what is new, and tells us what of it is ours.
            Some(member) if !anew => {
                if let Err(error) = member.subscribe(names, &self.reader.brokers) {
                    warn!(pipeline = %self.pipeline, %error, "the group was not told of new topics");
                }
            }
            // Of a topic that was made anew, nobody knows how much of what is staged is of the new one.
            _ => self.changes.tell(why, anew),
        }
    }
}
