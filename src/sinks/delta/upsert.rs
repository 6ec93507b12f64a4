//! The upsert engine: staged changes and the key index become the change of a commit, at a cost that follows the changes and not the table.
//!
//! A commit asks the index where the rows stand that its keys replace, marks them in deletion vectors (or writes their files again without
//! them), and adds the files of the new rows. The index takes the changes in once the log has them: before that they are not the table's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use object_store::path::Path as StorePath;
use roaring::RoaringTreemap;

use super::compact::Compacted;
use super::files::{Files, Object};
use super::fill::fill;
use super::keys::{self, Address, Cache, Index, Key, KeyEncoder};
use super::rewrite::{Rewritten, rewrite};
use super::stage::{DELETED, Pending, Spilled, Stage};
use super::unknown::{LeftOut, Unknown};
use crate::batch::{ChangeBatch, Op};
use crate::error::{Error, Result};
use crate::log::{Change, Log, NewFile};
use crate::table::Merge;

/// So many times as many rows are many: to find one in a bitmap costs about as much as to walk over so many of its rows.
const MANY: u64 = 16;
/// Rows of the table that are put in order together: 3 MiB of addresses.
const FOUND_TOGETHER: usize = 1 << 18;

/// What one upsert table needs beside its log.
pub struct Upsert {
    merge: Merge,
    encoder: KeyEncoder,
    files: Files,
    index: Index,
    cache: Cache,
    stage: Stage,
    unknown: Unknown,
    /// Bytes that staged rows may take.
    share: usize,
}

/// A change, and what it makes of the index once it is published.
#[derive(Debug, Default)]
pub struct Planned {
    pub change: Change,
    /// The files of the change by their numbers in the stage; None where a truncation or a rewrite has made one void.
    staged: Vec<Option<Arc<str>>>,
    /// Keys that a rewrite has moved.
    moved: Vec<(Key, Arc<str>, u32)>,
}

/// Rows of the table that staged changes replace, and what became of the changes.
#[derive(Debug, Default)]
struct Replaced {
    rows: BTreeMap<Arc<str>, RoaringTreemap>,
    updated: u64,
    deleted: u64,
}

impl Planned {
    /// Of a table that only grows.
    pub fn append(adds: Vec<NewFile>) -> Self {
        Self {
            change: Change {
                adds,
                operation: "STREAMING UPDATE",
                ..Change::default()
            },
            ..Self::default()
        }
    }
}

