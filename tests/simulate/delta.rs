//! The same protocol with the real ends: Delta sinks and their logs over stores in memory that fail before, after and instead of what
//! they are asked, answer late or never, and let a put arrive that its writer has long given up.
//!
//! After every life each version of each table is read from its files and its vectors: it must hold the fold of the source's changes
//! up to its own marks. The dead letters of one table, which is left out now and then, must be there once, and before it has passed them.
//! Then the stores are healed, and the pipeline must come to the end of the source.
//!
//! Names of files and waits between tries are not seeded, so a seed that fails may need a few tries to fail again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use alluvium::batch::Op;
use alluvium::budget::Budget;
use alluvium::error::{Error, Kind, Result};
use alluvium::log::{Log, When};
use alluvium::pipeline::{self, Open, Opened, Settings};
use alluvium::position::{Checkpoint, Lane, Position};
use alluvium::sinks::Sink;
use alluvium::sinks::delta::DeltaSink;
use alluvium::sources::Resume;
use alluvium::sources::memory::{Event, MemoryLanes, MemorySource};
use alluvium::status::Board;
use alluvium::table::{Lanes, Limits, Merge, Mode, Table, TableId, Version};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Chance, FlakySource, LETTERS, LETTERS_OF, Mutant, NEVER, seeds};
use crate::support::rows::{rows, table};
use crate::support::state::StateReader;
use crate::support::store::{Fault, FaultyStore, Op as Call, Rule, Wrong};

const PIPELINE: &str = "p";
const ORDERS: &str = LETTERS_OF[0].0; // One row per key.
const LETTERS_OF_ORDERS: &str = LETTERS_OF[0].1;
const AUDIT: &str = "audit"; // Every change.
const IDLE: &str = "idle"; // Nothing ever happens to it.
const EVENTS: u64 = 80;
/// Of each lane: few, so that they meet often.
const KEYS: u64 = 12;
/// Lives with faults; then the stores are healed.
const LIVES: u64 = 6;

/// A table, its store as it is, and its store as the pipelines see it.
#[derive(Clone)]
struct Place {
    table: Arc<Table>,
    inner: Arc<dyn ObjectStore>,
    faulty: FaultyStore,
}

/// What happened at the source, and the tables.
#[derive(Clone)]
struct World {
    lanes: MemoryLanes,
    places: Vec<Place>,
    letters: Place,
    /// A table that this pipeline goes without.
    away: Option<&'static str>,
    /// What it holds.
    held: Vec<(Lanes, Checkpoint)>,
    chance: Chance,
    mutant: Mutant,
    /// Bytes that a sink may stage in memory.
    share: usize,
    state: PathBuf,
}

/// A change: its lane, its position, what it does.
type Change = (Lane, Position, Op, (i64, i64));

impl World {
    fn new(seed: u64, mutant: Mutant, state: PathBuf) -> Self {
        let chance = Chance::of(seed);
        // A truncation is for a whole table, so its place among the changes of another lane would be anybody's guess.
        let lanes = chance.below(3).min(1) + 1;
        let world = Self {
            lanes: history(&chance, lanes),
            places: [ORDERS, AUDIT, IDLE].map(|name| place(name, seed, &chance)).to_vec(),
            letters: place(LETTERS, seed, &chance),
            away: None,
            held: Vec::new(),
            share: if chance.one_in(3) { 1 } else { 1 << 20 },
            chance,
            mutant,
            state,
        };
        world.break_stores();
        world
    }

    /// A pipeline, which may have to do without a table.
    fn pipeline(&self) -> Self {
        Self {
            away: self.chance.one_in(4).then_some(ORDERS),
            ..self.clone()
        }
    }

    fn stores(&self) -> impl Iterator<Item = &FaultyStore> {
        self.places.iter().chain([&self.letters]).map(|place| &place.faulty)
    }

