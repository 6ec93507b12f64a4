//! Which lanes feed which tables, and where each is begun: the plan of a flow, made from values alone.
//!
//! A lane is read once for all tables that it feeds. It is begun at the lowest offset that any of them lacks, and each table is given
//! only what it lacks itself.
//!
//! `start` says where a table begins that has read nothing at all. It remembers that from the first moment on ([`Plan::begins`]): whatever
//! comes later, be it a topic or a partition, is read from its beginning, and what retention takes from then on is missed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::start::{self, Begin, Known, Policy, Refusal};
use crate::batch::Gap;
use crate::config::Start;
use crate::error::{Error, Result};
use crate::position::{Checkpoint, Lane, Position};
use crate::sources::Resume;
use crate::table::{Lanes, TableId};

/// Of the lane that a table holds of a topic that had no record when it began with the newest ones. Kafka has no such partition: it says
/// that the table has begun, where no offset can.
const NO_PARTITION: i32 = -1;
/// Of the lane that a table holds that began with the newest records when no topic was there. Kafka has no topic of this name.
const NO_TOPIC: &str = "*";

/// The lane that says that a table has begun, where no topic can.
pub fn no_topic() -> Lane {
    Lane::kafka(NO_TOPIC, NO_PARTITION, None)
}

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
    /// What each table is to hold before it is given anything: everything before the places where its lanes are begun, or go on behind a
    /// gap. Lanes that other members of the group read are in it as well, for a topic is known by any of its lanes. A lane that is begun
    /// with its first offset is not.
    pub begins: BTreeMap<TableId, Checkpoint>,
    /// Where lanes are begun for tables that hold nothing of them.
    pub begun: Begun,
    /// Of the lanes that others read, as far as they were asked about: the first offset that a table lacks.
    pub elsewhere: BTreeMap<Lane, u64>,
    /// How many partitions feed each table, whoever reads them.
    pub partitions: Vec<usize>,
}

impl Plan {
    /// The first offset that a table lacks of a lane; None of a lane that others read.
    fn begin(&mut self, table: &TableId, partition: &Partition, wanted: &Wanted<'_>) -> Result<Option<u64>> {
        let (nothing, lane) = (Checkpoint::default(), partition.lane());
        let holds = wanted.resume.get(table).unwrap_or(&nothing);
        let is_ours = (wanted.is_ours)(&partition.topic, partition.partition);
        let begin = match begin_for(table, partition, &lane, holds, wanted) {
            // Whoever reads it finds the same, and stops or passes over the gap.
            Ok(Begin::Behind(_)) | Err(_) if !is_ours => {
                self.leave(lane.clone(), held(holds, &lane).map_or(0, |(_, at)| at.0 + 1));
                return Ok(None);
            }
            begin => begin?,
        };
        let (offset, is_new) = (begin.offset(), held(holds, &lane).is_none());
        if !is_ours {
            self.leave(lane.clone(), offset);
        }
        if is_new {
            self.begun.insert((table.clone(), lane.clone()), offset);
        }
        let is_gap = matches!(begin, Begin::Behind(_));
        if let Some(before) = offset.checked_sub(1).filter(|_| is_new || is_gap) {
            let begins = self.begins.entry(table.clone()).or_default();
            begins.set(lane.clone(), Position(before));
        }
        if let Begin::Behind(missing) = begin {
            let table = table.clone();
            self.gaps.push(Gap { table, lane, missing });
        }
        Ok(is_ours.then_some(offset))
    }

    /// A table lacks a lane from this offset on, and others read it.
    fn leave(&mut self, lane: Lane, lacks: u64) {
        let least = self.elsewhere.entry(lane).or_insert(lacks);
        *least = lacks.min(*least);
    }

    /// Tables that begin with the newest records begin, be there a topic or not.
    fn begin_without_topic(&mut self, topics: &BTreeMap<&str, Option<&str>>, wanted: &Wanted<'_>) {
        for (table, lanes) in wanted.tables {
            let has_begun = wanted.resume.get(table).is_some_and(|holds| !holds.is_empty());
            if !has_begun && !topics.keys().any(|topic| lanes.takes_topic(topic)) {
                self.begun.insert((table.clone(), no_topic()), 0);
                self.begins.entry(table.clone()).or_default().set(no_topic(), Position(0));
            }
        }
    }

