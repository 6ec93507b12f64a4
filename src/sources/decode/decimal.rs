//! Decimals, exact: out of the text of a number, out of two's complement bytes, and back to text. Nothing is ever rounded.

use std::num::IntErrorKind;

use super::fault::{Fault, Read};

/// Most digits of a decimal of any precision. A number may be written with a million, and only zeros among them can be too many.
const DIGITS_MAX: usize = 38;
/// Longest unscaled value that is written out as text: more than the 147,455 digits that PostgreSQL's numeric can have.
const UNSCALED_BYTES_MAX: usize = 64 << 10;
/// Longest row of zeros that a scale may add to a text: as many digits as PostgreSQL's numeric has on either side.
const SCALE_MAX: u64 = 131_072;

/// Precision and scale of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub precision: u8,
    pub scale: i8,
}

impl Shape {
    /// The unscaled value of `unscaled / 10^scale`, if this column can hold it exactly.
    pub fn fit(self, unscaled: i128, scale: i64) -> Read<i128> {
        let mut value = unscaled;
        let mut scale = scale;
        while scale > i64::from(self.scale) {
            if value == 0 {
                return Ok(0);
            }
            if value % 10 != 0 {
                return Err(Fault::range("the number has more decimal places than the column"));
            }
            (value, scale) = (value / 10, scale - 1);
        }
        while scale < i64::from(self.scale) {
            if value == 0 {
                return Ok(0);
            }
            value = value.checked_mul(10).ok_or_else(too_large)?;
            scale += 1;
        }
        match value.unsigned_abs() < 10u128.pow(u32::from(self.precision)) {
            true => Ok(value),
            false => Err(too_large()),
        }
    }

    /// A number as JSON or SQL write it: `-12.50`, `1e3`.
    pub fn parse(self, text: &[u8]) -> Read<i128> {
        let wrong = || Fault::mismatch("a decimal number is expected");
        let (negative, rest) = match text.split_first().ok_or_else(wrong)? {
            (b'-', rest) => (true, rest),
            (b'+', rest) => (false, rest),
            _ => (false, text),
        };
        let mantissa = rest.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(rest.len());
        let (mantissa, exponent) = rest.split_at(mantissa);
        let point = mantissa.iter().position(|b| *b == b'.').unwrap_or(mantissa.len());
        let (whole, fraction) = mantissa.split_at(point);
        let fraction = match fraction.split_first() {
            Some((_, [])) => return Err(wrong()),
            Some((_, fraction)) => fraction,
            None => &[],
        };
        if whole.is_empty() {
            return Err(wrong());
        }
        if !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
            return Err(wrong());
        }
        let exponent = match exponent.get(1..) {
            None => 0,
            Some(digits) => self::exponent(digits).ok_or_else(wrong)?,
        };
        let places = fraction.len() as i64 - exponent;
        let (whole, fraction, zeros) = match whole.len() + fraction.len() <= DIGITS_MAX {
            true => (whole, fraction, 0),
            false => significant(whole, fraction),
        };
        if whole.len() + fraction.len() > DIGITS_MAX {
            return Err(too_large());
        }
        let digits = whole.iter().chain(fraction);
        let value = digits.fold(0i128, |value, byte| value * 10 + i128::from(byte - b'0'));
        self.fit(if negative { -value } else { value }, places - zeros as i64)
    }

    /// Two's complement, the highest byte first, of a value of `scale` decimal places.
    pub fn unscaled(self, bytes: &[u8], scale: i64) -> Read<i128> {
        let sign = bytes.first().ok_or_else(|| Fault::mismatch("a decimal of no bytes"))? >> 7;
        let fill = if sign == 1 { 0xFF } else { 0 };
        let (high, low) = bytes.split_at(bytes.len().saturating_sub(16));
        let redundant = high.iter().all(|b| *b == fill) && (high.is_empty() || low.first().is_some_and(|b| b >> 7 == sign));
        if !redundant {
            return Err(too_large());
        }
        let value = low
            .iter()
            .fold(if sign == 1 { -1i128 } else { 0 }, |value, byte| value << 8 | i128::from(*byte));
        self.fit(value, scale)
    }
}