    /// Things go wrong with every kind of file, each in its own way.
    fn break_stores(&self) {
        for store in self.stores() {
            match self.mutant {
                Mutant::CarelessStore => store.rule(Rule::new(Call::Put, "_delta_log", Fault::Careless)),
                Mutant::ForgetfulStore => store.rule(Rule::new(Call::Put, "deletion_vector", Fault::Forget)),
                _ => {}
            }
            for part in ["part-", "deletion_vector", ".json", "_last_checkpoint", ".checkpoint.parquet"] {
                for fault in [
                    Fault::Reject(self.wrong()),
                    Fault::FailAfter(self.wrong()),
                    Fault::FailAfter(Wrong::AlreadyExists),
                    Fault::Slow(self.moment(20)),
                    Fault::SlowAfter(self.moment(20)),
                    Fault::Stray(self.moment(200)),
                ] {
                    store.rule(Rule::new(Call::Put, part, fault).with_probability(0.03));
                }
                for fault in [Fault::Slow(NEVER), Fault::SlowAfter(NEVER)] {
                    store.rule(Rule::new(Call::Put, part, fault).with_probability(0.005));
                }
            }
            store.rule(Rule::new(Call::Complete, "", Fault::FailAfter(Wrong::Unreachable)).with_probability(0.1));
            for call in [Call::Get, Call::List] {
                store.rule(Rule::new(call, "", Fault::Reject(Wrong::Unreachable)).with_probability(0.01));
                store.rule(Rule::new(call, "", Fault::Slow(self.moment(50))).with_probability(0.02));
                store.rule(Rule::new(call, "", Fault::Slow(NEVER)).with_probability(0.001));
            }
        }
    }

    fn wrong(&self) -> Wrong {
        Wrong::ALL[self.chance.below(5) as usize]
    }

    fn moment(&self, ms_max: u64) -> Duration {
        Duration::from_millis(self.chance.below(ms_max))
    }

    fn settings(&self) -> Settings {
        Settings {
            pipeline: PIPELINE.into(),
            board: Board::default(),
            budget: Budget::new(1 << 20),
            grace: Duration::from_millis(100),
            tries_max: None,
            seed: self.chance.below(u64::MAX),
        }
    }

    /// The changes of a table, in the order of their lanes.
    fn changes(&self, name: &str) -> Vec<Change> {
        let mut changes = Vec::new();
        for (lane, events) in self.lanes.events() {
            for event in events {
                for (_, batch, ops) in event.changes.iter().filter(|(table, ..)| table.as_str() == name) {
                    let pairs = crate::support::rows::pairs(batch);
                    changes.extend(ops.iter().zip(pairs).map(|(op, pair)| (lane.clone(), event.position, *op, pair)));
                }
            }
        }
        changes
    }

    /// The letters of [`ORDERS`] up to a mark.
    fn letters_upto(&self, mark: &Checkpoint) -> BTreeSet<(i64, i64)> {
        let letters = self.changes(LETTERS_OF_ORDERS).into_iter();
        letters
            .filter(|(lane, at, ..)| mark.get(lane) >= Some(*at))
            .map(|change| change.3)
            .collect()
    }

    async fn sink(&self, place: &Place) -> Result<DeltaSink> {
        let store: Arc<dyn ObjectStore> = Arc::new(place.faulty.clone());
        let log = Log::open_or_create(&place.table.location, store, &place.table, PIPELINE).await?;
        DeltaSink::open(&place.table, log, PIPELINE, self.share, &self.state).await
    }

    fn end(&self) -> Checkpoint {
        let last = |(lane, events): (Lane, Vec<Event>)| Some((lane, events.last()?.position));
        self.lanes.events().into_iter().filter_map(last).collect()
    }

    async fn log(&self, place: &Place) -> std::result::Result<Option<Log>, String> {
        Log::open(&place.table.location, Arc::clone(&place.inner), PIPELINE)
            .await
            .map_err(|e| e.to_string())
    }
}

