//! Which lanes feed which tables, and where each is begun: the plan of a flow, made from values alone.
//!
//! A lane is read once for all tables that it feeds. It is begun at the lowest offset that any of them lacks, and each table is given
//! only what it lacks itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::start::{self, Begin, Known, Policy, Refusal};
use crate::batch::Gap;
use crate::config::Start;
use crate::error::{Error, Result};
use crate::position::{Checkpoint, Lane, Position};
use crate::sources::Resume;
use crate::table::{Lanes, TableId};

/// A partition as the broker describes it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub topic: Arc<str>,
    pub partition: i32,
    /// None where the broker tells none.
    pub topic_id: Option<String>,
    pub low: u64,
    pub high: u64,
}

impl Partition {
    pub fn lane(&self) -> Lane {
        Lane::kafka(&self.topic, self.partition, self.topic_id.as_deref())
    }
}

/// A lane as it is going to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub lane: Lane,
    pub topic: Arc<str>,
    pub partition: i32,
    /// First offset that is asked for.
    pub start: u64,
    /// First offset that no committed record has yet.
    pub end: u64,
    /// For each table the first offset that it lacks; None where this lane does not feed it.
    pub wants: Vec<Option<u64>>,
}

/// All lanes of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub lanes: Vec<Planned>,
    pub gaps: Vec<Gap>,
}

impl Plan {
    /// Where its lanes are begun, for each of these tables.
    pub fn begun(&self, tables: &[(TableId, Lanes)]) -> Begun {
        let mut begun = Begun::new();
        for lane in &self.lanes {
            for ((table, _), want) in tables.iter().zip(&lane.wants) {
                begun.extend(want.map(|from| ((table.clone(), lane.lane.clone()), from)));
            }
        }
        begun
    }

    /// What is contained before anything is read.
    pub fn mark(&self) -> Checkpoint {
        let contained = |lane: &Planned| Some((lane.lane.clone(), Position(lane.start.checked_sub(1)?)));
        self.lanes.iter().filter_map(contained).collect()
    }
}

/// Where lanes were begun for tables.
pub type Begun = BTreeMap<(TableId, Lane), u64>;

/// What a plan is made from, beside the partitions.
pub struct Wanted<'a> {
    pub tables: &'a [(TableId, Lanes)],
    pub resume: &'a Resume,
    pub policy: Policy,
    /// Where lanes were begun earlier in this process for tables that may not hold them yet: with `start = latest`, what came since
    /// then is not to be lost by opening again.
    pub begun: &'a Begun,
}

/// Plans the reading of `partitions`. Fails when one of them cannot be begun for one of its tables.
pub fn plan(partitions: &[Partition], wanted: &Wanted<'_>) -> Result<Plan> {
    let nothing = Checkpoint::default();
    let mut plan = Plan::default();
    for partition in partitions {
        let lane = partition.lane();
        let mut wants = Vec::with_capacity(wanted.tables.len());
        for (table, lanes) in wanted.tables {
            if !lanes.takes(&lane) {
                wants.push(None);
                continue;
            }
            let holds = wanted.resume.get(table).unwrap_or(&nothing);
            let begin = begin_for(table, partition, &lane, holds, wanted)?;
            wants.push(Some(begin.offset()));
            if let Begin::Behind(missing) = begin {
                plan.gaps.push(Gap {
                    table: table.clone(),
                    lane: lane.clone(),
                    missing,
                });
            }
        }
        // No table takes it: nothing of it is read.
        let Some(start) = wants.iter().flatten().min().copied() else {
            continue;
        };
        plan.lanes.push(Planned {
            lane,
            topic: Arc::clone(&partition.topic),
            partition: partition.partition,
            start,
            end: partition.high,
            wants,
        });
    }
    Ok(plan)
}

