//! A store that fails before, after and instead of what it is asked: the sink is opened again from the log, and every version is right.

use std::sync::Arc;

use alluvium::batch::ChangeBatch;
use alluvium::error::Kind;
use alluvium::position::{Lane, Position};
use alluvium::sinks::Sink;
use alluvium::table::{Merge, Mode};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use object_store::{ObjectStore, ObjectStoreExt};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use super::bed::{AMPLE, Bed, mark, texts};
use super::changes::{Change, Model, batch, put, random, schema};
use crate::support::store::{Fault, FaultyStore, Op, Rule, Wrong};

const LANE: &str = "orders/0";

/// A lane: the change at each offset, and the table after it.
fn lane(rng: &mut SmallRng, changes: u64) -> Vec<(Change, Vec<String>)> {
    let mut model = Model::default();
    let change = |offset| {
        let change = random(rng, &model, &["id"], offset);
        model.apply(&["id"], &change);
        (change, model.texts())
    };
    (0..changes).map(change).collect()
}

fn faults(rng: &mut SmallRng) -> Vec<Rule> {
    let fault = |rng: &mut SmallRng| {
        let wrong = Wrong::ALL[rng.random_range(0..Wrong::ALL.len())];
        if rng.random_bool(0.5) {
            Fault::Reject(wrong)
        } else {
            Fault::FailAfter(wrong)
        }
    };
    let mut rules = vec![
        Rule::new(Op::Put, "", fault(rng)).with_probability(0.1),
        Rule::new(Op::Put, "_delta_log", fault(rng)).with_probability(0.2),
    ];
    rules.push(Rule::new(Op::Get, "", Fault::Reject(Wrong::Unreachable)).with_probability(0.02));
    rules
}

#[tokio::test(start_paused = true)]
async fn c3_c20_whatever_the_store_answers_each_version_is_the_fold_up_to_its_mark() {
    let mut failures = 0;
    for seed in 0..40 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let merge = if seed % 4 == 3 { Merge::Rewrite } else { Merge::Vectors };
        let bed = Bed::upsert(schema(), &["id"], merge);
        let lane = lane(&mut rng, 120);
        let faulty = FaultyStore::seeded(Arc::clone(&bed.store), seed);
        let share = [1, AMPLE][rng.random_range(0..2)];
        bed.open(share).await;
        faults(&mut rng).into_iter().for_each(|rule| faulty.rule(rule));
        let store: Arc<dyn ObjectStore> = Arc::new(faulty.clone());
        let mut newest = None;
        while newest != Some(lane.len() as u64 - 1) {
            // Each start is from the log; each failure leads to a start.
            let Ok(mut sink) = bed.open_on(Arc::clone(&store), share).await else {
                failures += 1;
                continue;
            };
            newest = sink.checkpoint().get(&Lane::new(LANE)).map(|Position(at)| at);
            while newest != Some(lane.len() as u64 - 1) {
                let from = newest.map_or(0, |at| at as usize + 1);
                let to = (from + rng.random_range(1..20)).min(lane.len());
                let changes: Vec<Change> = lane[from..to].iter().map(|(change, _)| change.clone()).collect();
                let mut done = Ok(0);
                for changes in changes.chunks(7) {
                    done = done.and(sink.write(batch(changes)).await.map(|()| 0));
                }
                if done.is_ok() {
                    done = sink.commit(&mark(&[(LANE, to as u64 - 1)])).await;
                }
                match done {
                    Ok(_) => newest = Some(to as u64 - 1),
                    Err(error) => {
                        assert_ne!(error.kind, Kind::Bug, "seed {seed}: {error}");
                        failures += 1;
                        break;
                    }
                }
            }
        }
        let log = bed.open(AMPLE).await;
        for version in 1..=log.log().snapshot().version {
            let at = log
                .log()
                .at(alluvium::log::When::Version(version))
                .await
                .unwrap()
                .checkpoint(super::bed::PIPELINE);
            let Some(Position(at)) = at.get(&Lane::new(LANE)) else {
                panic!("version {version} has no mark")
            };
            assert_eq!(
                bed.rows_at(version).await,
                lane[at as usize].1,
                "seed {seed}, version {version}, mark {at}"
            );
        }
    }
    assert!(failures > 100, "only {failures} failures: the store is too good to tell anything");
}

