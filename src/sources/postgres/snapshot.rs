//! Copies of tables: all of them at one consistent point, each table in parts that are read side by side.
//!
//! ```text
//!   temporary slot ──► consistent point P, exported snapshot
//!                            │ imported by each connection
//!     parts of tables ──► COPY … TO STDOUT (FORMAT binary) ──► rows ──► one channel ──► Flow::Rows …, Flow::Copied at P
//! ```
//!
//! The point is that of a slot, so the stream goes on exactly where the copy ends: a transaction is in the copy, or it comes behind P.
//! Each table is published when its own copy is whole. The largest come first: then most of them are whole at about the same time, and a
//! run that is interrupted leaves few tables that begin at different moments.

mod jobs;
mod part;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tracing::{info, warn};

use self::jobs::{Job, copies_of};
use self::part::CopiedPart;
use super::catalog::{self, PgTable};
use super::connection::{self, Address, BYTES_AS_THEY_ARE, Control, Replication, identifier, literal};
use super::progress::Progress;
use super::publication;
use super::rows::{Event, Rows};
use super::values::Specials;
use super::{Feed, Holds, Settings, again, waiting};
use crate::batch::{ChangeBatch, Flow, Op};
use crate::error::{Error, Result};
use crate::position::{Checkpoint, Lane, Lsn, Position};
use crate::table::TableId;

/// Rows are handed on when they weigh so much: a good size for a column, and little beside any budget.
const BATCH_BYTES: usize = 2 << 20;
/// Batches that wait to be taken.
const QUEUE_LENGTH: usize = 2;

/// Tables are copied at one point up to so much together: as long as that takes, the server cleans up nothing that is younger.
const GROUP_BYTES: u64 = 1 << 30;
/// How long a slot is waited for until it is asked for again.
const SLOT_PAUSE: Duration = Duration::from_secs(10);
/// How long others are followed until tables are copied again of which none could be.
const LOST_PAUSE: Duration = Duration::from_secs(10);
/// The code of an error: a table has other rows than those that are to be copied.
const REWRITTEN: &str = "table_rewritten";
/// Dead letters that wait for the rest of their table's copy.
const LETTERS_BYTES_MAX: usize = 8 << 20;

enum Piece {
    Rows(ChangeBatch),
    Letters { table: usize, batch: ChangeBatch },
    Done { table: usize },
    Lost { table: usize, why: Error }, // Its own rows cannot be had at this point any more.
}

/// The tables that are copied next, of those that are to be copied: one at least. The largest comes first.
async fn first_group(control: &Control, missing: Vec<Feed>) -> Result<Vec<Feed>> {
    let (mut group, mut bytes) = (Vec::new(), 0);
    for feed in missing {
        let parts = catalog::parts(control, feed.source.oid).await?;
        let weight = parts.iter().map(|part| part.bytes).sum::<u64>();
        bytes += weight;
        if bytes > GROUP_BYTES && !group.is_empty() {
            break;
        }
        group.push((weight, feed));
    }
    group.sort_by_key(|(weight, _)| Reverse(*weight));
    Ok(group.into_iter().map(|(_, feed)| feed).collect())
}

/// Copies under way. Dropping it ends them.
pub struct Copies {
    tables: Vec<TableId>,
    /// Jobs of each table that are not done.
    left: Vec<usize>,
    /// Of each table the dead letters that wait for the rest of its copy, so that none are published of one that is given up.
    letters: Vec<Vec<ChangeBatch>>,
    /// Tables that had too many of them: some were handed on.
    ahead: BTreeSet<usize>,
    /// Tables that were rewritten meanwhile: they wait for the next point, and hold up none of the others.
    lost: BTreeMap<usize, Error>,
    /// When it is told that none could be copied, and how long that takes.
    told_at: Option<Instant>,
    pause: Duration,
    point: u64,
    lane: Lane,
    progress: Arc<Progress>,
    pieces: mpsc::Receiver<Result<Piece>>,
    _workers: JoinSet<()>,
    /// Keeps the exported snapshot until all connections have taken it, and its slot until the end.
    _slot: Replication,
    ready: VecDeque<Flow>,
    /// The letters and the ends of tables that are whole, and whether there are more than was told.
    whole: VecDeque<Flow>,
    is_news: bool,
}

/// What comes of copies.
pub enum Step {
    Flow(Flow),
    /// A table is whole: see [`Copies::hand_on`].
    Whole,
    /// All are, and were handed on.
    End,
}

