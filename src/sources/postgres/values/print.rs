//! Prints a value in binary form as the server prints it: DateStyle ISO, TimeZone UTC, IntervalStyle postgres, bytea as hex.

use super::time::put;
use super::wire::{Wire, fixed};
use super::{BadValue, Kind, Read, clock, float, geometry, nested, network, numeric, time};

/// Appends the text. On an error, what was appended is of no use.
pub(super) fn print(kind: &Kind, bytes: &[u8], out: &mut Vec<u8>) -> Read {
    match kind {
        Kind::Boolean => match bytes {
            [0] => out.push(b'f'),
            [1] => out.push(b't'),
            _ => return Err(BadValue::malformed("a boolean is neither true nor false")),
        },
        Kind::Int2 => put(out, format_args!("{}", i16::from_be_bytes(fixed(bytes)?))),
        Kind::Int4 => put(out, format_args!("{}", i32::from_be_bytes(fixed(bytes)?))),
        Kind::Int8 => put(out, format_args!("{}", i64::from_be_bytes(fixed(bytes)?))),
        Kind::Oid => put(out, format_args!("{}", u32::from_be_bytes(fixed(bytes)?))),
        Kind::Xid8 => put(out, format_args!("{}", u64::from_be_bytes(fixed(bytes)?))),
        Kind::Float4 => float::print32(f32::from_be_bytes(fixed(bytes)?), out),
        Kind::Float8 => float::print64(f64::from_be_bytes(fixed(bytes)?), out),
        Kind::Decimal(_) | Kind::Numeric => numeric::print(bytes, out)?,
        Kind::Text => out.extend_from_slice(utf8(bytes)?),
        Kind::Versioned => match bytes {
            [1, text @ ..] => out.extend_from_slice(utf8(text)?),
            _ => return Err(BadValue::malformed("the value is of a version that is not known")),
        },
        Kind::Char => print_char(u8::from_be_bytes(fixed(bytes)?), out),
        Kind::Uuid => print_uuid(fixed(bytes)?, out),
        Kind::Bytea => {
            out.extend_from_slice(b"\\x");
            bytes.iter().for_each(|byte| out.extend_from_slice(&hex(*byte)));
        }
        Kind::Date => time::print_date(i32::from_be_bytes(fixed(bytes)?), out)?,
        Kind::Timestamp => time::print_timestamp(i64::from_be_bytes(fixed(bytes)?), false, out)?,
        Kind::Timestamptz => time::print_timestamp(i64::from_be_bytes(fixed(bytes)?), true, out)?,
        Kind::Time => clock::print_time(i64::from_be_bytes(fixed(bytes)?), out)?,
        Kind::Timetz => clock::print_timetz(bytes, out)?,
        Kind::Interval => clock::print_interval(bytes, out)?,
        Kind::Inet => network::print_inet(bytes, out)?,
        Kind::Macaddr => network::print_macaddr(bytes, out)?,
        Kind::Bits => print_bits(bytes, out)?,
        Kind::Lsn => {
            let lsn = u64::from_be_bytes(fixed(bytes)?);
            put(out, format_args!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff));
        }
        Kind::Tid => {
            let mut wire = Wire(bytes);
            put(out, format_args!("({},{})", wire.u32()?, wire.u16()?));
            wire.end()?;
        }
        Kind::Tsvector => print_tsvector(bytes, out)?,
        Kind::Point => geometry::print_point(bytes, out)?,
        Kind::Segment => geometry::print_segment(bytes, out)?,
        Kind::Path => geometry::print_path(bytes, out)?,
        Kind::Box => geometry::print_box(bytes, out)?,
        Kind::Polygon => geometry::print_polygon(bytes, out)?,
        Kind::Line => geometry::print_line(bytes, out)?,
        Kind::Circle => geometry::print_circle(bytes, out)?,
        Kind::Hstore => nested::print_hstore(bytes, out)?,
        Kind::Array(element) => nested::print_array(bytes, element, out)?,
        Kind::Record(fields) => nested::print_record(bytes, fields, out)?,
        Kind::Range(bound) => nested::print_range(bytes, bound, out)?,
        Kind::Multirange(bound) => nested::print_multirange(bytes, bound, out)?,
        Kind::Money(_) | Kind::Opaque => return Err(no_binary_form()),
    }
    Ok(())
}

#[cold]
fn no_binary_form() -> BadValue {
    BadValue {
        code: "no_binary_form",
        message: "values of this type can be read as text only: the server must not be asked for binary form",
    }
}

#[inline]
pub(super) fn utf8(bytes: &[u8]) -> Read<&[u8]> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(bytes),
        Err(_) => Err(BadValue::malformed("the text is not UTF-8")),
    }
}

/// `"char"`: a zero byte is the empty text, and what is no ASCII is printed in octal, as PostgreSQL 16 and later do. Earlier ones
/// send the byte as it is, which is no text.
pub(super) fn print_char(byte: u8, out: &mut Vec<u8>) {
    match byte {
        0 => {}
        1..=127 => out.push(byte),
        128..=255 => put(out, format_args!("\\{byte:03o}")),
    }
}

fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [byte >> 4, byte & 15].map(|nibble| DIGITS[usize::from(nibble)])
}

/// Into fixed places: digit after digit takes ten times as long, and a UUID is what many tables have for a key.
fn print_uuid(bytes: [u8; 16], out: &mut Vec<u8>) {
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let mut text = [b'-'; 36];
    for (byte, place) in bytes.iter().zip(PLACES) {
        [text[place], text[place + 1]] = hex(*byte);
    }
    out.extend_from_slice(&text);
}

/// How many bits, and the bits, the first one highest.
fn print_bits(bytes: &[u8], out: &mut Vec<u8>) -> Read {
    let mut wire = Wire(bytes);
    let count = wire.count()?;
    if wire.0.len() != count.div_ceil(8) {
        return Err(BadValue::malformed("a row of bits is not as long as it says"));
    }
    let bits = wire.0.iter().flat_map(|byte| (0..8).rev().map(move |bit| b'0' + (byte >> bit & 1)));
    out.extend(bits.take(count));
    Ok(())
}

/// `'a':1A,2 'it''s'`: words with their places, and the weights A to C of these.
fn print_tsvector(bytes: &[u8], out: &mut Vec<u8>) -> Read {
    let mut wire = Wire(bytes);
    for index in 0..wire.count()? {
        if index > 0 {
            out.push(b' ');
        }
        let length = wire.0.iter().position(|byte| *byte == 0);
        let word = wire.bytes(length.ok_or_else(|| BadValue::malformed("a word of a tsvector has no end"))?)?;
        wire.u8()?;
        out.push(b'\'');
        for byte in utf8(word)? {
            if matches!(byte, b'\'' | b'\\') {
                out.push(*byte);
            }
            out.push(*byte);
        }
        out.push(b'\'');
        for place in 0..wire.u16()? {
            let entry = wire.u16()?;
            let separator = if place == 0 { ':' } else { ',' };
            let weight = ["", "C", "B", "A"].get(usize::from(entry >> 14)).unwrap_or(&"");
            put(out, format_args!("{separator}{}{weight}", entry & 0x3fff));
        }
    }
    wire.end()
}
