//! Counts every record that was handed over, exactly once for each table that its lane feeds:
//! received = written + deduplicated + dead_letter + filtered + tombstone.
//!
//! That is before the tables publish it: what is dropped with a commit that failed or was fenced is read, and counted, again.

use metrics::{Counter, counter};
use tracing::info;

use super::Route;
use super::batches::{Counts, Portion};
use super::lanes::Plan;
use crate::table::TableId;
use crate::telemetry;

pub(super) struct Accounting {
    pipeline: String,
    /// By number of the table: in the order of [`outcomes`].
    tables: Vec<[Counter; 5]>,
    /// By number of the table.
    unknown: Vec<Unknown>,
    /// By number of the lane: records and bytes of its topic.
    lanes: Vec<(Counter, Counter)>,
}

/// Members of a table's records that are no columns. They are told of once in a flow.
struct Unknown {
    table: TableId,
    members: Counter,
    is_told: bool,
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
        let unknown = |route: &Route| Unknown {
            table: route.table.clone(),
            members: counter!(telemetry::UNKNOWN_MEMBERS, "pipeline" => pipeline.to_owned(), "table" => route.table.as_str().to_owned()),
            is_told: false,
        };
        let lane = |topic: &str| {
            let labels = [("pipeline", pipeline.to_owned()), ("source", topic.to_owned())];
            (
                counter!(telemetry::RECORDS_RECEIVED, &labels),
                counter!(telemetry::RECEIVED_BYTES, &labels),
            )
        };
        Self {
            pipeline: pipeline.to_owned(),
            tables: routes.iter().map(table).collect(),
            unknown: routes.iter().map(unknown).collect(),
            lanes: plan.lanes.iter().map(|planned| lane(&planned.topic)).collect(),
        }
    }

    pub(super) fn count(&mut self, portion: &Portion) {
        for (counters, counts) in self.tables.iter().zip(&portion.counts) {
            for (counter, (_, count)) in counters.iter().zip(outcomes(counts)) {
                counter.increment(count);
            }
        }
        for (unknown, counts) in self.unknown.iter_mut().zip(&portion.counts) {
            unknown.members.increment(counts.unknown_members);
            if counts.unknown_members > 0 && !unknown.is_told {
                unknown.is_told = true;
                info!(pipeline = self.pipeline, table = %unknown.table, "records have members that are no columns of the table: they are passed over");
            }
        }
        for &(lane, records, bytes) in &portion.received {
            self.lanes[lane].0.increment(records);
            self.lanes[lane].1.increment(bytes);
        }
    }
}
