//! Postgres as a source: a publication's tables, first copied at one consistent point, then followed through a replication slot.
//!
//! ```text
//!                      rows, Copied(P)
//!   ┌── snapshot: COPY ───────────────────────────────────────────────────────┐
//!   │ then, at the lowest position that a table holds                         ▼
//!   └── connection: pgoutput ──► changes: rows of tables, by transaction ──► PostgresSource::next
//!                     │                          ▲ committed
//!                     └─ in progress ──► spool ──┘
//!                        and prepared
//! ```
//!
//! - The lane is the slot; a position is where a transaction's commit record ends. Transactions come in the order of their commits.
//! - What a table holds is in its log. Tables that hold nothing are copied; of the others, each takes what it does not hold yet.
//! - Only one process can have the slot. Whoever does writes the tables, also before any of them can be followed.
//! - The slot is told what all tables have published, and nothing else; the connection says so by itself, and stays alive while tables
//!   are written.

pub mod again;
pub mod catalog;
pub mod changes;
pub mod connection;
pub mod copying;
mod feed;
pub mod followed;
pub mod identity;
mod introduced;
pub mod learned;
mod letter;
mod partitions;
pub mod pgoutput;
mod points;
pub mod preflight;
mod prepared;
mod progress;
pub mod publication;
pub mod publishing;
pub mod rewriting;
pub mod rows;
pub mod selection;
mod session;
pub mod set_back;
pub mod slot;
mod snapshot;
mod spool;
mod streaming;
pub mod timeline;
pub mod types;
pub mod values;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tracing::warn;

use self::catalog::PgTable;
use self::changes::Doubt;
use self::connection::{Address, Control, Stream};
pub use self::feed::{Feed, Holds};
use self::learned::Learned;
use self::partitions::{Leaves, Session};
use self::progress::Progress;
use self::publication::Shown;
use self::publishing::Publisher;
use self::snapshot::{Copies, Step};
use self::streaming::Streaming;
use self::types::Types;
use self::values::Specials;
use crate::batch::Flow;
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::position::{Checkpoint, Lane, Position};
use crate::reject::delivered::Delivered;
use crate::sources::Source;
use crate::status::Board;
use crate::table::{Limits, TableId};

/// How a database is read.
#[derive(Clone, Debug)]
pub struct Settings {
    pub pipeline: Arc<str>,
    pub address: Address,
    pub lane: Lane,
    pub slot: String,
    pub publication: String,
    /// The publication's tables as the flow knows them, by schema and name.
    pub published: BTreeMap<(String, String), Shown>,
    /// Ask for values in binary form. False where a table has a type that is only known as text.
    pub binary: bool,
    pub specials: Specials,
    /// What flows before this one have found out.
    pub learned: Learned,
    pub copy_connections: usize,
    /// The server tells transactions when they are prepared.
    pub two_phase: bool,
    /// Publishes what is asked for, with the replica identities that it needs. None where nobody asked for that.
    pub publisher: Option<Publisher>,
    /// What it could not publish, by schema and name, as was said.
    pub refused: BTreeSet<(String, String)>,
    pub discovery: Duration,
    pub board: Board,
    /// When all tables are published.
    pub limits: Limits,
    /// End at the end that the server's WAL has when the stream begins.
    pub until_caught_up: bool,
    pub letters: TableId,
    /// Those that the dead-letter table holds already.
    pub delivered: Arc<Delivered>,
    /// A folder for transactions in progress.
    pub spool: PathBuf,
}

