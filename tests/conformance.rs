//! The contracts of `Source` and `Sink`, as lists of checks. A new end is done when it passes its list.

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium::batch::{ChangeBatch, Flow};
use alluvium::log::Log;
use alluvium::position::{Checkpoint, Lane, Position};
use alluvium::sinks::Sink;
use alluvium::sinks::delta::DeltaSink;
use alluvium::sinks::memory::{MemorySink, MemoryTable};
use alluvium::sources::memory::{Event, MemoryLanes, MemorySource};
use alluvium::sources::{Resume, Source};
use alluvium::table::{Merge, Mode, TableId};

use crate::sink::bed::{AMPLE, Bed};
use crate::support::rows::{pairs, puts, rows, schema};

pub fn at(lanes: &[(&str, u64)]) -> Checkpoint {
    lanes.iter().map(|&(lane, at)| (Lane::new(lane), Position(at))).collect()
}

/// What a sink's list needs: a way to open it anew on the same table, and what readers of the table see.
pub trait SinkUnderTest {
    type Sink: Sink;
    async fn open(&self) -> Self::Sink;
    /// Rows of the newest version as (key, value), in any order.
    async fn read(&self) -> Vec<(i64, i64)>;
    async fn versions(&self) -> usize;
}

fn batch(pairs: &[(i64, i64)]) -> ChangeBatch {
    ChangeBatch::puts(TableId::new("t"), rows(pairs))
}

async fn sorted<T: SinkUnderTest>(test: &T) -> Vec<(i64, i64)> {
    let mut read = test.read().await;
    read.sort_unstable();
    read
}

pub async fn a_sink_publishes_rows_and_mark_together<T: SinkUnderTest>(test: &T) {
    let before = test.versions().await;
    let mut sink = test.open().await;
    sink.write(batch(&[(1, 10), (2, 20)])).await.unwrap();
    assert!(test.read().await.is_empty(), "staged rows are seen by nobody");
    sink.commit(&at(&[("a/0", 5)])).await.unwrap();
    assert_eq!(sorted(test).await, [(1, 10), (2, 20)]);
    assert_eq!(sink.checkpoint(), &at(&[("a/0", 5)]));
    assert_eq!(test.versions().await, before + 1);
    assert_eq!(test.open().await.checkpoint(), &at(&[("a/0", 5)]), "and it is found again");
}

pub async fn a_sink_forgets_what_was_not_committed<T: SinkUnderTest>(test: &T) {
    let held = test.read().await;
    let mut sink = test.open().await;
    sink.write(batch(&[(7, 70)])).await.unwrap();
    drop(sink);
    assert_eq!(test.read().await, held);
    let sink = test.open().await;
    assert_eq!(sink.checkpoint(), &at(&[("a/0", 5)]));
}

pub async fn a_sink_publishes_a_mark_alone<T: SinkUnderTest>(test: &T) {
    let held = sorted(test).await;
    let mut sink = test.open().await;
    sink.commit(&at(&[("a/0", 9)])).await.unwrap();
    assert_eq!(sorted(test).await, held);
    assert_eq!(test.open().await.checkpoint(), &at(&[("a/0", 9)]));
}

pub async fn of_two_sinks_one_wins<T: SinkUnderTest>(test: &T) {
    let (mut first, mut second) = (test.open().await, test.open().await);
    first.write(batch(&[(100, 1)])).await.unwrap();
    second.write(batch(&[(100, 2)])).await.unwrap();
    first.commit(&at(&[("a/0", 12)])).await.unwrap();
    let lost = second
        .commit(&at(&[("a/0", 13)]))
        .await
        .expect_err("the second writer on the lane is fenced");
    assert_eq!(lost.kind, alluvium::error::Kind::Fenced);
    assert!(test.read().await.contains(&(100, 1)) && !test.read().await.contains(&(100, 2)));
}

pub async fn the_list_of_sinks<T: SinkUnderTest>(test: &T) {
    a_sink_publishes_rows_and_mark_together(test).await;
    a_sink_forgets_what_was_not_committed(test).await;
    a_sink_publishes_a_mark_alone(test).await;
    of_two_sinks_one_wins(test).await;
}

/// What a source's list needs: three events on one lane at rising positions, for the tables `even` and `odd`, and a way to open it.
pub trait SourceUnderTest {
    type Source: Source;
    async fn open(&self, resume: Resume) -> Self::Source;
    fn lane(&self) -> Lane;
    /// Position and (table, key) of each row there is, in source order.
    fn expected(&self) -> Vec<(Position, TableId, i64)>;
}

fn resume(even: Checkpoint, odd: Checkpoint) -> Resume {
    BTreeMap::from([(TableId::new("even"), even), (TableId::new("odd"), odd)])
}

/// Everything a source hands over, with the mark behind each row.
async fn read_all<S: Source>(mut source: S) -> Vec<(TableId, i64, Checkpoint)> {
    let (mut read, mut since_mark, mut last) = (Vec::new(), Vec::new(), Checkpoint::default());
    while let Some(flow) = source.next().await.unwrap() {
        match flow {
            Flow::Rows(batch) => since_mark.extend(pairs(&batch.rows).into_iter().map(|(key, _)| (batch.table.clone(), key))),
            Flow::Mark(mark) => {
                assert!(mark.covers(&last), "marks never go back");
                read.extend(since_mark.drain(..).map(|(table, key)| (table, key, mark.clone())));
                last = mark;
            }
            other => panic!("nothing has changed: {other:?}"),
        }
    }
    assert!(since_mark.is_empty(), "rows without a mark behind them");
    read
}

