//! Cells that were read already, as cells of a wider type.

use arrow::datatypes::{DataType, TimeUnit};

use super::column::Cells;
use super::decimal::Shape;
use super::time::Zone;
use crate::sources::calendar::DAY_US;

/// The same values in a type that [`crate::widening`] leads to. The error is what its type cannot hold after all.
pub(super) fn widen(cells: Cells, to: &DataType) -> Result<Cells, String> {
    let unknown = || Err(format!("its cells cannot become {to}"));
    Ok(match (cells, to) {
        (Cells::Int32(cells), DataType::Int64) => Cells::Int64(cells.into_iter().map(i64::from).collect()),
        (Cells::Int32(cells), DataType::Float64) => Cells::Float64(cells.into_iter().map(f64::from).collect()),
        (Cells::Float32(cells), DataType::Float64) => Cells::Float64(cells.into_iter().map(f64::from).collect()),
        (cells, DataType::Decimal128(precision, scale)) => {
            let shape = Shape {
                precision: *precision,
                scale: *scale,
            };
            let (values, digits) = match cells {
                Cells::Int32(cells) => (cells.into_iter().map(i128::from).collect(), 0),
                Cells::Int64(cells) => (cells.into_iter().map(i128::from).collect(), 0),
                Cells::Decimal(own, cells) => (cells, own.scale),
                _ => return unknown(),
            };
            let scaled = |value: i128| {
                shape
                    .fit(value, i64::from(digits))
                    .map_err(|_| format!("{value} is too large for {to}"))
            };
            Cells::Decimal(shape, values.into_iter().map(scaled).collect::<Result<_, _>>()?)
        }
        (Cells::Date(cells), DataType::Timestamp(TimeUnit::Microsecond, None)) => {
            let midnight = |day: i32| {
                let at = i64::from(day).checked_mul(DAY_US);
                at.ok_or_else(|| format!("day {day} since 1970 is beyond all timestamps"))
            };
            Cells::Timestamp(Zone::Forbidden, cells.into_iter().map(midnight).collect::<Result<_, _>>()?)
        }
        _ => return unknown(),
    })
}
