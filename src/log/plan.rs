//! What a commit will say: the actions of a change, made on the state as it stands, and what they will make of that state.
//!
//! Rows that are deleted from a file are united with those that were deleted before; the file is removed with its old vector and
//! added with the new one. All vectors of a commit go into one file, which is written before the commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringTreemap;
use serde_json::json;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::actions::{Action, Add, CommitInfo, MetaData, Protocol, Remove, Txn, UserMetadata};
use crate::log::change::{Change, NewFile};
use crate::log::columns::{Growth, Widening};
use crate::log::snapshot::{LiveFile, app_id};
use crate::log::store::fault;
use crate::log::vectors::VectorFile;
use crate::position::{Checkpoint, Lane, Position};
use crate::table::{Mode, Version};
use crate::telemetry;

/// `commitInfo.engineInfo`
pub(crate) const ENGINE: &str = concat!("alluvium/", env!("CARGO_PKG_VERSION"));
/// Every so many versions repeat the marks of all lanes, so that the marks at a version are found in its neighbourhood.
const ALL_MARKS_EVERY: u64 = 16; // A sixteenth of a commit's marks extra, against 16 small reads for a probe at worst.

/// What a commit would make of the state.
#[derive(Default)]
pub(super) struct Plan {
    pub version: Version,
    pub timestamp_ms: i64,
    pub txn_id: String,
    pub body: Bytes,
    pub adds: Vec<LiveFile>,
    pub removes: Vec<Arc<str>>,
    pub marks: Vec<(Lane, Position)>,
    pub repeats_all_marks: bool,
    pub grown: Option<Grown>,
}

/// What becomes of a table that gains columns, or other properties.
pub(super) struct Grown {
    pub growth: Growth,
    pub metadata: Arc<MetaData>,
    /// None where it stays.
    pub protocol: Option<Protocol>,
}

impl Log {
    /// Makes the commit's actions on the state as it stands, and writes its file of vectors.
    pub(super) async fn plan(&mut self, change: &Change) -> Result<Plan> {
        // Versions never share a time, so that a time names one version.
        let timestamp_ms = (telemetry::now_us() / 1000).max(self.snapshot.timestamp_ms.saturating_add(1));
        // Before anything is written: what cannot be, is not begun.
        let grown = self.grow(change)?;
        let mut made = Made {
            timestamp_ms,
            data_change: !change.keeps_rows,
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
        self.finish_plan(change, made, grown)
    }

    /// What the table needs to hold the rows of the change, as it stands: others may have added some of the columns first.
    fn grow(&self, change: &Change) -> Result<Option<Grown>> {
        let widening = self.table.as_ref().map(Widening::of).unwrap_or_default();
        let table = self.table.as_ref().map_or("", |table| table.id.as_str());
        let growth = match &change.columns {
            Some(columns) => Growth::for_rows(table, &self.snapshot.schema, columns, &widening)?,
            None => Growth::default(),
        };
        if growth.is_empty() && change.properties.is_empty() {
            return Ok(None);
        }
        let mut metadata = growth.metadata(&self.snapshot.metadata)?;
        metadata.configuration.extend(change.properties.clone());
        Ok(Some(Grown {
            metadata: Arc::new(metadata),
            protocol: growth.protocol(&self.snapshot.protocol),
            growth,
        }))
    }

    fn finish_plan(&self, change: &Change, made: Made, grown: Option<Grown>) -> Result<Plan> {
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
            passed: if moved.is_empty() && !change.adds.is_empty() {
                change.mark.iter().map(|(lane, _)| lane.as_str().to_owned()).collect()
            } else {
                Vec::new()
            },
            all_marks: repeats_all_marks,
            source_ms: change.source_ms,
            notes: match &grown {
                Some(grown) => change.notes.clone().into_iter().chain(grown.growth.notes()?).collect(),
                None => change.notes.clone(),
            },
        };
        let mut actions = vec![Action::from(self.commit_info(change, &made, &txn_id, &said, version))];
        if let Some(grown) = &grown {
            actions.extend(grown.protocol.clone().map(Action::from));
            actions.push(grown.metadata.as_ref().clone().into());
        }
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
            grown,
        })
    }

    fn commit_info(&self, change: &Change, made: &Made, txn_id: &str, said: &UserMetadata, version: Version) -> CommitInfo {
        let appends = self.table.as_ref().is_some_and(|table| table.mode == Mode::Append);
        let mut metrics = made.counts.clone();
        metrics.extend(&change.metrics);
        // Delta's convention: numbers of an operation are texts.
        let metrics: BTreeMap<_, _> = metrics.into_iter().map(|(name, count)| (name, count.to_string())).collect();
        CommitInfo {
            timestamp: Some(made.timestamp_ms),
            in_commit_timestamp: None,
            operation: Some(change.operation.to_owned()),
            operation_parameters: Some(if change.keeps_rows {
                json!({"predicate": "[]", "zOrderBy": "[]", "auto": "true"})
            } else if !change.properties.is_empty() {
                json!({"properties": json!(change.properties).to_string()})
            } else {
                json!({
                    "outputMode": if appends { "Append" } else { "Update" },
                    "queryId": &*self.pipeline,
                    "epochId": version.to_string(),
                })
            }),
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
}

/// The actions of a commit in the making, and what they make of the files.
struct Made {
    timestamp_ms: i64,
    data_change: bool,
    vectors: VectorFile,
    actions: Vec<Action>,
    adds: Vec<LiveFile>,
    removes: Vec<Arc<str>>,
    counts: BTreeMap<&'static str, u64>,
}

impl Made {
    fn remove(&mut self, file: &LiveFile) {
        self.actions.push(Remove::of(file, self.timestamp_ms, self.data_change).into());
        self.removes.push(Arc::clone(&file.path));
        self.tally("numRemovedFiles", 1);
        self.tally("numRemovedBytes", file.size);
    }

    /// A live file gets a new vector: it is removed with the old one and added with the new one. Without rows left it just goes.
    fn delete_rows(&mut self, file: &LiveFile, deleted: Arc<RoaringTreemap>) -> Result<()> {
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
        self.actions.push(Remove::of(file, self.timestamp_ms, self.data_change).into());
        self.actions.push(Add::of(&after, self.data_change).into());
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
        self.actions.push(Add::of(&file, self.data_change).into());
        self.adds.push(file);
        Ok(())
    }

    fn tally(&mut self, metric: &'static str, count: u64) {
        *self.counts.entry(metric).or_default() += count;
    }
}

fn must_be_rows_of(deleted: &RoaringTreemap, rows: u64, path: &str) -> Result<()> {
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
