//! Whether a table holds lanes of another pipeline, which this one would begin elsewhere than where that one has come to: it was renamed
//! since, or another file has it under another name.
//!
//! A pipeline goes on behind its own marks only. A table that only grows would have rows of such a lane twice, also where the pipeline gets
//! its old name back: so it is refused; one with a key comes to the same rows once more, from a topic. Where the lane would be begun further
//! on (with the newest records, or where retention has left it), what is between would be missing, and nothing would tell: that is refused for
//! all tables. With the very next record it takes over. From a database a table is copied anew, and rows that are deleted there meanwhile would stay: so it is refused, too,
//! by whatever slot they were read.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use tracing::warn;

use crate::error::{Error, Result};
use crate::position::{Checkpoint, Lane, Position};
use crate::table::{Mode, Table};

/// What a table holds, by pipeline.
pub type Marks = BTreeMap<String, Checkpoint>;

/// Fails where the pipeline would read one of these lanes from its first position here on, and that is not the one that the table lacks: it
/// has rows from there on, or misses some before.
pub fn must_be_new<'a>(pipeline: &str, table: &Table, lanes: impl IntoIterator<Item = (&'a Lane, u64)>, marks: &Marks) -> Result<()> {
    let own = marks.get(pipeline);
    let is_begun = |lane: &Lane| own.is_some_and(|own| own.named(lane.name()).is_some());
    let mut unsure = None;
    for (lane, first) in lanes {
        let (id, location, is_begun) = (&table.id, &table.location, is_begun(lane));
        if let Some((other, slot)) = held_by_slot(lane, marks).filter(|_| !is_begun) {
            let what = format!(
                "the table `{id}` at {location} holds rows of the same server from pipeline `{other}`, read by {slot}, and this one, `{pipeline}`, \
                 would copy them anew by {lane}: rows would be there twice, or stay when they are deleted. Name pipeline and slot as they were; or \
                 name another location"
            );
            return Err(Error::config("lane_of_another", what));
        }
        let Some((other, next)) = furthest_of_others(pipeline, lane, marks) else {
            continue;
        };
        let holds = match next.checked_sub(1) {
            Some(at) => format!("{lane} up to {}", lane.show(Position(at))),
            None => format!("the topic of {lane}, and nothing of that partition yet,"),
        };
        let holds = format!("the table `{id}` at {location} holds {holds} from pipeline `{other}`, and this one, `{pipeline}`,");
        // What a pipeline passes over of a topic that it has begun, its own `on_gap` has allowed.
        let knows_topic = own.is_some_and(|own| lacks(lane, own).is_some());
        let is_append = table.mode == Mode::Append;
        let (what, goes_on) = match first.cmp(&next) {
            Ordering::Less if is_append => (
                format!("{holds} would read it from {first} on: rows would be there twice"),
                String::new(),
            ),
            Ordering::Less if !is_begun => (format!("{holds} would begin it anew: the same rows come once more"), String::new()),
            Ordering::Greater if !knows_topic => {
                let missing = first - next;
                let what = format!(
                    "{holds} would begin it at {first}, where `start` or retention puts it: {missing} offsets, from {next} on, would be missing"
                );
                let goes_on = format!(" (it goes on at {next}, or does what `on_gap` says where retention has taken that)");
                (what, goes_on)
            }
            _ => continue,
        };
        let stops = is_append || first > next;
        // Without an id it may be another cluster's.
        if stops && lane.incarnation().is_some() {
            let what = format!(
                "{what}. Name the pipeline `{other}` again, if it is the same one{goes_on}; or name another location, if both are to be run"
            );
            return Err(Error::config("lane_of_another", what));
        }
        if !is_begun {
            unsure.get_or_insert(what);
        }
    }
    if let Some(what) = unsure {
        warn!("{what}, if it is the same topic");
    }
    Ok(())
}

/// The pipeline beside this one that has come furthest in a lane, and the first position that it lacks.
fn furthest_of_others<'m>(pipeline: &str, lane: &Lane, marks: &'m Marks) -> Option<(&'m str, u64)> {
    marks
        .iter()
        .filter(|(other, _)| *other != pipeline)
        .filter_map(|(other, held)| Some((other.as_str(), lacks(lane, held)?)))
        .max_by_key(|(_, next)| *next)
}