/// One flow: the stream of all tables that hold their copy, and beside it copies of some that do not. Each of these is published when its
/// copy is whole. When all are, the flow ends and is opened again: then the stream begins where they were copied.
pub struct PostgresSource {
    settings: Settings,
    control: Arc<Control>,
    progress: Arc<Progress>,
    _watch: JoinSet<()>,
    /// None where no table holds anything yet. Then the slot is only held.
    streaming: Option<Stage<Streaming>>,
    held: Option<Stream>,
    /// Whether the slot may be told of anything. Another process that was frozen for long, and goes on, may be about to publish copies that it has
    /// made before: while the first copies are made here, the slot stays before them. Not for longer: where copies fail again and again, the
    /// server would keep all of its WAL.
    may_release: bool,
    /// None where nothing is to be copied, and when all is.
    copying: Option<Stage<Copies>>,
    /// Where tables are copied, as soon as the server has told it.
    point: watch::Receiver<Option<u64>>,
    /// The same, once the stream knows of it: what is behind it is still needed.
    copied: Option<u64>,
    /// Whether the stream makes a mark there, once that is known.
    meets_point: Option<bool>,
    /// Whether all that was copied has been handed over, and a mark behind it, at which it is published.
    has_copied: bool,
    /// The stream waits so long for the copies' point, so that all tables are published there.
    wait_for_point: Instant,
    /// What is streamed, as it was when the flow was opened.
    sources: BTreeMap<TableId, PgTable>,
    ready: VecDeque<Flow>,
    looking: Interval,
    /// The next look is taken when tables are marked here, behind what the last one saw.
    looks_behind: Option<(u64, Leaves)>,
    /// Nothing more is handed over; what the tables hold by then is still told to the server.
    ended: bool,
}

/// Something that takes time to begin.
enum Stage<T> {
    Beginning(BoxFuture<'static, Result<T>>),
    UnderWay(Box<T>),
}

impl<T> Stage<T> {
    /// Cancel safe: what has begun goes on with the next call.
    async fn under_way(&mut self) -> Result<&mut T> {
        if let Stage::Beginning(beginning) = self {
            *self = Stage::UnderWay(Box::new(beginning.await?));
        }
        match self {
            Stage::UnderWay(it) => Ok(it),
            Stage::Beginning(_) => Err(Error::bug("what has begun is still beginning")),
        }
    }

    fn get(&self) -> Option<&T> {
        match self {
            Stage::UnderWay(it) => Some(it),
            Stage::Beginning(_) => None,
        }
    }

    fn get_mut(&mut self) -> Option<&mut T> {
        match self {
            Stage::UnderWay(it) => Some(it),
            Stage::Beginning(_) => None,
        }
    }
}

impl PostgresSource {
    /// Opens a flow. `control` is a connection for questions.
    pub async fn open(settings: Settings, control: Control, types: Types, feeds: Vec<Feed>, budget: &Budget) -> Result<Self> {
        partitions::begin(&control, &settings.learned, &feeds).await?;
        let (holding, missing): (Vec<_>, Vec<_>) = feeds.into_iter().partition(|feed| feed.held().is_some());
        let sources = holding.iter().map(|feed| (feed.followed.id.clone(), feed.source.clone())).collect();
        let progress = Arc::new(Progress::new(&settings.pipeline, &settings.slot, &settings.board));
        let (point_tx, point) = watch::channel(None);
        let control = Arc::new(control);
        let held = match holding.is_empty() {
            true => Some(session::hold(&settings, &control).await?),
            false => None,
        };
        let may_release = missing.is_empty() || !settings.learned.copies_first();
        let copying = if missing.is_empty() {
            progress.all_copied();
            None
        } else {
            let copies = Copies::begin(settings.clone(), missing, !holding.is_empty(), Arc::clone(&progress), point_tx);
            Some(Stage::Beginning(copies.boxed()))
        };
        let streaming = if holding.is_empty() {
            None
        } else {
            let start = session::start(settings.clone(), Arc::clone(&control), types, holding, budget.limit());
            Some(Stage::Beginning(start.boxed()))
        };
        let mut looking = interval(settings.discovery);
        looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looking.reset();
        Ok(Self {
            _watch: progress::watch(Arc::clone(&control), Arc::clone(&progress)),
            control,
            progress,
            streaming,
            held,
            may_release,
            copying,
            point,
            copied: None,
            meets_point: None,
            has_copied: false,
            wait_for_point: Instant::now() + points::wait(&settings.learned),
            ready: VecDeque::new(),
            looking,
            looks_behind: None,
            ended: false,
            sources,
            settings,
        })
    }

    /// What comes next of the copies.
    async fn copy(copying: &mut Option<Stage<Copies>>) -> Result<Step> {
        match copying {
            Some(stage) => stage.under_way().await?.next().await,
            None => std::future::pending().await,
        }
    }