/// The exponent of a number. One that is beyond all numbers is as good as the largest there is.
fn exponent(digits: &[u8]) -> Option<i64> {
    match std::str::from_utf8(digits).ok()?.parse::<i32>() {
        Ok(exponent) => Some(i64::from(exponent)),
        Err(error) => match error.kind() {
            IntErrorKind::PosOverflow => Some(i64::from(i32::MAX)),
            IntErrorKind::NegOverflow => Some(i64::from(i32::MIN)),
            _ => None,
        },
    }
}

/// The digits before and behind the point without the zeros around them, which say nothing, and how many were at the end.
fn significant<'a>(whole: &'a [u8], fraction: &'a [u8]) -> (&'a [u8], &'a [u8], usize) {
    let all = whole.len() + fraction.len();
    let without_end = |digits: &'a [u8]| &digits[..digits.iter().rposition(|b| *b != b'0').map_or(0, |last| last + 1)];
    let without_front = |digits: &'a [u8]| &digits[digits.iter().position(|b| *b != b'0').unwrap_or(digits.len())..];
    let fraction = without_end(fraction);
    let whole = if fraction.is_empty() { without_end(whole) } else { whole };
    let zeros = all - whole.len() - fraction.len();
    let whole = without_front(whole);
    let fraction = if whole.is_empty() { without_front(fraction) } else { fraction };
    (whole, fraction, zeros)
}

#[cold]
fn too_large() -> Box<Fault> {
    Fault::range("the number has more digits than the column")
}

/// Writes `unscaled / 10^scale` as text, however long it is; all decimal places are kept.
pub(super) fn write(bytes: &[u8], scale: i64, out: &mut Vec<u8>) -> Read {
    if bytes.is_empty() || bytes.len() > UNSCALED_BYTES_MAX || scale.unsigned_abs() > SCALE_MAX {
        return Err(Fault::range("no decimal of a size that databases have"));
    }
    let negative = bytes[0] >> 7 == 1;
    let mut digits = magnitude_digits(bytes, negative);
    if scale < 0 && digits != [b'0'] {
        digits.resize(digits.len() + scale.unsigned_abs() as usize, b'0');
    }
    let places = usize::try_from(scale).unwrap_or(0);
    if digits.len() <= places {
        digits.splice(0..0, std::iter::repeat_n(b'0', places + 1 - digits.len()));
    }
    if negative {
        out.push(b'-');
    }
    let (whole, fraction) = digits.split_at(digits.len() - places);
    out.extend_from_slice(whole);
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
    Ok(())
}

