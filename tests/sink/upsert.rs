//! Upsert tables against the model.

use alluvium::config::OnUnknownRow;
use alluvium::error::Kind;
use alluvium::sinks::Sink;
use alluvium::table::Merge;
use object_store::ObjectStoreExt;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::bed::{AMPLE, Bed, mark};
use super::changes::{Change, Model, batch, delete, put, put_without_body, random, schema, truncate};

/// Writes what a seed says, and compares every version with the model.
async fn run(seed: u64, key: &[&str], merge: Merge) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let bed = Bed::upsert(schema(), key, merge);
    // One byte sends every batch out of memory at once; the second lets a few meet there first.
    let share = [1, 3_000, AMPLE][rng.random_range(0..3)];
    let mut sink = bed.open(share).await;
    let (mut model, mut serial, mut versions) = (Model::default(), 0, Vec::new());
    for commit in 0..rng.random_range(1..7) {
        for _ in 0..rng.random_range(0..6) {
            let mut changes: Vec<Change> = Vec::new();
            for _ in 0..rng.random_range(0..12) {
                serial += 1;
                let change = random(&mut rng, &model, key, serial);
                model.apply(key, &change);
                changes.push(change);
            }
            sink.write(batch(&changes)).await.unwrap();
        }
        let version = sink.commit(&mark(&[("orders/0", commit)])).await.unwrap();
        versions.push((version, model.texts()));
        match rng.random_range(0..4) {
            0 => {
                sink.close();
                sink = bed.open(share).await;
            }
            1 => sink = bed.open(share).await,
            _ => {}
        }
    }
    for (version, expected) in versions {
        assert_eq!(
            bed.rows_at(version).await,
            expected,
            "seed {seed}, key {key:?}, {merge:?}, version {version}"
        );
    }
}

#[tokio::test]
async fn every_version_is_the_fold_of_the_changes_up_to_its_mark() {
    for seed in 0..60 {
        run(seed, &["id"], Merge::Vectors).await;
    }
}

#[tokio::test]
async fn the_same_with_a_key_of_text() {
    for seed in 100..125 {
        run(seed, &["place"], Merge::Vectors).await;
    }
}

#[tokio::test]
async fn the_same_with_a_composite_key() {
    for seed in 200..225 {
        run(seed, &["place", "id"], Merge::Vectors).await;
    }
}

#[tokio::test]
async fn the_same_without_deletion_vectors() {
    for seed in 300..340 {
        run(seed, &["id"], Merge::Rewrite).await;
    }
    for seed in 400..410 {
        run(seed, &["id", "place"], Merge::Rewrite).await;
    }
}

#[tokio::test]
async fn a_table_without_deletion_vectors_has_none() {
    let bed = Bed::upsert(schema(), &["id"], Merge::Rewrite);
    let mut sink = bed.open(AMPLE).await;
    for commit in 0..3 {
        sink.write(batch(&[put(1, &format!("{commit}")), put(commit as i64 + 2, "x")]))
            .await
            .unwrap();
        sink.commit(&mark(&[("orders/0", commit)])).await.unwrap();
    }
    assert!(sink.log().snapshot().files.values().all(|file| file.vector.is_none()));
    assert!(
        sink.log()
            .snapshot()
            .protocol
            .reader_features
            .as_ref()
            .is_none_or(|features| !features.contains(&"deletionVectors".to_owned()))
    );
}

#[tokio::test]
async fn a_row_that_was_spilled_and_replaced_is_born_deleted() {
    let bed = Bed::upsert(schema(), &["id"], Merge::Vectors);
    let mut sink = bed.open(1).await;
    sink.write(batch(&[put(1, "old"), put(2, "stays")])).await.unwrap();
    sink.write(batch(&[put(1, "new")])).await.unwrap();
    let version = sink.commit(&mark(&[("orders/0", 1)])).await.unwrap();
    assert_eq!(bed.rows_at(version).await, ["1|p|new|body of 1", "2|p|stays|body of 2"]);
    assert_eq!(sink.log().snapshot().files.values().map(|file| file.deleted()).sum::<u64>(), 1);
}