fn begin_for(table: &TableId, partition: &Partition, lane: &Lane, holds: &Checkpoint, wanted: &Wanted<'_>) -> Result<Begin> {
    let held = held(holds, lane);
    if held.is_none()
        && let Some(&offset) = wanted.begun.get(&(table.clone(), lane.clone()))
        && offset >= partition.low
        && offset <= partition.high
    {
        return Ok(Begin::At(offset));
    }
    let mut policy = wanted.policy;
    if knows_topic(holds, &partition.topic) || wanted.begun.keys().any(|(of, other)| of == table && is_of(other, &partition.topic)) {
        // A partition that was added to a topic that is already read: all of it came after we began.
        policy.start = Start::Earliest;
    }
    let known = Known {
        held: held.map(|(_, at)| at.0),
        held_id: held.and_then(|(lane, _)| lane.incarnation()),
        id: partition.topic_id.as_deref(),
        low: partition.low,
        high: partition.high,
    };
    start::begin(known, policy).map_err(|refusal| explain(table, lane, &partition.topic, refusal))
}

/// What the table holds of this lane, or else of another lane of its name.
fn held<'a>(holds: &'a Checkpoint, lane: &Lane) -> Option<(&'a Lane, Position)> {
    let named = || holds.iter().filter(|(other, _)| other.name() == lane.name());
    named()
        .find(|(other, _)| *other == lane)
        .or_else(|| named().max_by_key(|(other, _)| other.incarnation().is_some()))
}

fn is_of(lane: &Lane, topic: &str) -> bool {
    lane.topic_partition().is_some_and(|(name, _)| name == topic)
}

fn knows_topic(holds: &Checkpoint, topic: &str) -> bool {
    holds.iter().any(|(lane, _)| is_of(lane, topic))
}

