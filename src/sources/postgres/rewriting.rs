//! Whether ALTER TABLE … TYPE leaves the rows that are there with the values that they had. Where it does not, no change tells the new ones.
//!
//! What is known to keep all values, as a Delta table holds them, is listed here; anything else is taken to make others of them.

const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const VARCHAR: u32 = 1043;
const DATE: u32 = 1082;
const TIME: u32 = 1083;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const INTERVAL: u32 = 1186;
const TIMETZ: u32 = 1266;
const NUMERIC: u32 = 1700;

/// Arrays of these.
const ARRAYS: [(u32, u32); 14] = [
    (1016, INT8),
    (1005, INT2),
    (1007, INT4),
    (1009, TEXT),
    (1021, FLOAT4),
    (1022, FLOAT8),
    (1015, VARCHAR),
    (1182, DATE),
    (1183, TIME),
    (1115, TIMESTAMP),
    (1185, TIMESTAMPTZ),
    (1187, INTERVAL),
    (1270, TIMETZ),
    (1231, NUMERIC),
];

/// A decimal of no more digits is one in the Delta table, too; others are text, which shows each digit.
const DECIMAL_DIGITS_MAX: i32 = 38;
/// Digits of a second that a moment has, if it is not said how many.
const MOMENT_DIGITS: i32 = 6;

/// A type's object identifier and its modifier, which says of how many characters or digits it is; -1 is of as many as come.
pub type Declared = (u32, i32);

/// Whether all values are the same in a column that had the one type, and has the other now.
pub fn keeps_values(before: Declared, now: Declared) -> bool {
    if before == now {
        return true;
    }
    if let (Some(before_element), Some(now_element)) = (element(before.0), element(now.0)) {
        return keeps_values((before_element, before.1), (now_element, now.1));
    }
    match (before.0, now.0) {
        (TEXT | VARCHAR, TEXT | VARCHAR) => now.1 < 0 || (before.1 >= 0 && now.1 >= before.1),
        (TIME, TIME) | (TIMETZ, TIMETZ) | (TIMESTAMP, TIMESTAMP) | (TIMESTAMPTZ, TIMESTAMPTZ) => {
            let digits = |modifier: i32| if modifier < 0 { MOMENT_DIGITS } else { modifier };
            digits(now.1) >= digits(before.1)
        }
        (INTERVAL, INTERVAL) => now.1 < 0,
        (DATE, TIMESTAMP) | (FLOAT4, FLOAT8) | (INT2, INT4 | INT8 | FLOAT4 | FLOAT8) | (INT4, INT8 | FLOAT8) => true,
        (INT2 | INT4 | INT8, NUMERIC) => numeric(now.1).is_some_and(|(_, places)| places >= 0),
        (NUMERIC, NUMERIC) => match (numeric(before.1), numeric(now.1)) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some((_, before)), Some((digits, now))) => now == before || (now > before && digits <= DECIMAL_DIGITS_MAX),
        },
        _ => false,
    }
}

fn element(array: u32) -> Option<u32> {
    ARRAYS.iter().find(|(known, _)| *known == array).map(|(_, element)| *element)
}

/// How many digits a numeric has, and how many of them behind the point (utils/adt/numeric.c, `numeric_typmod_scale`).
fn numeric(modifier: i32) -> Option<(i32, i32)> {
    let packed = modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
    Some((packed >> 16, ((packed & 0x7ff) ^ 1024) - 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(precision: i32, scale: i32) -> Declared {
        (NUMERIC, ((precision << 16) | (scale & 0x7ff)) + 4)
    }

    #[test]
    fn what_is_certain_to_keep_values_keeps_them_and_nothing_else() {
        let any = |oid: u32| (oid, -1);
        let varchar = |letters: i32| (VARCHAR, letters + 4);
        let (json, jsonb, bpchar) = ((114, -1), (3802, -1), (1042, 9));
        let cases = [
            (any(TEXT), any(VARCHAR), true),
            (varchar(5), any(TEXT), true),
            (varchar(5), varchar(6), true),
            (varchar(6), varchar(5), false),
            (any(TEXT), varchar(5), false),
            (bpchar, any(TEXT), false),
            (any(TEXT), bpchar, false),
            (json, jsonb, false),
            (json, json, true),
            (any(TIMESTAMP), (TIMESTAMP, 0), false),
            ((TIMESTAMP, 0), any(TIMESTAMP), true),
            (any(TIMESTAMP), (TIMESTAMP, 6), true),
            ((TIMESTAMPTZ, 3), (TIMESTAMPTZ, 2), false),
            (any(TIMESTAMP), any(DATE), false),
            (any(DATE), any(TIMESTAMP), true),
            (any(TIMESTAMP), any(TIMESTAMPTZ), false),
            (any(INTERVAL), (INTERVAL, 0x8_ffff), false),
            (digits(8, 2), digits(9, 2), true),
            (digits(8, 2), digits(7, 1), false),
            (digits(8, 2), digits(9, 3), true),
            (digits(8, -2), digits(8, -3), false),
            (digits(50, 4), any(NUMERIC), true),
            (any(NUMERIC), digits(60, 0), false),
            (digits(50, 4), digits(50, 5), false),
            (any(INT4), any(INT8), true),
            (any(INT8), any(FLOAT8), false),
            (any(INT4), digits(20, 3), true),
            (any(INT4), digits(5, -2), false),
            (any(FLOAT4), any(FLOAT8), true),
            (any(FLOAT8), any(FLOAT4), false),
            (any(1007), any(1016), true),
            (any(1115), (1115, 0), false),
            (any(1007), any(INT4), false),
        ];
        for (before, now, keeps) in cases {
            assert_eq!(keeps_values(before, now), keeps, "{before:?} {now:?}");
        }
    }
}
