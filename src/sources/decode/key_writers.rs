//! How message keys that bring their schema are written.
//!
//! A tombstone has a key alone, and nobody else says whether a number in it is of milliseconds or of microseconds. The same schema stands in
//! front of every key: it is recognised by its bytes, and read only when it is new.

use super::adopt;
use super::column::Column;
use super::columns::connect::ConnectSchema;
use super::encoding::Encoding;

/// How many schemas are remembered: shards of one table have one each.
const SCHEMAS_MAX: usize = 16;

#[derive(Debug, Default)]
pub(super) struct KeyWriters {
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    schema: Vec<u8>,
    /// Columns, by place, that this schema speaks of, and how their cells are written.
    encodings: Vec<(usize, Encoding)>,
}

impl KeyWriters {
    /// The number of the writer that has this schema; `key` are the places of the key's columns.
    pub fn writer(&mut self, schema: &[u8], columns: &[Column], key: &[usize]) -> usize {
        if let Some(known) = self.known.iter().position(|known| known.schema == schema) {
            return known;
        }
        if self.known.len() == SCHEMAS_MAX {
            self.known.remove(0);
        }
        self.known.push(Known {
            schema: schema.to_vec(),
            encodings: encodings(schema, columns, key),
        });
        self.known.len() - 1
    }

    /// Makes the columns read what the writer writes; a second time, what they read before.
    pub fn exchange(&mut self, writer: usize, columns: &mut [Column]) {
        let encodings = self.known.get_mut(writer).into_iter().flat_map(|known| &mut known.encodings);
        encodings.for_each(|(column, encoding)| std::mem::swap(&mut columns[*column].encoding, encoding));
    }

    /// Knows no writer any more: the columns are not what they were.
    pub fn forget(&mut self) {
        self.known.clear();
    }
}

/// What the schema says of the key's columns: it is a struct of them, or the type of the only one. A column that is another there, or that
/// no table can have, is read as ever, and refused where it does not fit.
fn encodings(schema: &[u8], columns: &[Column], key: &[usize]) -> Vec<(usize, Encoding)> {
    let Ok(schema) = serde_json::from_slice::<ConnectSchema>(schema) else {
        return Vec::new();
    };
    let encoding = |&place: &usize| {
        let column = &columns[place];
        let written = match (schema.is_row(), key) {
            (true, _) => schema.member(column.name())?,
            (false, [_]) => &schema,
            (false, _) => return None,
        };
        let written = written.column(column.name()).ok()?;
        Some((place, adopt::encoding(column.field.data_type(), &written)?))
    };
    key.iter().filter_map(encoding).collect()
}