pub async fn a_source_hands_over_everything_in_order_under_its_marks<T: SourceUnderTest>(test: &T) {
    let read = read_all(test.open(resume(Checkpoint::default(), Checkpoint::default())).await).await;
    for table in ["even", "odd"].map(TableId::new) {
        let keys: Vec<i64> = read.iter().filter(|row| row.0 == table).map(|row| row.1).collect();
        let expected: Vec<i64> = test.expected().iter().filter(|row| row.1 == table).map(|row| row.2).collect();
        assert_eq!(keys, expected);
    }
    for (table, key, mark) in &read {
        let position = test.expected().iter().find(|row| row.1 == *table && row.2 == *key).unwrap().0;
        assert!(mark.get(&test.lane()).unwrap() >= position, "the mark behind a row contains it");
    }
}

pub async fn a_source_starts_behind_what_each_table_holds<T: SourceUnderTest>(test: &T) {
    let positions: Vec<Position> = test.expected().iter().map(|row| row.0).collect();
    for &even in &positions {
        for &odd in &positions {
            let held = |position| Checkpoint::from_iter([(test.lane(), position)]);
            let mut read: Vec<_> = read_all(test.open(resume(held(even), held(odd))).await)
                .await
                .into_iter()
                .map(|(t, k, _)| (t, k))
                .collect();
            let beyond = |row: &&(Position, TableId, i64)| row.0 > if row.1.as_str() == "even" { even } else { odd };
            let mut expected: Vec<_> = test.expected().iter().filter(beyond).map(|row| (row.1.clone(), row.2)).collect();
            read.sort_unstable();
            expected.sort_unstable();
            assert_eq!(read, expected, "even holds {even}, odd holds {odd}");
        }
    }
}

pub async fn the_list_of_sources<T: SourceUnderTest>(test: &T) {
    a_source_hands_over_everything_in_order_under_its_marks(test).await;
    a_source_starts_behind_what_each_table_holds(test).await;
}

// ---- the ends in memory ----

impl SinkUnderTest for MemoryTable {
    type Sink = MemorySink;

    async fn open(&self) -> MemorySink {
        MemorySink::open(self)
    }

    async fn read(&self) -> Vec<(i64, i64)> {
        MemoryTable::versions(self)
            .iter()
            .flat_map(|version| version.changes.iter().flat_map(|(rows, _)| pairs(rows)))
            .collect()
    }

    async fn versions(&self) -> usize {
        MemoryTable::versions(self).len()
    }
}

struct InMemory(MemoryLanes);

impl SourceUnderTest for InMemory {
    type Source = MemorySource;

    async fn open(&self, resume: Resume) -> MemorySource {
        MemorySource::open(&self.0, resume)
    }

    fn lane(&self) -> Lane {
        Lane::new("a/0")
    }

    fn expected(&self) -> Vec<(Position, TableId, i64)> {
        let events = self.0.events().remove(&self.lane()).unwrap();
        let rows = |event: &Event| -> Vec<_> {
            let position = event.position;
            event
                .changes
                .iter()
                .flat_map(|(t, r, _)| pairs(r).into_iter().map(move |(key, _)| (position, t.clone(), key)))
                .collect()
        };
        events.iter().flat_map(rows).collect()
    }
}

#[tokio::test]
async fn the_memory_sink_conforms() {
    the_list_of_sinks(&MemoryTable::default()).await;
}

#[tokio::test]
async fn the_memory_source_conforms() {
    let lanes = MemoryLanes::default();
    for (position, table, key) in [(3, "even", 2), (5, "odd", 1), (6, "even", 4), (9, "odd", 3)] {
        let changes = vec![(TableId::new(table), rows(&[(key, 0)]), puts(1))];
        lanes.push(
            &Lane::new("a/0"),
            Event {
                position: Position(position),
                changes,
            },
        );
    }
    the_list_of_sources(&InMemory(lanes)).await;
}

// ---- the Delta sink ----

impl SinkUnderTest for Bed {
    type Sink = DeltaSink;

    async fn open(&self) -> DeltaSink {
        Bed::open(self, AMPLE).await
    }

    async fn read(&self) -> Vec<(i64, i64)> {
        let version = SinkUnderTest::versions(self).await as u64;
        let number = |text: &str| text.trim().parse::<i64>().unwrap();
        let pair = |row: &String| row.split_once('|').map(|(key, value)| (number(key), number(value))).unwrap();
        self.rows_at(version).await.iter().map(pair).collect()
    }

    async fn versions(&self) -> usize {
        let log = Log::open(&self.table.location, Arc::clone(&self.store), "").await.unwrap();
        log.map_or(0, |log| log.snapshot().version as usize)
    }
}

#[tokio::test]
async fn the_delta_sink_conforms_in_every_mode() {
    the_list_of_sinks(&Bed::new(schema(), Mode::Append)).await;
    for merge in [Merge::Vectors, Merge::Rewrite] {
        the_list_of_sinks(&Bed::upsert(schema(), &["key"], merge)).await;
    }
}
