//! Log cleanup by other programs: they may remove versions behind a checkpoint, and sometimes remove more than they may.

use std::ops::Range;
use std::sync::Arc;

use alluvium::error::Kind;
use alluvium::log::{Change, Log, Outcome, When, maintain};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::support::delta::{
    PIPELINE, append_table, assert_replays, change, facts_of, facts_of_library, library, made_up_file, mark, opened, url,
};
use crate::support::store::{Fault, FaultyStore, Op, Rule};

/// Versions of the table: one, and one for each step.
const STEPS: u64 = 20;

/// A table with a file for each step, and checkpoints at these versions.
async fn grown(checkpoints: &[u64]) -> (Arc<dyn ObjectStore>, Log) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut log = opened(&store, &append_table()).await;
    for step in 0..STEPS {
        let change = Change {
            adds: vec![made_up_file(0..10)],
            ..change(step.checked_sub(1), step)
        };
        assert!(matches!(log.commit(&change).await, Ok(Outcome::Committed(_))));
    }
    for &version in checkpoints {
        maintain::checkpoint(&url(), Arc::clone(&store), version)
            .await
            .expect("a checkpoint");
    }
    (store, log)
}

async fn remove(store: &Arc<dyn ObjectStore>, names: impl IntoIterator<Item = String>) {
    for name in names {
        store.delete(&Path::from(format!("_delta_log/{name}"))).await.expect("deleted");
    }
}

fn commits(versions: Range<u64>) -> impl Iterator<Item = String> {
    versions.map(|version| format!("{version:020}.json"))
}

async fn open(store: &Arc<dyn ObjectStore>) -> alluvium::error::Result<Option<Log>> {
    Log::open(&url(), Arc::clone(store), PIPELINE).await
}

#[tokio::test]
async fn c14_a_log_without_its_beginning_is_opened_at_its_checkpoint_and_written_on() {
    for kept_from in [15, 16, 20, 21] {
        let checkpoint = if kept_from > 16 { 20 } else { 15 };
        let (store, whole) = grown(&[15, 20]).await;
        remove(&store, commits(0..kept_from)).await;
        if checkpoint == 20 {
            remove(&store, [format!("{:020}.checkpoint.parquet", 15)]).await;
        }
        let mut log = Log::open_or_create(&url(), Arc::clone(&store), &append_table(), PIPELINE)
            .await
            .unwrap_or_else(|e| panic!("commits from {kept_from} on: {e}"));
        assert_eq!(facts_of(log.snapshot()), facts_of(whole.snapshot()), "commits from {kept_from} on");
        assert_eq!(log.checkpoint(), mark(&[("orders/0", STEPS - 1)]));
        // With the newest version's own file gone, nothing tells whether the table is still the same: that is asked of a person.
        if kept_from <= STEPS {
            let next = log.commit(&change(Some(STEPS - 1), STEPS)).await.expect("a commit");
            assert!(matches!(next, Outcome::Committed(version) if version == STEPS + 1));
            assert_replays(&log, &store).await;
        }
    }
}

#[tokio::test]
async fn c14_what_was_removed_is_named_and_what_is_left_is_found() {
    let (store, whole) = grown(&[10]).await;
    remove(&store, commits(0..10)).await;
    let log = open(&store).await.expect("opens").expect("a table");
    // Gone, by number, by time and by position: said so, and by none answered with something else.
    for version in [0, 3, 9] {
        let error = log.at(When::Version(version)).await.expect_err("gone");
        assert_eq!((error.kind, error.code), (Kind::Config, "usage"), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&format!("version {version} of the table {}", url())) && text.contains("can be read is 10"),
            "{text}"
        );
    }
    let history = log.history(100).await.expect("a history");
    assert_eq!(history.last().expect("one").version, 10, "as far back as it goes");
    let oldest_ms = history.last().expect("one").timestamp_ms;
    let error = log
        .version_at(&When::Time(oldest_ms - 1))
        .await
        .expect_err("older than all that is left");
    assert_eq!(error.code, "usage", "{error}");
    // Left: the checkpoint's own version and all behind it.
    for version in 10..=STEPS {
        let state = log.at(When::Version(version)).await.expect("a state");
        assert_eq!(
            facts_of(&state),
            facts_of(&whole.at(When::Version(version)).await.expect("a state"))
        );
        let found = log.version_at(&When::Mark(mark(&[("orders/0", version - 1)]))).await;
        assert_eq!(found.expect("a version"), version);
    }
    // A position that version 4 was the first to hold is held by the oldest that is left, with more.
    for position in [0, 3, 8] {
        let error = log
            .version_at(&When::Mark(mark(&[("orders/0", position)])))
            .await
            .expect_err("gone");
        assert_eq!((error.kind, error.code), (Kind::Config, "usage"), "{error}");
        let text = error.to_string();
        assert!(text.contains("its oldest, 10, holds orders/0:9"), "{text}");
    }
}

#[tokio::test]
async fn c14_the_oldest_version_left_answers_for_what_it_holds_and_for_what_it_brought() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut log = opened(&store, &append_table()).await;
    for (base, to) in [(None, 4), (Some(4), 9)] {
        log.commit(&change(base, to)).await.expect("a commit");
    }
    maintain::checkpoint(&url(), Arc::clone(&store), 2).await.expect("a checkpoint");
    remove(&store, commits(0..2)).await;
    let log = open(&store).await.expect("opens").expect("a table");
    for (position, found) in [(4, None), (5, Some(2)), (9, Some(2))] {
        let answer = log.version_at(&When::Mark(mark(&[("orders/0", position)]))).await;
        assert_eq!(answer.ok(), found, "at {position}");
    }
    // By another program's version, which says nothing of what it brought: only what it holds is known.
    let text = r#"{"commitInfo":{"timestamp":1,"operation":"SET TBLPROPERTIES"}}"#;
    let path = Path::from(format!("_delta_log/{:020}.json", 3));
    store.put(&path, text.into()).await.expect("put");
    maintain::checkpoint(&url(), Arc::clone(&store), 3).await.expect("a checkpoint");
    remove(&store, commits(2..3)).await;
    let log = open(&store).await.expect("opens").expect("a table");
    for (position, found) in [(5, None), (9, Some(3))] {
        let answer = log.version_at(&When::Mark(mark(&[("orders/0", position)]))).await;
        assert_eq!(answer.ok(), found, "at {position}");
    }
}

