//! Kafka Connect's wrapper, `{"schema": …, "payload": …}`, around keys and values whose writer has `schemas.enable`.

use super::fault::Read;
use super::scanner::Scanner;

/// What is in front of the payload.
pub(super) struct Wrapped<'a> {
    /// The text of the schema; `null` where there is none.
    pub schema: &'a [u8],
    /// A scanner right before the payload; the wrapper's `}` follows it.
    pub payload: Scanner<'a>,
}

/// Looks for a wrapper: an object whose first two members are a schema (an object or null) and a payload.
pub(super) fn open(text: &[u8]) -> Read<Option<Wrapped<'_>>> {
    let mut scanner = Scanner::new(text);
    if scanner.peek() != b'{' {
        return Ok(None);
    }
    scanner.step();
    if !next_is(&mut scanner, b"schema")? || !matches!(scanner.peek(), b'{' | b'n') {
        return Ok(None);
    }
    let schema = scanner.skip()?;
    if scanner.peek() != b',' {
        return Ok(None);
    }
    scanner.step();
    match next_is(&mut scanner, b"payload")? {
        true => Ok(Some(Wrapped { schema, payload: scanner })),
        false => Ok(None),
    }
}

/// That the text ends behind the payload.
pub(super) fn close(scanner: &mut Scanner<'_>) -> Read {
    scanner.expect(b'}', "the end of the object of schema and payload is expected")?;
    scanner.end()
}

fn next_is(scanner: &mut Scanner<'_>, name: &[u8]) -> Read<bool> {
    Ok(scanner.peek() == b'"' && scanner.key()?.read(&mut Vec::new())? == name)
}
