//! Versions by number, by time and by source position; and checkpoints, which must change nothing of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use alluvium::error::Kind;
use alluvium::log::{Change, Log, Outcome, When, maintain};
use alluvium::position::{Checkpoint, Lane, Position};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;

use crate::support::delta::{
    PIPELINE, append_table, assert_replays, change, data_file, facts_of, facts_of_library, library, library_at, made_up_file, mark, opened,
    row_numbers, upsert_table, url,
};
use crate::support::store::{Fault, FaultyStore, Op, Rule, Wrong};

fn in_memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

/// A table with one commit for each of these steps; a step moves some lanes to new positions. Returns the marks of each version.
async fn grown(store: &Arc<dyn ObjectStore>, steps: &[Vec<(String, u64)>]) -> (Log, Vec<Checkpoint>) {
    let mut log = opened(store, &append_table()).await;
    let mut marks = vec![Checkpoint::default()];
    for step in steps {
        let base = log.checkpoint();
        let lanes: Checkpoint = step.iter().map(|(lane, to)| (Lane::new(lane.as_str()), Position(*to))).collect();
        let change = Change {
            mark: base.clone().join(&lanes),
            base,
            operation: "STREAMING UPDATE",
            ..Change::default()
        };
        assert!(matches!(log.commit(&change).await, Ok(Outcome::Committed(_))));
        marks.push(log.checkpoint());
    }
    (log, marks)
}

/// The first version that covers a mark, by looking at all of them.
fn first_covering(marks: &[Checkpoint], wanted: &Checkpoint) -> Option<u64> {
    marks.iter().position(|mark| mark.covers(wanted)).map(|version| version as u64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_version_at_a_position_is_the_one_that_a_linear_search_finds(
        steps in prop::collection::vec(prop::collection::vec((0_u8..5, 1_u64..20), 1..3), 1..60),
        asked in prop::collection::vec((0_u8..5, 0_u64..400), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut at = BTreeMap::new();
            let steps: Vec<Vec<(String, u64)>> = steps.into_iter().map(|step| {
                let moved: BTreeMap<u8, u64> = step.into_iter().collect();
                moved.into_iter().map(|(lane, by)| {
                    let at = at.entry(lane).and_modify(|at| *at += by).or_insert(by);
                    (format!("orders/{lane}@id{lane}"), *at)
                }).collect()
            }).collect();
            let store = in_memory();
            let (log, marks) = grown(&store, &steps).await;
            for (lane, position) in asked {
                // By name, as people write it, and with the incarnation.
                for lane in [format!("orders/{lane}"), format!("orders/{lane}@id{lane}")] {
                    let full = Lane::new(if lane.contains('@') { lane.clone() } else { format!("{lane}@id{}", &lane[7..]) });
                    let expected = first_covering(&marks, &Checkpoint::from_iter([(full, Position(position))]));
                    let wanted = mark(&[(lane.as_str(), position)]);
                    match (log.version_at(&When::Mark(wanted)).await, expected) {
                        (Ok(found), Some(expected)) => assert_eq!(found, expected, "{lane}:{position} in {marks:?}"),
                        (Err(error), None) => assert!(["not_yet", "usage"].contains(&error.code), "{error}"),
                        (found, expected) => panic!("{lane}:{position}: {found:?}, expected {expected:?}"),
                    }
                }
            }
        });
    }
}