#[tokio::test]
async fn u7_a_truncation_clears_the_table_in_its_place() {
    for (share, merge) in [
        (1, Merge::Vectors),
        (AMPLE, Merge::Vectors),
        (1, Merge::Rewrite),
        (AMPLE, Merge::Rewrite),
    ] {
        let bed = Bed::upsert(schema(), &["id"], merge);
        let mut sink = bed.open(share).await;
        sink.write(batch(&[put(1, "a"), put(2, "a")])).await.unwrap();
        sink.commit(&mark(&[("orders/0", 1)])).await.unwrap();
        sink.write(batch(&[put(3, "before")])).await.unwrap();
        sink.write(batch(&[put(4, "before"), truncate(), put(2, "after")])).await.unwrap();
        let version = sink.commit(&mark(&[("orders/0", 2)])).await.unwrap();
        assert_eq!(bed.rows_at(version).await, ["2|p|after|body of 2"]);
        assert_eq!(bed.rows_at(1).await.len(), 2, "history is kept");
        sink.write(batch(&[put(2, "again"), put(1, "again")])).await.unwrap();
        let version = sink.commit(&mark(&[("orders/0", 3)])).await.unwrap();
        assert_eq!(bed.rows_at(version).await, ["1|p|again|body of 1", "2|p|again|body of 2"]);
    }
}

#[tokio::test]
async fn u5_a_delete_of_an_unknown_key_changes_nothing() {
    let bed = Bed::upsert(schema(), &["id"], Merge::Vectors);
    let mut sink = bed.open(AMPLE).await;
    sink.write(batch(&[put(1, "a")])).await.unwrap();
    sink.commit(&mark(&[("orders/0", 1)])).await.unwrap();
    sink.write(batch(&[delete(9), delete(9)])).await.unwrap();
    let version = sink.commit(&mark(&[("orders/0", 2)])).await.unwrap();
    assert_eq!(bed.rows_at(version).await, ["1|p|a|body of 1"]);
    let history = sink.log().history(1).await.unwrap();
    assert_eq!(
        history[0].metrics.get("numUnknownRowsDeleted"),
        Some(&1),
        "{:?}",
        history[0].metrics
    );
}

#[tokio::test]
async fn p7_a_cell_that_was_not_sent_keeps_its_value_wherever_the_row_stands() {
    for share in [1, AMPLE] {
        let bed = Bed::upsert(schema(), &["id"], Merge::Vectors);
        let mut sink = bed.open(share).await;
        sink.write(batch(&[put(1, "in the table"), put(2, "x")])).await.unwrap();
        sink.commit(&mark(&[("orders/0", 1)])).await.unwrap();
        sink.write(batch(&[put(3, "staged")])).await.unwrap();
        sink.write(batch(&[
            put_without_body(1, "one"),
            put_without_body(1, "two"),
            put_without_body(3, "four"),
        ]))
        .await
        .unwrap();
        sink.write(batch(&[put_without_body(1, "three")])).await.unwrap();
        let version = sink.commit(&mark(&[("orders/0", 2)])).await.unwrap();
        assert_eq!(
            bed.rows_at(version).await,
            ["1|p|three|body of 1", "2|p|x|body of 2", "3|p|four|body of 3"]
        );
    }
}

