//! `alluvium check`: reads the configuration, connects to everything, and says what a run would do. It changes nothing, but for a
//! probe that it puts into each store and takes away again.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use indicatif::HumanBytes;
use object_store::ObjectStore;

use super::memory::with_budgets;
use crate::budget::Budget;
use crate::config::{Document, Reach};
use crate::error::{Error, Result};
use crate::log::{FORGOTTEN, Log};
use crate::pipeline::assembly::{KafkaToDelta, NO_COLUMNS_YET};
use crate::pipeline::doubling::must_be_new;
use crate::pipeline::postgres::{Found, PostgresFeeds, PostgresToDelta};
use crate::pipeline::resolve::{KafkaFeeds, Resolved, Source, resolve};
use crate::pipeline::tables::probed_store;
use crate::position::{Checkpoint, Lane, Lsn};
use crate::reject::delivered::Delivered;
use crate::sources::kafka::partitions_waiting;
use crate::status::{Board, PipelineStatus};
use crate::table::{Lanes, Mode, Table, full_name};

pub(super) async fn check(file: &Path) -> Result<ExitCode> {
    let (config, resolved) = resolve(Document::read(file, Reach::All)?)?;
    super::print(&format!("{}: no problems\n", file.display()))?;
    let mut code = 0;
    for (pipeline, budget) in with_budgets(&config, resolved) {
        let report = Report::of(pipeline, budget).await;
        super::print(&report.text)?;
        if code == 0 {
            code = report.code;
        }
    }
    Ok(ExitCode::from(code))
}

/// What there is to say about one pipeline.
struct Report {
    text: String,
    /// The exit code of the first thing that is wrong.
    code: u8,
}

impl Report {
    async fn of(pipeline: Resolved, budget: Budget) -> Self {
        let mut report = Self {
            text: format!("pipeline {}\n", pipeline.name),
            code: 0,
        };
        match pipeline.source.clone() {
            Source::Kafka(feeds) => report.kafka(&pipeline, feeds, budget).await,
            Source::Postgres(feeds) => report.postgres(&pipeline, feeds, budget).await,
        }
        report
    }

    async fn kafka(&mut self, pipeline: &Resolved, feeds: KafkaFeeds, budget: Budget) {
        let group = feeds.kafka.group.clone();
        let brokers = feeds.kafka.brokers.clone();
        let board = Board::default();
        let opener = match KafkaToDelta::looking(pipeline.clone(), feeds.clone(), budget, board.clone()) {
            Ok(opener) => opener,
            Err(wrong) => return self.wrong("kafka", &wrong),
        };
        let (mut tables, mut marks) = (Vec::new(), Vec::new());
        for feed in &feeds.feeds {
            let found = async {
                let store = probed_store(&feed.location, &pipeline.storage).await?;
                let fed = opener.complete(feed, &store).await?;
                Ok::<_, Error>((look(&fed.0, store, &pipeline.name, None).await?, fed))
            };
            match found.await {
                Ok((found, fed)) => {
                    self.table(&fed.0, found.as_ref(), None);
                    marks.push(found.map(|log| log.snapshot().marks.clone()).unwrap_or_default());
                    tables.push(fed);
                }
                Err(later) if later.code == NO_COLUMNS_YET => self.line(&format!("table {}: {later}", feed.id)),
                Err(wrong) => self.wrong(&format!("table {}", feed.id), &wrong),
            }
        }
        self.look_at(&pipeline.dead_letters, pipeline, None).await;
        if tables.is_empty() {
            return; // Nothing is asked of the brokers then, so there is nothing to say of them.
        }
        match opener.source(&tables, &marks, Delivered::default()).await {
            Ok(source) => {
                drop(source);
                match opener.must_be_readable().await {
                    Ok(()) => self.lanes(&brokers, board.read().get(pipeline.name.as_ref())),
                    Err(wrong) => self.wrong(&format!("kafka {brokers}"), &wrong),
                }
                if let Some(group) = group {
                    let found = opener.look_at_group(&group).await;
                    self.group(&brokers, found);
                }
            }
            Err(wrong) => self.wrong(&format!("kafka {brokers}"), &wrong),
        }
    }

