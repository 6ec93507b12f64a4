//! Compaction behind the writer: the same rows in fewer files, whatever happens meanwhile.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use alluvium::batch::{ChangeBatch, Op as ChangeOp};
use alluvium::error::{Kind, Result};
use alluvium::log::When;
use alluvium::position::{Lane, Position};
use alluvium::sinks::Sink;
use alluvium::sinks::delta::DeltaSink;
use alluvium::table::{Merge, Mode, Version};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use object_store::{ObjectStore, ObjectStoreExt};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::bed::{AMPLE, Bed, PIPELINE, mark, texts};
use super::changes::{Change, Model, batch, delete, put, random, schema};
use crate::support::delta::assert_replays;
use crate::support::store::{Fault, FaultyStore, Op, Rule, Wrong};

type Work = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// The actions of a version, as JSON.
async fn actions(bed: &Bed, version: Version) -> Vec<Value> {
    let path = format!("_delta_log/{version:020}.json");
    let bytes = bed.store.get(&path.as_str().into()).await.unwrap().bytes().await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn operation(actions: &[Value]) -> &str {
    let info = actions.iter().find_map(|action| action.get("commitInfo"));
    info.and_then(|info| info["operation"].as_str()).unwrap_or_default()
}

/// A version of a compaction says that no row has changed, and moves no mark.
fn must_only_move_rows(actions: &[Value]) {
    let files = actions
        .iter()
        .flat_map(|action| action.get("add").into_iter().chain(action.get("remove")));
    assert!(files.clone().count() > 0);
    assert!(files.into_iter().all(|file| file["dataChange"] == false), "{actions:?}");
    assert!(actions.iter().all(|action| action.get("txn").is_none()), "{actions:?}");
}

/// Runs the work so many steps far; None where it has ended.
async fn step(mut work: Work, steps: usize) -> Option<Work> {
    for _ in 0..steps {
        match futures::poll!(work.as_mut()) {
            Poll::Ready(_) => return None,
            Poll::Pending => tokio::task::yield_now().await,
        }
    }
    Some(work)
}

/// Commits these changes at a position.
async fn commit(sink: &mut DeltaSink, changes: &[Change], at: u64) -> Version {
    sink.write(batch(changes)).await.unwrap();
    sink.commit(&mark(&[("orders/0", at)])).await.unwrap()
}

/// Does all upkeep that is asked for.
async fn keep_up(sink: &mut DeltaSink) {
    if let Some(upkeep) = sink.upkeep() {
        upkeep.work.await.unwrap();
    }
}

/// The changes of a lane, and the table after each.
struct Changes {
    lane: &'static str,
    changes: Vec<(Change, Vec<String>)>,
}

impl Changes {
    /// Of `lanes` lanes, this is the `nth`: their keys do not meet.
    fn new(rng: &mut SmallRng, nth: usize, lanes: usize, count: u64) -> Self {
        let mut model = Model::default();
        let change = |serial| {
            let mut change = random(rng, &model, &["id"], serial);
            change.id = change.id * lanes as i64 + nth as i64;
            if lanes > 1 {
                // A truncation is for the whole table: not for tables with several lanes.
                change.body = change.body.or_else(|| Some("sent".to_owned()));
                change.op = if change.op == ChangeOp::Truncate {
                    ChangeOp::Delete
                } else {
                    change.op
                };
            }
            model.apply(&["id"], &change);
            (change, model.texts())
        };
        Self {
            lane: ["orders/0", "orders/1"][nth],
            changes: (0..count).map(change).collect(),
        }
    }
}

/// One writer of a lane, with the upkeep that it asked for.
struct Writer<'l> {
    lane: &'l Changes,
    sink: Option<DeltaSink>,
    work: Option<Work>,
}

