//! The commit under every fault at every put, and two writers on one lane. What is checked is always the same: the log in the
//! store is the list of versions that a model says, nothing more and nothing less.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alluvium::error::{Error, Kind};
use alluvium::log::{Change, Log, Outcome};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::delta::{
    PIPELINE, append_table, assert_replays, change, data_file, library, made_up_file, mark, opened, row_numbers, rows_of, upsert_table, url,
};
use crate::support::store::{Fault, FaultyStore, Gate, Op, Rule, Wrong};

fn faulty(seed: u64) -> (FaultyStore, Arc<dyn ObjectStore>, Arc<dyn ObjectStore>) {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let faulty = FaultyStore::seeded(Arc::clone(&inner), seed);
    (faulty.clone(), Arc::new(faulty), inner)
}

/// The end positions of the versions in the log, as anybody reads them.
async fn versions(store: &Arc<dyn ObjectStore>) -> Vec<u64> {
    let log = Log::open(&url(), Arc::clone(store), PIPELINE)
        .await
        .expect("opens")
        .expect("a table");
    let mut entries = log.history(usize::MAX >> 1).await.expect("a history");
    entries.reverse();
    entries
        .iter()
        .filter_map(|entry| Some(entry.said.as_ref()?.positions.get("orders/0")?.1))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn c3_a_lost_response_is_a_success() {
    for wrong in Wrong::ALL {
        let (faults, store, inner) = faulty(1);
        let mut log = opened(&store, &append_table()).await;
        faults.rule(Rule::new(Op::Put, "00000001.json", Fault::FailAfter(wrong)));
        let outcome = log
            .commit(&Change {
                adds: vec![made_up_file(0..10)],
                ..change(None, 9)
            })
            .await;
        assert!(matches!(outcome, Ok(Outcome::Committed(1))), "{wrong:?}: {outcome:?}");
        log.commit(&change(Some(9), 12)).await.expect("and it goes on");
        assert_eq!(versions(&inner).await, [9, 12], "{wrong:?}");
        assert_replays(&log, &inner).await;
    }
}

/// Its version 0 is put with the first commit, whatever the answers; of two that make it, one does.
#[tokio::test(start_paused = true)]
async fn a_table_that_the_first_commit_makes_is_not_there_before() {
    let change = Change {
        adds: vec![made_up_file(0..10)],
        ..change(None, 9)
    };
    for fault in Wrong::ALL
        .into_iter()
        .flat_map(|wrong| [Fault::FailAfter(wrong), Fault::Reject(wrong)])
    {
        let what = format!("{fault:?}");
        let (faults, store, inner) = faulty(1);
        let prepared = async || {
            let log = Log::open_or_prepare(&url(), Arc::clone(&store), &append_table(), PIPELINE).await;
            log.expect("a log")
        };
        let (mut log, mut late) = (prepared().await, prepared().await);
        let found = Log::open(&url(), Arc::clone(&inner), PIPELINE).await.expect("a look");
        assert!(found.is_none(), "{what}");
        faults.rule(Rule::new(Op::Put, "00000000.json", fault).times(2));
        let outcome = log.commit(&change).await;
        assert!(matches!(outcome, Ok(Outcome::Committed(1))), "{what}: {outcome:?}");
        let error = late.commit(&change).await.expect_err("the other was first");
        assert_eq!(error.kind, Kind::Fenced, "{what}: {error}");
        assert_eq!(versions(&inner).await, [9], "{what}");
        assert_replays(&log, &inner).await;
    }
}

#[tokio::test(start_paused = true)]
async fn c4_a_put_that_was_not_applied_is_tried_again() {
    for wrong in Wrong::ALL {
        let (faults, store, inner) = faulty(2);
        let mut log = opened(&store, &append_table()).await;
        faults.rule(Rule::new(Op::Put, "00000001.json", Fault::Reject(wrong)).times(2));
        let outcome = log.commit(&change(None, 9)).await;
        assert!(matches!(outcome, Ok(Outcome::Committed(1))), "{wrong:?}: {outcome:?}");
        assert_eq!(versions(&inner).await, [9]);
        assert_replays(&log, &inner).await;
    }
}

#[tokio::test(start_paused = true)]
async fn c3_the_answer_is_lost_and_the_log_cannot_be_read_for_a_while() {
    let (faults, store, inner) = faulty(3);
    let mut log = opened(&store, &append_table()).await;
    faults.rule(Rule::new(Op::Put, "00000001.json", Fault::FailAfter(Wrong::Unreachable)));
    faults.rule(Rule::new(Op::Get, "00000001.json", Fault::Reject(Wrong::Unreachable)).times(4));
    assert!(matches!(log.commit(&change(None, 9)).await, Ok(Outcome::Committed(1))));
    assert_eq!(versions(&inner).await, [9]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_broken_ends_the_commit_with_what_to_do() {
    for (wrong, kind, code) in [
        (Wrong::Unreachable, Kind::Transient, "store_unreachable"),
        (Wrong::Full, Kind::Transient, "store_full"),
        (Wrong::Denied, Kind::Config, "store_denied"),
    ] {
        let (faults, store, inner) = faulty(4);
        let mut log = opened(&store, &append_table()).await;
        faults.rule(Rule::new(Op::Put, "00000001.json", Fault::Reject(wrong)));
        let began = tokio::time::Instant::now();
        let error: Error = log.commit(&change(None, 9)).await.expect_err("refused");
        assert_eq!((error.kind, error.code), (kind, code));
        assert!(error.to_string().contains(url().as_str()), "it names the place: {error}");
        assert!(began.elapsed() < Duration::from_secs(30), "bounded: {:?}", began.elapsed());
        assert_eq!(versions(&inner).await, Vec::<u64>::new());
        // The log says where to go on.
        faults.heal();
        let mut log = opened(&store, &append_table()).await;
        log.commit(&change(None, 9)).await.expect("a commit");
        assert_eq!(versions(&inner).await, [9]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_vector_file_that_cannot_be_written_leaves_the_version_out() {
    let (faults, store, inner) = faulty(5);
    let mut log = opened(&store, &upsert_table()).await;
    let file = data_file(&inner, 0..10, "a").await;
    log.commit(&Change {
        adds: vec![file.clone()],
        ..change(None, 9)
    })
    .await
    .expect("a commit");
    faults.rule(Rule::new(Op::Put, "deletion_vector", Fault::Reject(Wrong::Full)));
    let vectors = BTreeMap::from([(file.path, row_numbers([1]))]);
    let error = log
        .commit(&Change {
            vectors,
            ..change(Some(9), 10)
        })
        .await
        .expect_err("refused");
    assert_eq!(error.code, "store_full");
    assert_eq!(versions(&inner).await, [9]);
    assert_eq!(rows_of(library(&inner).await).await.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn making_a_table_survives_every_fault_of_its_put() {
    for fault in Wrong::ALL
        .into_iter()
        .flat_map(|wrong| [Fault::FailAfter(wrong), Fault::Reject(wrong)])
    {
        let (faults, store, inner) = faulty(6);
        faults.rule(Rule::new(Op::Put, "00000000.json", fault).times(2));
        let log = opened(&store, &append_table()).await;
        assert_replays(&log, &inner).await;
    }
}

#[tokio::test]
async fn of_two_that_make_a_table_at_once_the_loser_opens_it() {
    let (faults, store, _) = faulty(6);
    let gate = Gate::new();
    faults.rule(Rule::new(Op::Put, "00000000.json", Fault::Hold(gate.clone())).times(1));
    let winner = async {
        gate.reached().await;
        let winner = opened(&store, &append_table()).await;
        gate.open();
        winner
    };
    let table = append_table();
    let (mut loser, winner) = tokio::join!(opened(&store, &table), winner);
    assert_eq!(
        (loser.snapshot().version, &loser.snapshot().table_id),
        (0, &winner.snapshot().table_id)
    );
    loser.commit(&change(None, 9)).await.expect("a commit");
}

#[tokio::test(start_paused = true)]
async fn c6_c7_a_zombie_that_looked_before_its_successor_committed_is_fenced() {
    let (faults, store, inner) = faulty(7);
    let mut zombie = opened(&store, &append_table()).await;
    let gate = Gate::new();
    faults.rule(Rule::new(Op::Put, "00000001.json", Fault::Hold(gate.clone())).times(1));
    let held = Change {
        adds: vec![made_up_file(0..10)],
        ..change(None, 9)
    };
    let committing = async { zombie.commit(&held).await };
    let successor = async {
        gate.reached().await;
        let mut successor = opened(&store, &append_table()).await;
        successor
            .commit(&Change {
                adds: vec![made_up_file(0..12)],
                ..change(None, 11)
            })
            .await
            .expect("a commit");
        gate.open();
        successor
    };
    let (fenced, successor) = tokio::join!(committing, successor);
    assert_eq!(fenced.expect_err("fenced").kind, Kind::Fenced);
    assert_eq!(versions(&inner).await, [11]);
    assert_replays(&successor, &inner).await;
}

#[tokio::test(start_paused = true)]
async fn c5_a_twin_with_the_very_same_marks_is_fenced_too() {
    let (_, store, inner) = faulty(8);
    let (mut one, mut two) = (opened(&store, &append_table()).await, opened(&store, &append_table()).await);
    one.commit(&change(None, 9)).await.expect("a commit");
    let error = two.commit(&change(None, 9)).await.expect_err("the same range, by another");
    assert_eq!(error.kind, Kind::Fenced);
    assert_eq!(versions(&inner).await, [9]);
}

/// As dead letters are, of a table that comes to what others have passed: no mark tells them apart.
#[tokio::test(start_paused = true)]
async fn k13_rows_that_the_marks_have_passed_are_brought_by_one_of_two() {
    let (_, store, inner) = faulty(8);
    let passed = || Change {
        adds: vec![made_up_file(0..5)],
        ..change(Some(9), 9)
    };
    let mut before = opened(&store, &append_table()).await;
    before.commit(&change(None, 9)).await.expect("a commit");
    let (mut one, mut two) = (opened(&store, &append_table()).await, opened(&store, &append_table()).await);
    let mut three = opened(&store, &append_table()).await;
    one.commit(&passed()).await.expect("a commit");
    one.commit(&passed()).await.expect("its own are no other's");
    for late in [passed(), change(Some(9), 12)] {
        let error = two.commit(&late).await.expect_err("some of its rows may be there");
        assert_eq!(error.kind, Kind::Fenced);
    }
    three.refresh().await.expect("the news");
    assert_eq!(three.commit(&passed()).await.expect_err("the same").kind, Kind::Fenced);
    // A lane that others read has nothing to do with it.
    let other = Change {
        mark: mark(&[("orders/1", 3)]),
        adds: vec![made_up_file(0..5)],
        ..change(None, 9)
    };
    three.commit(&other).await.expect("another lane");
    let log = opened(&store, &append_table()).await;
    assert_eq!((log.snapshot().version, log.snapshot().files.len()), (4, 3));
    assert_replays(&log, &inner).await;
}

#[tokio::test(start_paused = true)]
async fn other_lanes_of_one_group_do_not_fence_each_other() {
    let (_, store, inner) = faulty(9);
    let (mut one, mut two) = (opened(&store, &append_table()).await, opened(&store, &append_table()).await);
    let other = |base: Option<u64>, to| Change {
        mark: mark(&[("orders/1", to)]),
        base: base.map(|base| mark(&[("orders/1", base)])).unwrap_or_default(),
        adds: vec![made_up_file(0..5)],
        operation: "STREAMING UPDATE",
        ..Change::default()
    };
    for step in 0..30_u64 {
        let base = step.checked_sub(1);
        assert!(matches!(
            one.commit(&Change {
                adds: vec![made_up_file(0..5)],
                ..change(base, step)
            })
            .await,
            Ok(Outcome::Committed(_))
        ));
        assert!(matches!(two.commit(&other(base, step)).await, Ok(Outcome::Committed(_))));
    }
    let log = opened(&store, &append_table()).await;
    assert_eq!(log.checkpoint(), mark(&[("orders/0", 29), ("orders/1", 29)]));
    assert_eq!(log.snapshot().files.len(), 60);
    assert_replays(&log, &inner).await;
}

#[tokio::test(start_paused = true)]
async fn a_winner_that_moved_files_of_an_upsert_table_is_a_conflict_with_their_names() {
    let (_, store, inner) = faulty(10);
    let (mut one, mut two) = (opened(&store, &upsert_table()).await, opened(&store, &upsert_table()).await);
    let theirs = made_up_file(0..5);
    one.commit(&Change {
        adds: vec![theirs.clone()],
        mark: mark(&[("orders/1", 4)]),
        operation: "MERGE",
        ..Change::default()
    })
    .await
    .expect("a commit");
    let mine = Change {
        adds: vec![made_up_file(5..9)],
        ..change(None, 8)
    };
    match two.commit(&mine).await.expect("a value, not an error") {
        Outcome::Conflict { latest: 1, added, removed } => assert_eq!((added, removed), (vec![theirs.path], vec![])),
        other => panic!("{other:?}"),
    }
    assert!(
        matches!(two.commit(&mine).await, Ok(Outcome::Committed(2))),
        "planned again, on the log as it stands"
    );
    assert_replays(&two, &inner).await;
}

/// One writer of a lane, and what it believes to have committed.
struct Writer {
    log: Log,
    at: Option<u64>,
}

/// Two writers race for one lane over a store that lies, refuses and loses answers. Each version must follow the one before it,
/// and what a writer was told is committed must be in the log.
async fn race(seed: u64) {
    let (faults, store, inner) = faulty(seed);
    opened(&store, &append_table()).await;
    let mut random = SmallRng::seed_from_u64(seed);
    for (n, wrong) in Wrong::ALL.into_iter().enumerate().filter(|(_, wrong)| *wrong != Wrong::Denied) {
        let fault = if n % 2 == 0 {
            Fault::FailAfter(wrong)
        } else {
            Fault::Reject(wrong)
        };
        faults.rule(Rule::new(Op::Put, "_delta_log", fault).with_probability(0.15));
    }
    faults.rule(Rule::new(Op::Put, "_delta_log", Fault::FailAfter(Wrong::AlreadyExists)).with_probability(0.2));
    faults.rule(Rule::new(Op::Put, "_delta_log", Fault::Slow(Duration::from_millis(30))).with_probability(0.3));
    faults.rule(Rule::new(Op::Get, "_delta_log", Fault::Reject(Wrong::Unreachable)).with_probability(0.1));
    let run = |mut random: SmallRng| {
        let store = Arc::clone(&store);
        async move {
            let mut told = Vec::new();
            let mut writer: Option<Writer> = None;
            for _ in 0..30 {
                tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
                let Some(open) = &mut writer else {
                    // After an error: open again from the log.
                    if let Ok(log) = Log::open_or_create(&url(), Arc::clone(&store), &append_table(), PIPELINE).await {
                        let at = log.checkpoint().iter().next().map(|(_, at)| at.0);
                        writer = Some(Writer { log, at });
                    }
                    continue;
                };
                let to = open.at.map_or(0, |at| at + 1) + random.random_range(0..5);
                match open
                    .log
                    .commit(&Change {
                        adds: vec![made_up_file(0..3)],
                        ..change(open.at, to)
                    })
                    .await
                {
                    Ok(Outcome::Committed(_)) => {
                        told.push((open.at, to));
                        open.at = Some(to);
                    }
                    Ok(Outcome::Conflict { .. }) => panic!("an append stands on whatever won"),
                    Err(error) => {
                        assert!(matches!(error.kind, Kind::Fenced | Kind::Transient), "seed {seed}: {error}");
                        writer = None;
                    }
                }
            }
            told
        }
    };
    let (one, two) = tokio::join!(
        run(SmallRng::seed_from_u64(random.random())),
        run(SmallRng::seed_from_u64(random.random()))
    );
    faults.heal();
    let log = Log::open(&url(), Arc::clone(&inner), PIPELINE)
        .await
        .expect("opens")
        .expect("a table");
    let mut entries = log.history(10_000).await.expect("a history");
    entries.reverse();
    let mut base = None;
    let mut ranges = Vec::new();
    for positions in entries.iter().filter_map(|entry| entry.said.as_ref()?.positions.get("orders/0")) {
        assert_eq!(
            positions.0,
            base.map(|base: u64| base + 1),
            "seed {seed}: a version that does not follow the one before it"
        );
        ranges.push((base, positions.1));
        base = Some(positions.1);
    }
    let told = one.iter().chain(&two);
    for range in told {
        assert!(
            ranges.contains(range),
            "seed {seed}: {range:?} was told to be committed, and is not in the log"
        );
    }
    assert!(one.len() + two.len() > 5, "seed {seed}: the writers came forward");
    assert_eq!(log.snapshot().files.len(), ranges.len(), "seed {seed}: one file for each version");
    assert_replays(&log, &inner).await;
}

#[tokio::test(start_paused = true)]
async fn c5_two_writers_over_a_bad_store_make_one_line_of_versions() {
    for seed in 0..60 {
        race(seed).await;
    }
}
