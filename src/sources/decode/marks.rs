//! What a flattened row says of itself: `__deleted`, and `__op`.
//!
//! A schema file may name them among the table's columns, as the schema of such a topic does. Then they are read there, and else beside the
//! record: one of the two is filled, and it is the one that counts.
//!
//! A source may have columns of these names itself. Nothing in a flattened row tells them from Debezium's but their words: where they are
//! others than Debezium's, the row is a reject, for it may be deleted or not. In envelopes they are columns like any other.

use super::column::Cells;
use super::encoding::Encoding;
use super::event::Action;
use super::fault::{Code, Fault, Read};
use super::metadata;
use super::names::Names;
use super::rows::Rows;
use super::scanner::Scanner;
use crate::error::{Error, Result};

#[derive(Debug)]
pub(super) struct Marks {
    op: usize,
    deleted: usize,
    /// These two, and the key where it stands in the value.
    pub names: Names,
}

impl Marks {
    /// The record's columns come first, so its own are those that are found.
    pub fn new(rows: &Rows) -> Result<Self> {
        let place = |name: &str| {
            let place = rows.columns.iter().position(|column| column.name() == name);
            place.ok_or_else(|| Error::bug(format!("nobody reads `{name}` of flattened rows")))
        };
        let (op, deleted) = (place(metadata::OP)?, place(metadata::DELETED)?);
        let columns = rows.key_in_value().iter().chain([&op, &deleted]);
        let names = Names::new(columns.map(|&column| (rows.columns[column].name(), column)));
        Ok(Self { op, deleted, names })
    }

    /// Whether the row at hand is a deleted one.
    pub fn say_deleted(&self, rows: &Rows) -> Read<bool> {
        // As text, and of MongoDB's documents as a boolean.
        let deleted = match said(rows, self.deleted)? {
            Some(b"true") => true,
            None | Some(b"false") => false,
            Some(_) => return Err(not_debeziums(metadata::DELETED)),
        };
        Ok(deleted || self.action(rows)? == Some(Action::Delete))
    }

    /// Whether the row at hand was none before.
    pub fn say_new(&self, rows: &Rows) -> Read<bool> {
        Ok(matches!(self.action(rows)?, Some(Action::Create | Action::Read)))
    }

    fn action(&self, rows: &Rows) -> Read<Option<Action>> {
        let letter = said(rows, self.op)?;
        letter
            .map(|letter| Action::of_letter(letter).ok_or_else(|| not_debeziums(metadata::OP)))
            .transpose()
    }
}

#[cold]
fn not_debeziums(column: &str) -> Box<Fault> {
    let what = "flattened rows say here what happened to them, and this is no word of Debezium's: read a table with such a column of its own \
                from envelopes, or with format = \"json\", which knows no such marks";
    Fault::new(Code::Unexpected, what).within(column)
}

/// Whether a flattened row of any columns is a deleted one.
pub(super) fn is_deleted(row: &mut Scanner<'_>) -> Read<bool> {
    let (mut deleted, mut scratch) = (false, Vec::new());
    row.open(b'{', "an object is expected")?;
    let mut more = !row.closes(b'}');
    while more {
        let name = row.key()?.read(&mut scratch)?.to_vec();
        deleted |= match (name.as_slice(), row.skip()?) {
            (name, value) if name == metadata::DELETED.as_bytes() => matches!(value, b"\"true\"" | b"true"),
            (name, value) if name == metadata::OP.as_bytes() => value == b"\"d\"",
            _ => false,
        };
        more = row.more(b'}')?;
    }
    Ok(deleted)
}

fn said(rows: &Rows, column: usize) -> Read<Option<&[u8]>> {
    let (column, row) = (&rows.columns[column], rows.len());
    if column.len() <= row || column.ends_with_null() {
        return Ok(None);
    }
    match (&column.cells, column.encoding) {
        (Cells::Text(cells), Encoding::Json) => {
            let json = cells.get(row);
            let text = json.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
            Ok(Some(text.unwrap_or(json)))
        }
        (Cells::Text(cells), _) => Ok(Some(cells.get(row))),
        (Cells::Boolean(cells), _) => Ok(Some(if cells.get_bit(row) { b"true".as_slice() } else { b"false" })),
        _ => Err(not_debeziums(column.name())),
    }
}
