//! The Delta sink: one table, append or upsert, at one lane of commits.
//!
//! ```text
//!            append: appender ──► files ─┐
//!  write ──┤                             ├──► plan ──► log.commit ──► Committed: the index takes the changes in
//!            upsert: stage ──► fold ──► files, keys       ▲     └──► Conflict: what others changed is read, and it is planned again
//!                                                         └───────────────────────────────────────────────────────────┘
//! ```
//!
//! Behind the commits, small files and files with many deleted rows are written again (`compact`).
//!
//! What is staged beyond the sink's share of memory becomes Parquet files that no version names yet; so a transaction of any size, or a
//! long backlog, needs the memory of its keys, not of its rows. After an error such files are orphans, and vacuum takes them.

mod age;
mod append;
pub mod compact;
mod conform;
pub mod files;
mod fill;
mod fit;
pub mod fold;
pub mod keys;
mod partition;
mod report;
mod rewrite;
pub mod scan;
mod stage;
pub mod stats;
mod unknown;
mod upload;
mod upsert;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::{Schema, SchemaRef};
use tokio::time::Instant;
use tracing::warn;

use self::age::Age;
use self::append::Appender;
use self::compact::Compactor;
use self::files::Files;
use self::fit::Columns;
use self::keys::{Index, KeyEncoder};
use self::partition::Partitions;
use self::report::{Counts, Reporter};
use self::unknown::Unknown;
use self::upsert::{Planned, Upsert};
use crate::batch::{ChangeBatch, Gap};
use crate::error::{Error, Result};
use crate::log::history::GAPS;
use crate::log::{Change, Log, Outcome, maintain};
use crate::position::Checkpoint;
use crate::sinks::{Sink, Upkeep};
use crate::table::{Mode, Table, Version};

/// Times that one commit is planned again because others changed the table first. Each time they have won, so the table moves on; but
/// somebody should know.
const PLANS_MAX: usize = 20;

/// Writes one Delta table.
pub struct DeltaSink {
    table: Table,
    log: Log,
    checkpoint: Checkpoint,
    columns: Columns,
    content: Content,
    compactor: Compactor,
    /// Bytes that staged rows may take.
    share: usize,
    /// Of what is staged.
    age: Age,
    gaps: Vec<Gap>,
    counts: Counts,
    reporter: Reporter,
    /// The newest version that is known to be at or behind a checkpoint of the log.
    checkpointed: Arc<AtomicU64>,
}

enum Content {
    Append(Box<Appender>),
    Upsert(Box<Upsert>),
}

impl DeltaSink {
    /// `log` was opened for writing and checked against `table`. `share`: bytes that staged rows may take. `state`: a folder for what can
    /// be made again.
    pub async fn open(table: &Table, mut log: Log, pipeline: &str, share: usize, state: &Path) -> Result<Self> {
        // The table's own columns, which may be more than the configuration knows, or not yet all that it knows.
        let columns = Columns::of(table, &log.snapshot().schema);
        let content = match &table.mode {
            Mode::Append => {
                let (files, partitions) = appended(table, &log, &columns.written, share)?;
                Content::Append(Box::new(Appender::new(files, table.partition_by.clone(), partitions, share)))
            }
            Mode::Upsert { key, merge } => {
                let encoder = KeyEncoder::new(&table.id, &columns.written, key)?;
                let files = files(table, &log, Arc::clone(&columns.written), share)?;
                let upsert = Upsert::open(*merge, Unknown::new(table), encoder, files, &mut log, share, state).await?;
                Content::Upsert(Box::new(upsert))
            }
        };
        let compactor = Compactor::new(table);
        let reporter = Reporter::new(pipeline, table.id.as_str(), compactor.policy());
        if log.version().is_some() {
            reporter.opened(log.snapshot());
        }
        Ok(Self {
            table: table.clone(),
            checkpoint: log.checkpoint(),
            // Whoever wrote the versions before may have ended before their checkpoint.
            checkpointed: Arc::new(AtomicU64::new(log.checkpointed())),
            log,
            columns,
            content,
            reporter,
            compactor,
            share,
            age: Age::default(),
            gaps: Vec::new(),
            counts: Counts::default(),
        })
    }

