//! The protocol under faults, on the real pipeline code: a source and tables in memory that lose connections, fail before and after
//! a commit, are killed at any moment, and are written by two pipelines at once. Time is paused and chance is seeded; only the order
//! in which tasks wake that wait for the same thing is tokio's own.
//!
//! After every life of a pipeline the tables are compared with what happened at the source: each version of each table holds exactly
//! the changes up to its mark; nothing was released that a table still needs; each dead letter is there once, and before its table has
//! passed it, though one of the tables is left out now and then. The same checks must catch every mutant below, or they prove nothing.
//!
//! `ALLUVIUM_SEEDS=5000 make simulate` runs more seeds than the suite does.

mod delta;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alluvium::batch::{ChangeBatch, Flow, Gap};
use alluvium::budget::Budget;
use alluvium::error::{Error, Kind, Result};
use alluvium::pipeline::{self, Open, Opened, Settings};
use alluvium::position::{Checkpoint, Lane, Position};
use alluvium::sinks::Sink;
use alluvium::sinks::memory::{MemorySink, MemoryTable};
use alluvium::sources::memory::{Event, MemoryLanes, MemorySource};
use alluvium::sources::{Resume, Source};
use alluvium::status::Board;
use alluvium::table::{Lanes, Limits, TableId, Version};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::rows::{pairs, puts, rows, table};

const LANES: [&str; 2] = ["a/0", "a/1"];
const TABLES: [&str; 3] = ["orders", "users", "idle"]; // Nothing ever happens to the last one.
const LETTERS: &str = "letters";
/// What the source calls the letters of tables, so that they come with what their tables lack.
const LETTERS_OF: [(&str, &str); 2] = [("orders", "letters of orders"), ("users", "letters of users")];
const EVENTS: u64 = 60;
/// Pipelines that live and die, one after the other.
const LIVES_MAX: u64 = 12;
/// Of the world's own time: what takes longer never ends.
const NEVER: Duration = Duration::from_secs(3600);

/// A way to get the protocol wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    None,
    ReleasesWhatWasRead,
    PublishesBetweenMarks,
    StartsAllTablesAtTheLowest,
    Overwrites,
    PublishesDataBeforeLetters,
    /// Takes the mark of the letters for what they hold, of whatever table.
    BelievesTheMarkOfLetters,
    /// Writes what it rejects, whether it is there or not.
    WritesLettersAgain,
    /// Of the store: a put happens whatever its condition says.
    CarelessStore,
    /// Of the store: deletion vectors are said to be written, and are not.
    ForgetfulStore,
}

impl Mutant {
    /// Gets wrong what a flow is opened with.
    fn spoil<T>(self, tables: &mut Vec<T>, letters: &mut Option<T>, resume: &mut Resume, delivered: &mut BTreeSet<(i64, i64)>) {
        match self {
            Mutant::WritesLettersAgain => delivered.clear(),
            Mutant::PublishesDataBeforeLetters => tables.extend(letters.take()),
            Mutant::StartsAllTablesAtTheLowest => {
                let lowest = resume.values().cloned().reduce(|a, b| a.meet(&b)).unwrap_or_default();
                resume.values_mut().for_each(|held| *held = lowest.clone());
            }
            _ => {}
        }
    }
}

#[derive(Clone)]
struct Chance {
    rng: Arc<Mutex<SmallRng>>,
    /// Nothing fails any more.
    is_healed: Arc<AtomicBool>,
}

impl Chance {
    fn of(seed: u64) -> Self {
        Self {
            rng: Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))),
            is_healed: Arc::default(),
        }
    }
    fn below(&self, limit: u64) -> u64 {
        self.rng.lock().unwrap().random_range(0..limit)
    }
    fn one_in(&self, limit: u64) -> bool {
        self.below(limit) == 0
    }
    fn fails_one_in(&self, limit: u64) -> bool {
        self.one_in(limit) && !self.is_healed.load(Ordering::Relaxed)
    }
    fn heal(&self) {
        self.is_healed.store(true, Ordering::Relaxed);
    }
}