/// The digits of the magnitude of a two's complement number, by repeated division.
fn magnitude_digits(bytes: &[u8], negative: bool) -> Vec<u8> {
    const GROUP: u64 = 10_000_000_000_000_000_000; // The largest power of ten that fits: each division takes 19 digits off.
    let padding = (8 - bytes.len() % 8) % 8;
    let fill = if negative { 0xFF } else { 0 };
    let padded: Vec<u8> = std::iter::repeat_n(fill, padding).chain(bytes.iter().copied()).collect();
    let mut words: Vec<u64> = padded.as_chunks::<8>().0.iter().map(|w| u64::from_be_bytes(*w)).collect();
    if negative {
        let mut carry = true;
        for word in words.iter_mut().rev() {
            (*word, carry) = (!*word).overflowing_add(u64::from(carry));
        }
    }
    let mut groups = Vec::new();
    let mut first = 0;
    while first < words.len() {
        let mut rest = 0u64;
        for word in words.iter_mut().skip(first) {
            let value = u128::from(rest) << 64 | u128::from(*word);
            *word = (value / u128::from(GROUP)) as u64;
            rest = (value % u128::from(GROUP)) as u64;
        }
        groups.push(rest);
        while words.get(first) == Some(&0) {
            first += 1;
        }
    }
    let mut text = String::with_capacity(groups.len() * 19);
    for group in groups.iter().rev() {
        text.push_str(&format!("{group:019}"));
    }
    let digits = text.trim_start_matches('0');
    if digits.is_empty() {
        vec![b'0']
    } else {
        digits.as_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sources::decode::fault::Code;

    const SHAPE: Shape = Shape { precision: 38, scale: 9 };

    fn digits(unscaled: i128) -> String {
        let digits = format!("{:010}", unscaled.unsigned_abs());
        let (whole, fraction) = digits.split_at(digits.len() - 9);
        format!("{}{whole}.{fraction}", if unscaled < 0 { "-" } else { "" })
    }

    #[test]
    fn scales_that_no_database_has_are_refused() {
        for scale in [i64::MIN, i64::MIN + 1, -131_073, 131_073, i64::MAX] {
            assert!(write(b"\x01", scale, &mut Vec::new()).is_err(), "{scale}");
            let zero = Shape { precision: 38, scale: 0 }.unscaled(b"\x01", scale);
            assert!(zero.is_err(), "{scale}");
        }
    }

    #[test]
    fn v5_of_a_million_digits_only_those_count_that_say_something() {
        let (zeros, nines) = ("0".repeat(1_000_000), "9".repeat(1_000_000));
        let good = [
            (format!("{zeros}12.5{zeros}"), 12_500_000_000),
            (format!("-12.5{zeros}e0"), -12_500_000_000),
            (format!("125{zeros}e-1000001"), 12_500_000_000),
            (format!("0.{zeros}125e1000001"), 1_250_000_000),
            (format!("{zeros}.{zeros}"), 0),
            (format!("0e{nines}"), 0),
        ];
        for (text, unscaled) in good {
            assert_eq!(SHAPE.parse(text.as_bytes()).unwrap(), unscaled, "{:?}…", text.get(..20));
        }
        for text in [
            format!("0.{nines}"),
            format!("1{zeros}"),
            format!("0.{zeros}1"),
            format!("1e{nines}"),
            format!("1e-{nines}"),
            nines.clone(),
        ] {
            assert_eq!(
                SHAPE.parse(text.as_bytes()).unwrap_err().code,
                Code::OutOfRange,
                "{:?}…",
                text.get(..20)
            );
        }
    }

    proptest! {
        #[test]
        fn bytes_and_text_of_a_decimal_are_the_same_number(unscaled in -(10i128.pow(38) - 1)..10i128.pow(38), padding in 0usize..20) {
            let sign = if unscaled < 0 { 0xFF } else { 0 };
            let bytes: Vec<u8> = std::iter::repeat_n(sign, padding).chain(unscaled.to_be_bytes()).collect();
            prop_assert_eq!(SHAPE.unscaled(&bytes, 9).unwrap(), unscaled);
            let mut text = Vec::new();
            write(&bytes, 9, &mut text).unwrap();
            prop_assert_eq!(String::from_utf8(text.clone()).unwrap(), digits(unscaled));
            prop_assert_eq!(SHAPE.parse(&text).unwrap(), unscaled);
            prop_assert_eq!(SHAPE.parse(format!("{}e-9", unscaled).as_bytes()).unwrap(), unscaled);
            let zeros = "0".repeat(padding);
            prop_assert_eq!(SHAPE.parse(format!("{unscaled}{zeros}.{zeros}e-{}", padding + 9).as_bytes()).is_ok(), padding > 0);
            prop_assert_eq!(SHAPE.parse(format!("{unscaled}{zeros}e-{}", padding + 9).as_bytes()).unwrap(), unscaled);
        }

        #[test]
        fn one_digit_too_many_is_refused_on_either_side(unscaled in 10i128.pow(37)..10i128.pow(38)) {
            prop_assert!(SHAPE.fit(unscaled, 8).is_err());
            prop_assert_eq!(SHAPE.fit(unscaled, 10).is_ok(), unscaled % 10 == 0);
        }

        #[test]
        fn no_text_and_no_bytes_do_harm(text in "[-+.eE0-9]{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..64), scale in any::<i64>()) {
            let _parsed = SHAPE.parse(text.as_bytes());
            let _read = SHAPE.unscaled(&bytes, scale);
            let _written = write(&bytes, scale % 200_000, &mut Vec::new());
            let _refused = write(&bytes, scale, &mut Vec::new());
        }
    }
}
