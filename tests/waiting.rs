//! What tables wait for before they publish: their dead letters, which come when they are wanted, and never the other way round; and the
//! last word of their source. And what waits for them: rows, until where the table begins is published.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use alluvium::batch::{ChangeBatch, Flow, Gap};
use alluvium::budget::Budget;
use alluvium::error::{Error, Kind, Result};
use alluvium::pipeline::{self, Open, Opened, Settings};
use alluvium::position::{Checkpoint, Lane, Position};
use alluvium::sinks::memory::{MemorySink, MemoryTable};
use alluvium::sources::{Confirm, Source};
use alluvium::status::Board;
use alluvium::table::{Lanes, Limits, Table, TableId};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::rows::{rows, table};

/// A source that says what is written here.
struct Script {
    flows: VecDeque<Flow>,
    /// In the end it does not stand by it.
    takes_back: Option<TakesBack>,
}

/// Whether the pipeline is stopped at that moment, and how the source says it.
#[derive(Clone)]
struct TakesBack(CancellationToken, Kind);

impl Confirm for TakesBack {
    fn confirm(&self) -> Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> {
        Box::pin(async {
            if self.1 == Kind::Fenced {
                self.0.cancel();
            }
            Err(Error::new(self.1, "taken_back", "it was all wrong"))
        })
    }
}

impl Source for Script {
    async fn next(&mut self) -> Result<Option<Flow>> {
        Ok(self.flows.pop_front())
    }

    fn confirm(&self) -> Option<Arc<dyn Confirm>> {
        let takes_back = self.takes_back.clone()?;
        Some(Arc::new(takes_back))
    }

    async fn release(&mut self, _: &Checkpoint) -> Result<()> {
        Ok(())
    }
}

/// Marks, and before each so many runs of rows; before each of these, a letter.
#[derive(Clone, Default)]
struct World {
    marks: u64,
    runs: u64,
    /// Where the table begins, behind a gap.
    begins: Option<u64>,
    takes_back: Option<Kind>,
    stop: CancellationToken,
    table: MemoryTable,
    letters: MemoryTable,
}

impl Open for World {
    type Source = Script;
    type Sink = MemorySink;

    async fn open(&mut self) -> Result<Opened<Script, MemorySink>> {
        let mut script = VecDeque::new();
        if let Some(at) = self.begins {
            let (table, lane) = (TableId::new("t"), Lane::new("a/1"));
            script.push_back(Flow::Gap(Gap {
                table: table.clone(),
                lane: lane.clone(),
                missing: 0..at + 1,
            }));
            let mark = Checkpoint::from_iter([(lane, Position(at))]);
            script.push_back(Flow::Begin { table, mark });
        }
        for mark in 1..=self.marks {
            for _ in 0..self.runs {
                for name in ["letters", "t"] {
                    script.push_back(Flow::Rows(ChangeBatch::puts(TableId::new(name), rows(&[(mark as i64, 0)]))));
                }
            }
            let mark = [(Lane::new("a/0"), Position(mark))];
            script.push_back(Flow::Mark(Checkpoint::from_iter(mark)));
        }
        // A table that is full at each mark, and letters that are not.
        let full = Limits {
            rows: 1,
            ..Limits::default()
        };
        Ok(Opened {
            source: Script {
                flows: script,
                takes_back: self.takes_back.map(|kind| TakesBack(self.stop.clone(), kind)),
            },
            tables: vec![(of_topic(&table("t", full)), MemorySink::open(&self.table))],
            letters: Some((table("letters", Limits::default()), MemorySink::open(&self.letters))),
        })
    }
}

/// The lanes that it is fed from are those of one topic.
fn of_topic(table: &Table) -> Arc<Table> {
    let lanes = Lanes::Topics(vec!["a".to_owned()]);
    Arc::new(Table { lanes, ..table.clone() })
}

impl World {
    async fn run(self) -> Result<()> {
        let settings = Settings {
            pipeline: "p".into(),
            board: Board::default(),
            budget: Budget::new(64 << 10),
            grace: Duration::from_secs(1),
            tries_max: Some(1),
            seed: 0,
        };
        let stop = self.stop.clone();
        let run = pipeline::run(self, settings, stop);
        // Less than an interval: nobody waits for a deadline.
        let ended = timeout(Limits::default().interval / 2, run).await;
        ended.expect("nobody goes on")
    }
}

#[tokio::test(start_paused = true)]
async fn what_its_source_takes_back_is_not_published() {
    let world = World {
        marks: 2,
        runs: 1,
        begins: Some(6),
        takes_back: Some(Kind::Transient),
        ..World::default()
    };
    let error = world.clone().run().await.unwrap_err();
    assert_eq!(error.code, "taken_back");
    assert!(world.table.versions().is_empty() && world.letters.versions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_finds_the_lanes_with_another_is_a_stop() {
    let world = World {
        marks: 1,
        runs: 1,
        takes_back: Some(Kind::Fenced),
        ..World::default()
    };
    world.clone().run().await.unwrap();
    assert!(world.table.versions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn where_a_table_begins_is_published_before_its_first_row_and_without_any() {
    for marks in [0, 2] {
        let world = World {
            marks,
            runs: 1,
            begins: Some(6),
            ..World::default()
        };
        world.clone().run().await.unwrap();
        let versions = world.table.versions();
        assert_eq!(versions.len() as u64, 1 + marks);
        assert_eq!(versions[0].mark, Checkpoint::from_iter([(Lane::new("a/1"), Position(6))]));
        assert_eq!((versions[0].changes.len(), versions[0].gaps.len()), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn how_far_a_topic_was_read_without_a_row_is_said_at_the_end() {
    let world = World {
        marks: 3,
        ..World::default()
    };
    world.clone().run().await.unwrap();
    let [only] = &world.table.versions()[..] else {
        panic!("{:?}", world.table.versions())
    };
    assert_eq!(
        (only.changes.len(), &only.mark),
        (0, &Checkpoint::from_iter([(Lane::new("a/0"), Position(3))]))
    );
    assert!(world.letters.versions().is_empty(), "that there are no letters, nobody has to know");
}

#[tokio::test(start_paused = true)]
async fn letters_come_though_all_tables_wait_for_them() {
    for (marks, runs) in [(100, 1), (2, 100), (1, 100)] {
        let world = World {
            marks,
            runs,
            ..World::default()
        };
        world.clone().run().await.unwrap();
        for table in [world.table, world.letters] {
            let changes: usize = table.versions().iter().map(|version| version.changes.len()).sum();
            assert_eq!(changes as u64, marks * runs, "{marks} marks, {runs} runs before each");
        }
    }
}
