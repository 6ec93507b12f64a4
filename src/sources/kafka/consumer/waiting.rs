//! Partitions that wait: the broker that leads them does not answer, or nobody leads them. The others are read meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::gauge;
use tracing::{info, warn};

use super::Shared;
use crate::error::Error;
use crate::telemetry;

/// Such partitions, and the broker that leads each, where one does.
pub(super) type Waiting = BTreeMap<(Arc<str>, i32), Option<i32>>;

/// How they are called: `orders/3 (broker 2)`.
pub(super) fn names(waiting: &Waiting) -> Vec<String> {
    let name = |((topic, partition), leader): (&(Arc<str>, i32), &Option<i32>)| match leader {
        Some(leader) => format!("{topic}/{partition} (broker {leader})"),
        None => format!("{topic}/{partition} (without a leader)"),
    };
    waiting.iter().map(name).collect()
}

/// That these wait, by their names, and `what` comes of it.
pub fn partitions_waiting(what: &str, waiting: &[String]) -> Error {
    let partitions = waiting.join(", ");
    Error::transient(
        "partitions_waiting",
        format!("{what}. These brokers do not answer: {partitions}. Check that they are up."),
    )
}

impl Shared {
    /// These partitions wait now. Returns the names of those that did and do no more.
    pub(super) fn leave_waiting(&self, waiting: &Waiting) -> Vec<String> {
        let before = std::mem::replace(&mut self.watched().waiting, waiting.clone());
        let only = |these: &Waiting, those: &Waiting| -> Waiting {
            let only = these.iter().filter(|(place, _)| !those.contains_key(*place));
            only.map(|(place, leader)| (place.clone(), *leader)).collect()
        };
        let (new, again) = (names(&only(waiting, &before)), names(&only(&before, waiting)));
        for (topic, partition) in before.keys().chain(waiting.keys()) {
            let labels = [
                ("pipeline", self.pipeline.to_string()),
                ("source", topic.to_string()),
                ("partition", partition.to_string()),
            ];
            let waits = waiting.contains_key(&(Arc::clone(topic), *partition));
            gauge!(telemetry::KAFKA_WAITING, &labels).set(f64::from(u8::from(waits)));
        }
        if !new.is_empty() {
            let partitions = new.join(", ");
            warn!(pipeline = %self.pipeline, partitions, "partitions wait for brokers that do not answer; the others are read");
        }
        if !again.is_empty() {
            info!(pipeline = %self.pipeline, partitions = again.join(", "), "the brokers of these partitions answer again");
        }
        self.show_waiting();
        again
    }

    /// Lets the status name them.
    pub(super) fn show_waiting(&self) {
        let (waiting, board) = {
            let watched = self.watched();
            (names(&watched.waiting), watched.board.clone())
        };
        if let Some(board) = board {
            board.update(&self.pipeline, |status| status.waiting = waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_waits_is_called_by_its_name_and_its_broker() {
        let place = |partition| ("orders".into(), partition);
        let waiting = Waiting::from([(place(3), Some(2)), (place(10), None)]);
        assert_eq!(names(&waiting), ["orders/3 (broker 2)", "orders/10 (without a leader)"]);
    }
}