impl Writer<'_> {
    /// How many changes the table holds.
    fn done(&self) -> usize {
        let at = self
            .sink
            .as_ref()
            .and_then(|sink| sink.checkpoint().get(&Lane::new(self.lane.lane)));
        at.map_or(0, |Position(at)| at as usize + 1)
    }

    fn has_ended(&self) -> bool {
        self.sink.is_some() && self.done() == self.lane.changes.len()
    }

    /// Writes and commits some changes.
    async fn turn(&mut self, rng: &mut SmallRng) -> Result<()> {
        let from = self.done();
        let to = (from + rng.random_range(1..6)).min(self.lane.changes.len());
        let changes: Vec<Change> = self.lane.changes[from..to].iter().map(|(change, _)| change.clone()).collect();
        let sink = self.sink.as_mut().expect("it is open");
        sink.write(batch(&changes)).await?;
        sink.commit(&mark(&[(self.lane.lane, to as u64 - 1)])).await?;
        if let Some(upkeep) = sink.upkeep() {
            self.work = Some(upkeep.work);
        }
        Ok(())
    }

    /// Upkeep goes on for a while, or is lost.
    async fn work(&mut self, rng: &mut SmallRng) {
        if let Some(work) = self.work.take() {
            self.work = match rng.random_range(0..10) {
                0 => None,
                1..5 => step(work, rng.random_range(0..12)).await,
                _ => step(work, 1000).await,
            };
        }
    }

    /// Ends in peace, or at once.
    fn end(&mut self, rng: &mut SmallRng) {
        if let Some(sink) = self.sink.take()
            && rng.random_bool(0.5)
        {
            sink.close();
        }
    }
}

/// What a run of a seed had of what it is to show.
#[derive(Debug, Default)]
struct Seen {
    compactions: usize,
    carried: usize,
    failures: usize,
    optimized: usize,
}

fn misbehave(store: &FaultyStore, rng: &mut SmallRng) {
    for (op, part, probability) in [(Op::Put, "", 0.03), (Op::Put, "_delta_log", 0.1), (Op::Get, "", 0.01)] {
        let wrong = Wrong::ALL[rng.random_range(0..Wrong::ALL.len())];
        let fault = match op {
            Op::Put if rng.random_bool(0.5) => Fault::FailAfter(wrong),
            Op::Put => Fault::Reject(wrong),
            _ => Fault::Reject(Wrong::Unreachable),
        };
        store.rule(Rule::new(op, part, fault).with_probability(probability));
    }
}

/// Writers, their compactions, deaths of both, other programs and bad days of the store, as a seed says. Every version is what its marks say.
async fn run(seed: u64, seen: &mut Seen) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let merge = if seed % 4 == 3 { Merge::Rewrite } else { Merge::Vectors };
    let mut bed = Bed::upsert(schema(), &["id"], merge);
    // Small files and no others; or no small files, so that those with deleted rows are written again.
    bed.table.layout.target_file_size = [128 << 20, 4_000][rng.random_range(0..2)];
    let lanes = rng.random_range(1..3);
    let lanes: Vec<Changes> = (0..lanes)
        .map(|nth| Changes::new(&mut rng, nth, lanes, 100 / lanes as u64))
        .collect();
    let store = FaultyStore::seeded(Arc::clone(&bed.store), seed);
    bed.open(AMPLE).await;
    if seed % 2 == 1 {
        misbehave(&store, &mut rng);
    }
    let store: Arc<dyn ObjectStore> = Arc::new(store);
    let share = [1, AMPLE][rng.random_range(0..2)];
    let writer = |lane| Writer {
        lane,
        sink: None,
        work: None,
    };
    let mut writers: Vec<Writer<'_>> = lanes.iter().map(writer).collect();
    let mut turns = 0;
    while !writers.iter().all(Writer::has_ended) {
        turns += 1;
        assert!(turns < 5_000, "seed {seed}: no end in sight");
        let who = rng.random_range(0..writers.len());
        let writer = &mut writers[who];
        if writer.sink.is_none() {
            writer.sink = bed.open_on(Arc::clone(&store), share).await.ok();
            seen.failures += usize::from(writer.sink.is_none());
            continue;
        }
        if writer.has_ended() {
            continue;
        }
        if let Err(error) = writer.turn(&mut rng).await {
            assert_ne!(error.kind, Kind::Bug, "seed {seed}: {error}");
            seen.failures += 1;
            writer.sink = None;
            continue;
        }
        writer.work(&mut rng).await;
        match rng.random_range(0..100) {
            0..8 => writer.end(&mut rng),
            8..14 => drop(bed.library(None).await.optimize().await.unwrap()),
            _ => {}
        }
    }
    check(&bed, &lanes, seed, seen).await;
}

