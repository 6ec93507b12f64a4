//! Lanes, positions and checkpoints: how far a source has been read, as a small algebra.
//!
//! A checkpoint is the last position *contained*, per lane. It is what a table version carries in its `txn` actions, what a
//! source is opened with, and what readers ask for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};

/// One totally ordered lane of a source: `topic/partition` of Kafka, or the name of a replication slot.
///
/// A lane may carry its incarnation behind an `@` (the topic id of Kafka): a topic that was deleted and made anew has the same
/// name and another incarnation, and its offsets mean something else. Two lanes are equal only with equal incarnations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(Arc<str>);

impl Lane {
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The lane of a Kafka partition; `topic_id` is its incarnation, where the broker tells it.
    pub fn kafka(topic: &str, partition: i32, topic_id: Option<&str>) -> Self {
        match topic_id {
            Some(id) => Self::new(format!("{topic}/{partition}@{id}")),
            None => Self::new(format!("{topic}/{partition}")),
        }
    }

    /// The whole text, as it stands in a `txn` action.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A position of this lane as people write it: the offset of a record, or the LSN of a slot.
    pub fn show(&self, at: Position) -> String {
        match self.topic_partition() {
            Some(_) => at.to_string(),
            None => Lsn(at.0).to_string(),
        }
    }

    /// The name without the incarnation, as people write it: `orders/0`.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('@').map_or(&self.0, |(name, _)| name)
    }

    /// What tells this lane from an earlier one of the same name.
    pub fn incarnation(&self) -> Option<&str> {
        self.0.rsplit_once('@').map(|(_, id)| id)
    }

    /// Whether there is something to be read in it. A partition -1 only says that a table has begun with a topic, where no offset can.
    pub fn has_positions(&self) -> bool {
        self.topic_partition().is_none_or(|(_, partition)| partition >= 0)
    }

    /// Topic and partition, where this is a lane of Kafka.
    pub fn topic_partition(&self) -> Option<(&str, i32)> {
        let (topic, partition) = self.name().rsplit_once('/')?;
        Some((topic, partition.parse().ok()?))
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A place in a lane: the offset of a Kafka record, or the LSN at which a Postgres transaction's commit ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in the WAL of Postgres, printed and read as Postgres does: two hexadecimal numbers, `0/16B3748`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl Lsn {
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u64::from);
        Some(Self(number(high)? << 32 | number(low)?))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// How far a source has been read: the last position contained, per lane. A missing lane is unread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint(BTreeMap<Lane, Position>);

impl Checkpoint {
    pub fn get(&self, lane: &Lane) -> Option<Position> {
        self.0.get(lane).copied()
    }

    pub fn set(&mut self, lane: Lane, position: Position) {
        self.0.insert(lane, position);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Lane, Position)> {
        self.0.iter().map(|(lane, &position)| (lane, position))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether everything that `other` contains is contained here.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(lane, at)| self.0.get(lane).is_some_and(|mine| mine >= at))
    }

    /// What both have passed: the lower position of each lane that both have read.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let lanes = self
            .0
            .iter()
            .filter_map(|(lane, &at)| Some((lane.clone(), at.min(other.get(lane)?))));
        Self(lanes.collect())
    }

    /// What either has passed: the higher position of each lane.
    #[must_use]
    pub fn join(mut self, other: &Self) -> Self {
        for (lane, at) in other.iter() {
            let mine = self.0.entry(lane.clone()).or_insert(at);
            *mine = (*mine).max(at);
        }
        self
    }

    /// Only the lanes for which `keep` holds.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&Lane) -> bool) -> Self {
        Self(
            self.0
                .iter()
                .filter(|(lane, _)| keep(lane))
                .map(|(lane, &at)| (lane.clone(), at))
                .collect(),
        )
    }

    /// Only the lanes of `other`, which are mostly few.
    #[must_use]
    pub fn of_lanes(&self, other: &Self) -> Self {
        other.iter().filter_map(|(lane, _)| Some((lane.clone(), self.get(lane)?))).collect()
    }

    /// The lanes that moved on since `base`, with their first position not in `base` where it is known: (lane, base, here).
    pub fn since<'a>(&'a self, base: &'a Self) -> impl Iterator<Item = (&'a Lane, Option<Position>, Position)> {
        self.iter()
            .map(|(lane, at)| (lane, base.get(lane), at))
            .filter(|(_, from, at)| *from != Some(*at))
    }

    /// The lane of this name, whatever its incarnation.
    pub fn named(&self, name: &str) -> Option<(&Lane, Position)> {
        self.iter().find(|(lane, _)| lane.name() == name)
    }
}

impl FromIterator<(Lane, Position)> for Checkpoint {
    fn from_iter<I: IntoIterator<Item = (Lane, Position)>>(lanes: I) -> Self {
        Self(lanes.into_iter().collect())
    }
}

/// As people write it: `orders/0:41 orders/1:17`, or `slot:0/16B3748`.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (lane, at)) in self.iter().filter(|(lane, _)| lane.has_positions()).enumerate() {
            write!(f, "{}{lane}:{}", if index > 0 { " " } else { "" }, lane.show(at))?;
        }
        Ok(())
    }
}

/// Reads one `LANE:POS` of a command line.
pub fn parse_position(text: &str) -> Result<(Lane, Position)> {
    let wrong = || {
        Error::new(
            crate::error::Kind::Config,
            "usage",
            format!("`{text}` is not a position: write LANE:POSITION, as in orders/0:41 or slot:0/16B3748"),
        )
    };
    let (lane, at) = text.rsplit_once(':').ok_or_else(wrong)?;
    let at = Lsn::parse(at).map(|lsn| lsn.0).or_else(|| at.parse().ok());
    Ok((Lane::new(lane), Position(at.ok_or_else(wrong)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_says_that_a_table_has_begun_is_shown_to_nobody() {
        let lanes = [
            Lane::kafka("*", -1, None),
            Lane::kafka("orders", -1, Some("A")),
            Lane::kafka("orders", 0, Some("A")),
        ];
        let held: Checkpoint = lanes.into_iter().map(|lane| (lane, Position(7))).collect();
        assert_eq!(held.to_string(), "orders/0:7");
    }

    #[test]
    fn an_lsn_reads_as_postgres_writes_it() {
        for (text, value) in [("0/16B3748", 0x016B_3748), ("2A/F0000000", 0x002A_F000_0000), ("0/0", 0)] {
            assert_eq!(Lsn::parse(text), Some(Lsn(value)));
            assert_eq!(Lsn(value).to_string(), text);
        }
        for text in ["", "16B3748", "0/", "/1", "0/1FFFFFFFF", "x/1"] {
            assert_eq!(Lsn::parse(text), None, "{text}");
        }
    }
}
