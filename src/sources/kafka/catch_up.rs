//! When a catch-up has come to its end: when the tables hold what was there when it began, be it read by this member of a group or by others.
//!
//! How far others are, nobody tells but the tables. So they are looked at again and again, until they hold it, or the group gives the lanes
//! to this member: lanes of a member that has died come when its session times out. Where nothing moves for longer than that, those who have
//! the lanes live and do not read them, and the catch-up has failed.
//!
//! Lanes whose brokers do not answer are waited for as well: they end where they end once their brokers say it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::lanes::{Partition, Plan};
use crate::error::{Error, Result};
use crate::position::Lane;

/// What the group takes to share out the lanes of a member that it has given up.
const SHARING: Duration = Duration::from_secs(10);
/// Partitions that a message names.
const NAMED_MAX: usize = 5;

/// A catch-up, over all its flows.
#[derive(Debug)]
pub struct CatchUp {
    /// The first offset of each lane that was not there yet when it began.
    ends: BTreeMap<Lane, u64>,
    /// Lanes that wait for their brokers.
    waiting: BTreeSet<Lane>,
    /// What tables lacked of the lanes of others when they were last looked at, and since when they lack just that.
    lacking: BTreeMap<Lane, u64>,
    since: Instant,
    patience: Duration,
}

/// What is left of it for one flow.
#[derive(Debug)]
pub struct Left {
    /// Lanes that the flow reads, by their numbers in the plan: the offset up to which it has to.
    pub ours: BTreeMap<usize, u64>,
    /// Lanes that are not read here: others have them, or they wait for their brokers.
    pub others: Vec<Lane>,
}

impl CatchUp {
    /// `session`: how long the group waits for a member that is silent.
    pub fn begin(partitions: &[Partition], session: Duration, now: Instant) -> Self {
        Self {
            ends: partitions.iter().map(|partition| (partition.lane(), partition.high)).collect(),
            waiting: BTreeSet::new(),
            lacking: BTreeMap::new(),
            since: now,
            patience: session + SHARING,
        }
    }

    /// A further flow begins: which lanes wait now. Those that waited and do no more are to be read to where they end now.
    pub fn go_on(&mut self, partitions: &[Partition], waiting: BTreeSet<Lane>) {
        for partition in partitions.iter().filter(|partition| self.waiting.contains(&partition.lane())) {
            self.ends.entry(partition.lane()).or_insert(partition.high);
        }
        self.waiting = waiting;
    }

    /// Whether lanes wait for their brokers.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether, of what others read, nothing is left but lanes that wait for their brokers.
    pub fn waits_for_brokers_alone(&self) -> bool {
        self.is_waiting() && self.lacking.is_empty()
    }

    /// What is left for a flow that begins now. Fails where others have it, and nothing has moved for too long.
    pub fn left(&mut self, plan: &Plan, now: Instant) -> Result<Left> {
        let lanes = plan.lanes.iter().enumerate();
        // What came later than it began is read, but not waited for.
        let ours = lanes.filter_map(|(number, lane)| Some((number, *self.ends.get(&lane.lane).filter(|end| lane.start < **end)?)));
        let ours: BTreeMap<usize, u64> = ours.collect();
        let is_lacking = |(lane, lacks): &(&Lane, &u64)| self.ends.get(*lane).is_some_and(|end| *lacks < end);
        let elsewhere = plan.elsewhere.iter().filter(is_lacking);
        let lacking: BTreeMap<Lane, u64> = elsewhere.map(|(lane, lacks)| (lane.clone(), *lacks)).collect();
        if lacking != self.lacking {
            (self.lacking, self.since) = (lacking, now);
        }
        if ours.is_empty() && !self.lacking.is_empty() && now.duration_since(self.since) >= self.patience {
            return Err(self.gives_up());
        }
        let others = self.lacking.keys().chain(&self.waiting).cloned().collect();
        Ok(Left { ours, others })
    }

