//! A pipeline that dies in the middle of a commit, and the one that comes after it: nothing is lost, nothing is there twice.

use std::sync::Arc;
use std::time::Duration;

use alluvium::budget::Budget;
use alluvium::error::Result;
use alluvium::log::Log;
use alluvium::pipeline::{self, Open, Opened, Settings};
use alluvium::position::{Checkpoint, Lane, Position};
use alluvium::sinks::Sink;
use alluvium::sinks::delta::DeltaSink;
use alluvium::sources::Resume;
use alluvium::sources::memory::{Event, MemoryLanes, MemorySource};
use alluvium::status::Board;
use alluvium::table::{Limits, Merge, Mode, TableId};
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::bed::{AMPLE, Bed, PIPELINE, mark};
use crate::support::rows::{puts, rows, schema};
use crate::support::store::{Fault, FaultyStore, Op, Rule};

const LANE: &str = "a/0";
const EVENTS: u64 = 6;
/// Longer than any test waits.
const NEVER: Duration = Duration::from_secs(3600);

/// A table that is fed from lanes in memory, a version for each event.
struct Pipe<'a> {
    bed: &'a Bed,
    store: FaultyStore,
    lanes: MemoryLanes,
    /// Where the source was opened.
    opened_at: Vec<Checkpoint>,
}

impl Open for &mut Pipe<'_> {
    type Source = MemorySource;
    type Sink = DeltaSink;

    async fn open(&mut self) -> Result<Opened<MemorySource, DeltaSink>> {
        let sink = self.bed.open_on(Arc::new(self.store.clone()), AMPLE).await?;
        self.opened_at.push(sink.checkpoint().clone());
        let resume = Resume::from([(self.bed.table.id.clone(), sink.checkpoint().clone())]);
        Ok(Opened {
            source: MemorySource::open(&self.lanes, resume),
            tables: vec![(Arc::new(self.bed.table.clone()), sink)],
            letters: None,
        })
    }
}

impl<'a> Pipe<'a> {
    fn of(bed: &'a Bed) -> Self {
        let lanes = MemoryLanes::default();
        for number in 1..=EVENTS as i64 {
            let changes = vec![(TableId::new("orders"), rows(&[(number, number * 10)]), puts(1))];
            let position = Position(number as u64);
            lanes.push(&Lane::new(LANE), Event { position, changes });
        }
        Self {
            bed,
            store: FaultyStore::over(Arc::clone(&bed.store)),
            lanes,
            opened_at: Vec::new(),
        }
    }

    async fn run(&mut self) -> Result<()> {
        let settings = Settings {
            pipeline: PIPELINE.into(),
            board: Board::default(),
            budget: Budget::new(1 << 20),
            grace: Duration::ZERO,
            tries_max: None,
            seed: 1,
        };
        pipeline::run(self, settings, CancellationToken::new()).await
    }

    /// Runs until the commit of version 3 does not come back, and dies there.
    async fn dies_at_version_3(&mut self, fault: Fault) {
        self.store.rule(Rule::new(Op::Put, "00000000000000000003.json", fault));
        timeout(NEVER / 2, self.run())
            .await
            .expect_err("it hangs in the commit, and is killed");
        self.store.heal();
    }

    /// Runs on, and checks that each event is there once, and may be forgotten at the source.
    async fn goes_on_from(&mut self, position: u64) {
        self.run().await.unwrap();
        assert_eq!(self.opened_at.last(), Some(&mark(&[(LANE, position)])), "opened where the log says");
        let log = Log::open(&self.bed.table.location, Arc::clone(&self.bed.store), PIPELINE)
            .await
            .unwrap()
            .unwrap();
        let mut texts: Vec<String> = (1..=EVENTS).map(|number| format!("{number}|{}", number * 10)).collect();
        texts.sort();
        assert_eq!(self.bed.rows_at(log.snapshot().version).await, texts);
        assert_eq!(self.lanes.released(), mark(&[(LANE, EVENTS)]));
    }

    async fn data_files(&self) -> usize {
        let listed = self.bed.store.list_with_delimiter(None).await.unwrap().objects;
        listed
            .iter()
            .filter(|object| object.location.as_ref().ends_with(".parquet"))
            .count()
    }
}

fn beds() -> [Bed; 3] {
    [
        Bed::new(schema(), Mode::Append),
        Bed::upsert(schema(), &["key"], Merge::Vectors),
        Bed::upsert(schema(), &["key"], Merge::Rewrite),
    ]
    .map(|mut bed| {
        bed.table.limits = Limits {
            rows: 1,
            ..bed.table.limits
        };
        bed
    })
}

#[tokio::test(start_paused = true)]
async fn c1_dead_between_the_data_file_and_its_commit_only_an_orphan_is_left() {
    for bed in beds() {
        let mut pipe = Pipe::of(&bed);
        pipe.dies_at_version_3(Fault::Slow(NEVER)).await;
        assert!(bed.store.head(&"_delta_log/00000000000000000003.json".into()).await.is_err());
        assert_eq!(pipe.data_files().await, 3, "two of versions, and one of none");
        pipe.goes_on_from(2).await;
        assert_eq!(
            pipe.data_files().await,
            EVENTS as usize + 1,
            "one for each event, and the orphan for vacuum"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn c2_dead_between_the_commit_and_its_acknowledgement_nothing_is_written_twice() {
    for bed in beds() {
        let mut pipe = Pipe::of(&bed);
        pipe.dies_at_version_3(Fault::SlowAfter(NEVER)).await;
        bed.store
            .head(&"_delta_log/00000000000000000003.json".into())
            .await
            .expect("it is made");
        let released = pipe.lanes.released().get(&Lane::new(LANE));
        assert!(released < Some(Position(3)), "and the source was not told: {released:?}");
        pipe.goes_on_from(3).await;
        assert_eq!(pipe.data_files().await, EVENTS as usize, "one for each event, and none beside them");
    }
}
