//! Cells that the source did not send, because they did not change (unchanged TOAST): they are filled from where the row stood before.
//!
//! That is an earlier change of the same key that is still in memory, or a row of a staged file, or a row of the table. Rows are read by their
//! place, few of them and only these columns. Of a row that was nowhere nothing is guessed: `unknown` has the next word.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::interleave;

use super::files::Object;
use super::files::read::{Rows, columns};
use super::fold::Folded;
use super::keys::{Address, Index, Key};
use super::stage::{DELETED, Pending, Staged};
use crate::batch::Op;
use crate::error::{Error, Result};
use crate::log::Log;

/// A data file that is read back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stored {
    /// A place among the spilled files.
    Spilled(u32),
    Live(Arc<str>),
}

/// A cell of a row that will be written, and where its value stands.
struct Gap {
    cell: Cell,
    from: From,
}

/// A column of a row of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub batch: usize,
    pub row: usize,
    pub column: usize,
}

enum From {
    Memory(Address),
    Stored(Stored, u32),
}

/// Fills the cells that rows to be written lack. Tells those whose row was nowhere: these rows cannot be written.
pub async fn fill(batches: &mut [Staged], folded: &Folded, pending: &Pending, index: &Index, log: &mut Log) -> Result<Vec<Cell>> {
    let before: HashMap<Address, Option<Address>> = folded.before.iter().copied().collect();
    let (mut gaps, mut unknown) = (Vec::new(), Vec::new());
    for cell in lacking(batches, folded) {
        let from = match last_said(batches, &before, cell) {
            Said::At(at) => (batches[at.file as usize].ops[at.row as usize] == Op::Put).then_some(From::Memory(at)),
            Said::NotSince(key) => {
                let stands = stands(key, pending, index, log).await?;
                stands.map(|(stored, row)| From::Stored(stored, row))
            }
        };
        match from {
            Some(from) => gaps.push(Gap { cell, from }),
            None => unknown.push(cell),
        }
    }
    let read = read(&gaps, batches, pending, log).await?;
    put_in(batches, &gaps, &read)?;
    Ok(unknown)
}

/// The cells without a value of the rows that will be written.
fn lacking(batches: &[Staged], folded: &Folded) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (batch, (staged, last)) in batches.iter().zip(&folded.last).enumerate() {
        let Some(unchanged) = &staged.unchanged else { continue };
        for (&column, lacks) in &unchanged.0 {
            let rows = (last & lacks)
                .set_indices()
                .filter(|&row| staged.ops[row] == Op::Put)
                .collect::<Vec<_>>();
            cells.extend(rows.into_iter().map(|row| Cell { batch, row, column }));
        }
    }
    cells
}

/// Who says what a cell is.
enum Said {
    /// A change in memory; or it says that the row is gone.
    At(Address),
    /// None in memory: it is as it was under this key before.
    NotSince(Key),
}

/// The last change of the row before this one that says what the cell is.
fn last_said(batches: &[Staged], before: &HashMap<Address, Option<Address>>, cell: Cell) -> Said {
    let mut at = Address {
        file: cell.batch as u32,
        row: cell.row as u32,
    };
    loop {
        at = under_its_old_key(batches, at, cell.column);
        let Some(earlier) = before.get(&at).copied().flatten() else {
            return Said::NotSince(batches[at.file as usize].keys[at.row as usize]);
        };
        at = earlier;
        let staged = &batches[at.file as usize];
        if staged.ops[at.row as usize] != Op::Put || !lacks(staged, at.row as usize, cell.column) {
            return Said::At(at);
        }
    }
}

/// A put that goes on with the row of the delete right before it: that delete. Any other row: itself.
fn under_its_old_key(batches: &[Staged], at: Address, column: usize) -> Address {
    let staged = &batches[at.file as usize];
    match at.row.checked_sub(1) {
        Some(row) if staged.ops[row as usize] == Op::Delete && lacks(staged, row as usize, column) => Address { row, ..at },
        _ => at,
    }
}

fn lacks(staged: &Staged, row: usize, column: usize) -> bool {
    let cells = staged.unchanged.as_ref().and_then(|unchanged| unchanged.0.get(&column));
    cells.is_some_and(|cells| cells.value(row))
}

/// Where the row of a key stands that has no change in memory.
async fn stands(key: Key, pending: &Pending, index: &Index, log: &mut Log) -> Result<Option<(Stored, u32)>> {
    match pending.keys.get(key) {
        Some(at) if at.file == DELETED => return Ok(None),
        Some(at) => return Ok(Some((Stored::Spilled(at.file), at.row))),
        None if pending.truncated => return Ok(None),
        None => {}
    }
    let Some(at) = index.get(key) else { return Ok(None) };
    let Some(path) = index.path(at.file).filter(|path| log.snapshot().files.contains_key(*path)) else {
        return Ok(None);
    };
    let gone = log.vector(path).await?.contains(u64::from(at.row));
    Ok((!gone).then(|| (Stored::Live(Arc::clone(path)), at.row)))
}

