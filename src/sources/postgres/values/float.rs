//! Floating-point numbers as the server prints and reads them: the shortest digits that name the number.
//!
//! Rust prints the shortest digits, too, with two differences. Digits exactly half-way between two numbers are enough for Rust if they
//! would be read as the right one, rounded to even; the server's printer (Ryu, without the ends of the interval) then takes more
//! digits: 1e23 is `9.999999999999999e+22`. And of a number exactly half-way between two of the shortest digits, Rust takes the larger ones, the
//! server the even ones: 2⁻²⁵, which is 2.98023223876953125e-08, is `2.9802322387695312e-08`.

use super::time::put;
use super::{BadValue, Read};

/// What of a format decides how it prints.
struct Format {
    /// Bits of the significand, the hidden one included.
    bits: i32,
    /// The exponent of the last bit of the smallest number.
    exponent_min: i32,
    /// From this power of ten on, the exponent is written out.
    exponent_shown: i32,
    /// Digits that name every number.
    digits_max: usize,
}

const SINGLE: Format = Format {
    bits: 24,
    exponent_min: -149,
    exponent_shown: 6,
    digits_max: 9,
};
const DOUBLE: Format = Format {
    bits: 53,
    exponent_min: -1074,
    exponent_shown: 15,
    digits_max: 17,
};

pub(super) fn print32(value: f32, out: &mut Vec<u8>) {
    let bits = value.to_bits();
    let same = |text: &str| text.parse() == Ok(value.abs());
    let digits = |precision: Option<usize>| scientific(f64::from(value.abs()), precision, || format!("{:e}", value.abs()));
    print(&SINGLE, f64::from(value), u64::from(bits & 0x7fff_ffff), digits, same, out);
}

pub(super) fn print64(value: f64, out: &mut Vec<u8>) {
    let bits = value.to_bits();
    let same = |text: &str| text.parse() == Ok(value.abs());
    let digits = |precision: Option<usize>| scientific(value.abs(), precision, || format!("{:e}", value.abs()));
    print(&DOUBLE, value, bits & (u64::MAX >> 1), digits, same, out);
}

/// The digits of a number, rounded to so many behind the first, or the shortest ones.
fn scientific(value: f64, precision: Option<usize>, shortest: impl Fn() -> String) -> String {
    match precision {
        Some(precision) => format!("{value:.precision$e}"),
        None => shortest(),
    }
}

fn print(
    format: &Format,
    value: f64,
    magnitude: u64,
    digits: impl Fn(Option<usize>) -> String,
    same: impl Fn(&str) -> bool,
    out: &mut Vec<u8>,
) {
    if value.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if value.is_infinite() {
        return out.extend_from_slice(b"Infinity");
    }
    if value == 0.0 {
        return out.push(b'0');
    }
    let ends = Ends::of(format, magnitude);
    let mut number = Decimal::of(&digits(None));
    // As many digits, half-way rounded to even.
    let rounded = digits(Some(number.digits.len().saturating_sub(1)));
    if same(&rounded) {
        number = Decimal::of(&rounded);
    }
    if ends.has(&number) {
        let longer = (number.digits.len().saturating_sub(1)..format.digits_max).map(|precision| digits(Some(precision)));
        let inside = longer
            .filter(|text| same(text))
            .map(|text| Decimal::of(&text))
            .find(|n| !ends.has(n));
        number = inside.unwrap_or(number);
    }
    layout(&number, format.exponent_shown, out);
}

/// `digits` with the point behind the first one, times ten to the `exponent`.
struct Decimal {
    digits: Vec<u8>,
    exponent: i32,
}

impl Decimal {
    /// Of a text such as `1.25e-7`, as Rust writes it.
    fn of(text: &str) -> Self {
        let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let mut digits: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).collect();
        let zeros = digits.iter().rev().take_while(|b| **b == b'0').count();
        digits.truncate(digits.len() - zeros);
        Self {
            digits,
            exponent: exponent.parse().unwrap_or(0),
        }
    }
}

