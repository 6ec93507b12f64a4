//! Others who write to the same upsert table: a second sink with other lanes, and other programs that compact and delete.

use alluvium::sinks::Sink;
use alluvium::table::Merge;
use deltalake::datafusion::prelude::{col, lit};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::bed::{AMPLE, Bed, mark};
use super::changes::{Change, Model, batch, put, random, schema};

#[tokio::test]
async fn two_sinks_with_lanes_of_their_own_share_a_table() {
    for (seed, merge) in (0..12).flat_map(|seed| [(seed, Merge::Vectors), (seed, Merge::Rewrite)]) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let bed = Bed::upsert(schema(), &["id"], merge);
        let mut sinks = [bed.open(AMPLE).await, bed.open(1).await];
        let (mut models, mut newest) = ([Model::default(), Model::default()], 0);
        for turn in 0..12 {
            let who = rng.random_range(0..2);
            for _ in 0..3 {
                let mut changes: Vec<Change> = Vec::new();
                for row in 0..4 {
                    let mut change = random(&mut rng, &models[who], &["id"], turn * 100 + row);
                    // A truncation is for the whole table: not for tables with several lanes.
                    if change.op == alluvium::batch::Op::Truncate {
                        change.op = alluvium::batch::Op::Delete;
                    }
                    change.id = change.id * 2 + who as i64;
                    change.body = change.body.or_else(|| Some("sent".into()));
                    models[who].apply(&["id"], &change);
                    changes.push(change);
                }
                sinks[who].write(batch(&changes)).await.unwrap();
            }
            newest = sinks[who].commit(&mark(&[(["a/0", "a/1"][who], turn)])).await.unwrap();
            let mut expected = [models[0].texts(), models[1].texts()].concat();
            expected.sort();
            assert_eq!(bed.rows_at(newest).await, expected, "seed {seed}, {merge:?}, turn {turn}");
        }
        assert_eq!(newest, 12, "each turn is a version");
    }
}

#[tokio::test]
async fn c9_others_compact_and_delete_between_commits() {
    for seed in 0..16 {
        let mut rng = SmallRng::seed_from_u64(seed);
        // The library writes files anew where rows are deleted, so that the table needs no deletion vectors from it.
        let merge = if seed % 2 == 0 { Merge::Vectors } else { Merge::Rewrite };
        let bed = Bed::upsert(schema(), &["id"], merge);
        let mut sink = bed.open([1, AMPLE][rng.random_range(0..2)]).await;
        let mut model = Model::default();
        for turn in 0..8 {
            let mut changes: Vec<Change> = Vec::new();
            for row in 0..6 {
                let change = random(&mut rng, &model, &["id"], turn * 100 + row);
                model.apply(&["id"], &change);
                changes.push(change);
            }
            sink.write(batch(&changes)).await.unwrap();
            if rng.random_bool(0.5) {
                let (table, metrics) = bed.library(None).await.optimize().await.unwrap();
                drop((table, metrics));
            }
            let version = sink.commit(&mark(&[("a/0", turn)])).await.unwrap();
            assert_eq!(bed.rows_at(version).await, model.texts(), "seed {seed}, turn {turn}");
            if rng.random_bool(0.3) {
                let id = rng.random_range(0..15);
                bed.library(None)
                    .await
                    .delete()
                    .with_predicate(col("id").eq(lit(id)))
                    .await
                    .unwrap();
                model.retain(|row| row.id != id);
            }
        }
    }
}

#[tokio::test]
async fn two_rows_of_one_key_are_told_and_nothing_is_written() {
    let bed = Bed::upsert(schema(), &["id"], Merge::Vectors);
    let mut sink = bed.open(AMPLE).await;
    sink.write(batch(&[put(1, "ours")])).await.unwrap();
    sink.commit(&mark(&[("a/0", 1)])).await.unwrap();
    let doubled = batch(&[put(1, "theirs")]).rows;
    bed.library(None).await.write(vec![doubled]).await.unwrap();
    sink.write(batch(&[put(2, "more")])).await.unwrap();
    let error = sink.commit(&mark(&[("a/0", 2)])).await.unwrap_err();
    assert_eq!(error.code, "duplicate_key", "{error}");
    assert_eq!(bed.try_open(AMPLE).await.err().map(|error| error.code), Some("duplicate_key"));
}
