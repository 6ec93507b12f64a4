//! numeric and money: exact as a decimal, or exact as text. Nothing is ever rounded.
//!
//! In binary form a numeric is a row of digits to the base 10,000, the place of the first one, a sign, and how many decimal places it is
//! shown with.

use super::wire::Wire;
use super::{BadValue, Read, Shape};

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;
/// Decimal digits in one digit of the wire.
const GROUP: i64 = 4;

struct Header<'a> {
    /// The power of 10,000 that the first digit counts.
    weight: i64,
    sign: u16,
    /// Decimal places that are shown.
    places: usize,
    digits: Wire<'a>,
    count: usize,
}

fn header(bytes: &[u8]) -> Read<Header<'_>> {
    let mut wire = Wire(bytes);
    let count = usize::from(wire.u16()?);
    let (weight, sign, places) = (i64::from(wire.i16()?), wire.u16()?, usize::from(wire.u16()?));
    if wire.0.len() != 2 * count {
        return Err(BadValue::malformed("a numeric does not have as many digits as it says"));
    }
    Ok(Header {
        weight,
        sign,
        places,
        digits: wire,
        count,
    })
}

fn digit(wire: &mut Wire<'_>) -> Read<u16> {
    match wire.u16()? {
        digit @ 0..=9999 => Ok(digit),
        _ => Err(BadValue::malformed("a digit of a numeric is above 9999")),
    }
}

/// The unscaled value, out of the binary form.
pub(super) fn decimal(bytes: &[u8], shape: Shape) -> Read<i128> {
    let Header {
        weight,
        sign,
        mut digits,
        count,
        ..
    } = header(bytes)?;
    let negative = match sign {
        0 => false,
        NEGATIVE => true,
        NAN => return Err(not_a_number()),
        INFINITY | NEGATIVE_INFINITY => return Err(infinite()),
        _ => return Err(BadValue::malformed("the sign of a numeric is none")),
    };
    let mut value: u128 = 0;
    // The decimal place, counted from the column's last one, at which the digit to come ends.
    let mut place = weight * GROUP + i64::from(shape.scale);
    for _ in 0..count {
        let digit = u128::from(digit(&mut digits)?);
        if place >= 0 {
            value = value.checked_mul(10_000).and_then(|v| v.checked_add(digit)).ok_or_else(too_large)?;
        } else {
            // Only the upper part of the digit lies within the column's scale.
            let kept = (GROUP + place).max(0);
            let lost = 10u128.pow((GROUP - kept) as u32);
            if digit % lost != 0 {
                return Err(finer());
            }
            let room = 10u128.pow(kept as u32);
            value = value
                .checked_mul(room)
                .and_then(|v| v.checked_add(digit / lost))
                .ok_or_else(too_large)?;
        }
        place -= GROUP;
    }
    // Zeros at the end are not sent.
    let zeros = place + GROUP;
    if zeros > 0 && value != 0 {
        let factor = u32::try_from(zeros).ok().and_then(|zeros| 10u128.checked_pow(zeros));
        value = factor.and_then(|factor| value.checked_mul(factor)).ok_or_else(too_large)?;
    }
    signed(value, negative, shape)
}

/// The unscaled value, out of text such as `-12.50`.
pub(super) fn decimal_text(text: &[u8], shape: Shape) -> Read<i128> {
    match text {
        b"NaN" => return Err(not_a_number()),
        b"Infinity" | b"-Infinity" => return Err(infinite()),
        _ => {}
    }
    let wrong = || BadValue::malformed("a numeric is expected");
    let (negative, rest) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let point = rest.iter().position(|b| *b == b'.');
    let (whole, fraction) = match point {
        Some(at) => (rest.get(..at).unwrap_or_default(), rest.get(at + 1..).unwrap_or_default()),
        None => (rest, &[][..]),
    };
    if whole.is_empty() || (fraction.is_empty() && point.is_some()) {
        return Err(wrong());
    }
    let scale = usize::from(shape.scale);
    let (kept, lost) = fraction.split_at(fraction.len().min(scale));
    let mut value: u128 = 0;
    for byte in whole.iter().chain(kept) {
        let digit = Some(byte.wrapping_sub(b'0')).filter(|d| *d <= 9).ok_or_else(wrong)?;
        value = value
            .checked_mul(10)
            .and_then(|v| v.checked_add(digit.into()))
            .ok_or_else(too_large)?;
    }
    match lost.iter().find(|b| **b != b'0') {
        None => {}
        Some(b'1'..=b'9') => return Err(finer()),
        Some(_) => return Err(wrong()),
    }
    let zeros = 10u128.pow((scale - kept.len()) as u32);
    let value = value.checked_mul(zeros).ok_or_else(too_large)?;
    signed(value, negative, shape)
}