#[tokio::test]
async fn several_lanes_are_asked_for_together() {
    let store = in_memory();
    let step = |lanes: &[(&str, u64)]| lanes.iter().map(|(lane, at)| ((*lane).to_owned(), *at)).collect::<Vec<_>>();
    let (log, _) = grown(
        &store,
        &[
            step(&[("a/0", 5)]),
            step(&[("a/1", 5)]),
            step(&[("a/0", 9)]),
            step(&[("a/1", 9), ("a/0", 10)]),
        ],
    )
    .await;
    for (wanted, version) in [
        (mark(&[("a/0", 5)]), 1),
        (mark(&[("a/0", 5), ("a/1", 1)]), 2),
        (mark(&[("a/0", 6), ("a/1", 5)]), 3),
        (mark(&[("a/1", 6)]), 4),
    ] {
        assert_eq!(log.version_at(&When::Mark(wanted)).await.expect("a version"), version);
    }
    let error = log.version_at(&When::Mark(mark(&[("a/0", 11)]))).await.expect_err("not yet");
    assert_eq!((error.kind, error.code), (Kind::Transient, "not_yet"));
    assert!(error.to_string().contains("it holds a/0:10"), "it says how far it is: {error}");
    let error = log.version_at(&When::Mark(mark(&[("b/0", 1)]))).await.expect_err("no such lane");
    assert_eq!(error.code, "usage");
}

#[tokio::test]
async fn a_lane_of_two_incarnations_must_be_named_in_full() {
    let store = in_memory();
    let step = |lane: &str, at| vec![(lane.to_owned(), at)];
    let (log, _) = grown(&store, &[step("a/0@old", 50), step("a/0@new", 3)]).await;
    let error = log.version_at(&When::Mark(mark(&[("a/0", 2)]))).await.expect_err("which one?");
    assert!(
        error.to_string().contains("a/0@new") && error.to_string().contains("a/0@old"),
        "{error}"
    );
    assert_eq!(log.version_at(&When::Mark(mark(&[("a/0@new", 2)]))).await.expect("a version"), 2);
}

/// Moves the lane `a/0@A` of the log's pipeline, whoever has committed meanwhile.
async fn move_on(log: &mut Log, to: u64) {
    log.refresh().await.expect("the newest version");
    let change = Change {
        base: log.checkpoint(),
        mark: mark(&[("a/0@A", to)]),
        operation: "STREAMING UPDATE",
        ..Change::default()
    };
    assert!(matches!(log.commit(&change).await, Ok(Outcome::Committed(_))));
}

#[tokio::test]
async fn a_lane_of_two_pipelines_must_be_named_with_one_of_them() {
    let store = in_memory();
    let (mut old, _) = grown(&store, &[vec![("a/0@A".to_owned(), 9)]]).await;
    let mut new = Log::open_or_create(&url(), Arc::clone(&store), &append_table(), "new")
        .await
        .expect("the table opens");
    // The new name begins where the old one ended.
    move_on(&mut new, 9).await;
    move_on(&mut new, 19).await;
    move_on(&mut old, 29).await;
    let log = Log::open(&url(), store, "").await.expect("a log").expect("a table");
    let asked = |lane: &str, at| When::Mark(mark(&[(lane, at)]));
    for lane in ["a/0", "a/0@A"] {
        let error = log.version_at(&asked(lane, 5)).await.expect_err("of which pipeline?");
        for pipeline in [PIPELINE, "new"] {
            let named = format!("{pipeline}:{lane}");
            assert!(error.to_string().contains(&format!("{named}:5")), "{error}");
            assert!(log.version_at(&asked(&named, 5)).await.is_ok(), "what the message says helps");
        }
    }
    for (lane, at, version) in [("shop:a/0", 5, 1), ("new:a/0", 5, 2), ("new:a/0@A", 10, 3), ("shop:a/0@A", 10, 4)] {
        assert_eq!(log.version_at(&asked(lane, at)).await.expect("a version"), version, "{lane}:{at}");
        assert_eq!(log.part_of(&mark(&[(lane, at)])), mark(&[(lane, at)]));
    }
    assert_eq!(log.version_at(&asked("new:a/0", 20)).await.expect_err("not yet").code, "not_yet");
    for stranger in ["other:a/0", "new:a/0@B", "new:b/0"] {
        assert_eq!(log.version_at(&asked(stranger, 5)).await.expect_err("no such lane").code, "usage");
        assert!(log.part_of(&mark(&[(stranger, 5)])).is_empty(), "{stranger}");
    }
}

