//! Whether a record can be in a partition, where its table has them.

use super::column::{Cells, Column};
use super::fault::{Fault, Read};
use crate::sources::partition::{has_bytes, has_day, has_time};

/// Whether the last cell of a column can be a partition's value.
pub(super) fn check(column: &Column) -> Read {
    let Some(last) = column.len().checked_sub(1).filter(|_| !column.ends_with_null()) else {
        return Ok(());
    };
    let checked = match &column.cells {
        Cells::Date(cells) => within_years(has_day(i64::from(cells[last]))),
        Cells::Timestamp(_, cells) => check_time(cells[last]),
        Cells::Binary(cells) => check_bytes(cells.get(last)),
        _ => Ok(()),
    };
    checked.map_err(|fault| fault.within(column.name()))
}

pub(super) fn check_time(time_us: i64) -> Read {
    within_years(has_time(time_us))
}

fn within_years(is_within: bool) -> Read {
    match is_within {
        true => Ok(()),
        false => Err(Fault::range(
            "the table is partitioned by it, and a partition cannot be outside of the years 0001 to 9999",
        )),
    }
}

pub(super) fn check_bytes(bytes: &[u8]) -> Read {
    match has_bytes(bytes) {
        true => Ok(()),
        false => Err(Fault::mismatch(
            "the table is partitioned by it, and bytes of a partition must be text in UTF-8",
        )),
    }
}