    fn gives_up(&self) -> Error {
        let named = |(lane, lacks): (&Lane, &u64)| format!("{lane} from offset {lacks} on");
        let mut named: Vec<String> = self.lacking.iter().take(NAMED_MAX).map(named).collect();
        if self.lacking.len() > NAMED_MAX {
            named.push(format!("{} more", self.lacking.len() - NAMED_MAX));
        }
        Error::transient(
            "group_behind",
            format!(
                "Other members of the group have partitions that the tables lack, and have not moved for {} s: {}. All others are read to the \
                 ends that they had at the start. See what those members do, or end them: their partitions then come to the others.",
                self.patience.as_secs(),
                named.join(", ")
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::kafka::lanes::Planned;

    fn partition(partition: i32, high: u64) -> Partition {
        Partition {
            topic: "t".into(),
            partition,
            topic_id: None,
            low: 0,
            high,
        }
    }

    fn lane(partition: i32) -> Lane {
        Lane::kafka("t", partition, None)
    }

    /// Lanes that are ours, and others' lanes: from which offsets on they are lacking.
    fn plan(ours: &[(i32, u64)], others: &[(i32, u64)]) -> Plan {
        let planned = |&(partition, start): &(i32, u64)| Planned {
            lane: lane(partition),
            topic: "t".into(),
            partition,
            start,
            end: 100,
            wants: Vec::new(),
        };
        Plan {
            lanes: ours.iter().map(planned).collect(),
            elsewhere: others.iter().map(|&(partition, lacks)| (lane(partition), lacks)).collect(),
            ..Plan::default()
        }
    }

    const SESSION: Duration = Duration::from_secs(45);

    #[test]
    fn what_was_there_at_the_start_is_to_be_read_by_us_or_by_others() {
        let now = Instant::now();
        let mut catch_up = CatchUp::begin(&[partition(0, 10), partition(1, 20), partition(2, 0)], SESSION, now);
        let left = catch_up.left(&plan(&[(0, 4), (3, 0)], &[(1, 5), (2, 0)]), now).unwrap();
        assert_eq!((left.ours, left.others), (BTreeMap::from([(0, 10)]), vec![lane(1)]));
        // The lanes have come to us; and what was not there at the start is nothing to wait for.
        let left = catch_up.left(&plan(&[(0, 10), (1, 20), (2, 0), (3, 0)], &[]), now).unwrap();
        assert!(left.ours.is_empty() && left.others.is_empty(), "{left:?}");
        let left = catch_up.left(&plan(&[(0, 50)], &[(1, 20), (2, 0), (3, 0)]), now).unwrap();
        assert!(left.ours.is_empty() && left.others.is_empty(), "{left:?}");
    }

    #[test]
    fn a_lane_that_waited_for_its_broker_is_read_to_where_it_ends_when_that_answers() {
        let now = Instant::now();
        let mut catch_up = CatchUp::begin(&[partition(0, 10), partition(1, 20)], SESSION, now);
        catch_up.go_on(&[partition(0, 10)], BTreeSet::from([lane(1), lane(2)]));
        let left = catch_up.left(&plan(&[(0, 10)], &[]), now).unwrap();
        assert!(left.ours.is_empty() && catch_up.is_waiting());
        assert_eq!(left.others, [lane(1), lane(2)]);
        // One had said where it ends; of the other, what came meanwhile is read as well; and a new one is not waited for.
        catch_up.go_on(
            &[partition(0, 15), partition(1, 25), partition(2, 30), partition(3, 5)],
            BTreeSet::new(),
        );
        let left = catch_up.left(&plan(&[(0, 10), (1, 5), (2, 0), (3, 0)], &[]), now).unwrap();
        assert_eq!((left.ours, left.others), (BTreeMap::from([(1, 20), (2, 30)]), Vec::new()));
        assert!(!catch_up.is_waiting());
    }

    #[test]
    fn while_others_have_what_is_left_the_brokers_are_not_all_that_is_waited_for() {
        let now = Instant::now();
        let mut catch_up = CatchUp::begin(&[partition(0, 10)], SESSION, now);
        catch_up.go_on(&[partition(0, 10)], BTreeSet::from([lane(1)]));
        for (lacks, brokers_alone) in [(4, false), (10, true)] {
            let left = catch_up.left(&plan(&[], &[(0, lacks)]), now).unwrap();
            assert!(left.ours.is_empty());
            assert_eq!(catch_up.waits_for_brokers_alone(), brokers_alone, "{left:?}");
        }
    }

    #[test]
    fn others_are_waited_for_as_long_as_they_move_and_then_as_long_as_one_of_them_may_be_dead() {
        let start = Instant::now();
        let mut catch_up = CatchUp::begin(&[partition(0, 10), partition(1, 20)], SESSION, start);
        let mut after = |seconds, ours, lacks| catch_up.left(&plan(&[(0, ours)], &[(1, lacks)]), start + Duration::from_secs(seconds));
        after(0, 0, 5).unwrap();
        after(50, 10, 6).unwrap();
        after(100, 10, 6).unwrap();
        after(105, 7, 6).expect("ours are read first");
        let error = after(105, 10, 6).unwrap_err();
        assert_eq!((error.kind, error.code), (crate::error::Kind::Transient, "group_behind"));
        assert!(error.what.contains("t/1 from offset 6 on"), "{error}");
        after(106, 10, 7).expect("they move again");
        assert!(after(200, 10, 20).unwrap().others.is_empty());
    }
}