/// What happens at the source, before anybody reads it.
fn history(chance: &Chance, lanes: u64) -> MemoryLanes {
    let history = MemoryLanes::default();
    for number in 1..=EVENTS {
        let lane = chance.below(lanes);
        let mut changes = Vec::new();
        for name in [ORDERS, AUDIT] {
            let count = chance.below(4);
            let change = |row| {
                let op = match chance.below(60) {
                    _ if name == AUDIT => Op::Put,
                    0 if lanes == 1 => Op::Truncate,
                    0..20 => Op::Delete,
                    _ => Op::Put,
                };
                // Each value is there once, so that a row that is doubled or old is seen.
                (op, ((chance.below(KEYS) * 2 + lane) as i64, (number * 10 + row) as i64))
            };
            let (ops, pairs): (Vec<Op>, Vec<_>) = (0..count).map(change).unzip();
            if count > 0 {
                changes.push((TableId::new(name), rows(&pairs), ops));
            }
        }
        let letters: Vec<_> = (0..chance.below(3)).map(|row| (number as i64 * 10, row as i64)).collect();
        if !letters.is_empty() {
            changes.push((TableId::new(LETTERS_OF_ORDERS), rows(&letters), vec![Op::Put; letters.len()]));
        }
        let position = Position(number * 10);
        history.push(&Lane::new(format!("a/{lane}")), Event { position, changes });
    }
    history
}

fn place(name: &str, seed: u64, chance: &Chance) -> Place {
    let limits = Limits {
        interval: Duration::from_millis(20),
        rows: 8,
        bytes: usize::MAX,
        ..Limits::default()
    };
    let mut table = Table::clone(&table(name, limits));
    if name == ORDERS {
        table.mode = Mode::Upsert {
            key: vec!["key".to_owned()],
            merge: if chance.one_in(4) { Merge::Rewrite } else { Merge::Vectors },
        };
    }
    let every = (chance.below(8) + 3).to_string();
    table.properties = BTreeMap::from([("delta.checkpointInterval".to_owned(), every)]);
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    Place {
        table: Arc::new(table),
        faulty: FaultyStore::seeded(Arc::clone(&inner), seed),
        inner,
    }
}

/// What a table holds at a mark, sorted.
fn fold(table: &Table, changes: &[Change], mark: &Checkpoint) -> Vec<(i64, i64)> {
    let held = changes.iter().filter(|(lane, at, ..)| mark.get(lane) >= Some(*at));
    let mut rows: Vec<(i64, i64)> = match table.mode {
        Mode::Append => held.map(|change| change.3).collect(),
        Mode::Upsert { .. } => {
            let mut fold = BTreeMap::new();
            for (_, _, op, (key, value)) in held {
                match op {
                    Op::Put => _ = fold.insert(*key, *value),
                    Op::Delete => _ = fold.remove(key),
                    Op::Truncate => fold.clear(),
                }
            }
            fold.into_iter().collect()
        }
    };
    rows.sort_unstable();
    rows
}

impl Open for World {
    type Source = FlakySource;
    type Sink = DeltaSink;