#[tokio::test]
async fn c1_files_of_a_failed_commit_stay_as_orphans_and_nothing_else() {
    let bed = Bed::upsert(schema(), &["id"], Merge::Vectors);
    drop(bed.open(AMPLE).await);
    let faulty = FaultyStore::over(Arc::clone(&bed.store));
    faulty.rule(Rule::new(
        Op::Put,
        "_delta_log/00000000000000000001.json",
        Fault::Reject(Wrong::Denied),
    ));
    let mut sink = bed.open_on(Arc::new(faulty), AMPLE).await.unwrap();
    sink.write(batch(&[put(1, "a")])).await.unwrap();
    let error = sink.commit(&mark(&[(LANE, 1)])).await.unwrap_err();
    assert_eq!(error.code, "store_denied", "{error}");
    let mut sink = bed.open(AMPLE).await;
    assert!(sink.checkpoint().is_empty());
    sink.write(batch(&[put(1, "a")])).await.unwrap();
    sink.commit(&mark(&[(LANE, 1)])).await.unwrap();
    assert_eq!(bed.rows_at(1).await, ["1|p|a|body of 1"]);
    let listed = bed.store.list_with_delimiter(None).await.unwrap().objects;
    let files: Vec<_> = listed
        .iter()
        .filter(|object| object.location.as_ref().ends_with(".parquet"))
        .collect();
    assert_eq!(files.len(), 2, "one of the version, and one orphan for vacuum");
    assert!(bed.store.head(&"_delta_log/00000000000000000002.json".into()).await.is_err());
}

/// Some 22 MB of a data file, however it is compressed: three parts.
fn large_rows() -> RecordBatch {
    let mut rng = SmallRng::seed_from_u64(5);
    let body = |_| {
        let mut bytes = vec![0; 96 << 10];
        rng.fill_bytes(&mut bytes);
        STANDARD.encode(bytes)
    };
    let bodies = StringArray::from_iter_values((0..230).map(body));
    let fields = vec![Field::new("id", DataType::Int64, false), Field::new("body", DataType::Utf8, true)];
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(0..230)), Arc::new(bodies)];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

#[tokio::test]
async fn c20_a_file_of_which_a_part_does_not_get_there_is_given_up_and_the_next_start_writes_it_whole() {
    let rows = large_rows();
    let mut expected = texts(&rows);
    expected.sort();
    for (fault, before) in [
        (Fault::Reject(Wrong::Full), 0),
        (Fault::FailAfter(Wrong::Unreachable), 1),
        (Fault::Reject(Wrong::Denied), 2),
    ] {
        let bed = Bed::new(rows.schema(), Mode::Append);
        let faulty = FaultyStore::over(Arc::clone(&bed.store));
        faulty.rule(Rule::new(Op::Part, "", fault.clone()).after(before));
        let store: Arc<dyn ObjectStore> = Arc::new(faulty.clone());
        let puts = || ChangeBatch::puts(bed.table.id.clone(), rows.clone());
        let mut sink = bed.open_on(Arc::clone(&store), AMPLE).await.unwrap();
        let done = match sink.write(puts()).await {
            Ok(()) => sink.commit(&mark(&[(LANE, 1)])).await.map(drop),
            Err(error) => Err(error),
        };
        let error = done.expect_err("a part did not get there");
        assert_ne!(error.kind, Kind::Bug, "{fault:?}: {error}");
        let asked = |wanted: Op| faulty.calls().iter().filter(|(op, _)| *op == wanted).count();
        assert!(asked(Op::Part) > before, "{fault:?}");
        assert_eq!((asked(Op::Abort), asked(Op::Complete)), (1, 0), "{fault:?}");
        let there = bed.store.list_with_delimiter(None).await.unwrap().objects;
        assert!(there.is_empty(), "{fault:?}: {there:?}");
        faulty.heal();
        let mut sink = bed.open_on(store, AMPLE).await.unwrap();
        assert!(sink.checkpoint().is_empty(), "{fault:?}");
        sink.write(puts()).await.unwrap();
        let version = sink.commit(&mark(&[(LANE, 1)])).await.unwrap();
        assert!(bed.rows_at(version).await == expected, "{fault:?}: a row is not as it was written");
    }
}