    /// The log as this sink knows it.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The key index of an upsert table.
    pub fn index(&self) -> Option<&Index> {
        match &self.content {
            Content::Upsert(upsert) => Some(upsert.index()),
            Content::Append(_) => None,
        }
    }
}

impl Sink for DeltaSink {
    fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    fn version(&self) -> Option<Version> {
        self.log.version()
    }

    async fn write(&mut self, mut batch: ChangeBatch) -> Result<()> {
        self.age.begin();
        self.age.check(&self.table.id, &self.log)?;
        partition::nulls_for_empty(&mut batch.rows, &self.table.partition_by)?;
        let grown = self.columns.take_in(&batch)?;
        if grown {
            self.grow().await?;
        }
        self.columns.arrange(&mut batch)?;
        self.counts.add(&batch);
        match &mut self.content {
            Content::Append(_) if batch.unchanged.is_some() => {
                let what = format!("rows for `{}` leave cells out that only an upsert table could fill", self.table.id);
                Err(Error::bug(what))
            }
            Content::Append(appender) => appender.write(&batch.rows).await,
            Content::Upsert(upsert) => upsert.write(batch, &mut self.log).await,
        }
    }

    fn note(&mut self, gap: Gap) {
        self.gaps.push(gap);
    }

    fn close(mut self) {
        if let Content::Upsert(upsert) = &mut self.content {
            upsert.save(&self.log);
        }
    }

    fn upkeep(&mut self) -> Option<Upkeep> {
        self.checkpoint_of_log().or_else(|| self.compaction())
    }

    async fn tidy(&mut self) -> Result<()> {
        while let Some(upkeep) = self.upkeep() {
            upkeep.work.await?;
            self.publish_compacted().await?;
        }
        Ok(())
    }

    async fn commit(&mut self, mark: &Checkpoint) -> Result<Version> {
        let begun = Instant::now();
        let base = self.checkpoint.of_lanes(mark);
        let notes = notes(&self.gaps);
        for _ in 0..PLANS_MAX {
            self.follow().await?;
            let mut planned = self.plan().await?;
            planned.change = Change {
                columns: self.columns.wanted(),
                mark: mark.clone(),
                base: base.clone(),
                source_ms: self.counts.newest_ms,
                notes: notes.clone(),
                ..planned.change
            };
            self.age.check(&self.table.id, &self.log)?;
            match self.log.commit(&planned.change).await? {
                Outcome::Committed(version) => {
                    self.published(version, planned, begun)?;
                    // The table has now what was staged for it, and perhaps what others added at the same time.
                    self.follow().await?;
                    self.publish_compacted().await?;
                    return Ok(version);
                }
                Outcome::Conflict { added, .. } => {
                    self.compactor.touch(added.len());
                    if let Content::Upsert(upsert) = &mut self.content {
                        upsert.catch_up(&added, &mut self.log).await?;
                    }
                }
            }
        }
        let (table, url) = (&self.table.id, self.log.url());
        Err(Error::transient(
            "conflict",
            format!("table `{table}` at {url} was changed by others {PLANS_MAX} times before one commit to it succeeded"),
        ))
    }
}

impl DeltaSink {
    /// A checkpoint of the log, where one is due. It is asked for again until one is made.
    fn checkpoint_of_log(&self) -> Option<Upkeep> {
        let (version, every) = (self.log.snapshot().version, self.log.checkpoint_interval());
        let due = version - version % every;
        let made = Arc::clone(&self.checkpointed);
        if made.load(Ordering::Relaxed) >= due {
            return None;
        }
        let (url, store) = (self.log.url().clone(), Arc::clone(self.log.store()));
        let work = async move {
            // Several may have been asked for before the first was made.
            if made.load(Ordering::Relaxed) < due {
                maintain::checkpoint(&url, store, due).await?;
                made.fetch_max(due, Ordering::Relaxed);
            }
            Ok(())
        };
        Some(Upkeep {
            table: self.table.id.clone(),
            work: Box::pin(work),
        })
    }

