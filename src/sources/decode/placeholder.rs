//! What Debezium writes where it did not get a cell, because PostgreSQL does not send large values that did not change.
//!
//! The text is Debezium's default for `unavailable.value.placeholder`; in arrays and maps it hides in ways of their own, taken from
//! real events. Arrays of other types (smallint, floats, booleans, decimals, times, inet) and bit strings come as plain nulls, which nobody
//! can tell from a null: such tables need `REPLICA IDENTITY FULL`.

use super::column::{Cells, Column};

const TEXT: &[u8] = b"__debezium_unavailable_value";
/// As an hstore in JSON.
const JSON: &[u8] = br#"{"__debezium_unavailable_value":"__debezium_unavailable_value"}"#;
/// In arrays of UUIDs: `UUID.nameUUIDFromBytes` of the text.
const UUID: &[u8] = b"b68a35a7-17ad-35b3-af2a-ae46edb4545a";

/// Whether cells of this column may be a placeholder.
pub(super) fn possible(column: &Column) -> bool {
    match &column.cells {
        Cells::Text(_) | Cells::Binary(_) | Cells::Map { .. } => true,
        Cells::List(_, item) => matches!(
            item.cells,
            Cells::Text(_) | Cells::Binary(_) | Cells::Int32(_) | Cells::Int64(_) | Cells::Date(_)
        ),
        _ => false,
    }
}

#[inline]
pub(super) fn is_last_cell_of(column: &Column) -> bool {
    let Some(last) = column.len().checked_sub(1) else { return false };
    match &column.cells {
        Cells::Text(cells) => matches!(cells.get(last), TEXT | JSON),
        Cells::Binary(cells) => cells.get(last) == TEXT,
        Cells::Map { ends, keys, .. } => {
            let range = ends.range(last);
            range.len() == 1 && keys.get(range.start) == TEXT
        }
        Cells::List(ends, item) => {
            let range = ends.range(last);
            match &item.cells {
                Cells::Text(cells) => range.len() == 1 && matches!(cells.get(range.start), TEXT | UUID),
                Cells::Binary(cells) => range.len() == 1 && cells.get(range.start) == TEXT,
                // Days are numbers to it, too.
                Cells::Int32(cells) | Cells::Date(cells) => {
                    cells[range].iter().copied().map(i64::from).eq(TEXT.iter().copied().map(i64::from))
                }
                Cells::Int64(cells) => cells[range].iter().copied().eq(TEXT.iter().copied().map(i64::from)),
                _ => false,
            }
        }
        _ => false,
    }
}