    /// Reads on. Nothing is read of a stream that has just begun: it may have to be told where to stop.
    async fn stream(streaming: &mut Option<Stage<Streaming>>, ready: &mut VecDeque<Flow>) -> Result<()> {
        match streaming {
            Some(stage @ Stage::Beginning(_)) => stage.under_way().await.map(drop),
            Some(stage) => stage.under_way().await?.read(ready).await,
            None => std::future::pending().await,
        }
    }

    /// Reads what comes next, from the copies or from the stream.
    async fn read(&mut self) -> Result<()> {
        let awaits_point = self.copied.is_none() && matches!(self.copying, Some(Stage::Beginning(_)));
        let stream_may_begin = !awaits_point || Instant::now() >= self.wait_for_point;
        let stream_goes_on = stream_may_begin && !self.stream_is_at_its_end();
        if self.copying.is_some() && self.publish_copies() {
            return Ok(());
        }
        tokio::select! {
            () = points::is_told(&mut self.point), if awaits_point => {}
            step = Self::copy(&mut self.copying) => match step? {
                Step::Flow(flow) => self.ready.push_back(flow),
                Step::Whole => {} // They are handed on when the stream has come to the point.
                Step::End => {
                    self.copying = None;
                    self.publish_copies();
                }
            },
            read = Self::stream(&mut self.streaming, &mut self.ready), if stream_goes_on => {
                if matches!(&read, Err(error) if error.code == connection::INTERNAL) && self.settings.learned.read_in_whole() {
                    warn!(pipeline = %self.settings.pipeline, "the server cannot decode what it sends: from here on it is asked for whole transactions only");
                }
                read.map_err(|error| self.made_anew(error))?;
            }
            () = sleep_until(self.wait_for_point), if !stream_may_begin => {}
        }
        self.meet_point();
        Ok(())
    }

    /// A publication that is gone is made anew where that is asked for, when the flow is opened again.
    fn made_anew(&self, error: Error) -> Error {
        if error.code != "publication_missing" || self.settings.publisher.is_none() {
            return error;
        }
        let publication = connection::identifier(&self.settings.publication);
        let what = format!("the publication {publication} was dropped: it is made anew, and its tables are copied again");
        Error::transient(error.code, what)
    }

    /// Why what was read may not be handed on: the flow has to be opened again, with what the catalog says now.
    async fn why_reopen(&mut self) -> Result<Option<String>> {
        let Some(streaming) = self.streaming.as_mut().and_then(Stage::get_mut) else {
            return Ok(None);
        };
        if let Some(why) = streaming.reopen() {
            return Ok(Some(why.to_owned()));
        }
        let doubts = streaming.doubts();
        let before = |doubt: &Doubt| self.sources.get(&doubt.table);
        let oids: Vec<u32> = doubts.iter().filter_map(before).map(|table| table.oid).collect();
        if oids.is_empty() {
            return Ok(None);
        }
        let xids: Vec<u32> = doubts.iter().map(|doubt| doubt.xid).collect();
        waiting::until_visible(&self.control, &xids).await?;
        let now = catalog::tables_of(&self.control, &self.settings.publication, Some(&oids)).await?;
        // Not before there is an answer: until then, what was read stays in doubt.
        for doubt in std::mem::take(doubts) {
            let Some(before) = self.sources.get(&doubt.table) else { continue };
            // One that has gone is seen in the publication.
            let Some(now) = now.iter().find(|table| table.oid == before.oid) else {
                continue;
            };
            // They had other names or types meanwhile, and what was told under these is lost.
            if now.columns.iter().any(|column| doubt.lost.contains(&column.name)) {
                let why = "columns of it had other names or types for a while";
                self.settings.learned.copy_again(&doubt.table, why);
                return Ok(Some(format!("{}: {why}", before.full_name())));
            }
            if let Some(why) = differs(before, now) {
                return Ok(Some(format!("{} {why}", before.full_name())));
            }
        }
        Ok(None)
    }

    fn stream_is_at_its_end(&self) -> bool {
        let streaming = self.streaming.as_ref().and_then(Stage::get);
        streaming.is_some_and(Streaming::is_at_its_end)
    }

