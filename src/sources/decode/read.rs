//! The JSON of one value as a value of one type: what is refused is refused here, and nothing is bent to fit.

use std::collections::HashSet;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::column::Dialect;
use super::decimal::{self as exact, Shape};
use super::encoding::Encoding;
use super::fault::{Code, Fault, Read};
use super::scanner::Scanner;
use super::time::{self, Zone};
use crate::sources::calendar::DAY_US;
use crate::sources::cells::Bytes;

#[inline]
pub(super) fn int32(scanner: &mut Scanner<'_>) -> Read<i32> {
    i32::try_from(scanner.integer()?).map_err(|_| Fault::range("the number does not fit into 32 bits"))
}

/// A number, or a time of day in microseconds.
#[inline]
pub(super) fn int64(scanner: &mut Scanner<'_>, encoding: Encoding) -> Read<i64> {
    let value = scanner.integer()?;
    match encoding {
        Encoding::Millis => time::scaled(value, 1000, 1),
        Encoding::Nanos => time::scaled(value, 1, 1000),
        _ => Ok(value),
    }
}

#[inline]
pub(super) fn float32(scanner: &mut Scanner<'_>, dialect: Dialect) -> Read<f32> {
    if let Some(special) = special(scanner, dialect)? {
        return Ok(special as f32);
    }
    let value = scanner.number()?.parse::<f32>().ok().filter(|value| value.is_finite());
    value.ok_or_else(|| Fault::range("the number is too large for 32 bits"))
}

#[inline]
pub(super) fn float64(scanner: &mut Scanner<'_>, dialect: Dialect) -> Read<f64> {
    if let Some(special) = special(scanner, dialect)? {
        return Ok(special);
    }
    let value = scanner.number()?.parse::<f64>().ok().filter(|value| value.is_finite());
    value.ok_or_else(|| Fault::range("the number is too large for 64 bits"))
}

/// What floating point has and JSON has not, as Kafka Connect writes it.
fn special(scanner: &mut Scanner<'_>, dialect: Dialect) -> Read<Option<f64>> {
    if scanner.peek() != b'"' || dialect == Dialect::Plain {
        return Ok(None);
    }
    match scanner.string()?.read(&mut Vec::new())? {
        b"NaN" => Ok(Some(f64::NAN)),
        b"Infinity" => Ok(Some(f64::INFINITY)),
        b"-Infinity" => Ok(Some(f64::NEG_INFINITY)),
        _ => Err(Fault::mismatch("a number is expected")),
    }
}

/// A text may be a decimal's digits as well as its bytes, and nothing tells which: what is not of the one form is told how to say the other.
const IF_DIGITS: &str = "if it is the number as text, as with Debezium's decimal.handling.mode = string, say \"encoding\": \"text\" of the \
                         column in the schema file";
const IF_BYTES: &str = "if it is bytes as base64 text, as with Debezium's decimal.handling.mode = precise, say \"encoding\": \"base64\" of the \
                        column in the schema file";

pub(super) fn decimal(scanner: &mut Scanner<'_>, shape: Shape, encoding: Encoding, dialect: Dialect) -> Read<i128> {
    match (scanner.peek(), encoding) {
        (b'"', Encoding::Unscaled(scale)) => {
            let mut bytes = Vec::new();
            let read = base64(scanner, &mut bytes).and_then(|()| shape.unscaled(&bytes, scale));
            read.map_err(|fault| fault.advising(IF_DIGITS))
        }
        (b'{', Encoding::VariableScale) => {
            let (bytes, scale) = variable_scale(scanner)?;
            shape.unscaled(&bytes, scale)
        }
        (b'"', _) => {
            let read = shape.parse(scanner.string()?.read(&mut Vec::new())?);
            read.map_err(|fault| match (dialect, fault.code) {
                (Dialect::Debezium, Code::TypeMismatch) => fault.advising(IF_BYTES),
                _ => fault,
            })
        }
        (b'-' | b'0'..=b'9', _) => shape.parse(scanner.number()?.as_bytes()),
        _ => Err(scanner.other("a decimal number is expected")),
    }
}

