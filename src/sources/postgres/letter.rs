//! What a dead letter keeps of a row: its values as the server prints them, in a JSON object, so that the row can be found and made again.
//!
//! What was not sent is not there, and bytes that nobody can print stand as `{"hex": "00ff"}`.

use serde_json::{Map, Value};

use super::followed::Followed;
use super::pgoutput::Cell;
use crate::reject::{hex, text_or_hex};

/// The row's key, where the table has one, and the whole row. `cells`: with the numbers of their columns.
pub(super) fn told<'v>(followed: &Followed, cells: impl Iterator<Item = (usize, Cell<'v>)>) -> (Option<Vec<u8>>, Vec<u8>) {
    let (mut key, mut row) = (Map::new(), Map::new());
    for (number, cell) in cells {
        let column = &followed.columns[number];
        let value = match cell {
            Cell::Unchanged => continue,
            Cell::Null => Value::Null,
            Cell::Text(text) => text_or_hex(text),
            Cell::Binary(bytes) => column.kind.print(bytes).map_or_else(|| hex(bytes), |text| text_or_hex(&text)),
        };
        if followed.is_key(number) {
            key.insert(column.name.clone(), value.clone());
        }
        row.insert(column.name.clone(), value);
    }
    let bytes = |object| Value::Object(object).to_string().into_bytes();
    ((!key.is_empty()).then(|| bytes(key)), bytes(row))
}
