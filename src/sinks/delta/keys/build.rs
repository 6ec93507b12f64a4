//! Reading keys out of a table's files into the index.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use roaring::RoaringTreemap;

use super::{Address, Index, Key, KeyEncoder};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::sinks::delta::files::Object;
use crate::sinks::delta::files::read::{Rows, columns};

/// Files read at once: enough to hide an object store's latency, few enough that their buffers stay small.
const FILES_AT_ONCE: usize = 4;

/// One live file whose keys are to be read.
struct Unread {
    number: u32,
    object: Object,
    dead: Arc<RoaringTreemap>,
}

/// Some keys of a file, the first of which stands at `row`.
struct Run {
    file: u32,
    row: u64,
    keys: Vec<Key>,
    dead: Arc<RoaringTreemap>,
}

/// Takes the live rows of these live files into the index. Two rows of one key are an error: the table is not what it is taken for.
pub async fn take_in(index: &mut Index, encoder: &KeyEncoder, log: &mut Log, paths: &[Arc<str>]) -> Result<()> {
    let mut unread = Vec::with_capacity(paths.len());
    for path in paths {
        let dead = log.vector(path).await?;
        let file = log
            .snapshot()
            .files
            .get(path)
            .ok_or_else(|| Error::bug(format!("`{path}` is not a file of the table")))?;
        let object = Object::of(log.store(), file, log.snapshot().version)?;
        unread.push(Unread {
            number: index.number(path)?,
            object,
            dead,
        });
    }
    let schema = columns(&log.snapshot().schema, encoder.names());
    let mut runs = stream::iter(unread)
        .map(|file| keys_of(file, encoder, &schema))
        .flatten_unordered(FILES_AT_ONCE);
    let mut doubted = Vec::new();
    while let Some(run) = runs.try_next().await? {
        take_run(index, &run, log, &mut doubted)?;
    }
    drop(runs);
    must_be_stale(index, encoder, log, doubted).await
}

/// The keys of a file, batch by batch.
fn keys_of<'a>(
    file: Unread,
    encoder: &'a KeyEncoder,
    schema: &'a arrow::datatypes::SchemaRef,
) -> std::pin::Pin<Box<dyn futures::Stream<Item = Result<Run>> + Send + 'a>> {
    let begin = async move {
        let rows = Rows::all(&file.object, schema).await?;
        Ok::<_, Error>(stream::try_unfold((rows, file), move |(mut rows, file)| async move {
            let row = rows.read;
            let Some(batch) = rows.next().await? else { return Ok(None) };
            if KeyEncoder::nulls(batch.columns()).is_some_and(|nulls| nulls.null_count() > 0) {
                let path = &file.object.path;
                return Err(Error::data(
                    "null_key",
                    format!(
                        "the data file {path} has a row with a null in its key ({}); delete it or give it a key",
                        encoder.names().join(", ")
                    ),
                ));
            }
            let run = Run {
                file: file.number,
                row,
                keys: encoder.encode(batch.columns())?,
                dead: Arc::clone(&file.dead),
            };
            Ok(Some((run, (rows, file))))
        }))
    };
    Box::pin(stream::once(begin).try_flatten())
}

/// Entries that were replaced though their file is part of the table are doubted: they had better be stale.
fn take_run(index: &mut Index, run: &Run, log: &Log, doubted: &mut Vec<(Address, Address)>) -> Result<()> {
    let mut dead = run.dead.iter();
    dead.advance_to(run.row);
    let mut next_dead = dead.next();
    for (row, &key) in (run.row..).zip(&run.keys) {
        if next_dead == Some(row) {
            next_dead = dead.next();
            continue;
        }
        let row = u32::try_from(row).map_err(|_| {
            Error::data(
                "bad_file",
                "a data file has more rows than the key index can count; rewrite it in smaller ones",
            )
        })?;
        let here = Address { file: run.file, row };
        let before = index.insert(key, here).filter(|&before| before != here);
        if let Some(before) = before
            && index.path(before.file).is_some_and(|path| log.snapshot().files.contains_key(path))
        {
            doubted.push((before, here));
        }
    }
    Ok(())
}

async fn must_be_stale(index: &Index, encoder: &KeyEncoder, log: &mut Log, mut doubted: Vec<(Address, Address)>) -> Result<()> {
    doubted.sort_unstable();
    for group in doubted.chunk_by(|a, b| a.0.file == b.0.file) {
        let Some(path) = index.path(group[0].0.file) else { continue };
        let dead = log.vector(path).await?;
        if let Some((old, new)) = group.iter().find(|(old, _)| !dead.contains(u64::from(old.row))) {
            let other = index.path(new.file).map_or("?", |path| path);
            let what = format!(
                "two rows of {} have the same key ({}): row {} of {path} and row {} of {other}; delete one of them",
                log.url(),
                encoder.names().join(", "),
                old.row,
                new.row,
            );
            return Err(Error::data("duplicate_key", what));
        }
    }
    Ok(())
}
