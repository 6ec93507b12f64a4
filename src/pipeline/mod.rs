//! The pipeline: one source, its tables, and the one way to start.
//!
//! `run` is the outer loop: open everything from the log, drive until it ends, and open again when that helps. It is the only place
//! that matches on the kind of an error. `drive` wires one flow: a reader, a writer per table, bounded queues between them.

pub mod all;
pub mod assembly;
pub mod backoff;
pub mod doubling;
pub mod letters;
pub mod postgres;
mod reader;
pub mod resolve;
pub mod tables;
mod writer;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::budget::Budget;
use crate::error::{Error, Kind, Result};
use crate::log::{FORGOTTEN, TOLD_AGAIN};
use crate::position::{Checkpoint, Lane, Position};
use crate::sinks::{Sink, Upkeep};
use crate::sources::Source;
use crate::status::{Board, State, TableStatus};
use crate::table::{Lanes, Table, TableId};
use crate::telemetry;
use backoff::Backoff;
use reader::{Outlet, Reader};
use writer::{Letters, Lines, Safe, Writer};

/// Tries where a store says that we may not.
const DENIED_TRIES_MAX: u32 = 5;
/// Batches and marks that wait for a writer. Rows are bounded by the budget; this only bounds how far marks run ahead.
const QUEUE_LENGTH: usize = 16;

/// What a pipeline is run with.
#[derive(Clone, Debug)]
pub struct Settings {
    pub pipeline: Arc<str>,
    pub board: Board,
    pub budget: Budget,
    /// How long a stop may take to publish what is staged.
    pub grace: Duration,
    /// After so many failures in a row without a commit, `run` gives up. None: never, which is what a service wants.
    pub tries_max: Option<u32>,
    /// Of the jitter between tries.
    pub seed: u64,
}

/// One source and its sinks, opened from the log.
pub struct Opened<S, K> {
    pub source: S,
    pub tables: Vec<(Arc<Table>, K)>,
    /// Where rejects go, if the source makes any: committed before the others.
    pub letters: Option<(Arc<Table>, K)>,
}

/// Opens a pipeline from the log: reads the marks of its tables, and opens the source there. What outlives a flow (the membership in
/// a consumer group) stays with the implementer.
pub trait Open: Send {
    type Source: Source + 'static;
    type Sink: Sink + 'static;
    fn open(&mut self) -> impl Future<Output = Result<Opened<Self::Source, Self::Sink>>> + Send;

    /// Opens without this table from now on. False where nothing would be left, or where it cannot be done.
    fn leave_out(&mut self, _table: &TableId) -> bool {
        false
    }

    /// What the tables hold that are left out: a source must not let go of anything behind it.
    fn left_out(&self) -> Vec<(Lanes, Checkpoint)> {
        Vec::new()
    }
}

/// How a flow ended, when it was not by an error.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// The source has no more.
    Finished,
    /// The source's lanes have changed.
    Reopen(String),
}

/// What the tasks of a flow share.
#[derive(Clone)]
struct Context {
    pipeline: Arc<str>,
    board: Board,
    /// Commits of all tables, to tell progress from failing again and again.
    commits: Arc<AtomicU64>,
}