impl Upsert {
    /// Opens the index: from its cache, or from the table.
    pub async fn open(
        merge: Merge,
        unknown: Unknown,
        encoder: KeyEncoder,
        files: Files,
        log: &mut Log,
        share: usize,
        state: &Path,
    ) -> Result<Self> {
        let cache = Cache::new(state, &log.snapshot().table_id, &encoder);
        let stage = Stage::new(files.clone(), encoder.shape());
        let index = open_index(&cache, &encoder, log).await?;
        Ok(Self {
            merge,
            encoder,
            files,
            index,
            cache,
            stage,
            unknown,
            share,
        })
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Saves the index for the next start.
    pub fn save(&mut self, log: &Log) {
        self.cache.save(&mut self.index, log.snapshot());
    }

    /// Rows are of other columns from now on.
    pub async fn grow(&mut self, files: Files, staged: &SchemaRef) -> Result<()> {
        self.files = files.clone();
        self.stage.grow(files, staged).await
    }

    /// Stages changes; beyond the share they leave memory.
    pub async fn write(&mut self, batch: ChangeBatch, log: &mut Log) -> Result<()> {
        let columns = self.encoder.columns_of(&batch.rows);
        if let Some(nulls) = KeyEncoder::nulls(&columns)
            && batch
                .ops
                .iter()
                .enumerate()
                .any(|(row, &op)| op != Op::Truncate && nulls.is_null(row))
        {
            let (table, names) = (self.encoder.table(), self.encoder.names().join("`, `"));
            return Err(Error::data(
                "null_key",
                format!("a change to `{table}` has a null in its key (`{names}`); its decoder is to reject it"),
            ));
        }
        let keys = self.encoder.encode(&columns)?;
        self.stage.push(batch, keys);
        if self.stage.bytes() > self.share {
            self.spill(log).await
        } else {
            Ok(())
        }
    }

    /// Makes of all that is staged the change of a commit on the log as it stands. May be called again after a conflict.
    pub async fn plan(&mut self, log: &mut Log) -> Result<Planned> {
        self.spill(log).await?;
        self.stage.finish_file().await?;
        let pending = self.stage.pending();
        let replaced = if pending.truncated {
            Replaced::default()
        } else {
            replaced(pending, &self.index, log).await?
        };
        let mut planned = match self.merge {
            Merge::Vectors => with_vectors(pending, replaced.rows),
            Merge::Rewrite => with_rewrite(pending, replaced.rows, &self.files, &self.encoder, log).await?,
        };
        if pending.truncated {
            planned.change.removes = log.snapshot().files.keys().cloned().collect();
        }
        planned.change.operation = "MERGE";
        let puts = pending.keys.iter().filter(|(_, at)| at.file != DELETED).count() as u64;
        let deletes = pending.keys.len() as u64 - puts;
        planned.change.metrics = BTreeMap::from([
            ("numTargetRowsInserted", puts - replaced.updated),
            ("numTargetRowsUpdated", replaced.updated),
            ("numTargetRowsDeleted", replaced.deleted),
            // Deletions of keys that the table does not have: nothing is to be done, but somebody may wonder.
            ("numUnknownRowsDeleted", deletes - replaced.deleted),
        ]);
        Ok(planned)
    }

    /// The change is part of the table: the index takes it in. Tells what was left out of it.
    pub fn published(&mut self, planned: Planned) -> Result<LeftOut> {
        let pending = self.stage.published();
        if pending.truncated {
            self.index.clear();
        }
        let numbers: Vec<Option<u32>> = {
            let number = |path: &Option<Arc<str>>| path.as_ref().map(|path| self.index.number(path)).transpose();
            planned.staged.iter().map(number).collect::<Result<_>>()?
        };
        // The one shrinks while the other grows.
        let (mut changes, mut group) = (pending.keys.into_iter(), Vec::new());
        while self.index.fetch(&mut changes, &mut group) {
            for &(key, at) in &group {
                match numbers.get(at.file as usize) {
                    Some(&Some(file)) => drop(self.index.insert(key, Address { file, row: at.row })),
                    // Its file was written again: `moved` knows where it stands.
                    Some(None) => {}
                    None => self.index.remove(key),
                }
            }
        }
        for (key, path, row) in planned.moved {
            let file = self.index.number(&path)?;
            self.index.insert(key, Address { file, row });
        }
        Ok(self.unknown.published())
    }

    /// Rows have moved to other files: the index leads to them.
    pub fn compacted(&mut self, groups: &[Compacted]) -> Result<()> {
        for group in groups {
            let Some(file) = &group.file else { continue };
            let to = self.index.number(&file.path)?;
            for source in &group.sources {
                self.index
                    .move_rows(&source.path, source.rows, to, source.first, Arc::clone(&source.left));
            }
        }
        Ok(())
    }

    /// Others have changed the table: their files are read into the index.
    pub async fn catch_up(&mut self, added: &[Arc<str>], log: &mut Log) -> Result<()> {
        // A file that only got a vector is known: its rows stand where they stood.
        let new = added
            .iter()
            .filter(|path| log.snapshot().files.contains_key(*path) && !self.index.knows(path));
        let mut new: Vec<Arc<str>> = new.cloned().collect();
        new.sort_unstable();
        new.dedup();
        keys::take_in(&mut self.index, &self.encoder, log, &new).await
    }

    async fn spill(&mut self, log: &mut Log) -> Result<()> {
        let (mut batches, folded) = self.stage.take().await?;
        if !folded.before.is_empty() {
            // Rows may have to be read back from it.
            self.stage.finish_file().await?;
            let unknown = fill(&mut batches, &folded, self.stage.pending(), &self.index, log).await?;
            self.unknown.settle(&mut batches, &unknown, &self.encoder)?;
        }
        self.stage.spill(batches, folded.last).await
    }
}

/// Where the rows of the staged keys stand in the table. Both tables of keys are walked in the same order, and each file is looked at
/// once.
async fn replaced(pending: &Pending, index: &Index, log: &mut Log) -> Result<Replaced> {
    let mut replaced = Replaced::default();
    for (file, stand) in found(pending, index) {
        let path = index.path(file).filter(|path| log.snapshot().files.contains_key(*path));
        let Some(path) = path else { continue };
        let dead = log.vector(path).await?;
        let (updated, deleted) = (alive(stand.updated, &dead), alive(stand.deleted, &dead));
        replaced.updated += updated.len();
        replaced.deleted += deleted.len();
        let rows = updated | deleted;
        if !rows.is_empty() {
            replaced.rows.insert(Arc::clone(path), rows);
        }
    }
    Ok(replaced)
}

/// Those of `rows` that are not dead. Few of many are looked up one by one: to subtract walks through the many.
fn alive(rows: RoaringTreemap, dead: &RoaringTreemap) -> RoaringTreemap {
    if rows.len() < dead.len() / MANY {
        rows.into_iter().filter(|row| !dead.contains(*row)).collect()
    } else {
        rows - dead
    }
}

/// Rows of a file that staged changes replace, dead ones among them.
#[derive(Debug, Default)]
struct Stand {
    updated: RoaringTreemap,
    deleted: RoaringTreemap,
}

/// What the index says of the staged keys, by the number of the file. A transaction of any size takes little more than its rows' bits.
fn found(pending: &Pending, index: &Index) -> BTreeMap<u32, Stand> {
    let mut all = BTreeMap::<u32, Stand>::new();
    // Bitmaps are quick to make of rows in order.
    let mut file_away = |found: &mut Vec<(Address, bool)>| {
        found.sort_unstable();
        for group in found.chunk_by(|a, b| a.0.file == b.0.file) {
            let stand = all.entry(group[0].0.file).or_default();
            for &(at, is_delete) in group {
                let rows = if is_delete { &mut stand.deleted } else { &mut stand.updated };
                rows.insert(u64::from(at.row));
            }
        }
        found.clear();
    };
    let (mut changes, mut group, mut found) = (pending.keys.iter(), Vec::new(), Vec::new());
    while index.fetch(&mut changes, &mut group) {
        let stand = group.iter().filter_map(|&(key, at)| Some((index.get(key)?, at.file == DELETED)));
        found.extend(stand);
        if found.len() >= FOUND_TOGETHER {
            file_away(&mut found);
        }
    }
    file_away(&mut found);
    all
}

fn with_vectors(pending: &Pending, rows: BTreeMap<Arc<str>, RoaringTreemap>) -> Planned {
    let born = |spilled: &Spilled| {
        // Of a file with nothing left alive nothing is said.
        let file = spilled.file.as_ref().filter(|file| spilled.deleted.len() < file.rows)?;
        Some(NewFile {
            deleted: spilled.deleted.clone(),
            ..file.clone()
        })
    };
    let files: Vec<Option<NewFile>> = pending.spilled.iter().map(born).collect();
    Planned {
        staged: files.iter().map(|file| file.as_ref().map(|file| Arc::clone(&file.path))).collect(),
        change: Change {
            adds: files.into_iter().flatten().collect(),
            vectors: rows,
            ..Change::default()
        },
        moved: Vec::new(),
    }
}

/// Files of the table with replaced rows, and staged files with rows that later changes have replaced, are written again.
async fn with_rewrite(
    pending: &Pending,
    rows: BTreeMap<Arc<str>, RoaringTreemap>,
    files: &Files,
    encoder: &KeyEncoder,
    log: &mut Log,
) -> Result<Planned> {
    let mut sources = Vec::new();
    for (path, rows) in &rows {
        let dead = &*log.vector(path).await? | rows;
        let file = log
            .snapshot()
            .files
            .get(path)
            .ok_or_else(|| Error::bug(format!("`{path}` is not a file of {}", log.url())))?;
        sources.push((Object::of(log.store(), file, log.snapshot().version)?, dead));
    }
    let mut planned = Planned::default();
    for spilled in &pending.spilled {
        let clean = spilled.file.as_ref().filter(|_| spilled.deleted.is_empty());
        planned.staged.push(clean.map(|file| Arc::clone(&file.path)));
        match (&spilled.file, clean) {
            (_, Some(file)) => planned.change.adds.push(file.clone()),
            (Some(file), None) => {
                let object = Object {
                    store: Arc::clone(log.store()),
                    path: StorePath::from(&*file.path),
                    size: file.size,
                    held_at: None,
                };
                sources.push((object, spilled.deleted.clone()));
            }
            (None, None) => {}
        }
    }
    let Rewritten { files, moved } = rewrite(files, encoder, &sources).await?;
    planned.moved = moved
        .into_iter()
        .map(|(key, at)| (key, Arc::clone(&files[at.file as usize].path), at.row))
        .collect();
    planned.change.adds.extend(files);
    planned.change.removes = rows.into_keys().collect();
    Ok(planned)
}

async fn open_index(cache: &Cache, encoder: &KeyEncoder, log: &mut Log) -> Result<Index> {
    if let Some((mut index, unread)) = cache.load(log.snapshot(), encoder.shape()) {
        keys::take_in(&mut index, encoder, log, &unread).await?;
        return Ok(index);
    }
    let files: Vec<Arc<str>> = log.snapshot().files.keys().cloned().collect();
    let rows: u64 = log
        .snapshot()
        .files
        .values()
        .map(|file| file.rows.unwrap_or(0).saturating_sub(file.deleted()))
        .sum();
    let mut index = Index::new(encoder.shape(), usize::try_from(rows).unwrap_or(0));
    keys::take_in(&mut index, encoder, log, &files).await?;
    if !files.is_empty() {
        cache.save(&mut index, log.snapshot());
    }
    Ok(index)
}
