//! Tables wait for their dead letters, which come when they are wanted; and never the other way round.

use std::collections::VecDeque;
use std::time::Duration;

use alluvium::batch::{ChangeBatch, Flow};
use alluvium::budget::Budget;
use alluvium::error::Result;
use alluvium::pipeline::{self, Open, Opened, Settings};
use alluvium::position::{Checkpoint, Lane, Position};
use alluvium::sinks::memory::{MemorySink, MemoryTable};
use alluvium::sources::Source;
use alluvium::status::Board;
use alluvium::table::{Limits, TableId};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::rows::{rows, table};

/// A source that says what is written here.
struct Script(VecDeque<Flow>);

impl Source for Script {
    async fn next(&mut self) -> Result<Option<Flow>> {
        Ok(self.0.pop_front())
    }

    async fn release(&mut self, _: &Checkpoint) -> Result<()> {
        Ok(())
    }
}

/// Marks, and before each so many runs of rows; before each of these, a letter.
struct World {
    marks: u64,
    runs: u64,
    table: MemoryTable,
    letters: MemoryTable,
}

impl Open for World {
    type Source = Script;
    type Sink = MemorySink;

    async fn open(&mut self) -> Result<Opened<Script, MemorySink>> {
        let mut script = VecDeque::new();
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
            source: Script(script),
            tables: vec![(table("t", full), MemorySink::open(&self.table))],
            letters: Some((table("letters", Limits::default()), MemorySink::open(&self.letters))),
        })
    }
}

#[tokio::test(start_paused = true)]
async fn letters_come_though_all_tables_wait_for_them() {
    for (marks, runs) in [(100, 1), (2, 100), (1, 100)] {
        let (table, letters) = (MemoryTable::default(), MemoryTable::default());
        let world = World {
            marks,
            runs,
            table: table.clone(),
            letters: letters.clone(),
        };
        let settings = Settings {
            pipeline: "p".into(),
            board: Board::default(),
            budget: Budget::new(64 << 10),
            grace: Duration::from_secs(1),
            tries_max: Some(1),
            seed: 0,
        };
        let run = pipeline::run(world, settings, CancellationToken::new());
        // Less than an interval: nobody waits for a deadline.
        let ended = timeout(Limits::default().interval / 2, run).await;
        assert!(ended.is_ok(), "{marks} marks, {runs} runs before each: nobody goes on");
        ended.unwrap().unwrap();
        for table in [table, letters] {
            let changes: usize = table.versions().iter().map(|version| version.changes.len()).sum();
            assert_eq!(changes as u64, marks * runs);
        }
    }
}
