//! Writing a group of files again as one: the rows that are live, in their order.
//!
//! It costs the memory of a row group that is read and of one that is written, whatever the size of the files.

use std::sync::Arc;

use roaring::RoaringTreemap;

use super::choose::Group;
use crate::error::{Error, Result};
use crate::log::{LiveFile, NewFile};
use crate::sinks::delta::files::read::Rows;
use crate::sinks::delta::files::{FileWriter, Files, Object};
use crate::table::Version;

/// A group that was written again.
#[derive(Debug)]
pub struct Compacted {
    pub sources: Vec<Source>,
    /// None where no row of the sources was live.
    pub file: Option<NewFile>,
}

/// A file whose live rows now stand in another as well.
#[derive(Debug)]
pub struct Source {
    pub path: Arc<str>,
    pub rows: u64,
    /// Rows that were dead when it was read: they were left behind.
    pub left: Arc<RoaringTreemap>,
    /// Where its first row stands in the new file.
    pub first: u32,
}

impl Source {
    /// How many of its rows are in the new file.
    pub fn kept(&self) -> u64 {
        self.rows - self.left.len()
    }
}

/// Writes the live rows of the group, of files of this version, to a new file, which no version names yet.
pub async fn compact(files: &Files, group: &Group, version: Version) -> Result<Compacted> {
    let (mut sources, mut writer) = (Vec::with_capacity(group.len()), None);
    for file in group {
        sources.push(copy(files, file, version, &mut writer).await?);
    }
    let file = match writer {
        Some(writer) => Some(writer.finish().await?),
        None => None,
    };
    Ok(Compacted { sources, file })
}

async fn copy(files: &Files, file: &LiveFile, version: Version, writer: &mut Option<FileWriter>) -> Result<Source> {
    let left = file.dead(files.store.as_ref(), &files.table).await?;
    let grown = |_| Error::bug("a data file has grown beyond four thousand million rows");
    let first = u32::try_from(writer.as_ref().map_or(0, FileWriter::rows)).map_err(grown)?;
    let mut source = Rows::all(&Object::of(&files.store, file, version)?, &files.schema).await?;
    while let Some(kept) = source.next_alive(&left).await? {
        if kept.num_rows() > 0 {
            let writer = match writer {
                Some(writer) => writer,
                None => writer.insert(files.begin((*file.partition_values).clone())?),
            };
            writer.write(&kept).await?;
        }
        // Commits of the same thread come first.
        tokio::task::yield_now().await;
    }
    let rows = source.read;
    if file.rows != Some(rows) {
        let (path, said) = (&file.path, file.rows);
        return Err(Error::data(
            "bad_file",
            format!(
                "the data file `{path}` of {} has {rows} rows, its statistics say {said:?}",
                files.table
            ),
        ));
    }
    Ok(Source {
        path: Arc::clone(&file.path),
        rows,
        left,
        first,
    })
}
