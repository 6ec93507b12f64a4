//! A commit: the one way in which a version of a table is made.
//!
//! ```text
//!            marks = base?  ──no──► Fenced
//!                 │ yes
//!   ┌─────────────▼─────────────┐
//!   │ plan: vectors, actions    │◄──────────────────────────────┐
//!   └─────────────┬─────────────┘                               │ the change stands as it is
//!        put version+1 if absent                                │
//!        │ ok          │ any error: read version+1              │
//!        │             ├── ours (by its txnId) ──► Committed    │
//!        │             ├── absent ──► wait, put again           │
//!        │             └── another's ──► read what won ──► marks = base? ──no──► Fenced
//!        ▼                                                      │ yes, but files moved under an upsert
//!    Committed                                                  └──► Conflict
//! ```
//!
//! No error of a put is taken at its word, "already exists" least of all: stores retry by themselves and then report their own
//! success as somebody else's. What stands in the log is what happened.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use rand::Rng;
use tracing::{info, warn};

use crate::error::{Error, Kind, Result};
use crate::log::change::{Change, Outcome};
use crate::log::columns::Growth;
use crate::log::entries::{Commit, commit_path};
use crate::log::plan::Plan;
use crate::log::snapshot::Moves;
use crate::log::store::fault;
use crate::log::{FORGOTTEN, Log, TOLD_AGAIN};
use crate::position::Position;
use crate::table::{Mode, Version};
use crate::telemetry;

/// Tries of one put. With the waits between them some ten seconds: longer troubles are the pipeline's to wait for.
const PUTS_MAX: u32 = 8;
/// Tries where the store says that we may not: credentials can be a moment old, but waiting does not give rights.
const DENIED_PUTS_MAX: u32 = 3;
const WAIT_MIN: Duration = Duration::from_millis(20); // Longer than a rival's commit on a local disk.
const WAIT_MAX: Duration = Duration::from_secs(4);
/// Races in a row that one commit may lose to versions that leave its change standing.
pub(super) const RACES_MAX: u32 = 100; // Two instances that take turns lose one or two; a hundred is a table that others flood.

/// What came of a put, and the tag of the file that is there now.
pub(super) enum Put {
    Made(Option<String>),
    /// The answer was an error all the same.
    Recovered(Option<String>),
    Lost,
}

impl Log {
    /// Publishes the change as one version, or nothing of it. After an error the log is dropped: only the store can tell what happened.
    pub async fn commit(&mut self, change: &Change) -> Result<Outcome> {
        let Some(name) = self.table.as_ref().map(|table| table.id.to_string()) else {
            return Err(Error::bug(format!("a commit to {} before it was checked", self.url)));
        };
        let done = self.try_commit(change, &name).await;
        let result = done.as_ref().map_or("error", |(_, result)| *result);
        let labels = [
            ("pipeline", self.pipeline.to_string()),
            ("table", name),
            ("result", result.to_owned()),
        ];
        counter!(telemetry::COMMITS, &labels).increment(1);
        done.map(|(outcome, _)| outcome)
    }

    /// Publishes a change that moves no mark and that nobody waits for, if no other version comes first: one try, after which the state
    /// that is known here is still true, whatever came of it. None: another version came first; it is read by the next commit. So is this
    /// very change, if it was made after all and the answer was an error.
    pub async fn offer(&mut self, change: &Change) -> Result<Option<Version>> {
        if !change.mark.is_empty() {
            return Err(Error::bug(format!("a commit to {} that moves marks may not be given up", self.url)));
        }
        self.same_table().await?;
        let plan = self.plan(change).await?;
        let error = match self.entries.put_commit(plan.version, plan.body.clone()).await {
            Ok(e_tag) => return self.adopt(plan, e_tag).map(Some),
            Err(error) => error,
        };
        match self.entries.commit(plan.version).await? {
            Some(commit) if commit.info().and_then(|info| info.txn_id.as_deref()) == Some(&plan.txn_id) => {
                self.adopt(plan, commit.e_tag).map(Some)
            }
            Some(_) => Ok(None),
            None => Err(fault(error, &format!("commit version {} to {}", plan.version, self.url))),
        }
    }