/// What was read of a stored file: the rows of these places, which rise.
struct Read {
    places: Vec<u32>,
    rows: RecordBatch,
}

async fn read(gaps: &[Gap], batches: &[Staged], pending: &Pending, log: &Log) -> Result<BTreeMap<Stored, Read>> {
    let mut wanted: BTreeMap<&Stored, (Vec<u32>, Vec<usize>)> = BTreeMap::new();
    for gap in gaps {
        if let From::Stored(stored, row) = &gap.from {
            let (rows, columns) = wanted.entry(stored).or_default();
            rows.push(*row);
            columns.push(gap.cell.column);
        }
    }
    let mut read = BTreeMap::new();
    for (stored, (mut places, mut wanted)) in wanted {
        places.sort_unstable();
        places.dedup();
        wanted.sort_unstable();
        wanted.dedup();
        let schema = batches[gaps[0].cell.batch].rows.schema();
        let names: Vec<String> = wanted.iter().map(|&column| schema.field(column).name().clone()).collect();
        let object = object(stored, pending, log)?;
        let rows = Rows::at(&object, &columns(&schema, &names), &places).await?.collect().await?;
        if rows.num_rows() != places.len() {
            return Err(Error::data(
                "bad_file",
                format!(
                    "the data file {} has fewer rows than the table takes it to have; restore it",
                    object.path
                ),
            ));
        }
        read.insert(stored.clone(), Read { places, rows });
    }
    Ok(read)
}

fn object(stored: &Stored, pending: &Pending, log: &Log) -> Result<Object> {
    let missing = || Error::bug(format!("{stored:?} is not there to be read"));
    match stored {
        Stored::Spilled(file) => {
            let file = pending
                .spilled
                .get(*file as usize)
                .and_then(|spilled| spilled.file.as_ref())
                .ok_or_else(missing)?;
            Ok(Object {
                store: Arc::clone(log.store()),
                path: object_store::path::Path::from(&*file.path),
                size: file.size,
                held_at: None,
            })
        }
        Stored::Live(path) => {
            let file = log.snapshot().files.get(path).ok_or_else(missing)?;
            Object::of(log.store(), file, log.snapshot().version)
        }
    }
}

/// Makes the columns anew that have gaps.
fn put_in(batches: &mut [Staged], gaps: &[Gap], read: &BTreeMap<Stored, Read>) -> Result<()> {
    let mut by_column: BTreeMap<(usize, usize), Vec<&Gap>> = BTreeMap::new();
    for gap in gaps {
        by_column.entry((gap.cell.batch, gap.cell.column)).or_default().push(gap);
    }
    let mut filled: Vec<(usize, usize, ArrayRef)> = Vec::new();
    for ((batch, column), gaps) in by_column {
        let schema = batches[batch].rows.schema();
        let name = schema.field(column).name();
        // The sources of values: this column of all batches, and of all files that were read and have it.
        let mut sources: Vec<&dyn Array> = batches.iter().map(|staged| staged.rows.column(column).as_ref()).collect();
        let mut stored: HashMap<&Stored, usize> = HashMap::new();
        for (file, read) in read {
            if let Some(values) = read.rows.column_by_name(name) {
                stored.insert(file, sources.len());
                sources.push(values.as_ref());
            }
        }
        let mut picks: Vec<(usize, usize)> = (0..batches[batch].rows.num_rows()).map(|row| (batch, row)).collect();
        for gap in gaps {
            picks[gap.cell.row] = match &gap.from {
                From::Memory(at) => (at.file as usize, at.row as usize),
                From::Stored(file, row) => {
                    let place = read[file]
                        .places
                        .binary_search(row)
                        .map_err(|_| Error::bug("a row that was asked for was not read"))?;
                    (stored[file], place)
                }
            };
        }
        let values = interleave(&sources, &picks).map_err(|e| Error::bug("a stored column does not fit a staged one").because(e))?;
        filled.push((batch, column, values));
    }
    for (batch, column, values) in filled {
        let rows = &mut batches[batch].rows;
        let mut all = rows.columns().to_vec();
        all[column] = values;
        *rows = RecordBatch::try_new(rows.schema(), all).map_err(|e| Error::bug("a filled column does not fit its batch").because(e))?;
    }
    Ok(())
}
