//! Arrays and hstore in text form, as the server prints them: `{a,"b c",NULL}`, `"a"=>"1", "b"=>NULL`.

use super::nested::too_many_dimensions;
use super::{BadValue, Read};

/// The elements of an array, one after the other.
pub(super) struct Elements<'a> {
    rest: &'a [u8],
    delimiter: u8,
    first: bool,
    /// The element last read, if it had escapes.
    unescaped: Vec<u8>,
}

impl<'a> Elements<'a> {
    /// Without the numbers of the first and the last element, which stand before an array that does not begin at 1.
    pub fn new(text: &'a [u8], delimiter: u8) -> Read<Self> {
        let text = match text {
            [b'[', ..] => {
                let equals = text.iter().position(|byte| *byte == b'=').ok_or_else(no_array)?;
                text.get(equals + 1..).unwrap_or_default()
            }
            _ => text,
        };
        let rest = text
            .strip_prefix(b"{")
            .and_then(|text| text.strip_suffix(b"}"))
            .ok_or_else(no_array)?;
        Ok(Self {
            rest,
            delimiter,
            first: true,
            unescaped: Vec::new(),
        })
    }

    /// The next element, which may be null; None at the end.
    pub fn next(&mut self) -> Read<Option<Option<&[u8]>>> {
        match (self.first, self.rest) {
            (_, []) => return Ok(None),
            (true, _) => self.first = false,
            (false, [byte, rest @ ..]) if *byte == self.delimiter && !rest.is_empty() => self.rest = rest,
            (false, _) => return Err(no_array()),
        }
        match self.rest {
            [b'"', rest @ ..] => {
                self.rest = quoted(rest, &mut self.unescaped)?;
                Ok(Some(Some(&self.unescaped)))
            }
            [b'{', ..] => Err(too_many_dimensions()),
            rest => {
                let length = rest.iter().position(|byte| *byte == self.delimiter).unwrap_or(rest.len());
                let (element, rest) = rest.split_at_checked(length).ok_or_else(no_array)?;
                self.rest = rest;
                match element {
                    b"" => Err(no_array()),
                    b"NULL" => Ok(Some(None)),
                    element if element.iter().any(|byte| matches!(byte, b'"' | b'\\' | b'{' | b'}')) => Err(no_array()),
                    element => Ok(Some(Some(element))),
                }
            }
        }
    }
}

/// Reads up to the closing quote; returns what follows it. A backslash takes the next character as it is.
fn quoted<'a>(mut text: &'a [u8], into: &mut Vec<u8>) -> Read<&'a [u8]> {
    into.clear();
    loop {
        let length = text.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        let (plain, rest) = length.and_then(|length| text.split_at_checked(length)).ok_or_else(no_end)?;
        into.extend_from_slice(plain);
        text = match rest {
            [b'\\', byte, rest @ ..] => {
                into.push(*byte);
                rest
            }
            [b'"', rest @ ..] => return Ok(rest),
            _ => return Err(no_end()),
        };
    }
}

/// Reads the pairs of an hstore; a value may be null.
pub(super) fn pairs(mut text: &[u8], mut pair: impl FnMut(&[u8], Option<&[u8]>) -> Read) -> Read {
    let wrong = || BadValue::malformed("an hstore is expected");
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let mut first = true;
    while !text.is_empty() {
        if !first {
            text = text.strip_prefix(b", ").ok_or_else(wrong)?;
        }
        first = false;
        text = quoted(text.strip_prefix(b"\"").ok_or_else(wrong)?, &mut key)?;
        text = text.strip_prefix(b"=>").ok_or_else(wrong)?;
        if let Some(rest) = text.strip_prefix(b"NULL") {
            pair(&key, None)?;
            text = rest;
        } else {
            text = quoted(text.strip_prefix(b"\"").ok_or_else(wrong)?, &mut value)?;
            pair(&key, Some(&value))?;
        }
    }
    Ok(())
}

#[cold]
fn no_array() -> BadValue {
    BadValue::malformed("an array is expected")
}

#[cold]
fn no_end() -> BadValue {
    BadValue::malformed("a quoted text has no end")
}