struct FlakySource {
    inner: MemorySource,
    /// A table that is not part of the flow.
    away: Option<&'static str>,
    /// Letters that are there.
    delivered: BTreeSet<(i64, i64)>,
    chance: Chance,
    mutant: Mutant,
    read: Checkpoint,
}

impl Source for FlakySource {
    async fn next(&mut self) -> Result<Option<Flow>> {
        sleep(Duration::from_millis(self.chance.below(3))).await;
        if self.chance.fails_one_in(130) {
            return Err(Error::transient("connection_lost", "connection lost"));
        }
        if self.chance.fails_one_in(400) {
            return Ok(Some(Flow::Reopen("the lanes have changed".to_owned())));
        }
        loop {
            let batch = match self.inner.next().await? {
                Some(Flow::Rows(batch)) => batch,
                flow => {
                    if let Some(Flow::Mark(mark)) = &flow {
                        self.read = mark.clone();
                    }
                    return Ok(flow);
                }
            };
            let letters = LETTERS_OF.iter().find(|(_, name)| *name == batch.table.as_str());
            let fed = letters.map_or(batch.table.as_str(), |(table, _)| table);
            if self.away == Some(fed) {
                continue;
            }
            if letters.is_none() {
                return Ok(Some(Flow::Rows(batch)));
            }
            let new: Vec<_> = pairs(&batch.rows)
                .into_iter()
                .filter(|letter| !self.delivered.contains(letter))
                .collect();
            if !new.is_empty() {
                return Ok(Some(Flow::Rows(ChangeBatch::puts(TableId::new(LETTERS), rows(&new)))));
            }
        }
    }

    async fn release(&mut self, upto: &Checkpoint) -> Result<()> {
        let upto = if self.mutant == Mutant::ReleasesWhatWasRead {
            &self.read
        } else {
            upto
        };
        self.inner.release(upto).await
    }
}

struct FlakySink {
    inner: MemorySink,
    table: MemoryTable,
    chance: Chance,
    mutant: Mutant,
    /// A copy of what is staged, for the mutants.
    staged: Vec<ChangeBatch>,
}

fn copy(batch: &ChangeBatch) -> ChangeBatch {
    ChangeBatch {
        table: batch.table.clone(),
        rows: batch.rows.clone(),
        ops: batch.ops.clone(),
        unchanged: None,
        newest_ms: batch.newest_ms,
        permit: None,
    }
}

impl FlakySink {
    async fn overwrite(&mut self, mark: &Checkpoint) -> Result<Version> {
        self.inner = MemorySink::open(&self.table);
        for batch in self.staged.drain(..) {
            self.inner.write(batch).await?;
        }
        self.inner.commit(mark).await
    }
}

impl Sink for FlakySink {
    fn checkpoint(&self) -> &Checkpoint {
        self.inner.checkpoint()
    }

    async fn write(&mut self, batch: ChangeBatch) -> Result<()> {
        self.staged.push(copy(&batch));
        self.inner.write(batch).await?;
        if self.mutant == Mutant::PublishesBetweenMarks && self.chance.one_in(20) {
            let held = self.inner.checkpoint().clone();
            self.inner.commit(&held).await?;
            self.staged.clear();
        }
        Ok(())
    }

    fn note(&mut self, gap: Gap) {
        self.inner.note(gap);
    }

    async fn commit(&mut self, mark: &Checkpoint) -> Result<Version> {
        sleep(Duration::from_millis(self.chance.below(8))).await;
        if self.chance.fails_one_in(25) {
            return Err(Error::transient("put_failed", "the put failed"));
        }
        let version = if self.mutant == Mutant::Overwrites {
            self.overwrite(mark).await?
        } else {
            self.inner.commit(mark).await?
        };
        self.staged.clear();
        if self.chance.fails_one_in(25) {
            return Err(Error::transient("response_lost", "the response was lost"));
        }
        Ok(version)
    }
}