#[tokio::test]
async fn a_time_names_the_newest_version_made_by_then() {
    let store = in_memory();
    let steps: Vec<_> = (0..40).map(|n| vec![("a/0".to_owned(), n)]).collect();
    let (log, _) = grown(&store, &steps).await;
    let history = log.history(100).await.expect("a history");
    for entry in &history {
        assert_eq!(
            log.version_at(&When::Time(entry.timestamp_ms)).await.expect("a version"),
            entry.version
        );
    }
    let (oldest, newest) = (history.last().expect("one"), &history[0]);
    assert_eq!(
        log.version_at(&When::Time(newest.timestamp_ms + 1_000_000))
            .await
            .expect("a version"),
        40
    );
    let error = log
        .version_at(&When::Time(oldest.timestamp_ms - 1))
        .await
        .expect_err("before the table");
    assert_eq!(error.code, "usage");
    assert_eq!(log.version_at(&When::Version(41)).await.expect_err("not there").code, "usage");
}

/// Puts the next version of a log, as another program makes it.
async fn put_info(store: &Arc<dyn ObjectStore>, version: u64, info: &str) {
    let path = object_store::path::Path::from(format!("_delta_log/{version:020}.json"));
    let put = store.put(&path, format!(r#"{{"commitInfo":{info}}}"#).into());
    put.await.expect("put");
}

#[tokio::test]
async fn a_clock_that_is_behind_brings_no_version_to_a_time_before_those_it_follows() {
    let store = in_memory();
    let made = opened(&store, &append_table()).await.snapshot().timestamp_ms;
    // Of another program, of which some machines have another time. In-commit timestamps count before what else a commit says.
    for (version, info) in [
        (1, format!(r#"{{"timestamp":{}}}"#, made + 1000)),
        (2, format!(r#"{{"timestamp":{}}}"#, made - 4000)),
        (3, format!(r#"{{"timestamp":{},"inCommitTimestamp":{}}}"#, made + 9000, made - 3000)),
        (4, format!(r#"{{"timestamp":{}}}"#, made + 2000)),
        (5, format!(r#"{{"timestamp":{}}}"#, made + 3000)),
    ] {
        put_info(&store, version, &info).await;
    }
    let log = Log::open(&url(), Arc::clone(&store), "").await.expect("opens").expect("a table");
    for (after_ms, version) in [
        (0, 0),
        (999, 0),
        (1000, 1),
        (1001, 2),
        (1002, 3),
        (1999, 3),
        (2000, 4),
        (2999, 4),
        (3000, 5),
        (9000, 5),
    ] {
        let found = log.version_at(&When::Time(made + after_ms)).await.expect("a version");
        assert_eq!(found, version, "{after_ms} ms after the first");
    }
    for before in [1, 3500, 100_000] {
        let error = log.version_at(&When::Time(made - before)).await.expect_err("before the table");
        assert!(
            error.code == "usage" && error.to_string().contains("its oldest, 0, was made at"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_version_comes_after_the_checkpoint_though_another_programs_clock_is_between_them() {
    let store = in_memory();
    let made = opened(&store, &append_table()).await.snapshot().timestamp_ms;
    // The clock of the one that has the checkpoint is an hour ahead.
    for (version, says) in [(1, made + 3_600_000), (2, made)] {
        put_info(&store, version, &format!(r#"{{"timestamp":{says}}}"#)).await;
    }
    checkpoint_by_hand(&store, 1, &Checkpoint::default()).await;
    let mut log = opened(&store, &append_table()).await;
    assert_eq!(log.checkpointed(), 1);
    log.commit(&change(None, 0)).await.expect("a commit");
    assert_eq!(log.snapshot().timestamp_ms, made + 3_600_002);
}

#[tokio::test]
async fn behind_a_version_of_the_last_of_all_times_others_come() {
    let store = in_memory();
    opened(&store, &append_table()).await;
    put_info(&store, 1, &format!(r#"{{"timestamp":{}}}"#, i64::MAX)).await;
    let mut log = opened(&store, &append_table()).await;
    log.commit(&change(None, 0)).await.expect("a commit");
    assert_eq!(log.snapshot().timestamp_ms, i64::MAX);
}

#[tokio::test]
async fn whatever_clocks_others_have_times_grow_and_each_names_its_version() {
    let store = in_memory();
    let made = opened(&store, &append_table()).await.snapshot().timestamp_ms;
    // One clock is an hour ahead, long before most; one is an hour behind.
    let says = |version: u64| match version {
        2 => made + 3_600_000,
        4 => made - 3_600_000,
        version => made + 1000 * version as i64,
    };
    for version in 1..=100 {
        put_info(&store, version, &format!(r#"{{"timestamp":{}}}"#, says(version))).await;
    }
    let mut log = opened(&store, &append_table()).await;
    // One of our own comes behind theirs.
    let ours = log.commit(&change(None, 0)).await.expect("a commit");
    assert!(matches!(ours, Outcome::Committed(101)), "{ours:?}");
    let mut expected = vec![made];
    for version in 1..=101 {
        let ours = version == 101;
        expected.push(
            says(version)
                .min(if ours { made } else { i64::MAX })
                .max(expected[version as usize - 1] + 1),
        );
    }
    assert_eq!(expected[2], made + 3_600_000);
    let history = log.history(1000).await.expect("a history");
    for (entry, limit) in history.iter().zip(1..) {
        assert_eq!(entry.timestamp_ms, expected[entry.version as usize], "version {}", entry.version);
        // However short a history is, it tells the same.
        let short = log.history(limit).await.expect("a history");
        assert_eq!(short.last().map(|oldest| oldest.timestamp_ms), Some(entry.timestamp_ms));
        let found = log.version_at(&When::Time(entry.timestamp_ms)).await.expect("a version");
        assert_eq!(found, entry.version);
    }
    let found = log.version_at(&When::Time(made + 50_000)).await.expect("a version");
    assert_eq!(found, 1, "version 2 came later, as it says, and so did all that follow it");
}

#[tokio::test]
async fn every_old_version_is_what_the_library_says_with_and_without_checkpoints() {
    let store = in_memory();
    let mut log = opened(&store, &upsert_table()).await;
    let mut files = Vec::new();
    for version in 0..30_u64 {
        let file = made_up_file(0..10);
        let mut change = Change {
            adds: vec![file.clone()],
            ..change(version.checked_sub(1), version)
        };
        files.push(file.path);
        match version % 3 {
            1 => change.vectors = BTreeMap::from([(Arc::clone(&files[0]), row_numbers([version % 10]))]),
            2 => change.removes = vec![files.remove(1)],
            _ => {}
        }
        assert!(matches!(log.commit(&change).await, Ok(Outcome::Committed(_))));
        if version % 7 == 6 {
            maintain::checkpoint(&url(), Arc::clone(&store), version)
                .await
                .expect("a checkpoint");
            assert_replays(&log, &store).await;
        }
    }
    let fresh = Log::open(&url(), Arc::clone(&store), PIPELINE)
        .await
        .expect("opens")
        .expect("a table");
    for version in 0..=30 {
        let ours = facts_of(&fresh.at(When::Version(version)).await.expect("a state"));
        assert_eq!(
            ours,
            facts_of_library(
                &library_at(&store, Some(version)).await,
                &BTreeMap::from([("alluvium/shop/orders/0".to_owned(), 0)])
            )
            .await
        );
    }
    // A log of which the beginning was cleaned away, as far as a checkpoint allows.
    for version in 0..20 {
        store
            .delete(&format!("_delta_log/{version:020}.json").as_str().into())
            .await
            .expect("deleted");
    }
    let late = Log::open(&url(), Arc::clone(&store), PIPELINE)
        .await
        .expect("opens")
        .expect("a table");
    assert_eq!(facts_of(late.snapshot()), facts_of(fresh.snapshot()));
    assert_eq!(
        facts_of(&late.at(When::Version(25)).await.expect("a state")),
        facts_of(&fresh.at(When::Version(25)).await.expect("a state"))
    );
    assert_eq!(
        late.version_at(&When::Mark(mark(&[("orders/0", 26)]))).await.expect("a version"),
        27
    );
    assert_eq!(late.history(100).await.expect("a history").last().expect("one").version, 20);
    assert!(late.at(When::Version(3)).await.is_err(), "what is gone is not guessed");
}

#[tokio::test(start_paused = true)]
async fn c13_a_checkpoint_that_dies_leaves_the_table_as_it_was() {
    for wrong in [Wrong::Unreachable, Wrong::Full] {
        for skip in 0..3 {
            for after in [false, true] {
                let inner = in_memory();
                let faults = FaultyStore::over(Arc::clone(&inner));
                let store: Arc<dyn ObjectStore> = Arc::new(faults.clone());
                let mut log = opened(&store, &append_table()).await;
                for step in 0..5_u64 {
                    log.commit(&Change {
                        adds: vec![made_up_file(0..10)],
                        ..change(step.checked_sub(1), step)
                    })
                    .await
                    .expect("a commit");
                }
                let fault = if after { Fault::FailAfter(wrong) } else { Fault::Reject(wrong) };
                for op in [Op::Put, Op::Part, Op::Complete] {
                    faults.rule(Rule::new(op, "checkpoint", fault.clone()).after(skip));
                }
                let _ = maintain::checkpoint(&url(), Arc::clone(&store), 5).await;
                faults.heal();
                assert_replays(&log, &inner).await;
                log.commit(&change(Some(4), 9)).await.expect("and it goes on");
                maintain::checkpoint(&url(), Arc::clone(&store), 6).await.expect("a checkpoint");
                assert_replays(&log, &inner).await;
                assert!(
                    faults
                        .calls()
                        .iter()
                        .any(|(op, path)| *op == Op::Put && path.as_ref().contains("checkpoint")),
                    "it was put through the faulty store"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_checkpoint_keeps_null_partition_values_and_other_programs_transactions() {
    let store = in_memory();
    let table = alluvium::table::Table {
        partition_by: vec!["v".to_owned()],
        ..append_table()
    };
    let mut log = opened(&store, &table).await;
    let mut file = made_up_file(0..10);
    file.partition_values = BTreeMap::from([("v".to_owned(), None)]);
    log.commit(&Change {
        adds: vec![file.clone()],
        ..change(None, 9)
    })
    .await
    .expect("a commit");
    let foreign = deltalake::kernel::Action::Txn(deltalake::kernel::Transaction::new("spark-query", 7));
    crate::support::delta::foreign_commit(&store, vec![foreign]).await;
    maintain::checkpoint(&url(), Arc::clone(&store), 2).await.expect("a checkpoint");
    let again = Log::open(&url(), Arc::clone(&store), PIPELINE)
        .await
        .expect("opens")
        .expect("a table");
    assert_eq!(*again.snapshot().files[&file.path].partition_values, file.partition_values);
    assert_eq!(again.checkpoint(), mark(&[("orders/0", 9)]));
    let theirs = library(&store).await;
    let at = theirs
        .snapshot()
        .expect("a state")
        .transaction_version(theirs.log_store().as_ref(), "spark-query")
        .await
        .expect("marks");
    assert_eq!(at, Some(7));
}

/// A checkpoint without files, as a few lines of JSON: the library reads the whole log for one, which takes a minute.
async fn checkpoint_by_hand(store: &Arc<dyn ObjectStore>, version: u64, marks: &Checkpoint) {
    let file = |name: &str| object_store::path::Path::from(format!("_delta_log/{name}"));
    let first = store.get(&file("00000000000000000000.json")).await.expect("version 0");
    let first = String::from_utf8(first.bytes().await.expect("bytes").to_vec()).expect("text");
    let mut lines = vec![format!(r#"{{"checkpointMetadata":{{"version":{version}}}}}"#)];
    lines.extend(first.lines().filter(|line| !line.contains("commitInfo")).map(str::to_owned));
    let mark = |(lane, at): (&Lane, Position)| {
        format!(
            r#"{{"txn":{{"appId":"alluvium/{PIPELINE}/{}","version":{}}}}}"#,
            lane.as_str(),
            at.0
        )
    };
    lines.extend(marks.iter().map(mark));
    let name = format!("{version:020}.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json");
    store.put(&file(&name), lines.join("\n").into()).await.expect("put");
    let hint = format!(r#"{{"version":{version},"size":{}}}"#, lines.len());
    store.put(&file("_last_checkpoint"), hint.into()).await.expect("put");
}

#[tokio::test]
async fn a_position_is_found_with_few_reads_in_a_long_log() {
    const VERSIONS: u64 = 100_000;
    let (inner, made) = (in_memory(), Instant::now());
    let mut log = opened(&inner, &append_table()).await;
    // One lane moves with every version, one with every thousandth.
    for step in 0..VERSIONS {
        let base = log.checkpoint();
        let mut lanes = mark(&[("busy/0", step)]);
        if step % 1_000 == 0 {
            lanes.set(Lane::new("rare/0"), Position(step));
        }
        let change = Change {
            mark: base.clone().join(&lanes),
            base,
            operation: "STREAMING UPDATE",
            ..Change::default()
        };
        log.commit(&change).await.expect("a commit");
    }
    checkpoint_by_hand(&inner, VERSIONS, &log.checkpoint()).await;
    let faults = FaultyStore::over(Arc::clone(&inner));
    let log = Log::open(&url(), Arc::new(faults.clone()), PIPELINE)
        .await
        .expect("opens")
        .expect("a table");
    println!("a log of {VERSIONS} versions, in {:?}", made.elapsed());
    assert_eq!(log.snapshot().version, VERSIONS);
    let before = faults.calls().len();
    assert!(before <= 5, "{before} reads to open it");
    let began = Instant::now();
    assert_eq!(
        log.version_at(&When::Mark(mark(&[("busy/0", 54_321)]))).await.expect("a version"),
        54_322
    );
    let (busy, busy_time) = (faults.calls().len() - before, began.elapsed());
    assert_eq!(
        log.version_at(&When::Mark(mark(&[("rare/0", 71_001)]))).await.expect("a version"),
        72_001
    );
    let rare = faults.calls().len() - before - busy;
    println!("a position among {VERSIONS} versions: {busy} reads in {busy_time:?}; of a lane that seldom moves: {rare} reads");
    assert!(busy <= 20, "{busy} reads for a lane that moves with every version");
    assert!(rare <= 20 * 16, "{rare} reads for a lane that seldom moves");
    let commit = inner
        .get(&format!("_delta_log/{:020}.json", 54_321).as_str().into())
        .await
        .expect("there");
    let commit = commit.bytes().await.expect("bytes");
    let made = commit
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .find_map(|action| action["commitInfo"]["timestamp"].as_i64());
    let before = faults.calls().len();
    let found = log.version_at(&When::Time(made.expect("it says when it was made"))).await;
    assert_eq!(found.expect("a version"), 54_321);
    let timed = faults.calls().len() - before;
    assert!(timed <= 21, "{timed} reads for a time");
}

#[tokio::test]
async fn checkpoints_of_every_kind_are_read() {
    let store = in_memory();
    let mut log = opened(&store, &append_table()).await;
    for step in 0..5_u64 {
        log.commit(&Change {
            adds: vec![made_up_file(0..10)],
            ..change(step.checked_sub(1), step)
        })
        .await
        .expect("a commit");
    }
    maintain::checkpoint(&url(), Arc::clone(&store), 5).await.expect("a checkpoint");
    let classic = object_store::path::Path::from("_delta_log/00000000000000000005.checkpoint.parquet");
    let bytes = store.get(&classic).await.expect("there").bytes().await.expect("bytes");
    for version in 0..=4_u64 {
        store
            .delete(&format!("_delta_log/{version:020}.json").as_str().into())
            .await
            .expect("deleted");
    }
    let named = |name: &str| object_store::path::Path::from(format!("_delta_log/{name}"));
    let put = async |name: &str, bytes: bytes::Bytes| store.put(&named(name), bytes.into()).await.map(drop).expect("put");
    let same = async |kind: &str| {
        let again = Log::open(&url(), Arc::clone(&store), PIPELINE)
            .await
            .expect("opens")
            .expect("a table");
        assert_eq!(facts_of(again.snapshot()), facts_of(log.snapshot()), "{kind}");
    };
    same("classic").await;
    // A hint that cannot be read, and one to a checkpoint that is not there.
    for hint in ["{", r#"{"version":4,"size":1}"#, r#"{"version":77,"size":1}"#] {
        put("_last_checkpoint", hint.into()).await;
        same(hint).await;
    }
    // In two files: one alone is no checkpoint, and the log does not reach back without it.
    store.delete(&classic).await.expect("deleted");
    put("00000000000000000005.checkpoint.0000000001.0000000002.parquet", bytes.clone()).await;
    assert!(Log::open(&url(), Arc::clone(&store), PIPELINE).await.is_err());
    put("00000000000000000005.checkpoint.0000000002.0000000002.parquet", bytes.clone()).await;
    same("classic, in two files").await;
    // The second kind: a file that names others.
    for part in 1..=2 {
        store
            .delete(&named(&format!(
                "00000000000000000005.checkpoint.000000000{part}.0000000002.parquet"
            )))
            .await
            .expect("deleted");
    }
    put("_sidecars/one.parquet", bytes).await;
    let top = r#"{"checkpointMetadata":{"version":5}}"#.to_owned()
        + "\n"
        + r#"{"sidecar":{"path":"one.parquet","sizeInBytes":1,"modificationTime":1}}"#;
    put(
        "00000000000000000005.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json",
        top.into(),
    )
    .await;
    same("with a sidecar").await;
}

#[tokio::test]
async fn between_a_wish_for_new_rows_and_the_copy_old_positions_are_still_answered() {
    let store = in_memory();
    let mut log = opened(&store, &append_table()).await;
    let slot = Lane::new("slot@1");
    let at = |at: u64| Checkpoint::from_iter([(slot.clone(), Position(at))]);
    for (base, to, ids) in [(Checkpoint::default(), 10, 0..1), (at(10), 20, 1..2)] {
        let change = Change {
            adds: vec![data_file(&store, ids, "a").await],
            base,
            mark: at(to),
            ..Change::default()
        };
        log.commit(&change).await.expect("a commit");
    }
    log.forget(&slot).await.expect("a commit");
    for (asked, version) in [(10, 1), (15, 2), (20, 2)] {
        assert_eq!(
            log.version_at(&When::Mark(at(asked))).await.expect("a version"),
            version,
            "at {asked}"
        );
    }
    let error = log.version_at(&When::Mark(at(21))).await.expect_err("beyond all that it held");
    assert!(error.code == "not_yet" && error.to_string().contains("0/14"), "{error}");
}

#[tokio::test]
async fn a_writer_whose_rows_are_wished_anew_is_told_so_and_not_of_another_writer() {
    let store = in_memory();
    let (mut log, slot) = (opened(&store, &append_table()).await, Lane::new("slot@1"));
    let at = |at: u64| Checkpoint::from_iter([(slot.clone(), Position(at))]);
    let change = |base: Checkpoint, to: u64| Change {
        base,
        mark: at(to),
        ..Change::default()
    };
    log.commit(&change(Checkpoint::default(), 10)).await.expect("a commit");
    opened(&store, &append_table()).await.forget(&slot).await.expect("a commit");
    let error = log.commit(&change(at(10), 20)).await.expect_err("it holds nothing any more");
    assert_eq!((error.kind, error.code), (Kind::Fenced, "told_again"), "{error}");
    assert!(error.to_string().contains("alluvium resnapshot"), "{error}");
}
