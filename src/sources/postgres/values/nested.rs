//! Values that hold values (arrays, records, ranges, hstore), printed as the server does, each kind with quotes of its own.

use super::print::{print, utf8};
use super::wire::Wire;
use super::{Attribute, BadValue, CELL_BYTES_MAX, Element, Kind, Read};

/// As many dimensions as an array can have.
const DIMENSIONS_MAX: usize = 6;
const RANGE_EMPTY: u8 = 0x01;
const RANGE_LOWER_INCLUSIVE: u8 = 0x02;
const RANGE_UPPER_INCLUSIVE: u8 = 0x04;
const RANGE_LOWER_INFINITE: u8 = 0x08;
const RANGE_UPPER_INFINITE: u8 = 0x10;

/// The head of an array's binary form: for each dimension, how many elements and the number of the first; then the elements.
pub(super) struct ArrayHead<'a> {
    pub dimensions: Vec<(usize, i32)>,
    pub elements: Wire<'a>,
}

pub(super) fn array_head<'a>(bytes: &'a [u8], element: &Element) -> Read<ArrayHead<'a>> {
    let mut wire = Wire(bytes);
    let (count, _has_nulls, oid) = (wire.count()?, wire.u32()?, wire.u32()?);
    if count > DIMENSIONS_MAX {
        return Err(BadValue::malformed("an array has more than six dimensions"));
    }
    if oid != element.oid {
        return Err(BadValue::type_mismatch("the elements of an array are of another type"));
    }
    let mut dimensions = Vec::with_capacity(count);
    for _ in 0..count {
        dimensions.push((wire.count()?, wire.i32()?));
    }
    Ok(ArrayHead {
        dimensions,
        elements: wire,
    })
}

#[cold]
pub(super) fn too_many_dimensions() -> BadValue {
    BadValue::out_of_range("a list column holds no arrays of more than one dimension")
}

pub(super) fn print_array(bytes: &[u8], element: &Element, out: &mut Vec<u8>) -> Read {
    let mut head = array_head(bytes, element)?;
    if head.dimensions.iter().all(|(length, _)| *length == 0) {
        out.extend_from_slice(b"{}");
        return head.elements.end();
    }
    // Each element has four bytes at least: what says more is not to be believed.
    let total = head
        .dimensions
        .iter()
        .try_fold(1usize, |total, (length, _)| total.checked_mul(*length));
    if total.is_none_or(|total| total == 0 || total > head.elements.0.len() / 4) {
        return Err(BadValue::malformed("an array has fewer elements than it says"));
    }
    if head.dimensions.iter().any(|(_, first)| *first != 1) {
        for (length, first) in &head.dimensions {
            let last = i64::from(*first) + *length as i64 - 1;
            out.extend_from_slice(format!("[{first}:{last}]").as_bytes());
        }
        out.push(b'=');
    }
    print_dimension(&head.dimensions, &mut head.elements, element, out)?;
    head.elements.end()
}

fn print_dimension(dimensions: &[(usize, i32)], wire: &mut Wire<'_>, element: &Element, out: &mut Vec<u8>) -> Read {
    let Some(((length, _), inner)) = dimensions.split_first() else {
        return match wire.value()? {
            None => put(out, b"NULL"),
            Some(value) => {
                let start = out.len();
                print(&element.kind, value, out)?;
                quote(out, start, Style::Array(element.delimiter))
            }
        };
    };
    out.push(b'{');
    for index in 0..*length {
        if index > 0 {
            out.push(element.delimiter);
        }
        print_dimension(inner, wire, element, out)?;
    }
    put(out, b"}")
}

/// `(1,"a b",)`: a null is nothing at all.
pub(super) fn print_record(bytes: &[u8], fields: &[Attribute], out: &mut Vec<u8>) -> Read {
    let mut wire = Wire(bytes);
    let count = wire.count()?;
    out.push(b'(');
    for index in 0..count {
        if index > 0 {
            out.push(b',');
        }
        let oid = wire.u32()?;
        if let Some(value) = wire.value()? {
            let start = out.len();
            // The type may have got or lost fields since it was read.
            let known = fields.get(index).filter(|field| field.oid == oid);
            let known = known.or_else(|| fields.iter().find(|field| field.oid == oid));
            match known {
                Some(field) => print(&field.kind, value, out)?,
                None => {
                    let kind = Kind::builtin(oid, -1);
                    let kind = kind.ok_or_else(|| BadValue::new_type("a composite value has a field of a new type"))?;
                    print(&kind, value, out)?;
                }
            }
            quote(out, start, Style::Record)?;
        }
    }
    put(out, b")")?;
    wire.end()
}

