//! Kafka Connect's wrapper, `{"schema": …, "payload": …}`, around keys and values whose writer has `schemas.enable`.

use super::fault::{Code, Fault, Read};
use super::scanner::Scanner;

/// The names of its members.
pub(super) const PARTS: [&str; 2] = ["schema", "payload"];

/// What is in front of the payload.
pub(super) struct Wrapped<'a> {
    /// The text of the schema; `null` where there is none.
    pub schema: &'a [u8],
    /// A scanner right before the payload; the wrapper's `}` follows it.
    pub payload: Scanner<'a>,
}

/// Looks for a wrapper: an object whose first two members are a schema (an object or null) and a payload. What has only the two, and in
/// the other order, is one too, and is refused: its schema would be known too late.
pub(super) fn open(text: &[u8]) -> Read<Option<Wrapped<'_>>> {
    let mut scanner = Scanner::new(text);
    if scanner.peek() != b'{' {
        return Ok(None);
    }
    scanner.step();
    if scanner.peek() != b'"' {
        return Ok(None);
    }
    match scanner.key()?.read(&mut Vec::new())? {
        b"schema" => {
            let schema = member(&mut scanner)?;
            match schema.is_some() && scanner.peek() == b',' && next_is(&mut scanner, b"payload")? {
                true => Ok(schema.map(|schema| Wrapped { schema, payload: scanner })),
                false => Ok(None),
            }
        }
        b"payload" => {
            let is_pair = member(&mut scanner)?.is_some()
                && scanner.peek() == b','
                && next_is(&mut scanner, b"schema")?
                && member(&mut scanner)?.is_some()
                && scanner.peek() == b'}';
            match is_pair {
                true => Err(Fault::new(
                    Code::Unexpected,
                    "the payload stands before its schema: write them as Kafka Connect does, the schema first",
                )),
                false => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

/// That the text ends behind the payload.
pub(super) fn close(scanner: &mut Scanner<'_>) -> Read {
    scanner.expect(b'}', "the end of the object of schema and payload is expected")?;
    scanner.end()
}

/// An object or null; None where something else is next.
fn member<'a>(scanner: &mut Scanner<'a>) -> Read<Option<&'a [u8]>> {
    match scanner.peek() {
        b'{' | b'n' => scanner.skip().map(Some),
        _ => Ok(None),
    }
}

/// Steps over the comma that is next, and whether this member follows it.
fn next_is(scanner: &mut Scanner<'_>, name: &[u8]) -> Read<bool> {
    scanner.step();
    Ok(scanner.peek() == b'"' && scanner.key()?.read(&mut Vec::new())? == name)
}
