//! Counts every record that was handed over, exactly once for each table that its lane feeds:
//! received = written + deduplicated + dead_letter + filtered + tombstone.

use metrics::{Counter, counter};

use super::Route;
use super::batches::{Counts, Portion};
use super::lanes::Plan;
use crate::telemetry;

pub(super) struct Accounting {
    /// By number of the table: in the order of [`outcomes`].
    tables: Vec<[Counter; 5]>,
    /// By number of the lane: records and bytes of its topic.
    lanes: Vec<(Counter, Counter)>,
}

fn outcomes(counts: &Counts) -> [(&'static str, u64); 5] {
    [
        ("written", counts.written),
        ("deduplicated", counts.deduplicated),
        ("dead_letter", counts.dead_letter),
        ("filtered", counts.filtered),
        ("tombstone", counts.tombstone),
    ]
}

impl Accounting {
    pub(super) fn new(pipeline: &str, routes: &[Route], plan: &Plan) -> Self {
        let outcome = |table: &str, outcome: &'static str| counter!(telemetry::RECORDS, "pipeline" => pipeline.to_owned(), "table" => table.to_owned(), "outcome" => outcome);
        let table = |route: &Route| outcomes(&Counts::default()).map(|(name, _)| outcome(route.table.as_str(), name));
        let lane = |topic: &str| {
            let labels = [("pipeline", pipeline.to_owned()), ("source", topic.to_owned())];
            (
                counter!(telemetry::RECORDS_RECEIVED, &labels),
                counter!(telemetry::RECEIVED_BYTES, &labels),
            )
        };
        Self {
            tables: routes.iter().map(table).collect(),
            lanes: plan.lanes.iter().map(|planned| lane(&planned.topic)).collect(),
        }
    }

    pub(super) fn count(&self, portion: &Portion) {
        for (counters, counts) in self.tables.iter().zip(&portion.counts) {
            for (counter, (_, count)) in counters.iter().zip(outcomes(counts)) {
                counter.increment(count);
            }
        }
        for &(lane, records, bytes) in &portion.received {
            self.lanes[lane].0.increment(records);
            self.lanes[lane].1.increment(bytes);
        }
    }
}