/// `[1,5)`, `(,"2024-01-01 00:00:00"]`, `empty`.
pub(super) fn print_range(bytes: &[u8], bound: &Kind, out: &mut Vec<u8>) -> Read {
    let mut wire = Wire(bytes);
    let flags = wire.u8()?;
    if flags & RANGE_EMPTY != 0 {
        put(out, b"empty")?;
        return wire.end();
    }
    let mut print_bound = |infinite: u8, out: &mut Vec<u8>| match flags & infinite {
        0 => {
            let start = out.len();
            print(bound, wire.present()?, out)?;
            quote(out, start, Style::Range)
        }
        _ => Ok(()),
    };
    out.push(if flags & RANGE_LOWER_INCLUSIVE != 0 { b'[' } else { b'(' });
    print_bound(RANGE_LOWER_INFINITE, out)?;
    out.push(b',');
    print_bound(RANGE_UPPER_INFINITE, out)?;
    out.push(if flags & RANGE_UPPER_INCLUSIVE != 0 { b']' } else { b')' });
    wire.end()
}

/// `{[1,4),[5,8)}`
pub(super) fn print_multirange(bytes: &[u8], bound: &Kind, out: &mut Vec<u8>) -> Read {
    let mut wire = Wire(bytes);
    let count = wire.count()?;
    out.push(b'{');
    for index in 0..count {
        if index > 0 {
            out.push(b',');
        }
        print_range(wire.present()?, bound, out)?;
    }
    put(out, b"}")?;
    wire.end()
}

/// `"a"=>"1", "b"=>NULL`
pub(super) fn print_hstore(bytes: &[u8], out: &mut Vec<u8>) -> Read {
    let mut wire = Wire(bytes);
    let count = wire.count()?;
    for index in 0..count {
        if index > 0 {
            put(out, b", ")?;
        }
        let start = out.len();
        put(out, utf8(wire.present()?)?)?;
        quote(out, start, Style::Hstore)?;
        put(out, b"=>")?;
        let start = out.len();
        match wire.value()? {
            None => put(out, b"NULL")?,
            Some(value) => {
                put(out, utf8(value)?)?;
                quote(out, start, Style::Hstore)?;
            }
        }
    }
    wire.end()
}

fn put(out: &mut Vec<u8>, text: &[u8]) -> Read {
    out.extend_from_slice(text);
    Ok(())
}

/// What must stand in quotes, and how a character is told from the end of them.
#[derive(Clone, Copy)]
enum Style {
    /// With what stands between the elements.
    Array(u8),
    Record,
    Range,
    Hstore,
}

impl Style {
    fn needs_quotes(self, text: &[u8]) -> bool {
        let special = |byte: &u8| match (self, byte) {
            (_, b'"' | b'\\') => true,
            (Style::Hstore, _) => true,
            (_, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c) => true,
            (Style::Array(delimiter), byte) => matches!(byte, b'{' | b'}') || *byte == delimiter,
            (Style::Record, byte) => matches!(byte, b'(' | b')' | b','),
            (Style::Range, byte) => matches!(byte, b'(' | b')' | b'[' | b']' | b','),
        };
        let like_null = matches!(self, Style::Array(_)) && text.eq_ignore_ascii_case(b"null");
        text.is_empty() || like_null || text.iter().any(special)
    }

    /// What goes before a quote or a backslash.
    fn escape(self, byte: u8) -> u8 {
        match self {
            Style::Array(_) | Style::Hstore => b'\\',
            Style::Record | Style::Range => byte,
        }
    }
}

/// Puts quotes around what stands behind `start`, if they are needed. Quotes in quotes double what they quote: here is the limit.
fn quote(out: &mut Vec<u8>, start: usize, style: Style) -> Read {
    let text = out.get(start..).unwrap_or_default();
    if style.needs_quotes(text) {
        let text = text.to_vec();
        out.truncate(start);
        out.push(b'"');
        for byte in text {
            if matches!(byte, b'"' | b'\\') {
                out.push(style.escape(byte));
            }
            out.push(byte);
        }
        out.push(b'"');
    }
    match out.len() - start {
        0..=CELL_BYTES_MAX => Ok(()),
        _ => Err(BadValue::too_large()),
    }
}
