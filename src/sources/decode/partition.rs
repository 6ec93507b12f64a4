//! What Delta can write down as a partition's value: no time outside of the years 0001 to 9999, and no bytes that are no text. The sink would
//! have to stop at such a row, and here it is known whose it is.

use super::column::{Cells, Column};
use super::fault::{Fault, Read};
use super::time::DAY_US;

/// The days from 0001-01-01 to 9999-12-31.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;

/// Whether the last cell of a column can be one.
pub(super) fn check(column: &Column) -> Read {
    let Some(last) = column.len().checked_sub(1).filter(|_| !column.ends_with_null()) else {
        return Ok(());
    };
    let checked = match &column.cells {
        Cells::Date(cells) => check_day(i64::from(cells[last])),
        Cells::Timestamp(_, cells) => check_time(cells[last]),
        Cells::Binary(cells) => check_bytes(cells.get(last)),
        _ => Ok(()),
    };
    checked.map_err(|fault| fault.within(column.name()))
}

pub(super) fn check_time(time_us: i64) -> Read {
    check_day(time_us.div_euclid(DAY_US))
}

fn check_day(day: i64) -> Read {
    match DAYS.contains(&day) {
        true => Ok(()),
        false => Err(Fault::range(
            "the table is partitioned by it, and a partition cannot be outside of the years 0001 to 9999",
        )),
    }
}

pub(super) fn check_bytes(bytes: &[u8]) -> Read {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(()),
        Err(_) => Err(Fault::mismatch(
            "the table is partitioned by it, and bytes of a partition must be text in UTF-8",
        )),
    }
}
