//! What Delta can write down as a partition's value: no time outside of the years 0001 to 9999, and no bytes that are no text. The sink would
//! have to stop at such a row, and in a source it is known whose it is.

use super::calendar::DAY_US;

/// The days from 0001-01-01 to 9999-12-31.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;

/// Of days since 1970.
pub(super) fn has_day(day: i64) -> bool {
    DAYS.contains(&day)
}

/// Of microseconds since 1970.
pub(super) fn has_time(time_us: i64) -> bool {
    has_day(time_us.div_euclid(DAY_US))
}

pub(super) fn has_bytes(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::calendar::days_from_civil;
    use super::*;

    #[test]
    fn a_partition_is_of_the_years_that_have_four_digits() {
        let day = |year, month, day| days_from_civil(year, month, day).unwrap();
        let (first, last) = (day(1, 1, 1), day(9999, 12, 31));
        assert_eq!([first - 1, first, last, last + 1].map(has_day), [false, true, true, false]);
        let times = [first * DAY_US - 1, first * DAY_US, (last + 1) * DAY_US - 1, (last + 1) * DAY_US];
        assert_eq!(times.map(has_time), [false, true, true, false]);
        assert_eq!([i64::MIN, i64::MAX].map(has_time), [false, false]);
    }

    #[test]
    fn bytes_of_a_partition_are_text() {
        let bytes: [&[u8]; 4] = [b"", b"\0a", "é".as_bytes(), b"\xff"];
        assert_eq!(bytes.map(has_bytes), [true, true, true, false]);
    }
}