    /// The outcome, and what the metric says of it.
    async fn try_commit(&mut self, change: &Change, name: &str) -> Result<(Outcome, &'static str)> {
        self.must_hold(change)?;
        self.make(name).await?;
        let mut moves = Moves::default();
        for _ in 0..RACES_MAX {
            self.same_table().await?;
            let plan = self.plan(change).await?;
            match self.put(&plan, name).await? {
                Put::Made(e_tag) => return Ok((Outcome::Committed(self.adopt(plan, e_tag)?), "ok")),
                Put::Recovered(e_tag) => return Ok((Outcome::Committed(self.adopt(plan, e_tag)?), "ambiguous_recovered")),
                Put::Lost => {
                    let won = self.catch_up().await?;
                    self.must_hold(change)?;
                    moves.added.extend(won.added);
                    moves.removed.extend(won.removed);
                    if !self.stands(change, &moves) {
                        let Moves { added, removed } = moves;
                        return Ok((
                            Outcome::Conflict {
                                latest: self.snapshot.version,
                                added,
                                removed,
                            },
                            "conflict",
                        ));
                    }
                    self.wait(1).await;
                }
            }
        }
        Err(Error::transient(
            "conflict",
            format!(
                "{RACES_MAX} commits to `{name}` at {} lost their race: other programs flood the table",
                self.url
            ),
        ))
    }

    /// The marks of the change's lanes are those that it was made on, and nobody has brought rows of them without moving any.
    fn must_hold(&self, change: &Change) -> Result<()> {
        let held = self.snapshot.marks.get(&*self.pipeline);
        for (lane, to) in change.mark.iter() {
            if let Some(version) = self.passed.get(lane.as_str()) {
                let what = format!(
                    "version {version} of {} has rows of lane {lane} behind its mark: another writer has it; this one opens again from the log",
                    self.url
                );
                return Err(Error::fenced(what));
            }
            let (base, there) = (change.base.get(lane), held.and_then(|held| held.get(lane)));
            let was_told = there == Some(FORGOTTEN) && there != base && base.is_some();
            if was_told && lane.topic_partition().is_none() {
                let what = format!("{} is to be loaded again: it was asked for (alluvium resnapshot)", self.url);
                return Err(Error::new(Kind::Fenced, TOLD_AGAIN, what));
            }
            if there != base {
                let say = |at: Option<Position>| at.map_or_else(|| "unread".to_owned(), |at| lane.show(at));
                let what = format!(
                    "lane {lane} of {} stands at {}, not at {}: another writer has it; this one opens again from the log",
                    self.url,
                    say(there),
                    say(base),
                );
                return Err(Error::fenced(what));
            }
            if base.is_some_and(|base| base > to) {
                let to = lane.show(to);
                return Err(Error::bug(format!("the mark of lane {lane} of {} would go back to {to}", self.url)));
            }
        }
        Ok(())
    }

    /// Whether the change can be put on what the winners left, as it is: in a table of which rows replace each other only if no file moved.
    fn stands(&self, change: &Change, won: &Moves) -> bool {
        let replaces = !change.removes.is_empty() || !change.vectors.is_empty();
        let appends = self.table.as_ref().is_some_and(|table| table.mode == Mode::Append);
        (won.added.is_empty() && won.removed.is_empty()) || (appends && !replaces)
    }

    /// The newest version that is known here is still the file that it was. A table that was deleted and made anew under this
    /// writer would else get a version in the middle of nothing.
    pub(super) async fn same_table(&self) -> Result<()> {
        let now = self.entries.commit_tag(self.snapshot.version).await?;
        let same = now
            .as_ref()
            .is_some_and(|tag| tag.is_none() || self.e_tag.is_none() || *tag == self.e_tag);
        if same {
            return Ok(());
        }
        let what = format!(
            "version {} of {} is no longer the file that it was: the table was deleted, made anew or overwritten; \
             name another location, or start again to write to what is there now",
            self.snapshot.version, self.url,
        );
        Err(Error::config("table_replaced", what))
    }