impl Copies {
    /// Takes a consistent point, and begins to copy tables at it: as many as make a group, one at least. That takes as long as
    /// transactions last that are under way, or that lock these tables. `beside`: other tables are followed meanwhile. `told`: the point, as
    /// soon as it is known.
    pub async fn begin(
        settings: Settings,
        missing: Vec<Feed>,
        beside: bool,
        progress: Arc<Progress>,
        told: watch::Sender<Option<u64>>,
    ) -> Result<Self> {
        info!(pipeline = %settings.pipeline, tables = missing.len(), "taking a consistent point for copies");
        let control = patient(&settings.address).await?;
        let oids: Vec<u32> = missing.iter().map(|feed| feed.source.oid).collect();
        let estimates = catalog::estimated_bytes(&control, &oids).await?;
        for feed in &missing {
            let bytes = estimates.get(&feed.source.oid).copied().unwrap_or(0);
            progress.will_copy(&feed.followed.id, bytes);
        }
        let tables = first_group(&control, missing).await?;
        let (slot, point, snapshot) = take_point(&settings, &control, beside).await?;
        told.send_replace(Some(point));
        // What there is once the point is there: what is added later is not copied.
        let mut jobs = Vec::new();
        for (number, table) in tables.iter().enumerate() {
            let parts = catalog::parts(&control, table.source.oid).await?;
            let filter = publication::row_filter(&control, &settings.publication, table.source.oid).await?;
            jobs.extend(copies_of(number, table, &parts, filter.as_deref()));
        }
        // Behind that: what is gone by then has no parts, and would seem to be whole.
        must_be_as_before(&tables, &catalog::tables(&control, &settings.publication).await?)?;
        drop(control);
        let mut left = vec![0; tables.len()];
        jobs.iter().for_each(|job| left[job.table] += 1);
        for (number, table) in tables.iter().enumerate() {
            let of_table = jobs.iter().filter(|job| job.table == number);
            progress.will_copy(&table.followed.id, of_table.map(|job| job.bytes).sum());
        }
        let count = settings.copy_connections.min(jobs.len()).max(1);
        info!(pipeline = %settings.pipeline, tables = tables.len(), parts = jobs.len(), connections = count, lsn = %Lsn(point), "copying");
        let mut ready = VecDeque::new();
        for table in &tables {
            ready.extend(emptied(table, settings.specials, point)?);
        }
        let shared = Arc::new(Shared {
            jobs: Mutex::new(jobs.into_iter()),
            same: Mutex::default(),
            tables,
            settings,
            progress,
            point,
        });
        let (pieces_tx, pieces) = mpsc::channel(QUEUE_LENGTH);
        let mut workers = JoinSet::new();
        for _ in 0..count {
            let control = patient(&shared.settings.address).await?;
            let begin = format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
                literal(&snapshot)
            );
            control.batch_execute(BYTES_AS_THEY_ARE).await?;
            control.batch_execute(&begin).await?;
            let (shared, pieces) = (Arc::clone(&shared), pieces_tx.clone());
            workers.spawn(async move {
                if let Err(failure) = shared.work(&control, &pieces).await {
                    // Without a receiver the copies have ended already.
                    let _ = pieces.send(Err(failure)).await;
                }
            });
        }
        let mut copies = Self {
            tables: shared.tables.iter().map(|table| table.followed.id.clone()).collect(),
            letters: left.iter().map(|_| Vec::new()).collect(),
            ahead: BTreeSet::new(),
            lost: BTreeMap::new(),
            told_at: None,
            pause: if beside { LOST_PAUSE } else { Duration::ZERO },
            left,
            point,
            lane: shared.settings.lane.clone(),
            progress: Arc::clone(&shared.progress),
            pieces,
            _workers: workers,
            _slot: slot,
            ready,
            whole: VecDeque::new(),
            is_news: false,
        };
        // A partitioned table without partitions has no part that could end.
        for table in 0..copies.left.len() {
            if copies.left[table] == 0 {
                copies.is_whole(table);
            }
        }
        Ok(copies)
    }

    /// Whether nothing was handed on that must not be published before the rest of it.
    pub fn may_publish(&self) -> bool {
        self.ahead.is_empty()
    }

    /// The next rows, or what else there is. Cancel safe. Waits for ever when all tables are whole and some were not handed on.
    pub async fn next(&mut self) -> Result<Step> {
        loop {
            if let Some(flow) = self.ready.pop_front() {
                return Ok(Step::Flow(flow));
            }
            if std::mem::take(&mut self.is_news) {
                return Ok(Step::Whole);
            }
            match self.pieces.recv().await {
                None if self.whole.is_empty() => return self.end().await,
                None => std::future::pending().await,
                Some(piece) => match piece? {
                    Piece::Rows(batch) => return Ok(Step::Flow(Flow::Rows(batch))),
                    Piece::Letters { table, batch } => self.hold(table, batch),
                    Piece::Lost { table, why } => self.give_up(table, why)?,
                    Piece::Done { table } => {
                        self.left[table] -= 1;
                        if self.left[table] == 0 {
                            self.is_whole(table);
                        }
                    }
                },
            }
        }
    }

    /// All that can be copied at this point is. Cancel safe.
    ///
    /// Errors: that is nothing. It is told after a while, for opening again holds up the others.
    async fn end(&mut self) -> Result<Step> {
        if self.lost.is_empty() || self.left.contains(&0) {
            return Ok(Step::End);
        }
        sleep_until(*self.told_at.get_or_insert(Instant::now() + self.pause)).await;
        self.lost.pop_first().map_or(Ok(Step::End), |(_, why)| Err(why))
    }

    /// A table waits for the next point.
    ///
    /// Errors: it has dead letters that were handed on, so nothing is published before all of it is.
    fn give_up(&mut self, table: usize, why: Error) -> Result<()> {
        if self.ahead.contains(&table) {
            return Err(why);
        }
        self.letters[table].clear();
        if !self.lost.contains_key(&table) {
            warn!(table = %self.tables[table], %why, "its copy is given up");
            self.lost.insert(table, why);
        }
        Ok(())
    }

    /// Hands on the letters and the ends of the tables that are whole. False: there are none.
    pub fn hand_on(&mut self, ready: &mut VecDeque<Flow>) -> bool {
        let any = !self.whole.is_empty();
        ready.append(&mut self.whole);
        any
    }

    fn hold(&mut self, table: usize, letters: ChangeBatch) {
        if self.lost.contains_key(&table) {
            return;
        }
        self.letters[table].push(letters);
        let bytes = |letters: &ChangeBatch| letters.rows.get_array_memory_size();
        if self.letters.iter().flatten().map(bytes).sum::<usize>() > LETTERS_BYTES_MAX {
            self.ahead.insert(table);
            self.ready.extend(self.letters[table].drain(..).map(Flow::Rows));
        }
    }

    fn is_whole(&mut self, table: usize) {
        info!(table = %self.tables[table], lsn = %Lsn(self.point), "copied");
        self.ahead.remove(&table);
        self.whole.extend(self.letters[table].drain(..).map(Flow::Rows));
        self.whole.push_back(Flow::Copied {
            table: self.tables[table].clone(),
            mark: Checkpoint::from_iter([(self.lane.clone(), Position(self.point))]),
        });
        self.is_news = true;
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        let given_up = self.tables.iter().zip(&self.left).filter(|(_, left)| **left > 0);
        given_up.for_each(|(table, _)| self.progress.give_up(table));
    }
}

