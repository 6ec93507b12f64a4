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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use rand::Rng;
use serde_json::json;
use tracing::warn;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::actions::{Action, Add, CommitInfo, Remove, Txn, UserMetadata};
use crate::log::change::{Change, NewFile, Outcome};
use crate::log::entries::commit_path;
use crate::log::snapshot::{LiveFile, Moves, app_id};
use crate::log::store::fault;
use crate::log::vectors::VectorFile;
use crate::position::{Checkpoint, Lane, Position};
use crate::table::{Mode, Table, Version};
use crate::telemetry;

/// `commitInfo.engineInfo`
pub(crate) const ENGINE: &str = concat!("alluvium/", env!("CARGO_PKG_VERSION"));
/// Tries of one put. With the waits between them some ten seconds: longer troubles are the pipeline's to wait for.
const PUTS_MAX: u32 = 8;
/// Tries where the store says that we may not: credentials can be a moment old, but waiting does not give rights.
const DENIED_PUTS_MAX: u32 = 3;
const WAIT_MIN: Duration = Duration::from_millis(20); // Longer than a rival's commit on a local disk.
const WAIT_MAX: Duration = Duration::from_secs(4);
/// Races in a row that one commit may lose to versions that leave its change standing.
const RACES_MAX: u32 = 100; // Two instances that take turns lose one or two; a hundred is a table that others flood.
/// Every so many versions repeat the marks of all lanes, so that the marks at a version are found in its neighbourhood.
const ALL_MARKS_EVERY: u64 = 16; // A sixteenth of a commit's marks extra, against 16 small reads for a probe at worst.

/// What a commit would make of the state.
struct Plan {
    version: Version,
    timestamp_ms: i64,
    txn_id: String,
    body: Bytes,
    adds: Vec<LiveFile>,
    removes: Vec<Arc<str>>,
    marks: Vec<(Lane, Position)>,
    repeats_all_marks: bool,
}

enum Put {
    Ours(Option<String>),
    Lost,
}

impl Log {
    /// Publishes the change as one version, or nothing of it. After an error the log is dropped: only the store can tell what happened.
    pub async fn commit(&mut self, change: &Change) -> Result<Outcome> {
        let Some(name) = self.table.as_ref().map(|table| table.id.to_string()) else {
            return Err(Error::bug(format!("a commit to {} before it was checked", self.url)));
        };
        let outcome = self.try_commit(change, &name).await;
        let result = match &outcome {
            Ok(Outcome::Committed(_)) => "ok",
            Ok(Outcome::Conflict { .. }) => "conflict",
            Err(_) => "error",
        };
        self.count(&name, result);
        outcome
    }