/// A world: what happened at the source, and the tables.
#[derive(Clone)]
struct World {
    lanes: MemoryLanes,
    tables: BTreeMap<String, MemoryTable>,
    chance: Chance,
    mutant: Mutant,
    /// A table that this pipeline goes without.
    away: Option<&'static str>,
}

impl World {
    fn new(seed: u64, mutant: Mutant) -> Self {
        let chance = Chance::of(seed);
        let lanes = MemoryLanes::default();
        for number in 1..=EVENTS {
            let lane = LANES[chance.below(2) as usize];
            let mut changes = Vec::new();
            for (nth, (table, letters)) in (0..).zip(LETTERS_OF) {
                for (name, count) in [(table, chance.below(4)), (letters, chance.below(2))] {
                    let batch: Vec<_> = (0..count as i64).map(|row| (number as i64 * 10, nth * 10 + row)).collect();
                    if count > 0 {
                        changes.push((TableId::new(name), rows(&batch), puts(batch.len())));
                    }
                }
            }
            lanes.push(
                &Lane::new(lane),
                Event {
                    position: Position(number * 10),
                    changes,
                },
            );
        }
        let tables = TABLES
            .iter()
            .chain([&LETTERS])
            .map(|name| ((*name).to_owned(), MemoryTable::default()))
            .collect();
        Self {
            lanes,
            tables,
            chance,
            mutant,
            away: None,
        }
    }

    /// A pipeline, which may have to do without a table.
    fn pipeline(&self) -> Self {
        Self {
            away: self.chance.one_in(4).then_some("users"),
            ..self.clone()
        }
    }

    fn sink(&self, name: &str) -> FlakySink {
        let table = self.tables[name].clone();
        FlakySink {
            inner: MemorySink::open(&table),
            table,
            chance: self.chance.clone(),
            mutant: self.mutant,
            staged: vec![],
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            pipeline: "p".into(),
            board: Board::default(),
            budget: Budget::new(64 << 10),
            grace: Duration::from_millis(50),
            tries_max: None,
            seed: self.chance.below(u64::MAX),
        }
    }

    /// The changes that a table is to hold at a mark: per lane, in order.
    fn expected(&self, name: &str, mark: &Checkpoint) -> BTreeMap<Lane, Vec<(i64, i64)>> {
        let mut expected = BTreeMap::new();
        for (lane, events) in self.lanes.events() {
            let held = events.iter().filter(|event| Some(event.position) <= mark.get(&lane));
            let of_table = held.flat_map(|event| event.changes.iter().filter(|change| change.0.as_str() == name));
            let found: Vec<_> = of_table.flat_map(|change| pairs(&change.1)).collect();
            if !found.is_empty() {
                expected.insert(lane, found);
            }
        }
        expected
    }

    fn lane_of(&self, key: i64) -> Lane {
        let events = self.lanes.events();
        let has = |events: &Vec<Event>| events.iter().any(|event| event.position.0 as i64 == key);
        events.iter().find(|(_, events)| has(events)).map(|(lane, _)| lane.clone()).unwrap()
    }

    /// Every version of every table against the source, and the releases against the tables.
    fn check(&self) -> Result<(), String> {
        self.check_letters()?;
        for (name, table) in self.tables.iter().filter(|(name, _)| *name != LETTERS) {
            let mut held: BTreeMap<Lane, Vec<(i64, i64)>> = BTreeMap::new();
            for (number, version) in table.versions().iter().enumerate() {
                for pair in version.changes.iter().flat_map(|(rows, _)| pairs(rows)) {
                    held.entry(self.lane_of(pair.0)).or_default().push(pair);
                }
                if held != self.expected(name, &version.mark) {
                    return Err(format!(
                        "{name} version {} does not equal the source at {}",
                        number + 1,
                        version.mark
                    ));
                }
            }
            if self.expected(name, &self.lanes.released()) != self.expected(name, &self.lanes.released().meet(&table.checkpoint())) {
                return Err(format!(
                    "{} was released, {name} holds {}",
                    self.lanes.released(),
                    table.checkpoint()
                ));
            }
        }
        Ok(())
    }