    async fn open(&mut self) -> Result<Opened<FlakySource, DeltaSink>> {
        let (mut tables, mut resume) = (Vec::new(), Resume::new());
        self.held.clear();
        for place in &self.places {
            if self.away == Some(place.table.id.as_str()) {
                let log = Log::open(&place.table.location, Arc::new(place.faulty.clone()), PIPELINE).await?;
                let held = log.map(|log| log.checkpoint()).unwrap_or_default();
                self.held.push((Lanes::All, held));
                continue;
            }
            let sink = self.sink(place).await?;
            resume.insert(place.table.id.clone(), sink.checkpoint().clone());
            tables.push((Arc::clone(&place.table), sink));
        }
        if let Some(held) = resume.get(&TableId::new(ORDERS)).cloned() {
            resume.insert(TableId::new(LETTERS_OF_ORDERS), held);
        }
        let letters = self.sink(&self.letters).await?;
        let there = StateReader::new(Arc::clone(&self.letters.inner))
            .rows(letters.log().snapshot())
            .await;
        let mut delivered: BTreeSet<_> = there.map_err(|why| Error::transient("letters_unread", why))?.into_iter().collect();
        let mut letters = Some((Arc::clone(&self.letters.table), letters));
        self.mutant.spoil(&mut tables, &mut letters, &mut resume, &mut delivered);
        let source = FlakySource {
            inner: MemorySource::open(&self.lanes, resume),
            away: self.away,
            delivered,
            chance: self.chance.clone(),
            mutant: self.mutant,
            read: Checkpoint::default(),
        };
        Ok(Opened { source, tables, letters })
    }

    fn left_out(&self) -> Vec<(Lanes, Checkpoint)> {
        self.held.clone()
    }
}

/// The versions from `first` on that only moved rows: no others leave the marks as they are.
async fn compactions(log: &Log, first: Version) -> Result<BTreeSet<Version>, String> {
    let news = (log.snapshot().version + 1).saturating_sub(first);
    if news == 0 {
        return Ok(BTreeSet::new());
    }
    let entries = log.history(news as usize).await.map_err(|e| e.to_string())?;
    let compacted = entries.iter().filter(|entry| entry.operation.as_deref() == Some("OPTIMIZE"));
    Ok(compacted.map(|entry| entry.version).collect())
}

/// Holds the tables against the source.
struct Judge<'a> {
    world: &'a World,
    readers: Vec<StateReader>,
    letters: StateReader,
    /// The newest version of each table that was found right.
    seen: Vec<Option<Version>>,
}

impl<'a> Judge<'a> {
    fn of(world: &'a World) -> Self {
        Self {
            world,
            readers: world
                .places
                .iter()
                .map(|place| StateReader::new(Arc::clone(&place.inner)))
                .collect(),
            letters: StateReader::new(Arc::clone(&world.letters.inner)),
            seen: vec![None; world.places.len()],
        }
    }

    /// Every version that is new; and that nothing was released which a table still needs.
    async fn check(&mut self) -> Result<(), String> {
        let released = self.world.lanes.released();
        for (nth, place) in self.world.places.iter().enumerate() {
            let (name, changes) = (&place.table.id, self.world.changes(place.table.id.as_str()));
            let Some(log) = self.world.log(place).await? else { continue };
            let first = self.seen[nth].map_or(0, |seen| seen + 1);
            let mut before = match self.seen[nth] {
                Some(seen) => self.state(&log, seen).await?.checkpoint(PIPELINE),
                None => Checkpoint::default(),
            };
            let compactions = compactions(&log, first).await?;
            for version in first..=log.snapshot().version {
                let wrong = |what: String| Err(format!("{name} at version {version}: {what}"));
                let snapshot = self.state(&log, version).await?;
                let mark = snapshot.checkpoint(PIPELINE);
                let stays = version == 0 || compactions.contains(&version);
                if !mark.covers(&before) || stays != (mark == before) {
                    return wrong(format!("its marks go from {before} to {mark}"));
                }
                let rows = match self.readers[nth].rows(&snapshot).await {
                    Ok(rows) => rows,
                    Err(unread) => return wrong(unread),
                };
                let expected = fold(&place.table, &changes, &mark);
                if rows != expected {
                    return wrong(format!("at {mark} it holds {rows:?}, not {expected:?}"));
                }
                before = mark;
            }
            self.seen[nth] = Some(log.snapshot().version);
            let needed = |change: &&Change| released.get(&change.0) >= Some(change.1) && before.get(&change.0) < Some(change.1);
            if let Some((lane, at, ..)) = changes.iter().find(needed) {
                return Err(format!(
                    "{released} was released, {name} stands at {before} and needs {lane} at {at}"
                ));
            }
        }
        self.check_letters().await
    }