fn signed(value: u128, negative: bool, shape: Shape) -> Read<i128> {
    if value >= 10u128.pow(u32::from(shape.precision)) {
        return Err(too_large());
    }
    let value = value as i128; // Below 10^38.
    Ok(if negative { -value } else { value })
}

/// Prints the binary form as the server does: all decimal places, and no others.
pub(super) fn print(bytes: &[u8], out: &mut Vec<u8>) -> Read {
    let Header {
        weight,
        sign,
        places,
        mut digits,
        count,
    } = header(bytes)?;
    match sign {
        0 => {}
        NEGATIVE => out.push(b'-'),
        NAN => return printed(out, b"NaN"),
        INFINITY => return printed(out, b"Infinity"),
        NEGATIVE_INFINITY => return printed(out, b"-Infinity"),
        _ => return Err(BadValue::malformed("the sign of a numeric is none")),
    }
    let mut left = count;
    let mut next = |wanted: bool| -> Read<u16> {
        match wanted && left > 0 {
            true => {
                left -= 1;
                digit(&mut digits)
            }
            false => Ok(0),
        }
    };
    if weight < 0 {
        out.push(b'0');
    }
    for index in 0..=weight {
        let digit = next(true)?;
        let group = group(digit);
        let skip = if index == 0 {
            group.iter().take(3).take_while(|b| **b == b'0').count()
        } else {
            0
        };
        out.extend_from_slice(group.get(skip..).unwrap_or_default());
    }
    if places > 0 {
        out.push(b'.');
        let end = out.len() + places;
        let mut power = -1;
        while out.len() < end {
            // A number far below one begins with digits that are not sent.
            out.extend_from_slice(&group(next(power <= weight)?));
            power -= 1;
        }
        out.truncate(end);
    }
    Ok(())
}

fn group(digit: u16) -> [u8; 4] {
    [digit / 1000, digit / 100 % 10, digit / 10 % 10, digit % 10].map(|d| b'0' + d as u8)
}

fn printed(out: &mut Vec<u8>, text: &[u8]) -> Read {
    out.extend_from_slice(text);
    Ok(())
}

/// The smallest units of money, out of text in whatever locale: it is always printed with all its decimal places, so that the digits
/// say it all, and a minus or parentheses make it negative.
pub(super) fn money_text(text: &[u8]) -> Read<i128> {
    let wrong = || BadValue::malformed("an amount of money is expected");
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    let digits = text.bytes().filter(u8::is_ascii_digit);
    let mut value: Option<i128> = None;
    for digit in digits {
        let before = value.unwrap_or(0);
        value = before.checked_mul(10).and_then(|v| v.checked_add(i128::from(digit - b'0')));
        if value.is_none_or(|v| v > 1 << 63) {
            return Err(wrong());
        }
    }
    let value = value.ok_or_else(wrong)?;
    Ok(if text.contains(['-', '(', '\u{2212}']) { -value } else { value })
}

#[cold]
fn not_a_number() -> BadValue {
    BadValue::out_of_range("a decimal column has no NaN")
}

#[cold]
fn infinite() -> BadValue {
    BadValue::out_of_range("a decimal column has no infinity")
}

#[cold]
fn too_large() -> BadValue {
    BadValue::out_of_range("the number has more digits than the column")
}

#[cold]
fn finer() -> BadValue {
    BadValue::type_mismatch("the number has more decimal places than the column")
}
