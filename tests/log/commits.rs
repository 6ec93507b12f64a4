//! What a commit makes of a table: files, vectors and marks, as this log, its replay and the Delta library see them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use alluvium::error::Kind;
use alluvium::log::{Change, Log, Outcome};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use crate::support::delta::{
    PIPELINE, append_table, assert_replays, change, data_file, library, library_at, made_up_file, mark, opened, row_numbers, rows_of,
    upsert_table, url,
};

fn in_memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

async fn committed(log: &mut Log, change: &Change) -> u64 {
    match log.commit(change).await.expect("a commit") {
        Outcome::Committed(version) => version,
        conflict => panic!("{conflict:?}"),
    }
}

#[tokio::test]
async fn rows_and_their_mark_are_one_version() {
    let store = in_memory();
    let mut log = opened(&store, &append_table()).await;
    assert_eq!(log.snapshot().version, 0);
    let first = Change {
        adds: vec![data_file(&store, 0..10, "a").await],
        ..change(None, 9)
    };
    assert_eq!(committed(&mut log, &first).await, 1);
    assert_eq!(log.checkpoint(), mark(&[("orders/0", 9)]));
    let second = Change {
        adds: vec![data_file(&store, 10..15, "b").await],
        ..change(Some(9), 14)
    };
    assert_eq!(committed(&mut log, &second).await, 2);
    assert_replays(&log, &store).await;
    let expected: BTreeMap<i64, String> = (0..15).map(|id| (id, format!("{}{id}", if id < 10 { "a" } else { "b" }))).collect();
    assert_eq!(rows_of(library(&store).await).await, expected);
}

#[tokio::test]
async fn a_mark_alone_is_a_version() {
    let store = in_memory();
    let mut log = opened(&store, &append_table()).await;
    assert_eq!(committed(&mut log, &change(None, 41)).await, 1);
    assert_replays(&log, &store).await;
    assert_eq!(log.checkpoint(), mark(&[("orders/0", 41)]));
}

#[tokio::test]
async fn vectors_are_united_and_old_versions_keep_theirs() {
    let store = in_memory();
    let mut log = opened(&store, &upsert_table()).await;
    let (old, other) = (data_file(&store, 0..100, "a").await, data_file(&store, 100..110, "a").await);
    committed(
        &mut log,
        &Change {
            adds: vec![old.clone(), other.clone()],
            ..change(None, 109)
        },
    )
    .await;
    let vectors = BTreeMap::from([
        (Arc::clone(&old.path), row_numbers(10..20)),
        (Arc::clone(&other.path), row_numbers([0])),
    ]);
    let update = Change {
        adds: vec![data_file(&store, 10..20, "B").await],
        vectors,
        ..change(Some(109), 120)
    };
    let second = committed(&mut log, &update).await;
    // Rows that are deleted already may be named again.
    let vectors = BTreeMap::from([(Arc::clone(&old.path), row_numbers(15..30))]);
    let third = committed(
        &mut log,
        &Change {
            vectors,
            ..change(Some(120), 121)
        },
    )
    .await;

    assert_replays(&log, &store).await;
    assert_eq!(*log.vector(&old.path).await.expect("a vector"), row_numbers(10..30));
    let mut fresh = Log::open(&url(), Arc::clone(&store), PIPELINE)
        .await
        .expect("opens")
        .expect("a table");
    assert_eq!(*fresh.vector(&old.path).await.expect("a vector"), row_numbers(10..30));
    assert_eq!(*fresh.vector(&other.path).await.expect("a vector"), row_numbers([0]));

    let at_second = rows_of(library_at(&store, Some(second)).await).await;
    let expected: BTreeMap<i64, String> = (0..110)
        .filter(|id| *id != 100)
        .map(|id| (id, format!("{}{id}", if (10..20).contains(&id) { "B" } else { "a" })))
        .collect();
    assert_eq!(at_second, expected);
    let at_third = rows_of(library_at(&store, Some(third)).await).await;
    assert_eq!(at_third, expected.into_iter().filter(|(id, _)| !(20..30).contains(id)).collect());
}

#[tokio::test]
async fn a_file_is_born_with_a_vector() {
    let store = in_memory();
    let mut log = opened(&store, &upsert_table()).await;
    let mut born = data_file(&store, 0..20, "s").await;
    born.deleted = row_numbers([0, 3, 19]);
    let mut gone = data_file(&store, 50..52, "x").await;
    gone.deleted = row_numbers(0..2);
    committed(
        &mut log,
        &Change {
            adds: vec![born.clone(), gone.clone()],
            ..change(None, 20)
        },
    )
    .await;
    assert_replays(&log, &store).await;
    assert!(
        !log.snapshot().files.contains_key(&gone.path),
        "a file without rows is no part of the table"
    );
    let expected: BTreeMap<i64, String> = (0..20)
        .filter(|id| ![0, 3, 19].contains(id))
        .map(|id| (id, format!("s{id}")))
        .collect();
    assert_eq!(rows_of(library(&store).await).await, expected);
    // And it can lose more rows.
    let vectors = BTreeMap::from([(Arc::clone(&born.path), row_numbers([1]))]);
    committed(
        &mut log,
        &Change {
            vectors,
            ..change(Some(20), 21)
        },
    )
    .await;
    assert_eq!(*log.vector(&born.path).await.expect("a vector"), row_numbers([0, 1, 3, 19]));
    assert_eq!(rows_of(library(&store).await).await.len(), 16);
}