    async fn postgres(&mut self, pipeline: &Resolved, feeds: PostgresFeeds, budget: Budget) {
        let opener = match PostgresToDelta::new(pipeline.clone(), feeds, budget, Board::default(), false) {
            Ok(opener) => opener,
            Err(wrong) => return self.wrong("postgres", &wrong),
        };
        let found = match opener.look().await {
            Ok(found) => found,
            Err(wrong) => return self.wrong(&format!("postgres {}", opener.address()), &wrong),
        };
        let lag = found.lag.map_or_else(String::new, |lag| {
            let (bytes, end) = (HumanBytes(lag.end.saturating_sub(lag.confirmed)), Lsn(lag.end));
            format!(", {bytes} of WAL to read up to {end}")
        });
        self.line(&format!("postgres {}: reachable, {}{lag}", opener.address(), found.slot()));
        // First: what some of the statements below bring with them.
        for advice in &found.advice {
            self.line(&format!("postgres: note: {advice}"));
        }
        for pattern in &found.unmatched.patterns {
            self.line(&format!(
                "postgres: note: `follow` has the pattern `{pattern}`, and no table has such a name yet"
            ));
        }
        for problem in &found.problems {
            self.wrong("postgres", &problem.error());
        }
        let mut marks = Vec::new();
        let database = Some(&found);
        for (id, table) in &found.tables {
            match table {
                Ok(table) => marks.push((table, self.look_at(table, pipeline, database).await)),
                Err(wrong) => self.wrong(&format!("table {id}"), wrong),
            }
        }
        for unpublished in &found.unpublished {
            let lacking = &unpublished.table;
            let table = full_name(&lacking.schema, &lacking.table);
            let then = match unpublished.is_copied {
                true => "copies it",
                false => "stops it there",
            };
            self.line(&format!(
                "table {table}: a run adds it to the publication when it starts, and {then}"
            ));
            if !lacking.unidentified.tables.is_empty() {
                self.line(&format!(
                    "table {table}: note: nothing identifies its rows, so the server would refuse UPDATE and DELETE of it once it is published. A run \
                     sets it to REPLICA IDENTITY FULL first ({}), unless you do something else before: ALTER TABLE {} ADD PRIMARY KEY (…); or leave \
                     it out of what is followed",
                    lacking.unidentified.sql(),
                    lacking.name(),
                ));
            }
        }
        let kept = self.look_at(&pipeline.dead_letters, pipeline, database).await;
        for mistake in found.mistakes(&kept) {
            self.wrong("postgres", &mistake.error());
        }
        match found.continues(&marks, &kept).await {
            Ok(will) => will.iter().for_each(|will| self.line(&format!("postgres: {will}"))),
            Err(wrong) => self.wrong("postgres", &wrong),
        }
    }

    /// What a table holds; nothing, where that cannot be told. Of a database, the lanes beside the slot's are not for a person.
    async fn look_at(&mut self, table: &Table, pipeline: &Resolved, database: Option<&Found>) -> Checkpoint {
        let found = async {
            let store = probed_store(&table.location, &pipeline.storage).await?;
            look(table, store, &pipeline.name, database).await
        };
        match found.await {
            Ok(found) => {
                self.table(table, found.as_ref(), database.map(|database| &database.lane));
                found.map(|log| log.checkpoint()).unwrap_or_default()
            }
            Err(wrong) => {
                self.wrong(&format!("table {}", table.id), &wrong);
                Checkpoint::default()
            }
        }
    }

    fn line(&mut self, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "  {text}");
    }

    fn wrong(&mut self, what: &str, error: &Error) {
        self.line(&format!("{what}: WRONG: {error}"));
        if self.code == 0 {
            self.code = error.exit_code();
        }
    }

    fn table(&mut self, table: &Table, found: Option<&Log>, slot: Option<&Lane>) {
        let found = found.map(|log| (log.snapshot().version, log.checkpoint()));
        let kind = match &table.mode {
            Mode::Append => "append".to_owned(),
            Mode::Upsert { key, .. } => format!("upsert by {}", key.join(", ")),
        };
        let holds_nothing = found.as_ref().is_none_or(|(_, marks)| marks.is_empty());
        let plan = match found
            .as_ref()
            .map(|(version, marks)| (version, marks.only(|lane| slot.is_none_or(|slot| slot == lane))))
        {
            None => format!("will be created, {} columns", table.schema.fields().len()),
            Some((version, marks)) if slot.is_some_and(|slot| marks.get(slot) == Some(FORGOTTEN)) => {
                format!("is at version {version}, and will be loaded again")
            }
            Some((version, _)) if holds_nothing => format!("is at version {version}, and holds nothing of this pipeline yet"),
            Some((version, marks)) if marks.is_empty() => format!("is at version {version}"),
            Some((version, marks)) => format!("is at version {version}; will go on behind {marks}"),
        };
        self.line(&format!("table {} ({kind}) at {}: {plan}", table.id, table.location));
    }

    fn group(&mut self, brokers: &str, found: Result<String>) {
        match found {
            Ok(told) => self.line(&format!("kafka {brokers}: {told}")),
            Err(wrong) => self.wrong(&format!("kafka {brokers}"), &wrong),
        }
    }

    fn lanes(&mut self, brokers: &str, status: Option<&PipelineStatus>) {
        let lanes = status.map(|status| &status.lanes);
        let count = lanes.map_or(0, |lanes| lanes.len());
        let lag: u64 = lanes.iter().flat_map(|lanes| lanes.values()).filter_map(|lane| lane.lag).sum();
        self.line(&format!("kafka {brokers}: reachable, {count} partitions, {lag} records to read"));
        if let Some(status) = status.filter(|status| !status.waiting.is_empty()) {
            let what = "Partitions would wait, and the others would be read";
            self.wrong(&format!("kafka {brokers}"), &partitions_waiting(what, &status.waiting));
        }
    }
}

/// The log of the table that is there, or None where there is none yet; an error where it is not the one that is expected.
async fn look(table: &Table, store: Arc<dyn ObjectStore>, pipeline: &str, database: Option<&Found>) -> Result<Option<Log>> {
    let Some(mut log) = Log::open(&table.location, store, pipeline).await? else {
        Log::may_create(table)?;
        return Ok(None);
    };
    if let Err(wrong) = log.check(table).await {
        return Err(match database {
            Some(database) => database.explained(wrong, &table.id, &log.snapshot().properties),
            None => wrong,
        });
    }
    if let Some(database) = database.filter(|_| !matches!(table.lanes, Lanes::All)) {
        must_be_new(pipeline, table, [(&database.lane, 0)], &log.snapshot().marks)?;
    }
    Ok(Some(log))
}
