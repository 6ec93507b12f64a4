//! Postgres as a source: a publication's tables, first copied at one consistent point, then followed through a replication slot.
//!
//! ```text
//!                      rows, Copied(P)
//!   ┌── snapshot: COPY ───────────────────────────────────────────────────────┐
//!   │ then, at the lowest position that a table holds                         ▼
//!   └── connection: pgoutput ──► changes: rows of tables, by transaction ──► PostgresSource::next
//!                     │                          ▲ committed
//!                     └─ in progress ──► spool ──┘
//! ```
//!
//! - The lane is the slot; a position is where a transaction's commit record ends. Transactions come in the order of their commits.
//! - What a table holds is in its log. Tables that hold nothing are copied; of the others, each takes what it does not hold yet.
//! - The slot is told what all tables have published, and nothing else; the connection says so by itself, and stays alive while tables
//!   are written.

pub mod catalog;
mod changes;
pub mod connection;
mod copying;
pub mod followed;
pub mod pgoutput;
pub mod preflight;
mod rows;
pub mod slot;
mod snapshot;
mod spool;
mod streaming;
pub mod types;
pub mod values;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;

use metrics::gauge;
use tokio::time::{Duration, Interval, MissedTickBehavior, interval};
use tracing::info;

use self::catalog::PgTable;
use self::changes::Changes;
use self::connection::{Address, Control, Replication};
use self::followed::Followed;
use self::slot::Lag;
use self::snapshot::{Copies, CopyOf};
use self::spool::Spool;
use self::streaming::Streaming;
use self::types::Types;
use self::values::Specials;
use crate::batch::Flow;
use crate::budget::Budget;
use crate::error::Result;
use crate::position::{Checkpoint, Lane, Lsn};
use crate::sources::Source;
use crate::table::{Limits, TableId};
use crate::telemetry;

/// Transactions in progress may take this part of the budget; the rest of them lies in files.
const SPOOL_SHARE: usize = 16;
/// What is read ahead from the connection may take this part.
const READ_AHEAD_SHARE: usize = 8;

/// How a database is read.
#[derive(Clone, Debug)]
pub struct Settings {
    pub pipeline: Arc<str>,
    pub address: Address,
    pub lane: Lane,
    pub slot: String,
    pub publication: String,
    /// The publication's tables as the flow knows them, by schema and name.
    pub published: Vec<(String, String)>,
    /// Ask for values in binary form. False where a table has a type that is only known as text.
    pub binary: bool,
    pub specials: Specials,
    pub copy_connections: usize,
    pub discovery: Duration,
    /// When all tables are published.
    pub limits: Limits,
    /// End at the end that the server's WAL has when the stream begins.
    pub until_caught_up: bool,
    pub letters: TableId,
    /// A folder for transactions in progress.
    pub spool: PathBuf,
}

/// A table, and what it holds.
#[derive(Clone, Debug)]
pub struct Feed {
    pub source: PgTable,
    pub followed: Followed,
    pub holds: Holds,
}

/// What a table holds of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Nothing yet: it is to be copied.
    Nothing,
    /// Rows of an earlier copy, which are to be replaced by a new one.
    OldCopy,
    /// Everything up to here.
    UpTo(u64),
}

impl Feed {
    pub fn held(&self) -> Option<u64> {
        match self.holds {
            Holds::UpTo(at) => Some(at),
            Holds::Nothing | Holds::OldCopy => None,
        }
    }
}

/// One flow: the copies that are missing, then the stream.
pub struct PostgresSource {
    settings: Settings,
    control: Control,
    phase: Phase,
    types: Types,
    feeds: Vec<Feed>,
    ready: VecDeque<Flow>,
    looking: Interval,
    read_ahead: usize,
    spool_bytes: usize,
    /// Nothing more is handed over; what the tables hold by then is still told to the server.
    ended: bool,
}

enum Phase {
    Copying(Box<Copies>),
    Copied,
    Streaming(Box<Streaming>),
}

impl PostgresSource {
    /// Opens a flow. `control` is a connection for questions.
    pub async fn open(settings: Settings, control: Control, types: Types, feeds: Vec<Feed>, budget: &Budget) -> Result<Self> {
        let missing: Vec<CopyOf> = feeds
            .iter()
            .filter(|feed| feed.held().is_none())
            .map(|feed| CopyOf {
                source: feed.source.clone(),
                followed: feed.followed.clone(),
                replaces: feed.holds == Holds::OldCopy,
            })
            .collect();
        let phase = if missing.is_empty() {
            Phase::Copied
        } else {
            let copying = snapshot::Settings {
                address: settings.address.clone(),
                pipeline: Arc::clone(&settings.pipeline),
                lane: settings.lane.clone(),
                connections: settings.copy_connections,
                specials: settings.specials,
                letters: settings.letters.clone(),
            };
            Phase::Copying(Box::new(Copies::begin(&copying, missing).await?))
        };
        let mut looking = interval(settings.discovery);
        looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looking.reset();
        Ok(Self {
            control,
            phase,
            types,
            feeds,
            ready: VecDeque::new(),
            looking,
            read_ahead: (budget.limit() / READ_AHEAD_SHARE).clamp(1 << 20, 64 << 20),
            spool_bytes: budget.limit() / SPOOL_SHARE,
            ended: false,
            settings,
        })
    }