#[tokio::test]
async fn a_file_of_which_all_rows_are_deleted_is_removed() {
    let store = in_memory();
    let mut log = opened(&store, &upsert_table()).await;
    let file = data_file(&store, 0..4, "a").await;
    committed(
        &mut log,
        &Change {
            adds: vec![file.clone()],
            ..change(None, 3)
        },
    )
    .await;
    for (base, rows) in [(3, 0..2), (4, 2..4)] {
        let vectors = BTreeMap::from([(Arc::clone(&file.path), row_numbers(rows))]);
        committed(
            &mut log,
            &Change {
                vectors,
                ..change(Some(base), base + 1)
            },
        )
        .await;
    }
    assert!(log.snapshot().files.is_empty());
    assert_replays(&log, &store).await;
}

#[tokio::test]
async fn all_vectors_of_a_commit_lie_in_one_file_and_take_64_bits() {
    let store = in_memory();
    let mut log = opened(&store, &upsert_table()).await;
    let beyond_32_bits = (1_u64 << 33) + 5;
    let mut large = made_up_file(0..10);
    large.rows = beyond_32_bits + 1;
    large.stats = format!(r#"{{"numRecords":{}}}"#, large.rows).into();
    let small = made_up_file(10..20);
    committed(
        &mut log,
        &Change {
            adds: vec![large.clone(), small.clone()],
            ..change(None, 1)
        },
    )
    .await;
    let deleted = row_numbers([7, beyond_32_bits]);
    let vectors = BTreeMap::from([
        (Arc::clone(&large.path), deleted.clone()),
        (Arc::clone(&small.path), row_numbers([1, 2])),
    ]);
    committed(
        &mut log,
        &Change {
            vectors,
            ..change(Some(1), 2)
        },
    )
    .await;

    assert_replays(&log, &store).await;
    let mut fresh = Log::open(&url(), Arc::clone(&store), PIPELINE)
        .await
        .expect("opens")
        .expect("a table");
    assert_eq!(*fresh.vector(&large.path).await.expect("a vector"), deleted);
    assert_eq!(*fresh.vector(&small.path).await.expect("a vector"), row_numbers([1, 2]));
    let files: Vec<_> = futures::TryStreamExt::try_collect(store.list(None))
        .await
        .map(|all: Vec<object_store::ObjectMeta>| {
            all.into_iter()
                .filter(|meta| meta.location.as_ref().starts_with("deletion_vector_"))
                .collect()
        })
        .expect("a list");
    assert_eq!(files.len(), 1);
}

#[tokio::test]
async fn statistics_survive_a_vector_as_they_were_written() {
    let store = in_memory();
    let mut log = opened(&store, &upsert_table()).await;
    let mut file = made_up_file(0..10);
    // A number that a float would not hold, and a text with an escape.
    file.stats = r#"{"numRecords":10,"minValues":{"id":9007199254740993,"v":"\u00e9"},"maxValues":{"id":9007199254740995}}"#.into();
    committed(
        &mut log,
        &Change {
            adds: vec![file.clone()],
            ..change(None, 1)
        },
    )
    .await;
    let vectors = BTreeMap::from([(Arc::clone(&file.path), row_numbers([1]))]);
    committed(
        &mut log,
        &Change {
            vectors,
            ..change(Some(1), 2)
        },
    )
    .await;
    let stats = log.snapshot().files[&file.path].stats.clone().expect("statistics");
    assert!(stats.contains(r#""minValues":{"id":9007199254740993,"v":"\u00e9"}"#), "{stats}");
    assert!(
        stats.contains(r#""tightBounds":false"#) && stats.contains(r#""numRecords":10"#),
        "{stats}"
    );
}

#[tokio::test]
async fn a_version_says_what_it_holds() {
    let store = in_memory();
    let mut log = opened(&store, &upsert_table()).await;
    let notes = BTreeMap::from([("gap".to_owned(), serde_json::json!([5, 9]))]);
    let metrics = BTreeMap::from([("numSourceRows", 12)]);
    let first = Change {
        adds: vec![made_up_file(0..10)],
        metrics,
        notes: notes.clone(),
        operation: "MERGE",
        ..change(None, 9)
    };
    committed(&mut log, &first).await;
    committed(
        &mut log,
        &Change {
            removes: vec![Arc::clone(&first.adds[0].path)],
            ..change(Some(9), 12)
        },
    )
    .await;

    let history = log.history(10).await.expect("a history");
    let said = |index: usize| history[index].said.clone().expect("a version of ours");
    assert_eq!(history.iter().map(|entry| entry.version).collect::<Vec<_>>(), [2, 1, 0]);
    assert_eq!(
        history
            .iter()
            .map(|entry| entry.operation.as_deref().expect("a name"))
            .collect::<Vec<_>>(),
        ["STREAMING UPDATE", "MERGE", "CREATE TABLE"]
    );
    assert_eq!((said(1).pipeline.as_str(), &said(1).notes), (PIPELINE, &notes));
    assert_eq!(
        (said(1).positions["orders/0"], said(0).positions["orders/0"]),
        ((None, 9), (Some(10), 12))
    );
    assert_eq!(
        (
            history[1].metrics["numSourceRows"],
            history[1].metrics["numOutputRows"],
            history[1].metrics["numAddedFiles"]
        ),
        (12, 10, 1)
    );
    assert_eq!(history[0].metrics["numRemovedFiles"], 1);
    assert!(
        history.windows(2).all(|pair| pair[0].timestamp_ms > pair[1].timestamp_ms),
        "times rise with the versions"
    );
    assert!(history[0].engine.as_deref().is_some_and(|engine| engine.starts_with("alluvium/")));
    assert_eq!(log.history(1).await.expect("a history").len(), 1);
}

#[tokio::test]
async fn a_change_of_what_is_not_in_the_table_is_our_fault() {
    let store = in_memory();
    let mut log = opened(&store, &upsert_table()).await;
    let file = made_up_file(0..10);
    committed(
        &mut log,
        &Change {
            adds: vec![file.clone()],
            ..change(None, 9)
        },
    )
    .await;
    let rows_beyond = BTreeMap::from([(Arc::clone(&file.path), row_numbers([10]))]);
    let no_such_file = BTreeMap::from([("part-none.parquet".into(), row_numbers([0]))]);
    for wrong in [
        Change {
            vectors: rows_beyond,
            ..change(Some(9), 10)
        },
        Change {
            vectors: no_such_file,
            ..change(Some(9), 10)
        },
        Change {
            removes: vec!["part-none.parquet".into()],
            ..change(Some(9), 10)
        },
        change(Some(9), 8),
    ] {
        assert_eq!(log.commit(&wrong).await.expect_err("refused").kind, Kind::Bug);
    }
    assert_eq!(log.snapshot().version, 1);
    assert_replays(&log, &store).await;
}

#[tokio::test]
async fn a_log_that_was_not_checked_does_not_commit() {
    let store = in_memory();
    opened(&store, &append_table()).await;
    let mut reader = Log::open(&url(), Arc::clone(&store), "").await.expect("opens").expect("a table");
    assert_eq!(reader.commit(&change(None, 1)).await.expect_err("refused").kind, Kind::Bug);
}

/// Two thousand versions that touch ten files each: what a commit costs must not grow with the log or the table.
#[tokio::test]
async fn a_commit_costs_what_it_changes_however_long_the_log_is() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let local = |folder: &tempfile::TempDir| -> Arc<dyn ObjectStore> {
        Arc::new(object_store::local::LocalFileSystem::new_with_prefix(folder.path()).expect("a store"))
    };
    let [folder, other] = &folders;
    let (store, short_store) = (local(folder), local(other));
    let (mut log, mut short) = (opened(&store, &upsert_table()).await, opened(&short_store, &upsert_table()).await);
    let files: Vec<_> = (0..2_000).map(|n| made_up_file(n * 100..n * 100 + 100)).collect();
    for log in [&mut log, &mut short] {
        let change = Change {
            adds: files.clone(),
            ..change(None, 0)
        };
        committed(log, &change).await;
    }
    let step = |version: u64| {
        let touched = (0..10).map(|n| &files[(version as usize * 7919 + n * 104_729) % files.len()]);
        let vectors = touched.map(|file| (Arc::clone(&file.path), row_numbers([version % 99]))).collect();
        Change {
            vectors,
            adds: vec![made_up_file(0..10)],
            ..change(Some(version), version + 1)
        }
    };
    for version in 0..1_500 {
        committed(&mut log, &step(version)).await;
    }
    // In turns, so that whatever else the machine does meanwhile, it does to both.
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for version in 0..500 {
        for (log, version, times) in [(&mut short, version, &mut first), (&mut log, 1_500 + version, &mut last)] {
            let change = step(version);
            let began = Instant::now();
            committed(log, &change).await;
            times.push(began.elapsed());
        }
    }
    // Of the quickest tenth the slowest: what a commit costs when the machine does nothing else.
    let [first, last] = [first, last].map(|mut times| {
        times.sort();
        times[times.len() / 10]
    });
    println!("a commit takes {first:?} in the first quarter of 2,000, {last:?} in the last");
    assert!(
        last < first * 2 + std::time::Duration::from_millis(1),
        "a commit took {first:?} at first and {last:?} in the end"
    );
    let began = Instant::now();
    let reopened = Log::open(&url(), Arc::clone(&store), PIPELINE)
        .await
        .expect("opens")
        .expect("a table");
    println!(
        "opening {} versions without a checkpoint: {:?}",
        reopened.snapshot().version + 1,
        began.elapsed()
    );
    // The library wants its lists in order, which `LocalFileSystem` does not give.
    let url = url::Url::from_directory_path(folder.path()).expect("a URL");
    assert_replays(&log, &alluvium::log::store::open(&url, &BTreeMap::new()).expect("a store")).await;
}