/// The ends of the interval of all that is read as one number, each as an odd integer times a power of two.
struct Ends([(u128, i32); 2]);

impl Ends {
    fn of(format: &Format, magnitude: u64) -> Self {
        let stored = format.bits - 1;
        let (fraction, biased) = (magnitude & ((1 << stored) - 1), (magnitude >> stored) as i32);
        let (significand, exponent) = match biased {
            0 => (fraction, format.exponent_min),
            _ => (fraction | 1 << stored, format.exponent_min + biased - 1),
        };
        let m = u128::from(significand);
        // Below a power of two, the numbers lie twice as close.
        let lower = if fraction == 0 && biased > 1 {
            (4 * m - 1, exponent - 2)
        } else {
            (2 * m - 1, exponent - 1)
        };
        Self([lower, (2 * m + 1, exponent - 1)])
    }

    /// Whether this very decimal is one of the ends.
    fn has(&self, number: &Decimal) -> bool {
        let value = number
            .digits
            .iter()
            .fold(0u128, |value, digit| value * 10 + u128::from(digit - b'0'));
        let tens = number.exponent + 1 - number.digits.len() as i32;
        // value * 10^tens = odd * 2^twos: the odd parts are equal, and so are the powers of two. An end has at most 55 bits and a
        // decimal at most 17 digits, so that no power of five above the 24th can be in either.
        let Some(fives) = 5u128.checked_pow(tens.unsigned_abs()).filter(|_| tens.abs() <= 24) else {
            return false;
        };
        self.0.iter().any(|(odd, twos)| {
            let (left, right) = if tens >= 0 { (value * fives, *odd) } else { (value, odd * fives) };
            let even = left.trailing_zeros();
            left != 0 && left >> even == right && even as i32 + tens == *twos
        })
    }
}

/// As printf's `%g` lays out digits.
fn layout(number: &Decimal, exponent_shown: i32, out: &mut Vec<u8>) {
    let Decimal { digits, exponent } = number;
    if !(-4..exponent_shown).contains(exponent) {
        let (first, rest) = digits.split_at(digits.len().min(1));
        out.extend_from_slice(first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        let sign = if *exponent < 0 { '-' } else { '+' };
        return put(out, format_args!("e{sign}{:02}", exponent.abs()));
    }
    match usize::try_from(*exponent) {
        Err(_) => {
            out.extend_from_slice(b"0.");
            out.extend(std::iter::repeat_n(b'0', exponent.unsigned_abs() as usize - 1));
            out.extend_from_slice(digits);
        }
        Ok(exponent) => {
            let (whole, fraction) = digits.split_at(digits.len().min(exponent + 1));
            out.extend_from_slice(whole);
            out.extend(std::iter::repeat_n(b'0', exponent + 1 - whole.len()));
            if !fraction.is_empty() {
                out.push(b'.');
                out.extend_from_slice(fraction);
            }
        }
    }
}

/// A number as the server prints it.
pub(super) fn parse<T: std::str::FromStr>(text: &[u8]) -> Read<T> {
    let wrong = || BadValue::malformed("a floating-point number is expected");
    let number = text.iter().all(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e'));
    if !number && !matches!(text, b"NaN" | b"Infinity" | b"-Infinity") {
        return Err(wrong());
    }
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As PostgreSQL 18 prints them.
    #[test]
    fn a_number_half_way_between_the_shortest_digits_takes_the_even_ones() {
        let doubles = [
            (2f64.powi(-25), "2.9802322387695312e-08"),
            (-3_091_999_999_999_993.0 / 4.0, "-772999999999998.2"),
            (1e23, "9.999999999999999e+22"),
            (0.1, "0.1"),
        ];
        for (value, says) in doubles {
            let mut out = Vec::new();
            print64(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), says);
        }
        let mut out = Vec::new();
        print32(2f32.powi(-12), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "0.00024414062");
    }
}