    /// Each letter is there once at most, within the mark; and all that a table has passed.
    fn check_letters(&self) -> Result<(), String> {
        let mut there = BTreeSet::new();
        for version in self.tables[LETTERS].versions() {
            for letter in version.changes.iter().flat_map(|(rows, _)| pairs(rows)) {
                if version.mark.get(&self.lane_of(letter.0)) < Some(Position(letter.0 as u64)) {
                    return Err(format!("the letter {letter:?} stands at {}", version.mark));
                }
                if !there.insert(letter) {
                    return Err(format!("the letter {letter:?} stands there twice"));
                }
            }
        }
        for (table, letters) in LETTERS_OF {
            let mark = self.tables[table].checkpoint();
            let passed = self.expected(letters, &mark).into_values().flatten();
            if let Some(letter) = passed.into_iter().find(|letter| !there.contains(letter)) {
                return Err(format!("{table} at {mark} has passed the letter {letter:?}, which is not there"));
            }
        }
        Ok(())
    }

    fn end(&self) -> Checkpoint {
        self.lanes
            .events()
            .into_iter()
            .filter_map(|(lane, events)| Some((lane, events.last()?.position)))
            .collect()
    }
}

impl Open for World {
    type Source = FlakySource;
    type Sink = FlakySink;

    async fn open(&mut self) -> Result<Opened<FlakySource, FlakySink>> {
        if self.chance.fails_one_in(30) {
            return Err(Error::transient("store_unreachable", "the store does not answer"));
        }
        let limits = Limits {
            interval: Duration::from_millis(20),
            rows: 6,
            bytes: usize::MAX,
            ..Limits::default()
        };
        let present = TABLES.iter().filter(|name| self.away != Some(name));
        let mut tables: Vec<_> = present.map(|name| (table(name, limits), self.sink(name))).collect();
        let mut resume: Resume = tables
            .iter()
            .map(|(table, sink)| (table.id.clone(), sink.checkpoint().clone()))
            .collect();
        let mut letters = Some((table(LETTERS, limits), self.sink(LETTERS)));
        let (there, marked) = (self.tables[LETTERS].versions(), self.tables[LETTERS].checkpoint());
        let mut delivered: BTreeSet<_> = there
            .iter()
            .flat_map(|version| version.changes.iter().flat_map(|(rows, _)| pairs(rows)))
            .collect();
        for (table, letters) in LETTERS_OF {
            resume.extend(resume.get(&TableId::new(table)).cloned().map(|held| (TableId::new(letters), held)));
            if self.mutant == Mutant::BelievesTheMarkOfLetters {
                delivered.extend(self.expected(letters, &marked).into_values().flatten());
            }
        }
        self.mutant.spoil(&mut tables, &mut letters, &mut resume, &mut delivered);
        let (inner, read) = (MemorySource::open(&self.lanes, resume), Checkpoint::default());
        let source = FlakySource {
            inner,
            away: self.away,
            delivered,
            chance: self.chance.clone(),
            mutant: self.mutant,
            read,
        };
        Ok(Opened { source, tables, letters })
    }

    fn left_out(&self) -> Vec<(Lanes, Checkpoint)> {
        let held = self.away.map(|name| (Lanes::All, self.tables[name].checkpoint()));
        held.into_iter().collect()
    }
}