async fn check(bed: &Bed, lanes: &[Changes], seed: u64, seen: &mut Seen) {
    let sink = bed.open(AMPLE).await;
    assert_replays(sink.log(), &bed.store).await;
    for version in 1..=sink.log().snapshot().version {
        let actions = actions(bed, version).await;
        let ours = actions.iter().any(|action| {
            action["commitInfo"]["engineInfo"]
                .as_str()
                .is_some_and(|by| by.starts_with("alluvium/"))
        });
        match (operation(&actions), ours) {
            ("OPTIMIZE", true) => {
                must_only_move_rows(&actions);
                seen.compactions += 1;
                let born_with_vector = |action: &&Value| action["add"].get("deletionVector").is_some();
                seen.carried += actions.iter().filter(born_with_vector).count();
            }
            ("OPTIMIZE", false) => seen.optimized += 1,
            _ => {}
        }
        let held = sink.log().at(When::Version(version)).await.unwrap().checkpoint(PIPELINE);
        let table = |lane: &Changes| match held.get(&Lane::new(lane.lane)) {
            Some(Position(at)) => lane.changes[at as usize].1.clone(),
            None => Vec::new(),
        };
        let mut expected = lanes.iter().map(table).collect::<Vec<_>>().concat();
        expected.sort();
        assert_eq!(bed.rows_at(version).await, expected, "seed {seed}, version {version} at {held}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_compacted_meanwhile_each_version_is_the_fold_up_to_its_marks() {
    let mut seen = Seen::default();
    for seed in 0..40 {
        run(seed, &mut seen).await;
    }
    println!("{seen:?}");
    let enough = seen.compactions > 60 && seen.carried > 30 && seen.failures > 40 && seen.optimized > 40;
    assert!(enough, "too little happened to mean anything: {seen:?}");
}

#[tokio::test(start_paused = true)]
async fn many_small_commits_make_few_files_and_every_version_stays() {
    for mode in [
        Mode::Append,
        Mode::Upsert {
            key: vec!["id".to_owned()],
            merge: Merge::Vectors,
        },
    ] {
        let bed = Bed::new(schema(), mode);
        let mut sink = bed.open(AMPLE).await;
        let mut versions = Vec::new();
        for at in 0..200 {
            versions.push(commit(&mut sink, &[put(at as i64, "x")], at).await);
            keep_up(&mut sink).await;
            let files = sink.log().snapshot().files.len();
            assert!(files <= 17, "{files} files after {at} commits of one");
        }
        assert_replays(sink.log(), &bed.store).await;
        for (at, version) in versions.iter().enumerate().step_by(20) {
            assert_eq!(bed.rows_at(*version).await.len(), at + 1, "version {version}");
        }
        assert_eq!(bed.rows_at(sink.log().snapshot().version).await.len(), 200);
        let history = sink.log().history(300).await.unwrap();
        let compactions = history.iter().filter(|entry| entry.operation.as_deref() == Some("OPTIMIZE"));
        assert!(compactions.count() > 15);
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_deleted_while_they_are_compacted_stay_deleted_and_can_still_be_found() {
    let bed = Bed::upsert(schema(), &["id"], Merge::Vectors);
    let mut sink = bed.open(AMPLE).await;
    for at in 0..8 {
        commit(&mut sink, &[put(at, "a"), put(at + 10, "b"), put(at + 20, "c")], at as u64).await;
    }
    // Before it was read, after that, and all that a file has.
    commit(&mut sink, &[delete(3), put(14, "before")], 8).await;
    let work = sink.upkeep().expect("there is something to join").work;
    commit(
        &mut sink,
        &[delete(5), delete(10), put(21, "meanwhile"), delete(7), delete(17), delete(27)],
        9,
    )
    .await;
    work.await.unwrap();
    let version = commit(&mut sink, &[delete(0), put(24, "last")], 10).await;
    let snapshot = sink.log().snapshot();
    assert_eq!(
        snapshot.version,
        version + 1,
        "the compaction is a version of its own, behind the commit"
    );
    must_only_move_rows(&actions(&bed, version + 1).await);
    let joined = snapshot.files.values().max_by_key(|file| file.rows).unwrap();
    assert_eq!((joined.rows, joined.deleted()), (Some(24 - 2 + 1), 3 + 3 + 2));
    let expected = |changed: &[Change]| {
        let mut model = Model::default();
        let first = (0..8).flat_map(|id| [put(id, "a"), put(id + 10, "b"), put(id + 20, "c")]);
        let then = [delete(3), put(14, "before"), delete(5), delete(10), put(21, "meanwhile")];
        let last = [delete(7), delete(17), delete(27), delete(0), put(24, "last")];
        first
            .chain(then)
            .chain(last)
            .chain(changed.iter().cloned())
            .for_each(|change| model.apply(&["id"], &change));
        model.texts()
    };
    assert_eq!(bed.rows_at(version).await, expected(&[]));
    assert_eq!(bed.rows_at(version + 1).await, expected(&[]));
    // The index leads to where the rows are now, from memory and from its cache.
    let mut changes = vec![put(1, "again"), delete(12), put(26, "again")];
    let newest = commit(&mut sink, &changes, 11).await;
    assert_eq!(bed.rows_at(newest).await, expected(&changes));
    sink.close();
    let mut sink = bed.open(AMPLE).await;
    changes.extend([put(2, "from the cache"), delete(15)]);
    let newest = commit(&mut sink, &changes[3..], 12).await;
    assert_eq!(bed.rows_at(newest).await, expected(&changes));
    assert_replays(sink.log(), &bed.store).await;
}

#[tokio::test(start_paused = true)]
async fn moments_are_found_as_if_nothing_had_been_compacted() {
    let bed = Bed::new(schema(), Mode::Append);
    let mut sink = bed.open(AMPLE).await;
    let mut versions = BTreeMap::new();
    for at in 0..60 {
        versions.insert(at, commit(&mut sink, &[put(at as i64, "x")], at).await);
        keep_up(&mut sink).await;
    }
    assert!(sink.log().snapshot().version > 65, "some versions are compactions");
    for (at, version) in versions {
        let found = sink.log().version_at(&When::Mark(mark(&[("orders/0", at)]))).await.unwrap();
        assert_eq!(found, version, "position {at}");
    }
    assert_eq!(sink.checkpoint(), &mark(&[("orders/0", 59)]));
}

#[tokio::test(start_paused = true)]
async fn switched_off_it_does_nothing() {
    let mut bed = Bed::upsert(schema(), &["id"], Merge::Vectors);
    bed.table.layout.auto_compact = false;
    let mut sink = bed.open(AMPLE).await;
    for at in 0..40 {
        let version = commit(&mut sink, &[put(at as i64, "x")], at).await;
        assert_eq!(version, at + 1);
        assert!(sink.upkeep().is_none());
    }
    assert_eq!(sink.log().snapshot().files.len(), 40);
}

#[tokio::test(start_paused = true)]
async fn files_are_joined_within_their_partition() {
    let fields = vec![Field::new("id", DataType::Int64, false), Field::new("part", DataType::Int64, true)];
    let schema = Arc::new(Schema::new(fields));
    let mut bed = Bed::new(Arc::clone(&schema), Mode::Append);
    bed.table.partition_by = vec!["part".to_owned()];
    let mut sink = bed.open(AMPLE).await;
    let mut expected = Vec::new();
    for at in 0..20 {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values((0..3).map(|row| at * 3 + row))),
            Arc::new(Int64Array::from(vec![Some(1), None, (at % 2 == 0).then_some(2)])),
        ];
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        expected.extend(texts(&rows));
        sink.write(ChangeBatch::puts(bed.table.id.clone(), rows)).await.unwrap();
        sink.commit(&mark(&[("orders/0", at as u64)])).await.unwrap();
        keep_up(&mut sink).await;
    }
    expected.sort();
    let snapshot = sink.log().snapshot();
    assert_eq!(bed.rows_at(snapshot.version).await, expected);
    let mut files: BTreeMap<_, usize> = BTreeMap::new();
    snapshot
        .files
        .values()
        .for_each(|file| *files.entry(file.partition_values["part"].clone()).or_default() += 1);
    assert_eq!(files.len(), 3);
    assert!(files.values().all(|&count| count < 10), "{files:?}");
}

#[tokio::test(start_paused = true)]
async fn files_with_many_deleted_rows_lose_them_and_others_keep_theirs() {
    let mut bed = Bed::upsert(schema(), &["id"], Merge::Vectors);
    bed.table.layout.target_file_size = 4_000; // No file of this test is small.
    let mut sink = bed.open(AMPLE).await;
    let many: Vec<Change> = (0..100).map(|id| put(id, "x")).collect();
    commit(&mut sink, &many, 0).await;
    let others: Vec<Change> = (100..200).map(|id| put(id, "y")).collect();
    commit(&mut sink, &others, 1).await;
    let gone: Vec<Change> = (0..29).chain(100..110).map(delete).collect();
    commit(&mut sink, &gone, 2).await;
    assert!(sink.upkeep().is_none(), "29 percent are not many");
    // Single files that change do not make it look again; eight do.
    for at in 3..11 {
        commit(&mut sink, &[delete(26 + at)], at as u64).await;
    }
    keep_up(&mut sink).await;
    commit(&mut sink, &[delete(99)], 11).await;
    let mut files: Vec<_> = sink
        .log()
        .snapshot()
        .files
        .values()
        .map(|file| (file.rows, file.deleted()))
        .collect();
    files.sort_unstable();
    assert_eq!(files, [(Some(63), 1), (Some(100), 10)]);
    assert_eq!(bed.rows_at(sink.log().snapshot().version).await.len(), 62 + 90);
}

#[tokio::test(start_paused = true)]
async fn of_two_writers_that_compact_the_same_files_one_gives_up() {
    for mode in [
        Mode::Append,
        Mode::Upsert {
            key: vec!["id".to_owned()],
            merge: Merge::Vectors,
        },
    ] {
        let bed = Bed::new(schema(), mode);
        let mut sinks = [bed.open(AMPLE).await, bed.open(AMPLE).await];
        for at in 0..10 {
            for (who, sink) in sinks.iter_mut().enumerate() {
                sink.write(batch(&[put(at * 2 + who as i64, "x")])).await.unwrap();
                sink.commit(&mark(&[(["a/0", "a/1"][who], at as u64)])).await.unwrap();
            }
        }
        for sink in &mut sinks {
            keep_up(sink).await;
        }
        for at in 10..13 {
            for (who, sink) in sinks.iter_mut().enumerate() {
                sink.write(batch(&[put(at * 2 + who as i64, "x"), put(at - 10, "replaced")]))
                    .await
                    .unwrap();
                sink.commit(&mark(&[(["a/0", "a/1"][who], at as u64)])).await.unwrap();
            }
        }
        let history = sinks[1].log().history(100).await.unwrap();
        let compactions = history.iter().filter(|entry| entry.operation.as_deref() == Some("OPTIMIZE"));
        assert_eq!(compactions.count(), 1);
        let rows = bed.rows_at(sinks[1].log().snapshot().version).await;
        assert_eq!(rows.len(), if bed.table.mode == Mode::Append { 26 + 6 } else { 26 });
        assert_replays(sinks[1].log(), &bed.store).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_whose_answer_was_an_error_is_found_out_by_the_next_commit() {
    for wrong in [Wrong::Unreachable, Wrong::AlreadyExists, Wrong::Denied] {
        let bed = Bed::upsert(schema(), &["id"], Merge::Vectors);
        let faulty = FaultyStore::over(Arc::clone(&bed.store));
        drop(bed.open(AMPLE).await);
        let mut sink = bed.open_on(Arc::new(faulty.clone()), AMPLE).await.unwrap();
        for at in 0..8 {
            commit(&mut sink, &[put(at, "a")], at as u64).await;
        }
        keep_up(&mut sink).await;
        // The version is made, the answer is an error, and it cannot be seen that it was made.
        let path = "_delta_log/00000000000000000010.json";
        faulty.rule(Rule::new(Op::Put, path, Fault::FailAfter(wrong)).times(1));
        faulty.rule(Rule::new(Op::Get, path, Fault::Reject(Wrong::Unreachable)).times(1));
        assert_eq!(commit(&mut sink, &[put(3, "b")], 8).await, 9);
        assert_eq!(sink.log().snapshot().version, 9, "nobody knows of it");
        assert_eq!(commit(&mut sink, &[delete(5), put(3, "c")], 9).await, 11);
        assert_eq!(operation(&actions(&bed, 10).await), "OPTIMIZE");
        assert_eq!(bed.rows_at(11).await.len(), 7);
        assert_eq!(commit(&mut sink, &[delete(6)], 10).await, 12, "and it is not offered again");
        assert_eq!(sink.log().snapshot().version, 12);
        assert_replays(sink.log(), &bed.store).await;
    }
}

#[tokio::test(start_paused = true)]
async fn files_that_waited_so_long_that_a_vacuum_may_have_taken_them_are_given_up() {
    let bed = Bed::new(schema(), Mode::Append);
    let mut sink = bed.open(AMPLE).await;
    for at in 0..8 {
        commit(&mut sink, &[put(at, "a")], at as u64).await;
    }
    keep_up(&mut sink).await;
    // Half of the 30 days for which the table keeps files that no version names.
    tokio::time::advance(std::time::Duration::from_secs(15 * 24 * 3600 + 1)).await;
    let version = commit(&mut sink, &[put(8, "a")], 8).await;
    assert_eq!(sink.log().snapshot().version, version, "nothing was published behind the commit");
    keep_up(&mut sink).await;
    let version = commit(&mut sink, &[put(9, "a")], 9).await;
    assert_eq!((sink.log().snapshot().version, sink.log().snapshot().files.len()), (version + 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_read_is_left_alone_and_holds_up_no_other() {
    let bed = Bed::new(schema(), Mode::Append);
    let mut sink = bed.open(AMPLE).await;
    for at in 0..8 {
        commit(&mut sink, &[put(at, "a")], at as u64).await;
    }
    let spoilt = sink.log().snapshot().files.keys().min().unwrap().clone();
    let path = object_store::path::Path::from(&*spoilt);
    let whole = bed.store.get(&path).await.unwrap().bytes().await.unwrap();
    bed.store.put(&path, vec![7; whole.len()].into()).await.unwrap();
    keep_up(&mut sink).await;
    for at in 8..16 {
        commit(&mut sink, &[put(at, "a")], at as u64).await;
    }
    keep_up(&mut sink).await;
    commit(&mut sink, &[put(16, "a")], 16).await;
    let files = &sink.log().snapshot().files;
    assert!(files.contains_key(&spoilt));
    assert_eq!(files.len(), 8 + 1 + 1, "those with the spoilt one, the others as one, and the last");
    bed.store.put(&path, whole.into()).await.unwrap();
    assert_eq!(bed.rows_at(sink.log().snapshot().version).await.len(), 17);
}

#[tokio::test]
async fn runs_that_end_behind_their_only_commit_leave_few_files_and_checkpoints() {
    for mode in [Mode::Append, upsert_by_id()] {
        let mut bed = Bed::new(schema(), mode);
        bed.table.properties.insert("delta.checkpointInterval".to_owned(), "10".to_owned());
        for run in 0..24 {
            let mut sink = bed.open(AMPLE).await;
            commit(&mut sink, &[put(run, "x")], run as u64).await;
            sink.tidy().await.unwrap();
            sink.close();
        }
        let sink = bed.open(AMPLE).await;
        let snapshot = sink.log().snapshot();
        assert!(snapshot.files.len() < 8, "{:?}", snapshot.files.keys());
        assert!(sink.log().checkpointed() >= 20);
        assert_eq!(bed.rows_at(snapshot.version).await.len(), 24);
    }
}

fn upsert_by_id() -> Mode {
    Mode::Upsert {
        key: vec!["id".to_owned()],
        merge: Merge::Vectors,
    }
}
