//! How far each lane is read, for the metrics and the status.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::gauge;

use super::lanes::Plan;
use crate::position::{Checkpoint, Lane};
use crate::status::{Board, LaneStatus};
use crate::telemetry;

/// The lanes of one flow. The flow says what was handed over, the client's own thread what the brokers have.
#[derive(Debug)]
pub(super) struct Progress {
    pipeline: Arc<str>,
    board: Board,
    lanes: Vec<LaneProgress>,
}

/// Partitions that have gauges.
pub(super) type Gauged = BTreeSet<(Arc<str>, i32)>;

#[derive(Debug)]
struct LaneProgress {
    lane: Lane,
    topic: Arc<str>,
    partition: i32,
    /// First offset not yet handed over.
    next: AtomicU64,
    /// First offset that no record has yet, as far as is known.
    end: AtomicU64,
}

impl Progress {
    pub(super) fn new(pipeline: &Arc<str>, board: &Board, plan: &Plan) -> Self {
        let lanes = plan.lanes.iter().map(|lane| LaneProgress {
            lane: lane.lane.clone(),
            topic: Arc::clone(&lane.topic),
            partition: lane.partition,
            next: AtomicU64::new(lane.start),
            end: AtomicU64::new(lane.end),
        });
        let progress = Self {
            pipeline: Arc::clone(pipeline),
            board: board.clone(),
            lanes: lanes.collect(),
        };
        progress.board.update(pipeline, |status| status.lanes.clear());
        progress.publish(|_, _| None);
        progress
    }

    /// Lanes of earlier flows that are not in this one lag no more: whoever has them now shows them.
    pub(super) fn take_over(&self, gauged: &mut Gauged) {
        let ours: Gauged = self.lanes.iter().map(|lane| (Arc::clone(&lane.topic), lane.partition)).collect();
        for (topic, partition) in gauged.difference(&ours) {
            let labels = self.labels(topic, *partition);
            gauge!(telemetry::KAFKA_HIGH_WATERMARK, &labels).set(0.0);
            gauge!(telemetry::KAFKA_LAG_RECORDS, &labels).set(0.0);
            gauge!(telemetry::KAFKA_COMMITTED_OFFSET, &labels).set(0.0);
        }
        *gauged = ours;
    }

    /// The lane of this number is handed over up to this offset, contained.
    pub(super) fn read(&self, lane: usize, offset: u64) {
        self.lanes[lane].next.store(offset + 1, Ordering::Relaxed);
    }

    /// Shows all lanes. `end` tells the high watermark of a topic's partition, where it is known.
    pub(super) fn publish(&self, end: impl Fn(&str, i32) -> Option<u64>) {
        let mut shown = Vec::with_capacity(self.lanes.len());
        for lane in &self.lanes {
            if let Some(end) = end(&lane.topic, lane.partition) {
                lane.end.fetch_max(end, Ordering::Relaxed);
            }
            let next = lane.next.load(Ordering::Relaxed);
            let end = lane.end.load(Ordering::Relaxed).max(next);
            let labels = self.labels(&lane.topic, lane.partition);
            gauge!(telemetry::KAFKA_HIGH_WATERMARK, &labels).set(end as f64);
            gauge!(telemetry::KAFKA_LAG_RECORDS, &labels).set((end - next) as f64);
            shown.push((
                lane.lane.name().to_owned(),
                LaneStatus {
                    end: Some(end),
                    read: next.checked_sub(1),
                    lag: Some(end - next),
                    slot: None,
                },
            ));
        }
        self.board.update(&self.pipeline, |status| status.lanes.extend(shown));
    }

    /// The tables hold these positions. As Kafka counts: the next offset.
    pub(super) fn committed(&self, upto: &Checkpoint) {
        for lane in &self.lanes {
            if let Some(at) = upto.get(&lane.lane) {
                gauge!(telemetry::KAFKA_COMMITTED_OFFSET, &self.labels(&lane.topic, lane.partition)).set((at.0 + 1) as f64);
            }
        }
    }

    fn labels(&self, topic: &str, partition: i32) -> [(&'static str, String); 3] {
        [
            ("pipeline", self.pipeline.to_string()),
            ("source", topic.to_owned()),
            ("partition", partition.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::kafka::lanes::Planned;

    #[test]
    fn a_lane_that_went_to_another_member_lags_no_more() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let lag = |partition: i32| {
            let text = recorder.handle().render();
            let label = format!("partition=\"{partition}\"");
            let line = text
                .lines()
                .find(|line| line.starts_with(telemetry::KAFKA_LAG_RECORDS) && line.contains(&label));
            line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
        };
        let planned = |partition: i32| Planned {
            lane: Lane::kafka("t", partition, None),
            topic: "t".into(),
            partition,
            start: 3,
            end: 10,
            wants: Vec::new(),
        };
        let (pipeline, board, mut gauged) = ("p".into(), Board::default(), Gauged::new());
        metrics::with_local_recorder(&recorder, || {
            for partitions in [&[0, 1][..], &[1]] {
                let plan = Plan {
                    lanes: partitions.iter().copied().map(planned).collect(),
                    ..Plan::default()
                };
                Progress::new(&pipeline, &board, &plan).take_over(&mut gauged);
            }
        });
        assert_eq!((lag(0).as_deref(), lag(1).as_deref()), (Some("0"), Some("7")));
    }
}
