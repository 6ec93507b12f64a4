//! Which type a column may be widened to so that it holds other values too: the changes of type that Delta allows, and no others.
//!
//! | from | to |
//! |---|---|
//! | byte, short, int | a larger integer, double, decimal with 10 digits before the point |
//! | long | decimal with 20 digits before the point |
//! | float | double |
//! | decimal | decimal with no fewer digits on either side of the point |
//! | date | timestamp_ntz: midnight |
//!
//! Every value of the narrower type is one of the wider type, so files of both can stand in one table.
//! <https://github.com/delta-io/delta/blob/master/PROTOCOL.md#type-widening>

use arrow::datatypes::{DataType, TimeUnit};

/// Digits of the largest decimal.
const DIGITS_MAX: i16 = 38;

/// The least type that a column of type `own` can be widened to and that holds all values of type `coming`: `own` itself where it holds
/// them. None where there is no such type. Types within types are the caller's.
pub fn widened(own: &DataType, coming: &DataType) -> Option<DataType> {
    use DataType::{Date32, Decimal128, Float32, Float64, Int8, Int16, Int32};
    Some(match (own, coming) {
        (one, other) if one == other => one.clone(),
        (one, other) if integer_bytes(one).is_some() && integer_bytes(other).is_some() => {
            if integer_bytes(one) >= integer_bytes(other) { one } else { other }.clone()
        }
        (Float32 | Float64 | Int8 | Int16 | Int32, Float32 | Float64 | Int8 | Int16 | Int32) => Float64,
        (one, other) if matches!(one, Decimal128(..)) || matches!(other, Decimal128(..)) => {
            let ((whole, fraction), (other_whole, other_fraction)) = (digits(one)?, digits(other)?);
            let (whole, fraction) = (whole.max(other_whole), fraction.max(other_fraction));
            let all = Some(whole + fraction).filter(|&all| all <= DIGITS_MAX)?;
            Decimal128(u8::try_from(all).ok()?, i8::try_from(fraction).ok()?)
        }
        (Date32, local) | (local, Date32) if *local == DataType::Timestamp(TimeUnit::Microsecond, None) => local.clone(),
        _ => return None,
    })
}

/// Whether a value is written alike in both types, wherever it is written as bytes or text: in the hash of a key, or as a partition's value.
pub fn writes_alike(one: &DataType, other: &DataType) -> bool {
    match (one, other) {
        (DataType::Decimal128(_, scale), DataType::Decimal128(_, other)) => scale == other,
        _ => one == other || (integer_bytes(one).is_some() && integer_bytes(other).is_some()),
    }
}

fn integer_bytes(kind: &DataType) -> Option<usize> {
    kind.primitive_width().filter(|_| kind.is_signed_integer())
}

/// Digits before and behind the point that hold all values of a type.
fn digits(kind: &DataType) -> Option<(i16, i16)> {
    match kind {
        DataType::Int8 | DataType::Int16 | DataType::Int32 => Some((10, 0)),
        DataType::Int64 => Some((20, 0)),
        DataType::Decimal128(precision, scale) => Some((i16::from(*precision) - i16::from(*scale), i16::from(*scale))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

    fn types() -> Vec<DataType> {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let decimals = [(1, 0), (5, 2), (10, 0), (10, 2), (12, 4), (20, 0), (38, 10), (38, 38)];
        let others = [
            DataType::Boolean,
            DataType::Int8,
            DataType::Int16,
            DataType::Int32,
            DataType::Int64,
            DataType::Float32,
            DataType::Float64,
            DataType::Utf8,
            DataType::Binary,
            DataType::Date32,
            LOCAL,
            utc,
        ];
        others
            .into_iter()
            .chain(decimals.map(|(p, s)| DataType::Decimal128(p, s)))
            .collect()
    }

    /// The protocol's list of supported changes, as it stands there.
    fn delta_allows(from: &DataType, to: &DataType) -> bool {
        use DataType::{Date32, Decimal128, Float32, Float64, Int8, Int16, Int32, Int64};
        let grows = |from: (u8, i8), to: (u8, i8)| {
            let (k1, k2) = (i16::from(to.0) - i16::from(from.0), i16::from(to.1) - i16::from(from.1));
            k1 >= k2 && k2 >= 0
        };
        match (from, to) {
            (Int8, Int16 | Int32 | Int64) | (Int16, Int32 | Int64) | (Int32, Int64) => true,
            (Float32 | Int8 | Int16 | Int32, Float64) => true,
            (Date32, to) => *to == LOCAL,
            (Decimal128(p, s), Decimal128(to_p, to_s)) => grows((*p, *s), (*to_p, *to_s)),
            (Int8 | Int16 | Int32, Decimal128(p, s)) => grows((10, 0), (*p, *s)),
            (Int64, Decimal128(p, s)) => grows((20, 0), (*p, *s)),
            _ => false,
        }
    }

    #[test]
    fn s9_a_column_is_widened_as_delta_allows_and_no_further_than_it_must() {
        for own in types() {
            for coming in types() {
                let holds = |kind: &DataType| {
                    let reaches = |from: &DataType| from == kind || delta_allows(from, kind);
                    reaches(&own) && reaches(&coming)
                };
                let widened = widened(&own, &coming);
                if let Some(kind) = &widened {
                    assert!(holds(kind), "{own} and {coming} become {kind}");
                }
                // Any type that would do, of these, holds the one that is chosen.
                for other in types().iter().filter(|kind| holds(kind)) {
                    let kind = widened
                        .as_ref()
                        .unwrap_or_else(|| panic!("{own} and {coming} could become {other}"));
                    assert!(
                        kind == other || delta_allows(kind, other),
                        "{own} and {coming} become {kind}, not {other}"
                    );
                }
            }
        }
    }

    #[test]
    fn s9_both_sides_of_the_point_are_kept() {
        let decimal = DataType::Decimal128;
        let cases = [
            (decimal(10, 2), decimal(10, 4), Some(decimal(12, 4))),
            (decimal(12, 4), decimal(10, 2), Some(decimal(12, 4))),
            (DataType::Int32, decimal(5, 2), Some(decimal(12, 2))),
            (DataType::Int64, decimal(5, 2), Some(decimal(22, 2))),
            (decimal(38, 0), decimal(38, 1), None),
            (DataType::Int64, DataType::Float64, None),
            (DataType::Float32, DataType::Int32, Some(DataType::Float64)),
        ];
        for (own, coming, expected) in cases {
            assert_eq!(widened(&own, &coming), expected, "{own} and {coming}");
        }
    }
}
