//! Days and microseconds out of ISO 8601 text and out of epoch integers: exact, or not at all.
//!
//! Nothing passes through nanoseconds, which reach from 1677 to 2262 only: 9999-12-31 is a date that real systems write.

use super::fault::{Fault, Read};
use crate::sources::calendar::{DAY_US, civil_from_days, days_from_civil};

const DAY_NS: i64 = DAY_US * 1000;
/// The days that PostgreSQL knows, from 4714-11-24 BC to 5874897-12-31: more than any other database. What lies beyond is Debezium's
/// way to write infinity, or a unit taken for another.
const CALENDAR: std::ops::RangeInclusive<i64> = -2_440_588..=2_145_042_905;

const TOO_FINE: &str = "the time is finer than a microsecond, which is what a table's timestamps hold: a schema file can have the column as a \
                        string";

/// Whether a text must name its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zone {
    Required,
    Forbidden,
}

/// Days since 1970-01-01 of a text such as `2024-02-29`.
pub(super) fn date(text: &[u8]) -> Read<i32> {
    let wrong = || Fault::mismatch("a date is expected, as in 2024-02-29");
    let (days, rest) = calendar(text).ok_or_else(wrong)?;
    if !rest.is_empty() {
        return Err(wrong());
    }
    self::days(days)
}

/// Days since 1970-01-01, as a number.
pub(super) fn days(value: i64) -> Read<i32> {
    match i32::try_from(value) {
        Ok(days) if CALENDAR.contains(&value) => Ok(days),
        _ => Err(Fault::range("the date is infinite or beyond all calendars")),
    }
}

/// Microseconds since 1970 of a text such as `2024-02-29T12:34:56.789012Z`.
pub(super) fn timestamp(text: &[u8], zone: Zone) -> Read<i64> {
    let wrong = || {
        Fault::mismatch(match zone {
            Zone::Required => "a timestamp with its zone is expected, as in 2024-02-29T12:34:56Z",
            Zone::Forbidden => "a timestamp without zone is expected, as in 2024-02-29T12:34:56",
        })
    };
    let (days, rest) = calendar(text).ok_or_else(wrong)?;
    let rest = rest
        .strip_prefix(b"T")
        .or_else(|| rest.strip_prefix(b"t"))
        .or_else(|| rest.strip_prefix(b" "))
        .ok_or_else(wrong)?;
    let (clock_us, rest) = clock(rest).ok_or_else(wrong)??;
    let offset_us = match zone {
        Zone::Required => offset(rest).ok_or_else(wrong)?,
        Zone::Forbidden if rest.is_empty() => 0,
        Zone::Forbidden => return Err(wrong()),
    };
    let at = days.checked_mul(DAY_US).and_then(|at| at.checked_add(clock_us - offset_us));
    at.ok_or_else(|| Fault::range("the timestamp does not fit into 64 bits of microseconds"))
}

/// Microseconds since 1970, as a number of a unit of `numerator / denominator` microseconds.
pub(super) fn scaled(value: i64, numerator: i64, denominator: i64) -> Read<i64> {
    must_be_finite(value)?;
    if value % denominator != 0 {
        return Err(Fault::range(TOO_FINE));
    }
    (value / denominator)
        .checked_mul(numerator)
        .ok_or_else(|| Fault::range("the time is infinite, or does not fit into 64 bits of microseconds"))
}

/// Writes nanoseconds since 1970 as ISO 8601 has them, with as many digits of the second as say something.
pub(super) fn write_nano_timestamp(value: i64, out: &mut Vec<u8>) -> Read {
    must_be_finite(value)?;
    // 64 bits of nanoseconds reach from 1677 to 2262.
    let (year, month, day) = civil_from_days(value.div_euclid(DAY_NS));
    out.extend_from_slice(format!("{year:04}-{month:02}-{day:02}T").as_bytes());
    write_nano_time(value.rem_euclid(DAY_NS), out)
}

/// Writes nanoseconds since midnight in the same way.
pub(super) fn write_nano_time(value: i64, out: &mut Vec<u8>) -> Read {
    if !(0..DAY_NS).contains(&value) {
        return Err(Fault::range("no time of a day"));
    }
    let (second, fraction) = (value / 1_000_000_000, value % 1_000_000_000);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    out.extend_from_slice(format!("{hour:02}:{minute:02}:{second:02}").as_bytes());
    if fraction > 0 {
        out.extend_from_slice(format!(".{fraction:09}").trim_end_matches('0').as_bytes());
    }
    Ok(())
}

/// The ends of 64 bits are how databases' drivers write infinity.
fn must_be_finite(value: i64) -> Read {
    match value {
        i64::MAX | i64::MIN => Err(Fault::range("the time is infinite")),
        _ => Ok(()),
    }
}

