//! Kafka Connect's wrapper, `{"schema": …, "payload": …}`, around keys and values whose writer has `schemas.enable`.

use super::fault::Read;
use super::scanner::Scanner;

pub(super) struct Wrapped<'a> {
    /// The text of the schema; `null` where there is none.
    pub schema: &'a [u8],
    pub payload: &'a [u8],
}

/// What is in the wrapper, if this object is one: it has these two members, in this order, and no others.
pub(super) fn open(text: &[u8]) -> Read<Option<Wrapped<'_>>> {
    let mut scanner = Scanner::new(text);
    if scanner.peek() != b'{' {
        return Ok(None);
    }
    scanner.step();
    let Some(schema) = member(&mut scanner, b"schema")? else {
        return Ok(None);
    };
    if scanner.peek() != b',' {
        return Ok(None);
    }
    scanner.step();
    let Some(payload) = member(&mut scanner, b"payload")? else {
        return Ok(None);
    };
    if !scanner.closes(b'}') {
        return Ok(None);
    }
    scanner.end()?;
    Ok(Some(Wrapped { schema, payload }))
}

fn member<'a>(scanner: &mut Scanner<'a>, name: &[u8]) -> Read<Option<&'a [u8]>> {
    if scanner.peek() != b'"' || scanner.key()?.read(&mut Vec::new())? != name {
        return Ok(None);
    }
    scanner.skip().map(Some)
}