struct Shared {
    jobs: Mutex<std::vec::IntoIter<Job>>,
    /// How many bad rows without a key have held the same, by the number of their table and the hash of what they hold.
    same: Mutex<HashMap<(usize, u128), u64>>,
    tables: Vec<Feed>,
    settings: Settings,
    progress: Arc<Progress>,
    point: u64,
}

impl Shared {
    /// Takes one job after the other until none is left.
    async fn work(&self, control: &Control, pieces: &mpsc::Sender<Result<Piece>>) -> Result<()> {
        loop {
            let job = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(job) = job else { return Ok(()) };
            // What the role may not read stops this table only.
            let stops = |error: Error| match error.code {
                "postgres_denied" => error.alone(&self.tables[job.table].followed.id),
                _ => error,
            };
            let mut copy = control.copy_out(&job.sql).await.map_err(stops)?;
            let mut part = CopiedPart::new(self, &job);
            while let Some(bytes) = copy.next().await.map_err(stops)? {
                part.take(&bytes)?;
                if part.bytes() >= BATCH_BYTES && !part.hand_over(pieces).await? {
                    return Ok(());
                }
            }
            part.must_be_whole()?;
            match must_be_its_own_rows(control, &job).await {
                Err(why) if why.code == REWRITTEN => {
                    if pieces.send(Ok(Piece::Lost { table: job.table, why })).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                own => own?,
            }
            if !part.hand_over(pieces).await? || pieces.send(Ok(Piece::Done { table: job.table })).await.is_err() {
                return Ok(());
            }
            part.finish();
        }
    }
}

/// What is copied has the columns that the flow knows: they were read before the point.
fn must_be_as_before(tables: &[Feed], now: &[PgTable]) -> Result<()> {
    let changed = tables.iter().find(|table| !now.contains(&table.source));
    changed.map_or(Ok(()), |table| {
        let what = format!("{} was changed while a consistent point was taken", table.source.full_name());
        Err(Error::transient("table_changed", what))
    })
}

/// A table that is rewritten has other files, with rows of which no snapshot of before sees any, and no change tells them. Nor is another one that
/// has its name by now. The COPY that has just ended locks the table until its transaction ends, so nobody rewrites it any more.
async fn must_be_its_own_rows(control: &Control, Job { oid, part, .. }: &Job) -> Result<()> {
    // One that was made later is not there for this snapshot: its rows are told as changes.
    let sql = "SELECT 1 WHERE to_regclass($1)::oid IS DISTINCT FROM $2::oid \
               OR EXISTS (SELECT FROM pg_class WHERE oid = $2::oid AND relfilenode <> pg_relation_filenode(oid))";
    if control.query(sql, &[part, oid]).await?.is_empty() {
        return Ok(());
    }
    let what = format!(
        "{part} was rewritten or made anew while it was to be copied (ALTER TABLE, TRUNCATE, VACUUM FULL, DROP): it is copied again"
    );
    Err(Error::transient(REWRITTEN, what))
}

/// Rows that the table has from an earlier copy go with the new one, in the same version.
fn emptied(table: &Feed, specials: Specials, point: u64) -> Result<Option<Flow>> {
    if table.holds != Holds::OldCopy {
        return Ok(None);
    }
    if table.followed.only_grows() {
        return Err(again::only_grows(table.followed.id.as_str()));
    }
    let mut rows = Rows::new(&table.followed, specials);
    let event = Event {
        op: "t",
        lsn: point,
        xid: None,
        committed_ms: None,
    };
    rows.truncate(&table.followed, Op::Truncate, &event);
    Ok(rows.take(&table.followed)?.map(Flow::Rows))
}

/// A session that waits for whoever has locked a table, however long: the stream goes on meanwhile.
async fn patient(address: &Address) -> Result<Control> {
    let control = connection::control(address).await?;
    control.batch_execute("SET lock_timeout = 0").await?;
    Ok(control)
}

/// A connection, its slot's consistent point, and the name of the snapshot that this exports. Tables that are followed (`beside`) do not stop
/// because all slots are in use: one is waited for, and the pipeline is not ready until then.
async fn take_point(settings: &Settings, control: &Control, beside: bool) -> Result<(Replication, u64, String)> {
    let say = |why: Option<String>| settings.board.update(&settings.pipeline, |status| status.reason = why);
    let mut waits = false;
    loop {
        let mut slot = Replication::open(&settings.address).await?;
        let process = slot.process();
        match waiting::told(consistent_point(&mut slot), &settings.pipeline, control, process).await {
            Err(error) if beside && error.code == connection::SLOTS => {
                if !waits {
                    warn!(pipeline = %settings.pipeline, %error, "tables wait to be copied");
                }
                waits = true;
                say(Some(format!("tables wait to be copied: {error}")));
                sleep(SLOT_PAUSE).await;
            }
            taken => {
                if waits {
                    say(None);
                }
                return taken.map(|(point, snapshot)| (slot, point, snapshot));
            }
        }
    }
}

/// Makes a slot that lives as long as its connection: (its consistent point, the name of the snapshot that it exports).
async fn consistent_point(connection: &mut Replication) -> Result<(u64, String)> {
    connection.query("SET lock_timeout = 0").await?; // Transactions are waited for as locks are.
    // The server makes the name known to nobody else, and drops the slot with the connection.
    let name = format!("alluvium_copy_{}", uuid::Uuid::new_v4().simple());
    let sql = format!(
        "CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT",
        identifier(&name)
    );
    let rows = connection.query(&sql).await?;
    let cell = |place: usize| rows.first().and_then(|row| row.get(place).cloned().flatten());
    let strange = || Error::bug("the server answered CREATE_REPLICATION_SLOT without a consistent point and a snapshot");
    let point = cell(1).as_deref().and_then(Lsn::parse).ok_or_else(strange)?.0;
    Ok((point, cell(2).ok_or_else(strange)?))
}
