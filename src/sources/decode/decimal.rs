//! Decimals, exact: out of the text of a number, out of two's complement bytes, and back to text. Nothing is ever rounded.

use super::fault::{Fault, Read};

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
        // Zeros at the end say nothing, and may be more than an i128 can count.
        let zeros = if exponent.is_empty() {
            fraction.iter().rev().take_while(|b| **b == b'0').count()
        } else {
            0
        };
        let fraction = fraction.get(..fraction.len() - zeros).unwrap_or_default();
        let mut value = 0i128;
        for byte in whole.iter().chain(fraction) {
            let digit = Some(byte.wrapping_sub(b'0')).filter(|d| *d <= 9).ok_or_else(wrong)?;
            value = value
                .checked_mul(10)
                .and_then(|v| v.checked_add(i128::from(digit)))
                .ok_or_else(too_large)?;
        }
        let exponent = match exponent.get(1..) {
            None => 0,
            Some(digits) => std::str::from_utf8(digits)
                .ok()
                .and_then(|d| d.parse::<i32>().ok())
                .map(i64::from)
                .ok_or_else(wrong)?,
        };
        self.fit(if negative { -value } else { value }, fraction.len() as i64 - exponent)
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
    const GROUP: u64 = 1_000_000_000; // The largest power of ten whose remainder, shifted by 32 bits, still fits into 64.
    let padding = (4 - bytes.len() % 4) % 4;
    let fill = if negative { 0xFF } else { 0 };
    let padded: Vec<u8> = std::iter::repeat_n(fill, padding).chain(bytes.iter().copied()).collect();
    let mut words: Vec<u32> = padded.as_chunks::<4>().0.iter().map(|w| u32::from_be_bytes(*w)).collect();
    if negative {
        let mut carry = true;
        for word in words.iter_mut().rev() {
            (*word, carry) = (!*word).overflowing_add(u32::from(carry));
        }
    }
    let mut groups = Vec::new();
    let mut first = 0;
    while first < words.len() {
        let mut rest = 0u64;
        for word in words.iter_mut().skip(first) {
            let value = rest << 32 | u64::from(*word);
            *word = (value / GROUP) as u32;
            rest = value % GROUP;
        }
        groups.push(rest);
        while words.get(first) == Some(&0) {
            first += 1;
        }
    }
    let mut text = String::with_capacity(groups.len() * 9);
    for group in groups.iter().rev() {
        text.push_str(&format!("{group:09}"));
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