/// Year, month and day at the start of a text, as days since 1970, and what follows.
fn calendar(text: &[u8]) -> Option<(i64, &[u8])> {
    // A sign stands before years beyond four digits and before the year 0, as ISO 8601 has it.
    let (sign, unsigned) = match text.split_first()? {
        (b'+', rest) => (1, rest),
        (b'-', rest) => (-1, rest),
        _ => (1, text),
    };
    let length = unsigned.iter().position(|b| !b.is_ascii_digit())?;
    let expected = if unsigned.len() == text.len() { 4..=4 } else { 4..=7 };
    if !expected.contains(&length) {
        return None;
    }
    let (year, rest) = (digits(unsigned.get(..length)?)?, unsigned.get(length..)?);
    let [b'-', m1, m2, b'-', d1, d2, rest @ ..] = rest else {
        return None;
    };
    let (month, day) = (digits(&[*m1, *m2])?, digits(&[*d1, *d2])?);
    let year = sign * year;
    Some((days_from_civil(year, month, day)?, rest))
}

/// Microseconds of the day at the start of a text, and what follows; a fault if the fraction is finer than that.
fn clock(text: &[u8]) -> Option<Read<(i64, &[u8])>> {
    let [h1, h2, b':', m1, m2, rest @ ..] = text else { return None };
    let (hour, minute) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
    let (second, mut rest) = match rest {
        [b':', s1, s2, rest @ ..] => (digits(&[*s1, *s2])?, rest),
        _ => (0, rest),
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut fraction_us = 0;
    if let Some(behind) = rest.strip_prefix(b".") {
        let length = behind.iter().position(|b| !b.is_ascii_digit()).unwrap_or(behind.len());
        let (fraction, behind) = behind.split_at(length);
        if fraction.is_empty() {
            return None;
        }
        let (kept, lost) = fraction.split_at(length.min(6));
        if lost.iter().any(|b| *b != b'0') {
            return Some(Err(Fault::range(TOO_FINE)));
        }
        fraction_us = digits(kept)? * 10i64.pow(6 - kept.len() as u32);
        rest = behind;
    }
    Some(Ok((((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction_us, rest)))
}

/// A zone, all of the text: `Z`, `+02`, `+0200` or `+02:00`, as microseconds.
fn offset(text: &[u8]) -> Option<i64> {
    let (sign, hours, minutes) = match text {
        b"Z" | b"z" => return Some(0),
        [sign, h1, h2] => (sign, [*h1, *h2], [b'0'; 2]),
        [sign, h1, h2, m1, m2] | [sign, h1, h2, b':', m1, m2] => (sign, [*h1, *h2], [*m1, *m2]),
        _ => return None,
    };
    let sign = match sign {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = (digits(&hours)?, digits(&minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000_000)
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0i64, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Chrono's calendar, which reaches as far as years of six digits do, is another one's work.
        #[test]
        fn v2_days_are_those_of_another_calendar(days in -2_440_588i32..90_000_000) {
            let date = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).unwrap() + chrono::TimeDelta::days(i64::from(days));
            prop_assert_eq!(date_of(&date.format("%Y-%m-%d").to_string()), Some(days));
        }

        #[test]
        fn v4_the_text_of_nanoseconds_is_that_of_another_calendar(value in i64::MIN + 1..i64::MAX) {
            let mut text = Vec::new();
            write_nano_timestamp(value, &mut text).unwrap();
            let read = chrono::NaiveDateTime::parse_from_str(std::str::from_utf8(&text).unwrap(), "%Y-%m-%dT%H:%M:%S%.f").unwrap();
            prop_assert_eq!(read.and_utc().timestamp_nanos_opt(), Some(value));
        }

        #[test]
        fn no_text_does_harm(text in "[-+0-9TZ:. ]{0,40}", value in any::<i64>()) {
            let _date = date(text.as_bytes());
            let _zoned = timestamp(text.as_bytes(), Zone::Required);
            let _local = timestamp(text.as_bytes(), Zone::Forbidden);
            prop_assert!(scaled(value, 1000, 1).is_err() || value.checked_mul(1000).is_some());
            prop_assert!(scaled(value, 1, 1000).is_err() || value % 1000 == 0);
        }
    }

    fn date_of(text: &str) -> Option<i32> {
        date(text.as_bytes()).ok()
    }

    #[test]
    fn v1_infinite_times_are_refused() {
        for value in [i64::MAX, i64::MIN, 9_223_372_036_825_200_000, -9_223_372_036_832_400_000] {
            assert!(scaled(value, 1000, 1).is_err(), "{value}");
        }
        assert!(scaled(i64::MAX, 1, 1).is_err() && scaled(i64::MIN, 1, 1).is_err());
        assert!(days(2_146_033_979).is_err() && days(-2_440_589).is_err());
        assert_eq!(
            (days(-2_440_588).unwrap(), days(2_145_042_905).unwrap()),
            (-2_440_588, 2_145_042_905)
        );
        assert_eq!(date_of("5874897-12-31"), None); // More than four digits of a year come with a sign.
        assert_eq!((date_of("+5874897-12-31"), date_of("+5874898-01-01")), (Some(2_145_042_905), None));
    }
}