#[tokio::test]
async fn u4_a_part_of_a_row_that_is_nowhere_is_an_error_that_names_the_column() {
    let cases: [&[Change]; 4] = [
        &[put_without_body(7, "unknown")],
        &[delete(1), put_without_body(1, "deleted")],
        &[truncate(), put_without_body(1, "truncated")],
        &[put(8, "x"), delete(8), put_without_body(8, "deleted again")],
    ];
    for (case, share) in cases.into_iter().flat_map(|case| [(case, 1), (case, AMPLE)]) {
        let bed = Bed::upsert(schema(), &["id"], Merge::Vectors);
        let mut sink = bed.open(share).await;
        sink.write(batch(&[put(1, "a")])).await.unwrap();
        sink.commit(&mark(&[("orders/0", 1)])).await.unwrap();
        let mut result = Ok(1);
        for change in case {
            result = result.and(sink.write(batch(std::slice::from_ref(change))).await.map(|()| 1));
        }
        if result.is_ok() {
            result = sink.commit(&mark(&[("orders/0", 2)])).await;
        }
        let error = result.unwrap_err();
        assert_eq!(error.kind, Kind::Data, "{error}");
        assert!(
            error.to_string().contains("`body`") && error.to_string().contains("`orders`"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn u4_a_part_of_a_row_that_is_nowhere_is_left_out_where_the_table_says_so_until_the_row_comes_whole() {
    for (share, merge) in [
        (1, Merge::Vectors),
        (AMPLE, Merge::Vectors),
        (1, Merge::Rewrite),
        (AMPLE, Merge::Rewrite),
    ] {
        let mut bed = Bed::upsert(schema(), &["id"], merge);
        bed.table.on_unknown_row = OnUnknownRow::LeaveOut;
        let mut sink = bed.open(share).await;
        sink.write(batch(&[put(1, "a"), put(2, "b")])).await.unwrap();
        sink.commit(&mark(&[("orders/0", 1)])).await.unwrap();
        let stages: [(&[Change], &[&str]); 3] = [
            // One that never was, right before one that is there; and one that the table has, but for the delete before.
            (
                &[
                    put_without_body(7, "unknown"),
                    put_without_body(2, "B"),
                    delete(1),
                    put_without_body(1, "deleted"),
                ],
                &["2|p|B|body of 2"],
            ),
            (&[put_without_body(1, "still"), put_without_body(7, "still")], &["2|p|B|body of 2"]),
            (
                &[put(7, "whole"), put_without_body(7, "again")],
                &["2|p|B|body of 2", "7|p|again|body of 7"],
            ),
        ];
        for (at, (changes, rows)) in (2..).zip(stages) {
            sink.write(batch(changes)).await.unwrap();
            let version = sink.commit(&mark(&[("orders/0", at)])).await.unwrap();
            assert_eq!(bed.rows_at(version).await, rows, "{share} {merge:?} {at}");
        }
    }
}

#[tokio::test]
async fn k11_a_null_key_is_an_error() {
    use arrow::datatypes::{DataType, Field, Schema};
    let schema = std::sync::Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
    let bed = Bed::upsert(std::sync::Arc::clone(&schema), &["id"], Merge::Vectors);
    let mut sink = bed.open(AMPLE).await;
    let ids: arrow::array::ArrayRef = std::sync::Arc::new(arrow::array::Int64Array::from(vec![Some(1), None]));
    let rows = arrow::array::RecordBatch::try_new(schema, vec![ids]).unwrap();
    let error = sink
        .write(alluvium::batch::ChangeBatch::puts(bed.table.id.clone(), rows))
        .await
        .unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Data, "null_key"));
}

#[tokio::test]
async fn a_cache_that_is_damaged_old_or_gone_is_made_again() {
    let bed = Bed::upsert(schema(), &["id"], Merge::Vectors);
    let mut expected = Model::default();
    for commit in 0..12i64 {
        let mut sink = bed.open(AMPLE).await;
        let changes = [
            put(commit, &format!("v{commit}")),
            put(commit / 2, &format!("w{commit}")),
            delete(commit / 3),
        ];
        changes.iter().for_each(|change| expected.apply(&["id"], change));
        sink.write(batch(&changes)).await.unwrap();
        let version = sink.commit(&mark(&[("orders/0", commit as u64)])).await.unwrap();
        assert_eq!(bed.rows_at(version).await, expected.texts(), "commit {commit}");
        match commit % 4 {
            0 => sink.close(),
            1 => drop(sink), // What is on disk is now one version behind.
            2 => {
                sink.close();
                for file in std::fs::read_dir(bed.state()).unwrap() {
                    let path = file.unwrap().path();
                    let mut bytes = std::fs::read(&path).unwrap();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    std::fs::write(path, bytes).unwrap();
                }
            }
            _ => std::fs::read_dir(bed.state())
                .unwrap()
                .for_each(|file| std::fs::remove_file(file.unwrap().path()).unwrap()),
        }
    }
}

#[tokio::test]
async fn a_data_file_that_is_gone_stops_the_table_and_is_named_with_its_version() {
    let bed = Bed::upsert(schema(), &["id"], Merge::Vectors);
    let mut sink = bed.open(AMPLE).await;
    sink.write(batch(&[put(1, "a")])).await.unwrap();
    sink.commit(&mark(&[("orders/0", 1)])).await.unwrap();
    let file = sink.log().snapshot().files.keys().next().unwrap().to_string();
    drop(sink);
    std::fs::remove_dir_all(bed.state()).unwrap();
    bed.store.delete(&file.as_str().into()).await.unwrap();
    let error = bed.try_open(AMPLE).await.err().expect("its keys cannot be read");
    assert_eq!((error.kind, error.code), (Kind::Data, "bad_file"));
    let told = error.to_string();
    assert!(
        told.contains(&file) && told.contains("version 1") && told.contains("restore it"),
        "{told}"
    );
}