    /// Begins to read at the lowest position that a table holds.
    async fn start(&self) -> Result<Streaming> {
        let settings = &self.settings;
        let held: Vec<u64> = self.feeds.iter().filter_map(Feed::held).collect();
        let from = held.iter().copied().min().unwrap_or(0);
        let until = if settings.until_caught_up {
            Some(catalog::end_of_wal(&self.control).await?)
        } else {
            None
        };
        let mut options = vec![("publication_names", connection::identifier(&settings.publication))];
        // Streaming of transactions in progress is of version 2, which all servers know that are still maintained.
        options.push(("proto_version", "2".to_owned()));
        options.push(("streaming", "on".to_owned()));
        if settings.binary {
            options.push(("binary", "true".to_owned()));
        }
        let connection = Replication::open(&settings.address).await?;
        let stream = connection.start(&settings.slot, from, &options, self.read_ahead).await?;
        info!(pipeline = %settings.pipeline, slot = settings.slot, lsn = %Lsn(from), "following");
        let tables = self
            .feeds
            .iter()
            .map(|feed| (feed.followed.clone(), feed.held().unwrap_or(0)))
            .collect();
        let changes = Changes::new(
            settings.lane.clone(),
            Arc::clone(&settings.pipeline),
            tables,
            self.types.clone(),
            settings.specials,
            settings.letters.clone(),
        );
        let spool = Spool::new(&settings.spool, self.spool_bytes);
        Ok(Streaming::new(
            settings.lane.clone(),
            stream,
            changes,
            spool,
            settings.limits,
            &held,
            until,
        ))
    }

    async fn next_of_phase(&mut self) -> Result<Option<Flow>> {
        match &mut self.phase {
            Phase::Copying(copies) => match copies.next().await? {
                Some(flow) => Ok(Some(flow)),
                None => {
                    let point = copies.point();
                    for feed in &mut self.feeds {
                        if feed.held().is_none() {
                            feed.holds = Holds::UpTo(point);
                        }
                    }
                    self.phase = Phase::Copied;
                    Box::pin(self.next_of_phase()).await
                }
            },
            Phase::Copied => {
                self.phase = Phase::Streaming(Box::new(self.start().await?));
                Box::pin(self.next_of_phase()).await
            }
            Phase::Streaming(streaming) => {
                streaming.read(&mut self.ready).await?;
                streaming.count(&self.settings);
                self.ended = streaming.is_at_its_end();
                Ok(self.ready.pop_front())
            }
        }
    }

    /// Now and then: whether the publication has the tables that it had. A look that is dropped is taken again at the next time.
    async fn take_a_look(&mut self) -> Result<bool> {
        let due = std::future::poll_fn(|context| Poll::Ready(self.looking.poll_tick(context).is_ready())).await;
        let Phase::Streaming(streaming) = &self.phase else {
            return Ok(true);
        };
        if !due {
            return Ok(true);
        }
        if let Some(lag) = slot::lag(&self.control, &self.settings.slot).await? {
            self.show(&lag, streaming.reached());
        }
        Ok(catalog::published(&self.control, &self.settings.publication).await? == self.settings.published)
    }

    /// Tells dashboards how far the slot is behind.
    fn show(&self, lag: &Lag, received: u64) {
        let labels = || {
            [
                ("pipeline", self.settings.pipeline.to_string()),
                ("source", self.settings.slot.clone()),
            ]
        };
        let bytes = |stage: &'static str, at: u64| {
            let [pipeline, source] = labels();
            let labels = [pipeline, source, ("stage", stage.to_owned())];
            gauge!(telemetry::PG_LAG_BYTES, &labels).set(lag.end.saturating_sub(at) as f64);
        };
        bytes("received", received);
        bytes("committed", lag.confirmed);
        gauge!(telemetry::PG_SLOT_RETAINED_WAL_BYTES, &labels()).set(lag.retained as f64);
        if let Some(safe) = lag.safe {
            gauge!(telemetry::PG_SLOT_SAFE_WAL_BYTES, &labels()).set(safe as f64);
        }
    }
}

impl Source for PostgresSource {
    async fn next(&mut self) -> Result<Option<Flow>> {
        loop {
            if let Some(flow) = self.ready.pop_front() {
                return Ok(Some(flow));
            }
            if self.ended {
                return Ok(None);
            }
            if !self.take_a_look().await? {
                self.ended = true;
                return Ok(Some(Flow::Reopen("the tables of the publication have changed".to_owned())));
            }
            if let Some(flow) = self.next_of_phase().await? {
                return Ok(Some(flow));
            }
        }
    }

    async fn release(&mut self, upto: &Checkpoint) -> Result<()> {
        if let (Phase::Streaming(streaming), Some(at)) = (&mut self.phase, upto.get(&self.settings.lane)) {
            streaming.acknowledge(at);
        }
        Ok(())
    }

    async fn close(self) {
        if let Phase::Streaming(streaming) = self.phase {
            streaming.close().await;
        }
    }
}