/// Runs a pipeline until it is stopped, its source ends, or an error needs a person. Whatever happens, what is published is whole.
pub async fn run<O: Open>(mut opener: O, settings: Settings, stop: CancellationToken) -> Result<()> {
    let context = Context {
        pipeline: Arc::clone(&settings.pipeline),
        board: settings.board.clone(),
        commits: Arc::new(AtomicU64::new(0)),
    };
    metrics::counter!(telemetry::FENCED, "pipeline" => context.pipeline.to_string()).increment(0);
    enter(&context, State::Starting, None);
    let mut left_out = None;
    let (mut backoff, mut rng) = (Backoff::default(), SmallRng::seed_from_u64(settings.seed));
    loop {
        let commits = context.commits.load(Ordering::Relaxed);
        let outcome = flow(&mut opener, &settings, &context, &stop).await;
        if context.commits.load(Ordering::Relaxed) > commits {
            backoff.reset();
        }
        let failure = match outcome {
            Ok(ended @ (Ended::Stopped | Ended::Finished)) => {
                // What was asked for is done only where every table has come to the end.
                let unfinished = left_out.filter(|_| ended == Ended::Finished);
                let state = if unfinished.is_some() { State::Failed } else { State::Stopped };
                enter(&context, state, unfinished.as_ref());
                return unfinished.map_or(Ok(()), Err);
            }
            Ok(Ended::Reopen(why)) => {
                info!(pipeline = %context.pipeline, %why, "open again");
                continue;
            }
            Err(failure) => failure,
        };
        if failure.code == TOLD_AGAIN {
            info!(pipeline = %context.pipeline, why = %failure, "open again");
            continue;
        }
        count(&context, &failure);
        if let Some(table) = failure.table.clone()
            && opener.leave_out(&table)
        {
            error!(pipeline = %context.pipeline, %table, code = failure.code, error = %failure, "the table stopped; the others go on");
            context.board.update(&context.pipeline, |status| {
                let told = status.tables.entry(table.to_string()).or_default();
                (told.stopped, told.is_gone) = (Some(failure.to_string()), false);
            });
            left_out.get_or_insert(failure);
            continue;
        }
        let out_of_tries = settings.tries_max.is_some_and(|most| backoff.tries() + 1 >= most);
        // Credentials can be a moment old, or a moment late; waiting longer does not give rights.
        let may_pass = match failure.kind {
            Kind::Transient | Kind::Fenced => true,
            Kind::Config | Kind::Data | Kind::Bug => failure.code == "store_denied" && backoff.tries() + 1 < DENIED_TRIES_MAX,
        };
        if failure.kind == Kind::Fenced && stop.is_cancelled() {
            // Another has the lanes, and goes on: what is staged here is no longer ours to publish.
            info!(pipeline = %context.pipeline, error = %failure, "stopped: the lanes were another's before");
            enter(&context, State::Stopped, None);
            return Ok(());
        }
        if !may_pass || out_of_tries || stop.is_cancelled() {
            error!(pipeline = %context.pipeline, kind = failure.kind.name(), code = failure.code, error = %failure, "stopped");
            enter(&context, State::Failed, Some(&failure));
            return Err(failure);
        }
        let pause = backoff.pause(&mut rng);
        warn!(pipeline = %context.pipeline, kind = failure.kind.name(), code = failure.code, error = %failure, pause_ms = pause.as_millis() as u64, "try again");
        enter(&context, State::Retrying, Some(&failure));
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One flow, from the log to its end.
async fn flow<O: Open>(opener: &mut O, settings: &Settings, context: &Context, stop: &CancellationToken) -> Result<Ended> {
    let opened = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(Ended::Stopped),
        opened = opener.open() => opened?,
    };
    enter(context, State::Running, None);
    let out_of_grace = async {
        stop.cancelled().await;
        tokio::time::sleep(settings.grace).await;
    };
    tokio::select! {
        biased;
        ended = drive(opened, opener.left_out(), settings, context, stop) => ended,
        () = out_of_grace => {
            warn!(pipeline = %context.pipeline, "out of time: what is staged will be read again");
            Ok(Ended::Stopped)
        }
    }
}

/// Wires the source to its tables and runs them until all have ended. The first error ends the others.
async fn drive<S, K>(
    opened: Opened<S, K>,
    left_out: Vec<(Lanes, Checkpoint)>,
    settings: &Settings,
    context: &Context,
    stop: &CancellationToken,
) -> Result<Ended>
where
    S: Source + 'static,
    K: Sink + 'static,
{
    let Opened { source, tables, letters } = opened;
    let (mut tasks, mut outlets, moved) = (JoinSet::new(), Vec::new(), Arc::new(Notify::new()));
    let (upkeep_tx, upkeep_rx) = mpsc::channel(1);
    let confirm = source.confirm();
    let (wanted, letters_wanted) = watch::channel(0);
    let mut letters_safe = None;
    let letters_first = letters
        .into_iter()
        .map(|table| (table, true))
        .chain(tables.into_iter().map(|table| (table, false)));
    for ((table, sink), is_letters) in letters_first {
        if !is_letters {
            show(context, &table, &sink);
        }
        let (queue_tx, queue) = mpsc::channel(QUEUE_LENGTH);
        let (safe, safe_rx) = watch::channel(Safe {
            read: Checkpoint::default(),
            held: sink.checkpoint().clone(),
            marks: 0,
        });
        let letters = match &letters_safe {
            _ if is_letters => Letters::Taken {
                wanted: letters_wanted.clone(),
            },
            Some(safe) => Letters::Awaited {
                safe: watch::Receiver::clone(safe),
                wanted: wanted.clone(),
            },
            None => Letters::Nowhere,
        };
        if is_letters {
            letters_safe = Some(safe_rx.clone());
        }
        outlets.push(Outlet {
            table: Arc::clone(&table),
            queue: queue_tx,
            safe: safe_rx,
        });
        let lines = Lines {
            queue,
            safe,
            moved: Arc::clone(&moved),
            letters,
            confirm: confirm.clone(),
            upkeep: upkeep_tx.clone(),
        };
        let (id, writer) = (table.id.clone(), Writer::new(sink, table, lines, context.clone()));
        tasks.spawn(async move {
            let sink = writer.run().await.map_err(|error| error.of(&id))?;
            Ok(Done::Writer(id, sink))
        });
    }
    drop(upkeep_tx);
    let reader = Reader {
        source,
        outlets,
        left_out,
        budget: settings.budget.clone(),
        moved,
        stop: stop.clone(),
    };
    tasks.spawn(async move { reader.run().await.map(Done::Reader) });
    let mut chores = JoinSet::new();
    chores.spawn(keep_up(upkeep_rx));

    let (mut ended, mut failure, mut sinks) = (Ended::Stopped, None, Vec::new());
    while let Some(done) = tasks.join_next().await {
        match done.unwrap_or_else(died) {
            Ok(Done::Writer(table, sink)) => sinks.push((table, sink)),
            Ok(Done::Reader(reader_ended)) => ended = reader_ended,
            Err(first) if failure.is_none() => {
                failure = Some(first);
                tasks.abort_all();
            }
            Err(_) => {} // What follows from the first.
        }
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    if ended == Ended::Finished {
        // No commit follows behind which it would be done. The chores of the commits before come to their end first.
        while chores.join_next().await.is_some() {}
        for (table, sink) in &mut sinks {
            if let Err(failure) = sink.tidy().await {
                warn!(%table, error = %failure, "upkeep failed: it will be tried again by a later run");
            }
        }
    }
    sinks.into_iter().for_each(|(_, sink)| sink.close());
    Ok(ended)
}

/// What is told of a table before its first commit.
fn show(context: &Context, table: &Table, sink: &impl Sink) {
    telemetry::begin_table(&context.pipeline, table.id.as_str());
    let is_forgotten = |lane: &Lane, at: Position| lane.topic_partition().is_none() && at == FORGOTTEN;
    let held = sink.checkpoint().iter();
    let held = held.filter(|&(lane, at)| table.lanes.takes(lane) && !is_forgotten(lane, at));
    let held: Checkpoint = held.map(|(lane, at)| (lane.clone(), at)).collect();
    context.board.update(&context.pipeline, |status| {
        let told = status.tables.entry(table.id.to_string()).or_default();
        if let Some(version) = sink.version() {
            told.holds(version, &held);
        }
    });
}

/// What a task of a flow leaves when it ends well.
enum Done<K> {
    Reader(Ended),
    /// The table, and its sink with nothing staged.
    Writer(TableId, K),
}

/// Does what may follow a commit, one piece after the other, away from the commits. A failure is no failure of the pipeline.
async fn keep_up(mut queue: mpsc::Receiver<Upkeep>) {
    while let Some(Upkeep { table, work }) = queue.recv().await {
        if let Err(failure) = work.await {
            warn!(%table, error = %failure, "upkeep failed: it will be tried again after a later commit");
        }
    }
}

/// A task that panicked is a bug; one that was ended follows from another's error.
fn died<T>(how: JoinError) -> Result<T> {
    if how.is_cancelled() {
        return Err(Error::transient("cancelled", "ended with the others"));
    }
    Err(Error::bug("a task panicked; what was published is whole: please report this").because(how))
}

/// A pipeline that cannot even start is one that has failed: the board and the metrics say so.
fn fail(pipeline: &Arc<str>, board: &Board, why: &Error) {
    let context = Context {
        pipeline: Arc::clone(pipeline),
        board: board.clone(),
        commits: Arc::default(),
    };
    count(&context, why);
    enter(&context, State::Failed, Some(why));
}

fn enter(context: &Context, mut state: State, why: Option<&Error>) {
    context.board.update(&context.pipeline, |status| {
        if state == State::Running && status.tables.values().any(TableStatus::needs_somebody) {
            state = State::Degraded;
        }
        status.state = state;
        status.reason = why.map(ToString::to_string);
    });
    for each in State::ALL {
        let value = if each == state { 1.0 } else { 0.0 };
        metrics::gauge!(telemetry::PIPELINE_STATE, "pipeline" => context.pipeline.to_string(), "state" => each.name()).set(value);
    }
}

fn count(context: &Context, failure: &Error) {
    let pipeline = context.pipeline.to_string();
    metrics::counter!(telemetry::ERRORS, "pipeline" => pipeline.clone(), "stage" => "pipeline", "code" => failure.code, "kind" => failure.kind.name())
        .increment(1);
    if let Some(table) = failure.table.as_ref().filter(|_| failure.code == "schema_changed") {
        let (pipeline, table) = (pipeline.clone(), table.to_string());
        metrics::counter!(telemetry::SCHEMA_CHANGES, "pipeline" => pipeline, "table" => table, "change" => "other", "outcome" => "refused")
            .increment(1);
    }
    if failure.kind == Kind::Fenced {
        metrics::counter!(telemetry::FENCED, "pipeline" => pipeline).increment(1);
    }
}