/// The first position that marks lack of a partition; None where they say nothing of its topic. That is begun with all its partitions: one
/// that is not among them had no record then.
fn lacks(lane: &Lane, held: &Checkpoint) -> Option<u64> {
    let (topic, _) = lane.topic_partition()?;
    let is_of_topic =
        |other: &Lane| other.incarnation() == lane.incarnation() && other.topic_partition().is_some_and(|(name, _)| name == topic);
    match held.get(lane) {
        Some(at) => Some(at.0 + 1),
        None => held.iter().any(|(other, _)| is_of_topic(other)).then_some(0),
    }
}

/// The pipeline that has read this server into the table, and by which slot.
fn held_by_slot<'m>(lane: &Lane, marks: &'m Marks) -> Option<(&'m str, &'m Lane)> {
    // What else is kept of a database, like its timeline, stands behind a slash.
    let is_slot = |lane: &Lane| !lane.name().contains('/');
    let same_server = |other: &Lane| is_slot(lane) && is_slot(other) && other.incarnation() == lane.incarnation();
    let mut held = marks
        .iter()
        .flat_map(|(other, held)| held.iter().map(move |(lane, _)| (other.as_str(), lane)));
    held.find(|(_, other)| same_server(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::datatypes::Schema;
    use url::Url;

    use crate::error::Kind;
    use crate::table::{Merge, TableId};

    fn table(mode: Mode) -> Table {
        let location = Url::parse("memory://lake/log/").unwrap();
        Table::new(TableId::new("log"), location, mode, Arc::new(Schema::empty()))
    }

    fn keyed() -> Table {
        table(Mode::Upsert {
            key: vec!["id".to_owned()],
            merge: Merge::Vectors,
        })
    }

    #[test]
    fn a_renamed_pipeline_does_not_double_a_table_that_only_grows() {
        let held = |lane: &str| Checkpoint::from_iter([(Lane::new(lane), Position(41))]);
        let old = || ("old".to_owned(), held("t/0@A"));
        let (grows, marks) = (table(Mode::Append), Marks::from([old()]));
        let lane = Lane::new("t/0@A");
        let error = must_be_new("new", &grows, [(&lane, 41)], &marks).unwrap_err();
        assert_eq!((error.kind, error.code), (Kind::Config, "lane_of_another"));
        for said in ["`log`", "t/0 up to 41", "`old`", "`new`", "another location"] {
            assert!(error.to_string().contains(said), "{error}");
        }
        // It had its name once, and another one meanwhile.
        let back = Marks::from([
            old(),
            ("new".to_owned(), Checkpoint::from_iter([(Lane::new("t/0@A"), Position(11))])),
        ]);
        let error = must_be_new("new", &grows, [(&lane, 12)], &back).unwrap_err();
        assert!(error.to_string().contains("from 12 on"), "{error}");
        let keyed = keyed();
        let both = Marks::from([old(), ("new".to_owned(), held("t/0@A"))]);
        let (anew, nameless) = (Lane::new("t/0@B"), Lane::new("t/0"));
        let of_any = Marks::from([("old".to_owned(), held("t/0"))]);
        for (what, pipeline, table, lane, first, marks) in [
            ("its own", "old", &grows, &lane, 0, &marks),
            ("begun already, and as far as the other", "new", &grows, &lane, 42, &both),
            ("begun already, of a key", "new", &keyed, &lane, 12, &both),
            ("the very next", "new", &grows, &lane, 42, &marks),
            ("the very next, of a key", "new", &keyed, &lane, 42, &marks),
            ("a topic that was made anew", "new", &grows, &anew, 0, &marks),
            ("rows of one key are one", "new", &keyed, &lane, 0, &marks),
            ("perhaps another cluster's", "new", &grows, &nameless, 0, &of_any),
            ("perhaps another cluster's, further on", "new", &grows, &nameless, 60, &of_any),
            ("its own, further on", "old", &grows, &lane, 60, &marks),
            ("begun already, further on", "new", &grows, &lane, 60, &both),
            ("a topic that was made anew, further on", "new", &grows, &anew, 60, &marks),
        ] {
            assert!(must_be_new(pipeline, table, [(lane, first)], marks).is_ok(), "{what}");
        }
    }

    #[test]
    fn a_renamed_pipeline_does_not_pass_over_what_the_old_name_had_yet_to_read() {
        let held = |lanes: &[(&str, u64)]| -> Checkpoint { lanes.iter().map(|(lane, at)| (Lane::new(*lane), Position(*at))).collect() };
        let marks = Marks::from([("old".to_owned(), held(&[("t/0@A", 41)]))]);
        let refusal = |table: &Table, pipeline: &str, lanes: &[(&str, u64)], marks: &Marks| {
            let lanes: Vec<(Lane, u64)> = lanes.iter().map(|(lane, first)| (Lane::new(*lane), *first)).collect();
            must_be_new(pipeline, table, lanes.iter().map(|(lane, first)| (lane, *first)), marks).err()
        };
        let (grows, keyed) = (table(Mode::Append), keyed());
        for table in [&grows, &keyed] {
            let error = refusal(table, "new", &[("t/0@A", 60)], &marks).expect("a gap");
            assert_eq!((error.kind, error.code), (Kind::Config, "lane_of_another"));
            for said in [
                "`log`",
                "t/0 up to 41",
                "`old`",
                "`new`",
                "18 offsets, from 42 on",
                "on_gap",
                "another location",
            ] {
                assert!(error.to_string().contains(said), "{said}: {error}");
            }
            assert!(refusal(table, "new", &[("t/0@A", 43)], &marks).is_some(), "one is missing");
            // A partition that had no record when the topic was begun: the old name would read it from its beginning.
            assert!(refusal(table, "new", &[("t/1@A", 0)], &marks).is_none());
            let error = refusal(table, "new", &[("t/1@A", 5)], &marks).expect("a gap");
            assert!(error.to_string().contains("5 offsets, from 0 on"), "{error}");
            let begun_empty = Marks::from([("old".to_owned(), held(&[("t/-1@A", 0)]))]);
            assert!(refusal(table, "new", &[("t/0@A", 5)], &begun_empty).is_some());
            // Another topic is nobody's yet, and so is one of its name that was made anew.
            assert!(refusal(table, "new", &[("u/0@A", 5), ("t/1@B", 5)], &marks).is_none());
        }
        // A pipeline that has begun the topic has a gap by its own `on_gap`, which puts it on record.
        let both = Marks::from([
            ("old".to_owned(), held(&[("t/1@A", 3)])),
            ("own".to_owned(), held(&[("t/0@A", 41)])),
        ]);
        assert!(refusal(&grows, "own", &[("t/1@A", 60)], &both).is_none());
        // Behind the one that has come furthest there is nothing missing, and before it rows are there.
        let several = Marks::from([
            ("first".to_owned(), held(&[("t/0@A", 9)])),
            ("last".to_owned(), held(&[("t/0@A", 7)])),
            ("old".to_owned(), held(&[("t/0@A", 41)])),
        ]);
        assert!(refusal(&grows, "new", &[("t/0@A", 42)], &several).is_none());
        assert!(refusal(&grows, "new", &[("t/0@A", 10)], &several).is_some());
        // Rows that come once more in one lane hide no gap in the next.
        let two = Marks::from([("old".to_owned(), held(&[("t/0@A", 41), ("t/1@A", 41)]))]);
        let error = refusal(&keyed, "new", &[("t/0@A", 0), ("t/1@A", 60)], &two).expect("a gap");
        assert!(error.to_string().contains("t/1 up to 41"), "{error}");
    }

    #[test]
    fn a_database_is_not_copied_into_a_table_that_holds_it_by_another_slot_or_pipeline() {
        let held = |lane: &str| Checkpoint::from_iter([(Lane::new(lane), Position(41))]);
        let marks = Marks::from([("old".to_owned(), held("alluvium_old@7"))]);
        let keyed = keyed();
        let is_refused = |pipeline: &str, lane: &str| must_be_new(pipeline, &keyed, [(&Lane::new(lane), 0)], &marks).is_err();
        assert!(is_refused("new", "alluvium_new@7") && is_refused("new", "alluvium_old@7") && is_refused("old", "alluvium_new@7"));
        assert!(!is_refused("old", "alluvium_old@7") && !is_refused("new", "alluvium_new@8") && !is_refused("new", "t/0@7"));
    }
}