    /// Each letter is there once, within the mark; and all that their table has passed.
    async fn check_letters(&mut self) -> Result<(), String> {
        let table = self.world.log(&self.world.places[0]).await?;
        let passed = table.map(|log| log.checkpoint()).unwrap_or_default();
        let (mut there, mut mark) = (Vec::new(), Checkpoint::default());
        if let Some(log) = self.world.log(&self.world.letters).await? {
            (there, mark) = (self.letters.rows(log.snapshot()).await?, log.checkpoint());
        }
        if let Some(twice) = there.windows(2).find(|two| two[0] == two[1]) {
            return Err(format!("the letter {:?} stands there twice", twice[0]));
        }
        let (there, within) = (BTreeSet::from_iter(there), self.world.letters_upto(&mark));
        if let Some(beyond) = there.difference(&within).next() {
            return Err(format!("the letter {beyond:?} stands at {mark}"));
        }
        match self.world.letters_upto(&passed).difference(&there).next() {
            Some(letter) => Err(format!("{ORDERS} at {passed} has passed the letter {letter:?}, which is not there")),
            None => Ok(()),
        }
    }

    async fn state(&self, log: &Log, version: Version) -> Result<alluvium::log::Snapshot, String> {
        log.at(When::Version(version))
            .await
            .map_err(|e| format!("{} at version {version}: {e}", log.url()))
    }

    /// All versions once more, each found by its mark; all of the source is in the tables, and may be forgotten there.
    async fn check_the_end(&mut self) -> Result<Tally, String> {
        self.seen.fill(None);
        self.check().await?;
        let (end, released) = (self.world.end(), self.world.lanes.released());
        if released != end {
            return Err(format!("released {released} of {end}"));
        }
        let mut tally = Tally::default();
        for place in &self.world.places {
            let log = self.world.log(place).await?.ok_or("a table is gone")?;
            let changes = self.world.changes(place.table.id.as_str());
            if fold(&place.table, &changes, &log.checkpoint()) != fold(&place.table, &changes, &end) {
                return Err(format!("{} ended at {}", place.table.id, log.checkpoint()));
            }
            let compactions = compactions(&log, 0).await?;
            let mut first_with_mark = 0;
            for version in 1..=log.snapshot().version {
                let mark = self.state(&log, version).await?.checkpoint(PIPELINE);
                if !compactions.contains(&version) {
                    first_with_mark = version;
                }
                match log.version_at(&When::Mark(mark.clone())).await {
                    Ok(found) if found == first_with_mark => {}
                    other => return Err(format!("{mark} of version {version} of {} is found at {other:?}", place.table.id)),
                }
            }
            tally.versions += log.snapshot().version;
            tally.compactions += compactions.len() as u64;
            let files: Vec<_> = place.inner.list(None).try_collect().await.map_err(|e| e.to_string())?;
            let named = |part: &str| files.iter().filter(|file| file.location.as_ref().contains(part)).count() as u64;
            tally.checkpoints += named(".checkpoint.parquet");
            tally.vectors += named("deletion_vector");
            tally.data_files += named("part-");
        }
        tally.orphans = tally.data_files - self.readers.iter().map(StateReader::files).sum::<u64>();
        Ok(tally)
    }
}

/// What came of a world: enough of everything, or the checks mean little.
#[derive(Debug, Default)]
struct Tally {
    versions: u64,
    checkpoints: u64,
    compactions: u64,
    vectors: u64,
    data_files: u64,
    /// Data files that no version names.
    orphans: u64,
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, one| Self {
            versions: sum.versions + one.versions,
            checkpoints: sum.checkpoints + one.checkpoints,
            compactions: sum.compactions + one.compactions,
            vectors: sum.vectors + one.vectors,
            data_files: sum.data_files + one.data_files,
            orphans: sum.orphans + one.orphans,
        })
    }
}