    async fn try_commit(&mut self, change: &Change, name: &str) -> Result<Outcome> {
        self.must_hold(change)?;
        let mut moves = Moves::default();
        for _ in 0..RACES_MAX {
            self.same_table().await?;
            let plan = self.plan(change).await?;
            match self.put(&plan, name).await? {
                Put::Ours(e_tag) => return Ok(Outcome::Committed(self.adopt(plan, e_tag))),
                Put::Lost => {
                    let won = self.catch_up().await?;
                    self.must_hold(change)?;
                    moves.added.extend(won.added);
                    moves.removed.extend(won.removed);
                    if !self.stands(change, &moves) {
                        return Ok(Outcome::Conflict {
                            latest: self.snapshot.version,
                            added: moves.added,
                            removed: moves.removed,
                        });
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

    /// The marks of the change's lanes are those that it was made on.
    fn must_hold(&self, change: &Change) -> Result<()> {
        let held = self.checkpoint();
        for (lane, to) in change.mark.iter() {
            let (base, there) = (change.base.get(lane), held.get(lane));
            if there != base {
                let say = |at: Option<Position>| at.map_or_else(|| "unread".to_owned(), |at| at.to_string());
                let what = format!(
                    "lane {lane} of {} stands at {}, not at {}: another writer has it; this one opens again from the log",
                    self.url,
                    say(there),
                    say(base),
                );
                return Err(Error::fenced(what));
            }
            if base.is_some_and(|base| base > to) {
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
    async fn same_table(&self) -> Result<()> {
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

    /// Makes the commit's actions on the state as it stands, and writes its file of vectors.
    async fn plan(&mut self, change: &Change) -> Result<Plan> {
        // Versions never share a time, so that a time names one version.
        let timestamp_ms = (telemetry::now_us() / 1000).max(self.snapshot.timestamp_ms + 1);
        let mut made = Made {
            timestamp_ms,
            vectors: VectorFile::new(),
            actions: Vec::new(),
            adds: Vec::new(),
            removes: Vec::new(),
            counts: BTreeMap::new(),
        };
        for path in &change.removes {
            let file = self.live(path)?;
            made.remove(file);
        }
        for (path, rows) in &change.vectors {
            let mut deleted = self.vector(path).await?;
            let united = Arc::make_mut(&mut deleted);
            *united |= rows;
            made.delete_rows(self.live(path)?, deleted)?;
        }
        for file in &change.adds {
            made.add(file)?;
        }
        if let Some((path, bytes)) = std::mem::replace(&mut made.vectors, VectorFile::new()).finish() {
            let put = self
                .entries
                .store
                .put_opts(&path, bytes.into(), object_store::PutOptions::default())
                .await;
            put.map_err(|e| fault(e, &format!("write the deletion vectors {path} of {}", self.url)))?;
        }
        self.finish_plan(change, made)
    }

    fn finish_plan(&self, change: &Change, made: Made) -> Result<Plan> {
        let version = self.snapshot.version + 1;
        let txn_id = Uuid::new_v4().to_string();
        let moved: Vec<_> = change.mark.since(&change.base).collect();
        let held = self.checkpoint();
        let repeats_all_marks = !moved.is_empty() && self.all_marks_at.is_none_or(|at| at + ALL_MARKS_EVERY <= version);
        let mut marks = if repeats_all_marks {
            held.join(&change.mark)
        } else {
            Checkpoint::default()
        };
        for (lane, _, to) in &moved {
            marks.set((*lane).clone(), *to);
        }
        let said = UserMetadata {
            pipeline: self.pipeline.to_string(),
            positions: moved
                .iter()
                .map(|(lane, from, to)| (lane.as_str().to_owned(), (from.map(|from| from.0 + 1), to.0)))
                .collect(),
            all_marks: repeats_all_marks,
            notes: change.notes.clone(),
        };
        let mut actions = vec![Action::from(self.commit_info(change, &made, &txn_id, &said, version))];
        for (lane, at) in marks.iter() {
            actions.push(self.txn(lane, at, made.timestamp_ms)?.into());
        }
        actions.extend(made.actions);
        Ok(Plan {
            version,
            timestamp_ms: made.timestamp_ms,
            txn_id,
            body: body(&actions)?,
            adds: made.adds,
            removes: made.removes,
            marks: moved.into_iter().map(|(lane, _, to)| (lane.clone(), to)).collect(),
            repeats_all_marks,
        })
    }

    fn commit_info(&self, change: &Change, made: &Made, txn_id: &str, said: &UserMetadata, version: Version) -> CommitInfo {
        let appends = self.table.as_ref().is_some_and(|table: &Table| table.mode == Mode::Append);
        let mut metrics = made.counts.clone();
        metrics.extend(&change.metrics);
        // Delta's convention: numbers of an operation are texts.
        let metrics: BTreeMap<_, _> = metrics.into_iter().map(|(name, count)| (name, count.to_string())).collect();
        CommitInfo {
            timestamp: Some(made.timestamp_ms),
            in_commit_timestamp: None,
            operation: Some(change.operation.to_owned()),
            operation_parameters: Some(json!({
                "outputMode": if appends { "Append" } else { "Update" },
                "queryId": &*self.pipeline,
                "epochId": version.to_string(),
            })),
            operation_metrics: Some(json!(metrics)),
            engine_info: Some(ENGINE.to_owned()),
            txn_id: Some(txn_id.to_owned()),
            is_blind_append: Some(appends && made.removes.is_empty()),
            user_metadata: Some(json!(said).to_string()),
        }
    }

    fn txn(&self, lane: &Lane, at: Position, now_ms: i64) -> Result<Txn> {
        let beyond = |_| {
            Error::data(
                "bad_position",
                format!("position {at} of lane {lane} is beyond what a Delta log can hold"),
            )
        };
        Ok(Txn {
            app_id: app_id(&self.pipeline, lane),
            version: i64::try_from(at.0).map_err(beyond)?,
            last_updated: Some(now_ms),
        })
    }

    fn live(&self, path: &str) -> Result<&LiveFile> {
        let not_live = || {
            Error::bug(format!(
                "a commit would change `{path}`, which is not a file of {} at version {}",
                self.url, self.snapshot.version
            ))
        };
        self.snapshot.files.get(path).ok_or_else(not_live)
    }

    /// Puts the commit's file, and finds out what came of it.
    async fn put(&mut self, plan: &Plan, name: &str) -> Result<Put> {
        let mut tries = 0;
        loop {
            let error = match self.entries.put_commit(plan.version, plan.body.clone()).await {
                Ok(e_tag) => return Ok(Put::Ours(e_tag)),
                Err(error) => error,
            };
            tries += 1;
            let error = fault(error, &format!("commit version {} of `{name}` at {}", plan.version, self.url));
            // What stands there now is what happened.
            match self.read_patiently(plan.version).await? {
                Some(commit) if commit.info().and_then(|info| info.txn_id.as_deref()) == Some(&plan.txn_id) => {
                    warn!(table = name, version = plan.version, %error, "the commit was made, but its answer was an error");
                    self.count(name, "ambiguous_recovered");
                    return Ok(Put::Ours(commit.e_tag));
                }
                Some(_) => return Ok(Put::Lost),
                None => {}
            }
            if tries >= (if error.code == "store_denied" { DENIED_PUTS_MAX } else { PUTS_MAX }) {
                return Err(error);
            }
            self.wait(tries).await;
        }
    }

    /// Reads a version where the store is having troubles.
    async fn read_patiently(&mut self, version: Version) -> Result<Option<crate::log::entries::Commit>> {
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

    /// Takes in all versions that are newer than the state.
    pub(super) async fn catch_up(&mut self) -> Result<Moves> {
        let mut moves = Moves::default();
        while let Some(commit) = self.read_patiently(self.snapshot.version + 1).await? {
            let won = self.take_in(commit).await?;
            moves.added.extend(won.added);
            moves.removed.extend(won.removed);
        }
        Ok(moves)
    }

    /// The plan has become a version: so it becomes the state.
    fn adopt(&mut self, plan: Plan, e_tag: Option<String>) -> Version {
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
        self.snapshot.version = plan.version;
        self.snapshot.timestamp_ms = plan.timestamp_ms;
        self.e_tag = e_tag;
        if plan.repeats_all_marks {
            self.all_marks_at = Some(plan.version);
        }
        plan.version
    }

    /// Waits longer with each try, and never as long as a rival that began at the same moment.
    async fn wait(&mut self, tries: u32) {
        let most = WAIT_MIN.saturating_mul(1 << tries.min(10)).min(WAIT_MAX);
        let share = self.jitter.random_range(0.5..=1.0);
        tokio::time::sleep(most.mul_f64(share)).await;
    }

    fn count(&self, table: &str, result: &'static str) {
        counter!(telemetry::COMMITS, "pipeline" => self.pipeline.to_string(), "table" => table.to_owned(), "result" => result).increment(1);
    }
}

/// The actions of a commit in the making, and what they make of the files.
struct Made {
    timestamp_ms: i64,
    vectors: VectorFile,
    actions: Vec<Action>,
    adds: Vec<LiveFile>,
    removes: Vec<Arc<str>>,
    counts: BTreeMap<&'static str, u64>,
}

impl Made {
    fn remove(&mut self, file: &LiveFile) {
        self.actions.push(Remove::of(file, self.timestamp_ms).into());
        self.removes.push(Arc::clone(&file.path));
        self.tally("numRemovedFiles", 1);
        self.tally("numRemovedBytes", file.size);
    }

    /// A live file gets a new vector: it is removed with the old one and added with the new one. Without rows left it just goes.
    fn delete_rows(&mut self, file: &LiveFile, deleted: Arc<roaring::RoaringTreemap>) -> Result<()> {
        let Some(rows) = file.rows else {
            let what = format!(
                "`{}` has no row count in its statistics, which a deletion vector needs: have its writer collect statistics, or rewrite it",
                file.path
            );
            return Err(Error::data("no_row_count", what));
        };
        must_be_rows_of(&deleted, rows, &file.path)?;
        self.tally("numDeletedRows", deleted.len() - file.deleted());
        if deleted.len() == rows {
            self.remove(file);
            return Ok(());
        }
        let stats = file.stats.as_deref().map(loosen_bounds).transpose()?;
        let vector = Some(self.vectors.push(deleted)?);
        let after = LiveFile {
            vector,
            stats,
            ..file.clone()
        };
        self.actions.push(Remove::of(file, self.timestamp_ms).into());
        self.actions.push(Add::of(&after).into());
        self.tally(
            if file.vector.is_some() {
                "numDeletionVectorsUpdated"
            } else {
                "numDeletionVectorsAdded"
            },
            1,
        );
        self.adds.push(after);
        Ok(())
    }

    fn add(&mut self, new: &NewFile) -> Result<()> {
        must_be_rows_of(&new.deleted, new.rows, &new.path)?;
        if new.deleted.len() == new.rows {
            return Ok(()); // Nothing of it is left: the file stays outside of the table, for the next vacuum.
        }
        let (vector, stats) = if new.deleted.is_empty() {
            (None, Arc::clone(&new.stats))
        } else {
            self.tally("numDeletionVectorsAdded", 1);
            (Some(self.vectors.push(Arc::new(new.deleted.clone()))?), loosen_bounds(&new.stats)?)
        };
        let file = LiveFile {
            path: Arc::clone(&new.path),
            size: new.size,
            rows: Some(new.rows),
            partition_values: Arc::new(new.partition_values.clone()),
            stats: Some(stats),
            tags: None,
            modified_ms: self.timestamp_ms,
            vector,
        };
        self.tally("numAddedFiles", 1);
        self.tally("numAddedBytes", new.size);
        self.tally("numOutputRows", new.rows - new.deleted.len());
        self.actions.push(Add::of(&file).into());
        self.adds.push(file);
        Ok(())
    }

    fn tally(&mut self, metric: &'static str, count: u64) {
        *self.counts.entry(metric).or_default() += count;
    }
}

fn must_be_rows_of(deleted: &roaring::RoaringTreemap, rows: u64, path: &str) -> Result<()> {
    match deleted.max().filter(|&last| last >= rows) {
        Some(last) => Err(Error::bug(format!(
            "row {last} of `{path}` would be deleted, which has {rows} rows"
        ))),
        None => Ok(()),
    }
}

/// The statistics of a file of which rows are deleted: its bounds still hold, but no row need stand at them.
fn loosen_bounds(stats: &str) -> Result<Arc<str>> {
    let wrong = |e| Error::data("bad_stats", "the statistics of a file are not JSON").because(e);
    // Values stay as they are written: reading and writing them again could change them.
    let mut fields: BTreeMap<&str, &serde_json::value::RawValue> = serde_json::from_str(stats).map_err(wrong)?;
    let loose = serde_json::value::to_raw_value(&false).map_err(wrong)?;
    fields.insert("tightBounds", &loose);
    Ok(serde_json::to_string(&fields).map_err(wrong)?.into())
}

/// The bytes of a commit's file: one action a line.
pub(crate) fn body(actions: &[Action]) -> Result<Bytes> {
    let mut bytes = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut bytes, action).map_err(|e| Error::bug("an action of a commit is no JSON").because(e))?;
        bytes.push(b'\n');
    }
    Ok(bytes.into())
}