    /// A round of compaction, where one is due.
    fn compaction(&mut self) -> Option<Upkeep> {
        let groups = self.compactor.choose(self.log.snapshot())?;
        // What is compacted has the columns that the table has now. Those that it gains meanwhile are null in all of these rows, and values of
        // a type that gets wider meanwhile are read as of the wider one.
        let columns = &self.log.snapshot().schema;
        let (files, _) = appended(&self.table, &self.log, columns, self.share)
            .inspect_err(|error| warn!(table = %self.table.id, %error, "no compaction"))
            .ok()?;
        Some(Upkeep {
            table: self.table.id.clone(),
            work: Box::pin(self.compactor.begin(files, groups, self.log.snapshot().version)),
        })
    }

    /// Publishes what compaction has ready, behind a commit: the rows of the commit wait for nothing.
    async fn publish_compacted(&mut self) -> Result<()> {
        let Some(published) = self.compactor.publish(&mut self.log).await else {
            return Ok(());
        };
        if let Content::Upsert(upsert) = &mut self.content {
            upsert.compacted(&published.groups)?;
        }
        self.reporter.compacted(published.version, &published.change, self.log.snapshot());
        Ok(())
    }

    /// Takes in what others have made of the columns since.
    async fn follow(&mut self) -> Result<()> {
        if self.columns.follow(&self.log.snapshot().schema)? {
            self.grow().await?;
        }
        Ok(())
    }

    /// Rows and files are of other columns from now on.
    async fn grow(&mut self) -> Result<()> {
        let written = &self.columns.written;
        match &mut self.content {
            Content::Append(appender) => {
                let (files, partitions) = appended(&self.table, &self.log, written, self.share)?;
                appender.grow(files, partitions).await
            }
            Content::Upsert(upsert) => {
                let files = files(&self.table, &self.log, Arc::clone(written), self.share)?;
                upsert.grow(files, &self.columns.staged).await
            }
        }
    }

    async fn plan(&mut self) -> Result<Planned> {
        match &mut self.content {
            Content::Append(appender) => Ok(Planned::append(appender.finish().await?)),
            Content::Upsert(upsert) => upsert.plan(&mut self.log).await,
        }
    }

    fn published(&mut self, version: Version, planned: Planned, begun: Instant) -> Result<()> {
        for (lane, at) in planned.change.mark.iter() {
            self.checkpoint.set(lane.clone(), at);
        }
        self.age.end();
        self.gaps.clear();
        self.compactor.committed(&planned.change, self.log.snapshot());
        let counts = std::mem::take(&mut self.counts);
        self.reporter
            .published(version, &planned.change, counts, self.log.snapshot(), begun.elapsed());
        match &mut self.content {
            Content::Append(appender) => appender.clear(),
            Content::Upsert(upsert) => self.reporter.left_out(&upsert.published(planned)?),
        }
        Ok(())
    }
}

/// Gaps as a commit tells of them.
fn notes(gaps: &[Gap]) -> BTreeMap<String, serde_json::Value> {
    if gaps.is_empty() {
        return BTreeMap::new();
    }
    let told = gaps
        .iter()
        .map(|gap| serde_json::json!({"lane": gap.lane.as_str(), "from": gap.missing.start, "until": gap.missing.end}));
    BTreeMap::from([(GAPS.to_owned(), told.collect())])
}

/// How rows of an append table are written: its files, and how rows are split among them where it has partitions.
fn appended(table: &Table, log: &Log, columns: &SchemaRef, share: usize) -> Result<(Files, Option<Partitions>)> {
    let partitions = match table.partition_by.as_slice() {
        [] => None,
        by => Some(Partitions::new(&table.id, columns, by)?),
    };
    let schema = match &partitions {
        Some(partitions) => {
            let fields = partitions.stored().iter().map(|&place| Arc::clone(&columns.fields()[place]));
            Arc::new(Schema::new(fields.collect::<Vec<_>>()))
        }
        None => Arc::clone(columns),
    };
    Ok((files(table, log, schema, share)?, partitions))
}

fn files(table: &Table, log: &Log, schema: SchemaRef, share: usize) -> Result<Files> {
    Files::new(
        Arc::clone(log.store()),
        format!("`{}` at {}", table.id, table.location).into(),
        schema,
        &log.indexed(),
        table.layout.target_file_size,
        share,
    )
}
