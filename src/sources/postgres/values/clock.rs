//! Times of day and intervals, printed as the server does with IntervalStyle `postgres`.

use super::time::{print_clock, print_fraction, put};
use super::wire::Wire;
use super::{BadValue, Read};
use crate::sources::calendar::DAY_US;

pub(super) fn print_time(us: i64, out: &mut Vec<u8>) -> Read {
    // 24:00:00 is one.
    if !(0..=DAY_US).contains(&us) {
        return Err(BadValue::malformed("a time of day is not within a day"));
    }
    print_clock(us, out);
    Ok(())
}

/// The time, and the zone as seconds to the west of UTC.
pub(super) fn print_timetz(bytes: &[u8], out: &mut Vec<u8>) -> Read {
    let mut wire = Wire(bytes);
    let (us, west) = (wire.i64()?, i64::from(wire.i32()?));
    wire.end()?;
    print_time(us, out)?;
    let zone = west.abs();
    put(out, format_args!("{}{:02}", if west > 0 { '-' } else { '+' }, zone / 3600));
    if zone % 3600 != 0 {
        put(out, format_args!(":{:02}", zone / 60 % 60));
    }
    if zone % 60 != 0 {
        put(out, format_args!(":{:02}", zone % 60));
    }
    Ok(())
}

/// Microseconds, days and months, each with a sign of its own: `1 year -2 mons +3 days 04:05:06.7`.
pub(super) fn print_interval(bytes: &[u8], out: &mut Vec<u8>) -> Read {
    let mut wire = Wire(bytes);
    let (us, days, months) = (wire.i64()?, wire.i32()?, wire.i32()?);
    wire.end()?;
    match (us, days, months) {
        // Intervals are infinite from PostgreSQL 17 on; before, these were the two ends of what an interval can be.
        (i64::MAX, i32::MAX, i32::MAX) => out.extend_from_slice(b"infinity"),
        (i64::MIN, i32::MIN, i32::MIN) => out.extend_from_slice(b"-infinity"),
        _ => {
            let mut after_negative = false;
            let mut first = true;
            for (count, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
                if count != 0 {
                    let space = if first { "" } else { " " };
                    let plus = if after_negative && count > 0 { "+" } else { "" };
                    let plural = if count == 1 { "" } else { "s" };
                    put(out, format_args!("{space}{plus}{count} {unit}{plural}"));
                    after_negative = count < 0;
                    first = false;
                }
            }
            if us != 0 || first {
                let space = if first { "" } else { " " };
                let sign = match us < 0 {
                    true => "-",
                    false if after_negative => "+",
                    false => "",
                };
                let (second, fraction) = (us.unsigned_abs() / 1_000_000, us.unsigned_abs() % 1_000_000);
                put(
                    out,
                    format_args!("{space}{sign}{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60),
                );
                print_fraction(fraction as i64, out);
            }
        }
    }
    Ok(())
}