/// Lives and deaths of pipelines on one world.
async fn live(seed: u64, mutant: Mutant) -> Result<Tally, String> {
    let state = tempfile::tempdir().map_err(|e| e.to_string())?;
    let world = World::new(seed, mutant, state.path().to_owned());
    let mut judge = Judge::of(&world);
    for life in 0..LIVES {
        let stop = CancellationToken::new();
        let run = pipeline::run(world.pipeline(), world.settings(), stop.clone());
        let limit = Duration::from_millis(30 + world.chance.below(600));
        let outcomes = match world.chance.below(4) {
            0 => vec![timeout(limit, run).await.ok()], // Killed: everything is dropped where it stands.
            1 => {
                let twin = pipeline::run(world.pipeline(), world.settings(), stop.clone());
                let (first, second) = tokio::join!(timeout(limit * 2, run), timeout(limit * 3, twin));
                vec![first.ok(), second.ok()]
            }
            2 => {
                let ask = async {
                    sleep(limit).await;
                    stop.cancel();
                };
                let run = timeout(limit * 4, run);
                vec![tokio::join!(run, ask).0.ok()]
            }
            _ => vec![timeout(limit * 5, run).await.ok()],
        };
        judge.check().await.map_err(|wrong| format!("seed {seed}, life {life}: {wrong}"))?;
        if let Some(failure) = outcomes
            .iter()
            .flatten()
            .filter_map(|outcome| outcome.as_ref().err())
            .find(|e| !is_fair(e))
        {
            return Err(format!("seed {seed}, life {life}: {failure}"));
        }
    }
    world.stores().for_each(FaultyStore::heal);
    world.chance.heal();
    let run = pipeline::run(world.clone(), world.settings(), CancellationToken::new());
    match timeout(NEVER, run).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => return Err(format!("seed {seed}, healed: {failure}")),
        Err(_) => return Err(format!("seed {seed}: no end in sight")),
    }
    judge
        .check_the_end()
        .await
        .map_err(|wrong| format!("seed {seed}, at the end: {wrong}"))
}

/// The errors with which such stores may end a pipeline: a person is asked for where the store says "denied", and for nothing else.
fn is_fair(error: &Error) -> bool {
    matches!(error.kind, Kind::Transient | Kind::Fenced) || error.code == "store_denied"
}

fn run_seed(seed: u64, mutant: Mutant) -> Result<Tally, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(live(seed, mutant))
}

#[test]
fn every_version_of_a_delta_table_equals_the_fold_at_its_mark_whatever_the_store_does() {
    let seeds = seeds(60);
    let tally: Tally = (1..=seeds)
        .map(|seed| run_seed(seed, Mutant::None).unwrap_or_else(|wrong| panic!("{wrong}")))
        .sum();
    println!("{seeds} seeds of Delta tables, each version equals the fold at its mark: {tally:?}");
    assert!(tally.versions > seeds * 20, "too few versions to mean anything: {tally:?}");
    let rare = tally.checkpoints.min(3 * tally.compactions).min(tally.vectors).min(tally.orphans);
    assert!(rare > seeds, "too little of something: {tally:?}");
}

#[test]
fn mutants_of_the_store_and_of_its_users_are_caught_in_the_delta_tables() {
    for mutant in [
        Mutant::CarelessStore,
        Mutant::ForgetfulStore,
        Mutant::ReleasesWhatWasRead,
        Mutant::StartsAllTablesAtTheLowest,
        Mutant::PublishesDataBeforeLetters,
        Mutant::WritesLettersAgain,
    ] {
        let caught = (1..=20).find_map(|seed| run_seed(seed, mutant).err());
        println!("{mutant:?}: {}", caught.as_deref().unwrap_or("not caught"));
        assert!(caught.is_some(), "{mutant:?} was not caught");
    }
}