    /// Tables that begin with the newest records begin with every topic, be it empty.
    fn begin_empty(&mut self, topic: &str, id: Option<&str>, wanted: &Wanted<'_>) {
        let nothing = Checkpoint::default();
        for (table, _) in wanted.tables.iter().filter(|(_, lanes)| lanes.takes_topic(topic)) {
            let holds = wanted.resume.get(table).unwrap_or(&nothing);
            let begins = self.begins.get(table).unwrap_or(&nothing);
            if holds.is_empty() && !begins.iter().any(|(lane, _)| is_of(lane, topic, id)) {
                let begins = self.begins.entry(table.clone()).or_default();
                begins.set(Lane::kafka(topic, NO_PARTITION, id), Position(0));
            }
        }
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
    /// Whether a partition of a topic is ours to read.
    pub is_ours: &'a dyn Fn(&str, i32) -> bool,
}

impl Wanted<'_> {
    /// Whether a table takes this topic that holds nothing of it: then all its partitions are begun.
    pub fn begins(&self, topic: &str, id: Option<&str>) -> bool {
        let holds = |table: &TableId| self.resume.get(table).into_iter().flat_map(Checkpoint::iter);
        let holds_it = |table: &TableId| holds(table).any(|(lane, _)| is_of(lane, topic, id));
        self.tables
            .iter()
            .any(|(table, lanes)| lanes.takes_topic(topic) && !holds_it(table))
    }

    /// Whether a table takes this topic that holds nothing at all.
    pub fn begins_tables(&self, topic: &str) -> bool {
        let holds_nothing = |table: &TableId| self.resume.get(table).is_none_or(Checkpoint::is_empty);
        self.tables
            .iter()
            .any(|(table, lanes)| lanes.takes_topic(topic) && holds_nothing(table))
    }

    /// The lanes that are begun for a table.
    fn known<'b>(&'b self, table: &'b TableId, holds: &'b Checkpoint) -> impl Iterator<Item = &'b Lane> {
        let begun = self.begun.keys().filter(move |(other, _)| other == table).map(|(_, lane)| lane);
        holds.iter().map(|(lane, _)| lane).chain(begun)
    }
}

/// Plans the reading of `partitions`. Fails when one of them cannot be begun for one of its tables.
pub fn plan(partitions: &[Partition], wanted: &Wanted<'_>) -> Result<Plan> {
    let mut plan = Plan::default();
    for partition in partitions {
        let lane = partition.lane();
        let mut wants = Vec::with_capacity(wanted.tables.len());
        for (table, lanes) in wanted.tables {
            let is_fed = lanes.takes(&lane);
            wants.push(if is_fed { plan.begin(table, partition, wanted)? } else { None });
        }
        // No table takes it, or others read it.
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
    if wanted.policy.start == Start::Latest {
        let topics: BTreeMap<&str, Option<&str>> = partitions.iter().map(|at| (&*at.topic, at.topic_id.as_deref())).collect();
        plan.begin_without_topic(&topics, wanted);
        for (topic, id) in topics {
            plan.begin_empty(topic, id, wanted);
        }
    }
    Ok(plan)
}

fn begin_for(table: &TableId, partition: &Partition, lane: &Lane, holds: &Checkpoint, wanted: &Wanted<'_>) -> Result<Begin> {
    let (topic, id) = (&*partition.topic, partition.topic_id.as_deref());
    let held = held(holds, lane);
    let begun = wanted.begun.get(&(table.clone(), lane.clone())).copied();
    // Of a topic that is read, all partitions were begun, save those that had no record yet or were added: of these, all came after that.
    let is_known = held.is_none() && wanted.known(table, holds).any(|lane| is_of(lane, topic, id));
    let next = held.map(|(_, at)| at.0 + 1).or(begun).or(is_known.then_some(0));
    let mut policy = wanted.policy;
    if wanted.known(table, holds).next().is_some() {
        // A topic that has come to those that are already read.
        policy.start = Start::Earliest;
    }
    // A topic that was made anew may have fewer partitions than before: then its id stands beside one that is gone.
    let of_topic = || holds.iter().map(|(lane, _)| lane).filter(|lane| is_named(lane, topic));
    let known = Known {
        next,
        held_id: match held {
            Some((lane, _)) => lane.incarnation(),
            None if is_known => None,
            None => of_topic().find_map(Lane::incarnation),
        },
        id,
        low: partition.low,
        high: partition.high,
    };
    start::begin(known, policy).map_err(|refusal| explain(table, lane, topic, refusal, wanted))
}

/// What the table holds of this lane, or else of another lane of its name.
fn held<'a>(holds: &'a Checkpoint, lane: &Lane) -> Option<(&'a Lane, Position)> {
    let named = || holds.iter().filter(|(other, _)| other.name() == lane.name());
    named()
        .find(|(other, _)| *other == lane)
        .or_else(|| named().max_by_key(|(other, _)| other.incarnation().is_some()))
}