/// Lives and deaths of pipelines on one world. Then nothing fails any more, and one pipeline comes to the end of the source.
async fn live(seed: u64, mutant: Mutant) -> Result<usize, String> {
    let world = World::new(seed, mutant);
    for life in 0..world.chance.below(LIVES_MAX) {
        let stop = CancellationToken::new();
        let (one, other) = (world.pipeline(), world.pipeline());
        let run = pipeline::run(one, world.settings(), stop.clone());
        let limit = Duration::from_millis(30 + world.chance.below(400));
        let outcomes = match world.chance.below(3) {
            0 => vec![timeout(limit, run).await.ok()], // Killed: everything is dropped where it stands.
            1 => {
                let twin = pipeline::run(other, world.settings(), stop.clone());
                let (first, second) = tokio::join!(timeout(limit * 4, run), timeout(limit * 4, twin));
                vec![first.ok(), second.ok()]
            }
            _ => {
                let ask = async {
                    sleep(limit).await;
                    stop.cancel();
                };
                vec![Some(tokio::join!(run, ask).0)]
            }
        };
        world.check().map_err(|wrong| format!("seed {seed}, life {life}: {wrong}"))?;
        if let Some(failure) = outcomes.iter().flatten().filter_map(|outcome| outcome.as_ref().err()).next() {
            assert_ne!(failure.kind, Kind::Bug, "seed {seed}, life {life}: {failure}");
        }
    }
    world.chance.heal();
    let last = pipeline::run(world.clone(), world.settings(), CancellationToken::new());
    match timeout(NEVER, last).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => return Err(format!("seed {seed}: nothing fails any more, and it ends with {failure}")),
        Err(_) => return Err(format!("seed {seed}: nothing fails any more, and it does not come to its end")),
    }
    world
        .check()
        .and_then(|()| is_live(&world))
        .map_err(|wrong| format!("seed {seed}: {wrong}"))?;
    Ok(world.tables.values().map(|table| table.versions().len()).sum())
}

/// At the end everything is there, and the source may forget all of it, although one table never had a row.
fn is_live(world: &World) -> Result<(), String> {
    let end = world.end();
    for (name, table) in world.tables.iter().filter(|(name, _)| *name != LETTERS) {
        if world.expected(name, &end) != world.expected(name, &table.checkpoint()) {
            return Err(format!("{name} ended at {}", table.checkpoint()));
        }
    }
    if world.lanes.released() != end {
        return Err(format!("released {} of {end}", world.lanes.released()));
    }
    Ok(())
}

fn run_seed(seed: u64, mutant: Mutant) -> Result<usize, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(live(seed, mutant))
}

/// How many seeds to run: `ALLUVIUM_SEEDS`, or what the suite has time for.
fn seeds(of_suite: u64) -> u64 {
    std::env::var("ALLUVIUM_SEEDS").map_or(of_suite, |text| text.parse().expect("ALLUVIUM_SEEDS is a number"))
}

#[test]
fn every_version_equals_the_source_at_its_mark_whatever_fails() {
    let seeds = seeds(400);
    let versions: usize = (1..=seeds)
        .map(|seed| run_seed(seed, Mutant::None).unwrap_or_else(|wrong| panic!("{wrong}")))
        .sum();
    println!("{seeds} seeds, {versions} versions: each equals the source at its mark");
    assert!(versions as u64 > seeds * 10, "too few versions to mean anything");
}

#[test]
fn every_mutant_is_caught() {
    for mutant in [
        Mutant::ReleasesWhatWasRead,
        Mutant::PublishesBetweenMarks,
        Mutant::StartsAllTablesAtTheLowest,
        Mutant::Overwrites,
        Mutant::PublishesDataBeforeLetters,
        Mutant::BelievesTheMarkOfLetters,
        Mutant::WritesLettersAgain,
    ] {
        let caught = (1..=100).find_map(|seed| run_seed(seed, mutant).err());
        println!("{mutant:?}: {}", caught.as_deref().unwrap_or("not caught"));
        assert!(caught.is_some(), "{mutant:?} was not caught");
    }
}