#[inline]
pub(super) fn text(scanner: &mut Scanner<'_>, encoding: Encoding, out: &mut Vec<u8>) -> Read {
    match encoding {
        Encoding::Json => out.extend_from_slice(scanner.skip()?),
        Encoding::VariableScale => {
            let (bytes, scale) = variable_scale(scanner)?;
            exact::write(&bytes, scale, out)?;
        }
        Encoding::NanoTimestamp => time::write_nano_timestamp(scanner.integer()?, out)?,
        Encoding::NanoTime => time::write_nano_time(scanner.integer()?, out)?,
        // Kafka Connect's converter can write numbers, too.
        Encoding::Unscaled(_) if matches!(scanner.peek(), b'-' | b'0'..=b'9') => {
            let number = scanner.number()?.as_bytes();
            match number.iter().any(|byte| matches!(byte, b'e' | b'E')) {
                true => return Err(Fault::mismatch("a decimal number without exponent is expected")),
                false => out.extend_from_slice(number),
            }
        }
        Encoding::Unscaled(scale) => {
            let mut bytes = Vec::new();
            base64(scanner, &mut bytes)?;
            exact::write(&bytes, scale, out)?;
        }
        _ => scanner.string()?.append_to(out)?,
    }
    Ok(())
}

pub(super) fn base64(scanner: &mut Scanner<'_>, out: &mut Vec<u8>) -> Read {
    let text = scanner.string()?;
    let decoded = STANDARD.decode_vec(text.read(&mut Vec::new())?, out);
    decoded.map_err(|_| Fault::mismatch("bytes as base64 text are expected"))
}

/// Debezium's decimal that brings its own scale: `{"scale": 2, "value": "AQ=="}`.
fn variable_scale(scanner: &mut Scanner<'_>) -> Read<(Vec<u8>, i64)> {
    let wrong = || Fault::mismatch("a decimal as an object of scale and value is expected");
    let (mut bytes, mut scale) = (None, None);
    scanner.open(b'{', "a decimal as an object of scale and value is expected")?;
    let mut more = !scanner.closes(b'}');
    while more {
        match scanner.key()?.read(&mut Vec::new())? {
            b"scale" if scale.is_none() => scale = Some(scanner.integer()?),
            b"value" if bytes.is_none() => base64(scanner, bytes.insert(Vec::new()))?,
            _ => return Err(wrong()),
        }
        more = scanner.more(b'}')?;
    }
    bytes.zip(scale).ok_or_else(wrong)
}

pub(super) fn date(scanner: &mut Scanner<'_>, encoding: Encoding, dialect: Dialect) -> Read<i32> {
    match (scanner.peek(), encoding, dialect) {
        // With `time.precision.mode=isostring` as 2024-02-29Z.
        (b'"', _, Dialect::Debezium) => {
            let mut scratch = Vec::new();
            let text = scanner.string()?.read(&mut scratch)?;
            time::date(text.strip_suffix(b"Z").unwrap_or(text))
        }
        (b'"', _, Dialect::Plain) => time::date(scanner.string()?.read(&mut Vec::new())?),
        (_, Encoding::Days, _) => time::days(scanner.integer()?),
        _ => Err(scanner.other("a date as text is expected, as in \"2024-02-29\"")),
    }
}

#[inline]
pub(super) fn timestamp(scanner: &mut Scanner<'_>, zone: Zone, encoding: Encoding) -> Read<i64> {
    let (numerator, denominator) = match (scanner.peek(), encoding) {
        (b'"', _) => return time::timestamp(scanner.string()?.read(&mut Vec::new())?, zone),
        (_, Encoding::Millis) => (1000, 1),
        (_, Encoding::Micros) => (1, 1),
        (_, Encoding::Nanos) => (1, 1000),
        (_, Encoding::Days) => (DAY_US, 1),
        _ => return Err(scanner.other("a timestamp as text is expected: the schema names no unit for a number")),
    };
    time::scaled(scanner.integer()?, numerator, denominator)
}

/// Whether a key stands twice among those of one map.
pub(super) fn repeats(keys: &Bytes, range: Range<usize>) -> bool {
    if range.len() < 2 {
        return false;
    }
    let mut seen = HashSet::with_capacity(range.len());
    range.into_iter().any(|cell| !seen.insert(keys.get(cell)))
}