/// Whether this is a lane of the topic with this id, as far as ids were told.
fn is_of(lane: &Lane, topic: &str, id: Option<&str>) -> bool {
    is_named(lane, topic) && (lane.incarnation().is_none() || lane.incarnation() == id)
}

fn is_named(lane: &Lane, topic: &str) -> bool {
    lane.topic_partition().is_some_and(|(name, _)| name == topic)
}

fn explain(table: &TableId, lane: &Lane, topic: &str, refusal: Refusal, wanted: &Wanted<'_>) -> Error {
    match refusal {
        Refusal::Recreated { held, now } => {
            let choices = choices_anew(table, topic, now.as_deref(), wanted);
            let now = now.map_or_else(
                || "and the broker tells none now".to_owned(),
                |id| format!("and its id is {id} now"),
            );
            Error::data(
                "topic_recreated",
                format!(
                    "Table `{table}` was fed from topic `{topic}` with the id {held}, {now}: the topic was deleted and made anew, and its \
                     offsets mean something else. {choices}"
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
                 brokers (an unclean leader election), or the topic was made anew. Feed a new table from it."
            ),
        ),
    }
}

/// How a topic that was made anew can be read. A new name begins all tables of the pipeline anew: where they hold anything else than what is
/// gone, that would be there twice, or be missing.
fn choices_anew(table: &TableId, topic: &str, id: Option<&str>, wanted: &Wanted<'_>) -> String {
    let is_gone = |lane: &Lane| is_named(lane, topic) && !is_of(lane, topic, id);
    let mut held = wanted.resume.values().flat_map(Checkpoint::iter);
    let holds_more = held.any(|(lane, _)| lane.has_positions() && !is_gone(lane));
    let from_beginning = match wanted.policy.start {
        Start::Earliest => "",
        Start::Latest => " and `start = \"earliest\"`",
    };
    if !holds_more {
        return format!(
            "Feed a new table from it, or give the pipeline a new name{from_beginning} to read the new topic from its beginning into the same \
             table."
        );
    }
    let is_pattern = |(other, lanes): &(TableId, Lanes)| other == table && matches!(lanes, Lanes::TopicPattern(_));
    let list = match wanted.tables.iter().any(is_pattern) {
        true => "name the other topics of this table in `topic`, without it and in place of the pattern",
        false => "take it out of the topics of this table",
    };
    format!(
        "The pipeline holds more than this topic, which would be read again by a new name: {list}, and feed a new table from it, or this one by a \
         pipeline of another name{from_beginning}, in a file of its own, which reads it from its beginning."
    )
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
        /// Partitions that other members read.
        others: Vec<i32>,
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
                others: Vec::new(),
            }
        }
        fn plan(&self, partitions: &[Partition]) -> Result<Plan> {
            let Self {
                tables,
                resume,
                policy,
                begun,
                others,
            } = self;
            plan(
                partitions,
                &Wanted {
                    tables,
                    resume,
                    policy: *policy,
                    begun,
                    is_ours: &|_, partition| !others.contains(&partition),
                },
            )
        }
        /// First offsets of all lanes.
        fn starts(&self, partitions: &[Partition]) -> Vec<u64> {
            let plan = self.plan(partitions).unwrap();
            plan.lanes.iter().map(|lane| lane.start).collect()
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
        let begins = BTreeMap::from([(TableId::new("b"), holds(&[(lane("orders", 0), 59)]))]);
        assert_eq!(plan.begins, begins, "and is on record at once, be there rows or not");
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
    fn k6_what_helps_with_a_topic_made_anew_is_what_the_other_tables_and_topics_allow() {
        let mut case = Case::new(&[("a", "orders"), ("b", "users")]);
        let gone = || (Lane::kafka("orders", 0, Some("B")), 4);
        let choices = |case: &Case| case.plan(&[partition("orders", 0, 0, 100)]).unwrap_err().what;
        case.resume.insert(TableId::new("a"), holds(&[gone()]));
        // Of an empty topic there is nothing to be read twice.
        case.resume
            .insert(TableId::new("b"), holds(&[(Lane::kafka("users", NO_PARTITION, Some("A")), 0)]));
        let said = choices(&case);
        assert!(
            said.contains("give the pipeline a new name to read") && !said.contains("`start"),
            "{said}"
        );
        case.policy.start = Start::Latest;
        let said = choices(&case);
        assert!(said.contains("a new name and `start = \"earliest\"` to read"), "{said}");
        // A topic beside it, in the same table or in another one, or the new one itself, where a table has begun with it.
        for (table, more) in [("a", lane("users", 0)), ("b", lane("users", 0)), ("b", lane("orders", 0))] {
            case.resume.insert(TableId::new("a"), holds(&[gone()]));
            case.resume.insert(TableId::new("b"), Checkpoint::default());
            let held = case.resume.remove(&TableId::new(table)).unwrap_or_default();
            case.resume.insert(TableId::new(table), held.join(&holds(&[(more, 7)])));
            let said = choices(&case);
            assert!(said.contains("in a file of its own") && said.contains("take it out of"), "{said}");
            assert!(said.contains("another name and `start = \"earliest\"`"), "{said}");
        }
        case.tables[0].1 = Lanes::TopicPattern("^(?:.*)$".parse().unwrap());
        let said = choices(&case);
        assert!(
            said.contains("in place of the pattern") && said.contains("in a file of its own"),
            "{said}"
        );
    }

    #[test]
    fn k6_a_topic_made_anew_with_fewer_partitions_stops_as_well() {
        let mut case = Case::new(&[("a", "orders")]);
        case.resume
            .insert(TableId::new("a"), holds(&[(Lane::kafka("orders", 1, Some("B")), 4)]));
        assert_eq!(case.plan(&[partition("orders", 0, 0, 100)]).unwrap_err().code, "topic_recreated");
    }

    #[test]
    fn where_a_table_begins_it_remembers_for_all_partitions_be_they_ours_or_not() {
        let mut case = Case::new(&[("a", "orders"), ("b", "orders")]);
        case.policy.start = Start::Latest;
        case.others = vec![1];
        case.resume
            .insert(TableId::new("b"), holds(&[(lane("orders", 0), 39), (lane("orders", 1), 4)]));
        let partitions = [
            partition("orders", 0, 0, 100),
            partition("orders", 1, 0, 9),
            partition("orders", 2, 0, 0),
        ];
        let plan = case.plan(&partitions).unwrap();
        let lanes: Vec<_> = plan.lanes.iter().map(|lane| (lane.partition, lane.start)).collect();
        assert_eq!(lanes, [(0, 40), (2, 0)]);
        let begins = BTreeMap::from([(TableId::new("a"), holds(&[(lane("orders", 0), 99), (lane("orders", 1), 8)]))]);
        assert_eq!(plan.begins, begins);

        // Of what it remembers, and of nothing else, it is known later that the last partition was empty.
        case.resume.extend(begins);
        case.others.clear();
        let later = [
            partition("orders", 0, 0, 110),
            partition("orders", 1, 0, 9),
            partition("orders", 2, 0, 10),
        ];
        let plan = case.plan(&later).unwrap();
        assert_eq!(plan.lanes[2].wants, [Some(0), Some(0)]);
        assert_eq!(plan.begins, BTreeMap::new());
    }

    #[test]
    fn a_table_that_begins_with_the_newest_records_of_an_empty_topic_remembers_that_too() {
        let mut case = Case::new(&[("a", "orders")]);
        assert_eq!(case.plan(&[partition("orders", 0, 0, 0)]).unwrap().begins, BTreeMap::new());
        case.policy.start = Start::Latest;
        let plan = case.plan(&[partition("orders", 0, 0, 0)]).unwrap();
        case.resume.extend(plan.begins);
        let later = case.plan(&[partition("orders", 0, 0, 10)]).unwrap();
        assert_eq!((later.lanes[0].start, later.begins), (0, BTreeMap::new()));
        assert_eq!(case.plan(&[partition("orders", 0, 4, 10)]).unwrap_err().code, "retention_gap");
    }

    #[test]
    fn a_table_that_begins_with_the_newest_records_of_no_topic_remembers_that_too() {
        let mut case = Case::new(&[("a", "orders"), ("b", "b-.*")]);
        case.tables[1].1 = Lanes::TopicPattern("^(?:b-.*)$".parse().unwrap());
        let orders = partition("orders", 0, 0, 7);
        let later = [orders.clone(), partition("b-x", 0, 2, 10), partition("b-x", 1, 0, 0)];
        assert!(case.plan(std::slice::from_ref(&orders)).unwrap().begins.is_empty());
        case.policy.start = Start::Latest;
        assert_eq!(case.starts(&later), [7, 10, 0], "they were there before");

        let plan = case.plan(&[orders]).unwrap();
        let begins = [
            (TableId::new("a"), holds(&[(lane("orders", 0), 6)])),
            (TableId::new("b"), holds(&[(no_topic(), 0)])),
        ];
        assert_eq!(plan.begins, BTreeMap::from(begins));
        // Within one process, before the table holds it.
        case.begun = plan.begun;
        assert_eq!(case.starts(&later), [7, 2, 0]);
        // In another, from the table.
        case.begun.clear();
        case.resume.extend(plan.begins);
        case.others = vec![1];
        assert_eq!(case.starts(&later), [7, 2]);
        assert_eq!(case.plan(&later[..1]).unwrap().begins, BTreeMap::new(), "it begins once");
    }

    #[test]
    fn of_lanes_that_others_read_it_is_told_what_tables_lack() {
        let mut case = Case::new(&[("a", "orders"), ("b", "orders")]);
        case.others = vec![1, 2];
        for (table, at) in [("a", 40), ("b", 70)] {
            let lanes = [0, 1].map(|partition| (lane("orders", partition), at));
            case.resume.insert(TableId::new(table), holds(&lanes));
        }
        let partitions = [0, 1, 2].map(|number| partition("orders", number, 0, 100));
        let plan = case.plan(&partitions).unwrap();
        assert_eq!((plan.lanes.len(), plan.begins.len()), (1, 0));
        assert_eq!(plan.elsewhere, BTreeMap::from([(lane("orders", 1), 41), (lane("orders", 2), 0)]));
        // Whoever reads it stops there, and so lacks it all the same.
        let gone = [partition("orders", 0, 0, 100), partition("orders", 1, 60, 100)];
        assert_eq!(case.plan(&gone).unwrap().elsewhere, BTreeMap::from([(lane("orders", 1), 41)]));
    }

    #[test]
    fn k4_what_retention_takes_of_a_partition_that_had_no_record_is_missed() {
        let mut case = Case::new(&[("a", "orders")]);
        case.resume.insert(TableId::new("a"), holds(&[(lane("orders", 0), 9)]));
        let partitions = [partition("orders", 0, 0, 10), partition("orders", 1, 60, 100)];
        let error = case.plan(&partitions).unwrap_err();
        assert_eq!(error.code, "retention_gap");
        assert!(error.what.contains("60 offsets"), "{}", error.what);
        case.policy.on_gap = OnGap::Earliest;
        let plan = case.plan(&partitions).unwrap();
        assert_eq!((plan.gaps[0].missing.clone(), plan.lanes[1].start), (0..60, 60));
        // So it is within one process, before the table holds anything.
        case.policy.on_gap = OnGap::Stop;
        case.resume.clear();
        case.begun.insert((TableId::new("a"), lane("orders", 1)), 0);
        assert_eq!(case.plan(&partitions).unwrap_err().code, "retention_gap");
    }

    #[test]
    fn k7_topics_and_partitions_that_come_later_are_read_from_their_beginning_even_with_start_latest() {
        let mut case = Case::new(&[("a", "orders")]);
        case.tables[0].1 = Lanes::TopicPattern(".*".parse().unwrap());
        case.policy.start = Start::Latest;
        let all = [
            partition("orders", 0, 0, 100),
            partition("orders", 1, 0, 9),
            partition("users", 0, 3, 7),
        ];
        assert_eq!(case.starts(&all), [100, 9, 7], "all are new: latest");
        case.resume.insert(TableId::new("a"), holds(&[(lane("orders", 0), 40)]));
        assert_eq!(case.starts(&all), [41, 0, 3], "the table has begun");
        case.resume.clear();
        case.begun.insert((TableId::new("a"), lane("orders", 0)), 90);
        assert_eq!(case.starts(&all), [90, 0, 3], "the process has begun it");
    }
}
