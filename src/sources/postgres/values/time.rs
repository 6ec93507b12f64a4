//! Dates and timestamps: microseconds, exact from 4714 BC to 294246 AD, as Postgres counts from 2000 and the table from 1970.
//!
//! Nothing passes through nanoseconds, which reach from 1677 to 2262 only.

use std::io::Write;

use super::{BadValue, Read};
use crate::sources::calendar::{DAY_US, civil_from_days, days_from_civil};

/// 2000-01-01 in days since 1970.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_US: i64 = EPOCH_DAYS as i64 * DAY_US;

/// Days since 1970 out of the binary form.
#[inline]
pub(super) fn date(days: i32) -> Read<i32> {
    match days {
        i32::MAX | i32::MIN => Err(infinite()),
        days => days.checked_add(EPOCH_DAYS).ok_or_else(beyond),
    }
}

/// Microseconds since 1970 out of the binary form.
#[inline]
pub(super) fn timestamp(us: i64) -> Read<i64> {
    match us {
        i64::MAX | i64::MIN => Err(infinite()),
        us => us.checked_add(EPOCH_US).ok_or_else(beyond),
    }
}

/// Days since 1970 out of text such as `2024-02-29` or `0044-03-15 BC`.
pub(super) fn date_text(text: &[u8]) -> Read<i32> {
    let wrong = || BadValue::malformed("a date in ISO style is expected");
    finite(text)?;
    let (text, before_christ) = era(text);
    match calendar(text, before_christ).ok_or_else(wrong)? {
        (days, []) => i32::try_from(days).map_err(|_| beyond()),
        _ => Err(wrong()),
    }
}

/// Microseconds since 1970 out of text such as `2024-02-29 12:34:56.789`; with the offset of a zone, such as `+00`, if `zoned`.
pub(super) fn timestamp_text(text: &[u8], zoned: bool) -> Read<i64> {
    let wrong = || BadValue::malformed("a timestamp in ISO style is expected");
    finite(text)?;
    let (text, before_christ) = era(text);
    let (days, rest) = calendar(text, before_christ).ok_or_else(wrong)?;
    let (clock_us, rest) = rest.strip_prefix(b" ").and_then(clock).ok_or_else(wrong)?;
    let offset_us = match (zoned, rest) {
        (true, rest) => offset(rest).ok_or_else(wrong)?,
        (false, []) => 0,
        (false, _) => return Err(wrong()),
    };
    let us = i128::from(days) * i128::from(DAY_US) + i128::from(clock_us - offset_us);
    i64::try_from(us).map_err(|_| beyond())
}

fn finite(text: &[u8]) -> Read {
    match text {
        b"infinity" | b"-infinity" => Err(infinite()),
        _ => Ok(()),
    }
}

fn era(text: &[u8]) -> (&[u8], bool) {
    match text.strip_suffix(b" BC") {
        Some(text) => (text, true),
        None => (text, false),
    }
}

/// Year, month and day as days since 1970, and what follows.
fn calendar(text: &[u8], before_christ: bool) -> Option<(i64, &[u8])> {
    let length = text.iter().position(|b| !b.is_ascii_digit())?;
    let (year, rest) = text.split_at_checked(length).filter(|_| (4..=7).contains(&length))?;
    let [b'-', m1, m2, b'-', d1, d2, rest @ ..] = rest else {
        return None;
    };
    let year = match (digits(year)?, before_christ) {
        (0, _) => return None,
        (year, false) => year,
        (year, true) => 1 - year,
    };
    Some((days_from_civil(year, digits(&[*m1, *m2])?, digits(&[*d1, *d2])?)?, rest))
}

/// Microseconds of the day, and what follows.
fn clock(text: &[u8]) -> Option<(i64, &[u8])> {
    let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = text else {
        return None;
    };
    let (hour, minute, second) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?, digits(&[*s1, *s2])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (mut fraction_us, mut rest) = (0, rest);
    if let Some(behind) = rest.strip_prefix(b".") {
        let length = behind.iter().position(|b| !b.is_ascii_digit()).unwrap_or(behind.len());
        let (fraction, behind) = behind.split_at_checked(length).filter(|_| (1..=6).contains(&length))?;
        fraction_us = digits(fraction)? * 10i64.pow(6 - length as u32);
        rest = behind;
    }
    Some((((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction_us, rest))
}

/// All of the text as an offset, `+00`, `-03:30` or `-00:01:15`, in microseconds.
fn offset(text: &[u8]) -> Option<i64> {
    let (sign, text) = match text.split_first()? {
        (b'+', rest) => (1, rest),
        (b'-', rest) => (-1, rest),
        _ => return None,
    };
    let (hour, minute, second) = match text {
        [h1, h2] => (digits(&[*h1, *h2])?, 0, 0),
        [h1, h2, b':', m1, m2] => (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?, 0),
        [h1, h2, b':', m1, m2, b':', s1, s2] => (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?, digits(&[*s1, *s2])?),
        _ => return None,
    };
    Some(sign * ((hour * 60 + minute) * 60 + second) * 1_000_000)
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0i64, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
    })
}

/// Prints a date's binary form.
pub(super) fn print_date(days: i32, out: &mut Vec<u8>) -> Read {
    match days {
        i32::MAX => put(out, format_args!("infinity")),
        i32::MIN => put(out, format_args!("-infinity")),
        days => {
            let before_christ = print_calendar(i64::from(days) + i64::from(EPOCH_DAYS), out);
            print_era(before_christ, out);
        }
    }
    Ok(())
}

/// Prints a timestamp's binary form, with the offset of UTC if `zoned`.
pub(super) fn print_timestamp(us: i64, zoned: bool, out: &mut Vec<u8>) -> Read {
    match us {
        i64::MAX => put(out, format_args!("infinity")),
        i64::MIN => put(out, format_args!("-infinity")),
        us => {
            let before_christ = print_calendar(us.div_euclid(DAY_US) + i64::from(EPOCH_DAYS), out);
            out.push(b' ');
            print_clock(us.rem_euclid(DAY_US), out);
            if zoned {
                out.extend_from_slice(b"+00");
            }
            print_era(before_christ, out);
        }
    }
    Ok(())
}

/// Returns whether the year is before Christ, which is said at the very end.
fn print_calendar(days: i64, out: &mut Vec<u8>) -> bool {
    let (year, month, day) = civil_from_days(days);
    let shown = if year > 0 { year } else { 1 - year };
    put(out, format_args!("{shown:04}-{month:02}-{day:02}"));
    year <= 0
}

fn print_era(before_christ: bool, out: &mut Vec<u8>) {
    if before_christ {
        out.extend_from_slice(b" BC");
    }
}

/// `12:34:56.789`: zeros at the end of the fraction are left out.
pub(super) fn print_clock(us: i64, out: &mut Vec<u8>) {
    let second = us / 1_000_000;
    put(out, format_args!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60));
    print_fraction(us % 1_000_000, out);
}

pub(super) fn print_fraction(us: i64, out: &mut Vec<u8>) {
    if us != 0 {
        put(out, format_args!(".{us:06}"));
        let zeros = out.iter().rev().take_while(|b| **b == b'0').count();
        out.truncate(out.len() - zeros);
    }
}

pub(super) fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes all that is written to it");
}

#[cold]
fn infinite() -> BadValue {
    BadValue::out_of_range("the column has no infinity")
}

#[cold]
fn beyond() -> BadValue {
    BadValue::out_of_range("the time does not fit into 64 bits of microseconds")
}