    /// Puts the commit's file, and finds out what came of it.
    pub(super) async fn put(&mut self, plan: &Plan, name: &str) -> Result<Put> {
        let mut tries = 0;
        loop {
            let error = match self.entries.put_commit(plan.version, plan.body.clone()).await {
                Ok(e_tag) => return Ok(Put::Made(e_tag)),
                Err(error) => error,
            };
            tries += 1;
            let error = fault(error, &format!("commit version {} of `{name}` at {}", plan.version, self.url));
            // What stands there now is what happened.
            match self.read_patiently(plan.version).await? {
                Some(commit) if commit.info().and_then(|info| info.txn_id.as_deref()) == Some(&plan.txn_id) => {
                    warn!(table = name, version = plan.version, %error, "the commit was made, but its answer was an error");
                    return Ok(Put::Recovered(commit.e_tag));
                }
                Some(_) => return Ok(Put::Lost),
                None => {}
            }
            let most = match error.code {
                "cannot_create" => 1, // What is in the way stays there.
                "store_denied" => DENIED_PUTS_MAX,
                _ => PUTS_MAX,
            };
            if tries >= most {
                return Err(error);
            }
            self.wait(tries).await;
        }
    }

    /// Reads a version where the store is having troubles.
    async fn read_patiently(&mut self, version: Version) -> Result<Option<Commit>> {
        let mut tries = 0;
        loop {
            match self.entries.commit(version).await {
                Err(e) if e.code == "store_unreachable" && tries + 1 < PUTS_MAX => {
                    warn!(path = %commit_path(version), error = %e, "cannot see whether a commit was made; looking again");
                    tries += 1;
                    self.wait(tries).await;
                }
                read => return read,
            }
        }
    }

    /// Takes in all versions that are newer than the state, if they are of the same table: of one that was made anew they say nothing.
    pub(super) async fn catch_up(&mut self) -> Result<Moves> {
        self.same_table().await?;
        let mut moves = Moves::default();
        while let Some(commit) = self.read_patiently(self.snapshot.version + 1).await? {
            let won = self.take_in(commit).await?;
            moves.added.extend(won.added);
            moves.removed.extend(won.removed);
        }
        Ok(moves)
    }

    /// The plan has become a version: so it becomes the state.
    pub(super) fn adopt(&mut self, plan: Plan, e_tag: Option<String>) -> Result<Version> {
        for path in &plan.removes {
            self.snapshot.files.remove(path);
        }
        for file in plan.adds {
            self.snapshot.put_file(file);
        }
        let pipeline = Arc::clone(&self.pipeline);
        for (lane, at) in plan.marks {
            self.snapshot.set_mark(&pipeline, lane, at);
        }
        if let Some(grown) = plan.grown {
            if !grown.growth.is_empty() {
                self.count(&grown.growth);
            }
            self.snapshot.take_metadata(grown.metadata)?;
            self.snapshot.protocol = grown.protocol.unwrap_or_else(|| self.snapshot.protocol.clone());
        }
        self.snapshot.version = plan.version;
        self.snapshot.timestamp_ms = plan.timestamp_ms;
        self.e_tag = e_tag;
        if plan.repeats_all_marks {
            self.all_marks_at = Some(plan.version);
        }
        Ok(plan.version)
    }

    fn count(&self, growth: &Growth) {
        let table = self.table.as_ref().map_or("", |table| table.id.as_str());
        let changes = [
            ("add_column", growth.added.len() + growth.fields_added.len()),
            ("make_nullable", growth.nullable.len() + growth.fields_nullable.len()),
            ("widen_type", growth.widened.len()),
        ];
        for (change, columns) in changes {
            let labels = [
                ("pipeline", self.pipeline.to_string()),
                ("table", table.to_owned()),
                ("change", change.to_owned()),
                ("outcome", "applied".to_owned()),
            ];
            counter!(telemetry::SCHEMA_CHANGES, &labels).increment(columns as u64);
        }
        let columns = growth.added.iter().map(|field| field.name());
        let added: Vec<&String> = columns.chain(&growth.fields_added).collect();
        let nullable: Vec<&String> = growth.nullable.iter().chain(&growth.fields_nullable).collect();
        info!(pipeline = %self.pipeline, table, ?added, ?nullable, widened = ?growth.widened, "the table has grown with its source");
    }

    /// Waits longer with each try, and never as long as a rival that began at the same moment.
    pub(super) async fn wait(&mut self, tries: u32) {
        let most = WAIT_MIN.saturating_mul(1 << tries.min(10)).min(WAIT_MAX);
        let share = self.jitter.random_range(0.5..=1.0);
        tokio::time::sleep(most.mul_f64(share)).await;
    }
}