#[tokio::test]
async fn c14_a_hole_behind_the_checkpoint_stops_and_says_which_version_is_missing() {
    for hole in [11, 15, 19] {
        let (store, mut running) = grown(&[10]).await;
        remove(&store, commits(hole..hole + 1)).await;
        let error = open(&store).await.expect_err("a state with a hole is no state");
        assert_eq!((error.kind, error.code), (Kind::Data, "bad_log"));
        let text = error.to_string();
        assert!(
            text.contains(&format!("version {hole} of {}", url())) && text.contains("restore"),
            "{text}"
        );
        // Who had the table open knows its state, and goes on.
        let next = running.commit(&change(Some(STEPS - 1), STEPS)).await.expect("a commit");
        assert!(matches!(next, Outcome::Committed(_)));
    }
}

#[tokio::test]
async fn c14_a_log_without_its_beginning_and_without_a_checkpoint_is_not_taken_for_a_new_table() {
    for names in [vec![], vec![format!("{:020}.checkpoint.parquet", 10)]] {
        let (store, _) = grown(if names.is_empty() { &[] } else { &[10] }).await;
        remove(&store, commits(0..5)).await;
        remove(&store, names).await;
        for error in [
            open(&store).await.expect_err("no state"),
            Log::open_or_create(&url(), Arc::clone(&store), &append_table(), PIPELINE)
                .await
                .expect_err("nor is one made"),
        ] {
            assert_eq!((error.kind, error.code), (Kind::Data, "bad_log"), "{error}");
            assert!(error.to_string().contains("version 0 of"), "{error}");
        }
    }
}

#[tokio::test]
async fn c14_a_version_is_read_from_the_newest_checkpoint_before_it() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let every = ("delta.checkpointInterval".to_owned(), "3".to_owned());
    let mut table = append_table();
    table.properties = [every].into();
    let mut log = opened(&store, &table).await;
    for step in 0..500_u64 {
        let change = change(step.checked_sub(1), step);
        assert!(matches!(log.commit(&change).await, Ok(Outcome::Committed(_))));
    }
    for version in [3, 7, 480] {
        maintain::checkpoint(&url(), Arc::clone(&store), version)
            .await
            .expect("a checkpoint");
    }
    // Between the first two checkpoints versions are missing: no matter behind the second, near it and far from it.
    remove(&store, commits(0..7)).await;
    for version in [7, 9, 406, 407, 408, 479, 480, 481] {
        let state = log.at(When::Version(version)).await.unwrap_or_else(|e| panic!("{version}: {e}"));
        assert_eq!(state.checkpoint(PIPELINE), mark(&[("orders/0", version - 1)]));
    }
    assert_eq!(log.at(When::Version(5)).await.expect_err("gone").code, "bad_log");
}

#[tokio::test]
async fn c14_a_checkpoint_that_cannot_be_read_stops_unless_the_log_does_without_it() {
    let (store, whole) = grown(&[10]).await;
    let checkpoint = Path::from(format!("_delta_log/{:020}.checkpoint.parquet", 10));
    store.put(&checkpoint, "PAR1 and no more".into()).await.expect("put");
    let error = open(&store).await.expect_err("unreadable");
    assert_eq!((error.kind, error.code), (Kind::Data, "bad_log"));
    assert!(error.to_string().contains(checkpoint.as_ref()), "{error}");
    assert!(error.to_string().contains("remove it if all commits"), "{error}");
    // An operator removes it: all commits are there. The next one mends the hint for other readers.
    remove(&store, [format!("{:020}.checkpoint.parquet", 10)]).await;
    maintain::checkpoint(&url(), Arc::clone(&store), 15).await.expect("a checkpoint");
    let log = open(&store).await.expect("opens").expect("a table");
    assert_eq!(facts_of(log.snapshot()), facts_of(whole.snapshot()));
    assert_eq!(
        facts_of(log.snapshot()),
        facts_of_library(&library(&store).await, &[("alluvium/shop/orders/0".to_owned(), 0)].into()).await
    );
}

#[tokio::test]
async fn c14_a_log_is_read_right_where_the_store_lists_all_of_it_wherever_a_list_is_to_begin() {
    let (store, whole) = grown(&[5, 10]).await;
    let faults = FaultyStore::over(Arc::clone(&store));
    faults.rule(Rule::new(Op::List, "", Fault::Careless));
    let careless: Arc<dyn ObjectStore> = Arc::new(faults);
    assert_replays(&open(&careless).await.expect("opens").expect("a table"), &careless).await;
    // A clean-up that was interrupted left the oldest ones.
    remove(&store, commits(6..10)).await;
    let log = open(&careless).await.expect("opens").expect("a table");
    assert_eq!(facts_of(log.snapshot()), facts_of(whole.snapshot()));
    let history = log.history(13).await.expect("a history");
    assert_eq!(history.last().expect("one").version, 10, "as far back as it goes");
    for version in [10, 12] {
        let state = log.at(When::Version(version)).await.expect("a state");
        assert_eq!(state.checkpoint(PIPELINE), mark(&[("orders/0", version - 1)]));
    }
}