    /// Now and then: whether the publication shows what it did: the same tables with the same columns, and the same kinds of their changes; and
    /// whether what cannot be published is known. What was made since the last time is published first. Partitions that come or go are told of.
    /// Copies are not given up for others: these are seen when they are whole. A look that is dropped is taken again at the next time.
    async fn take_a_look(&mut self) -> Result<bool> {
        let due = std::future::poll_fn(|context| Poll::Ready(self.looking.poll_tick(context).is_ready())).await;
        let marked = self.streaming.as_ref().and_then(Stage::get).map_or(0, Streaming::marked);
        let behind = self.looks_behind.as_ref().filter(|(at, _)| marked >= *at).map(|(_, seen)| seen);
        if !(due || behind.is_some()) || self.copying.is_some() {
            return Ok(true);
        }
        let (now, refused) = match &self.settings.publisher {
            Some(publisher) => {
                let outcome = publisher.publish(&self.control).await?;
                let refused = outcome.names();
                (outcome.published, refused)
            }
            None => {
                let now = publication::published(&self.control, &self.settings.publication).await?;
                (now, BTreeSet::new())
            }
        };
        if now != self.settings.published || refused != self.settings.refused {
            return Ok(false);
        }
        match partitions::look(&self.control, &self.settings.learned, &self.sources, behind).await? {
            Session::GoesOn => self.looks_behind = None,
            Session::IsBlind(seen) if self.looks_behind.as_ref().is_some_and(|(_, before)| *before == seen) => {}
            Session::IsBlind(seen) => self.looks_behind = Some((catalog::end_of_wal(&self.control).await?, seen)),
            Session::Ends => return Ok(false),
        }
        Ok(true)
    }
}

impl Source for PostgresSource {
    async fn next(&mut self) -> Result<Option<Flow>> {
        loop {
            if let Some(why) = self.why_reopen().await? {
                self.ended = true;
                // The rows behind the last mark are read again.
                self.ready.clear();
                return Ok(Some(Flow::Reopen(why)));
            }
            if let Some(mut flow) = self.ready.pop_front() {
                self.note(&mut flow);
                return Ok(Some(flow));
            }
            if self.ended {
                return Ok(None);
            }
            if let Some(streaming) = self.streaming.as_mut().and_then(Stage::get_mut) {
                streaming.count(&self.settings);
                self.progress.read(streaming.reached());
            }
            let why = if self.has_copied {
                "tables have been copied"
            } else if self.meets_point == Some(false) {
                "others are past the position at which tables were to be copied"
            } else if self.copying.is_none() && self.stream_is_at_its_end() {
                self.ended = true;
                continue;
            } else if !self.take_a_look().await? {
                "the tables of the publication have changed"
            } else {
                self.read().await?;
                continue;
            };
            self.ended = true;
            return Ok(Some(Flow::Reopen(why.to_owned())));
        }
    }

    async fn release(&mut self, upto: &Checkpoint) -> Result<()> {
        let beginning = matches!(self.copying, Some(Stage::Beginning(_)));
        let streaming = self.streaming.as_mut().and_then(Stage::get_mut);
        // Where the tables will have been copied is not known yet: then it is better to wait.
        if let (Some(streaming), Some(at), false) = (streaming, upto.get(&self.settings.lane), beginning || !self.may_release) {
            streaming.acknowledge(Position(at.0.min(self.copied.unwrap_or(u64::MAX))));
        }
        Ok(())
    }

    async fn close(self) {
        if let Some(Stage::UnderWay(streaming)) = self.streaming {
            streaming.close().await;
        }
        if let Some(held) = self.held {
            held.close().await;
        }
    }
}

/// What a table is no longer, where its changes do not tell all of it.
fn differs(before: &PgTable, now: &PgTable) -> Option<&'static str> {
    let known = before.columns.iter().map(|column| (column.name.as_str(), Some(column.origin())));
    if (&now.schema, &now.name) != (&before.schema, &before.name) {
        Some("has another name")
    } else if !catalog::untold_values(&known.collect(), &now.columns).is_empty() {
        Some("has other columns, which its rows have values in")
    } else if (now.key(), &now.unique) != (before.key(), &before.unique) {
        Some("has other keys")
    } else {
        None
    }
}

/// Everything of this lane was handed over up to here.
fn mark(lane: &Lane, at: u64) -> Flow {
    Flow::Mark(Checkpoint::from_iter([(lane.clone(), Position(at))]))
}