fn explain(table: &TableId, lane: &Lane, topic: &str, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Recreated { held, now } => {
            let now = now.map_or_else(
                || "and the broker tells none now".to_owned(),
                |id| format!("and its id is {id} now"),
            );
            Error::data(
                "topic_recreated",
                format!(
                    "Table `{table}` was fed from topic `{topic}` with the id {held}, {now}: the topic was deleted and made anew, and its \
                     offsets mean something else. Feed a new table from it, or give the pipeline a new name to read the new topic from its \
                     beginning into the same table."
                ),
            )
        }
        Refusal::Gap(missing) => Error::data(
            "retention_gap",
            format!(
                "Table `{table}` needs {lane} from offset {} on, but the topic now begins at {}: {} offsets are gone by retention. Set \
                 `on_gap = \"earliest\"` to go on at {} with the gap on record, or fill the table from another copy.",
                missing.start,
                missing.end,
                missing.end - missing.start,
                missing.end
            ),
        ),
        Refusal::Truncated { held, high } => Error::data(
            "topic_truncated",
            format!(
                "Table `{table}` holds {lane} up to offset {held}, but the topic ends before offset {high}: records were lost by the \
                 brokers (an unclean leader election), or the topic was made anew. Feed a new table from it, or give the pipeline a new name."
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OnGap;
    use crate::error::Kind;

    fn partition(topic: &str, partition: i32, low: u64, high: u64) -> Partition {
        Partition {
            topic: topic.into(),
            partition,
            topic_id: Some("A".into()),
            low,
            high,
        }
    }

    fn lane(topic: &str, partition: i32) -> Lane {
        Lane::kafka(topic, partition, Some("A"))
    }

    fn holds(lanes: &[(Lane, u64)]) -> Checkpoint {
        lanes.iter().map(|(lane, at)| (lane.clone(), Position(*at))).collect()
    }

    struct Case {
        tables: Vec<(TableId, Lanes)>,
        resume: Resume,
        policy: Policy,
        begun: Begun,
    }

    impl Case {
        fn new(tables: &[(&str, &str)]) -> Self {
            let tables = tables
                .iter()
                .map(|(table, topic)| (TableId::new(*table), Lanes::Topics(vec![(*topic).to_owned()])));
            let policy = Policy {
                start: Start::Earliest,
                on_gap: OnGap::Stop,
            };
            Self {
                tables: tables.collect(),
                resume: Resume::new(),
                policy,
                begun: Begun::new(),
            }
        }
        fn plan(&self, partitions: &[Partition]) -> Result<Plan> {
            let Self {
                tables,
                resume,
                policy,
                begun,
            } = self;
            plan(
                partitions,
                &Wanted {
                    tables,
                    resume,
                    policy: *policy,
                    begun,
                },
            )
        }
    }

    #[test]
    fn a_lane_starts_where_the_table_begins_that_lacks_most_and_each_table_keeps_its_own_mark() {
        let mut case = Case::new(&[("a", "orders"), ("b", "orders"), ("c", "users")]);
        case.resume.insert(TableId::new("a"), holds(&[(lane("orders", 0), 70)]));
        case.resume.insert(TableId::new("b"), holds(&[(lane("orders", 0), 40)]));
        let plan = case.plan(&[partition("orders", 0, 0, 100), partition("other", 0, 0, 9)]).unwrap();
        assert_eq!(plan.lanes.len(), 1, "a lane that feeds no table is not read");
        let orders = &plan.lanes[0];
        assert_eq!((orders.start, orders.end), (41, 100));
        assert_eq!(orders.wants, [Some(71), Some(41), None]);
        assert_eq!(plan.mark(), holds(&[(lane("orders", 0), 40)]));
    }

    #[test]
    fn k4_an_allowed_gap_is_on_record_for_the_table_that_has_it() {
        let mut case = Case::new(&[("a", "orders"), ("b", "orders")]);
        case.policy.on_gap = OnGap::Earliest;
        case.resume.insert(TableId::new("a"), holds(&[(lane("orders", 0), 70)]));
        case.resume.insert(TableId::new("b"), holds(&[(lane("orders", 0), 40)]));
        let plan = case.plan(&[partition("orders", 0, 60, 100)]).unwrap();
        assert_eq!(
            plan.gaps,
            [Gap {
                table: TableId::new("b"),
                lane: lane("orders", 0),
                missing: 41..60
            }]
        );
        assert_eq!(plan.lanes[0].start, 60);
    }

    #[test]
    fn k4_a_gap_stops_with_its_size_and_the_choice() {
        let mut case = Case::new(&[("a", "orders")]);
        case.resume.insert(TableId::new("a"), holds(&[(lane("orders", 0), 40)]));
        let error = case.plan(&[partition("orders", 0, 60, 100)]).unwrap_err();
        assert_eq!((error.kind, error.code), (Kind::Data, "retention_gap"));
        for part in ["`a`", "orders/0", "41", "60", "19 offsets", "on_gap"] {
            assert!(error.what.contains(part), "{part} is not in: {}", error.what);
        }
    }

    #[test]
    fn k6_a_topic_with_another_id_stops() {
        let mut case = Case::new(&[("a", "orders")]);
        case.resume
            .insert(TableId::new("a"), holds(&[(Lane::kafka("orders", 0, Some("B")), 4)]));
        assert_eq!(case.plan(&[partition("orders", 0, 0, 100)]).unwrap_err().code, "topic_recreated");
        // Known by its own id as well: the older incarnation is history.
        case.resume.insert(
            TableId::new("a"),
            holds(&[(Lane::kafka("orders", 0, Some("B")), 4), (lane("orders", 0), 7)]),
        );
        assert_eq!(case.plan(&[partition("orders", 0, 0, 100)]).unwrap().lanes[0].start, 8);
    }

    #[test]
    fn k7_a_partition_added_to_a_known_topic_is_read_from_its_beginning_even_with_start_latest() {
        let mut case = Case::new(&[("a", "orders")]);
        case.policy.start = Start::Latest;
        let (old, new) = (partition("orders", 0, 0, 100), partition("orders", 1, 0, 9));
        assert_eq!(
            case.plan(&[old.clone(), new.clone()]).unwrap().lanes[1].start,
            9,
            "all are new: latest"
        );
        case.resume.insert(TableId::new("a"), holds(&[(lane("orders", 0), 40)]));
        assert_eq!(
            case.plan(&[old.clone(), new.clone()]).unwrap().lanes[1].start,
            0,
            "the table knows the topic"
        );
        case.resume.clear();
        case.begun.insert((TableId::new("a"), lane("orders", 0)), 90);
        let starts: Vec<_> = case.plan(&[old, new]).unwrap().lanes.iter().map(|lane| lane.start).collect();
        assert_eq!(starts, [90, 0], "the process knows the topic");
    }
}
