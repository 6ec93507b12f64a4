//! What a message of Debezium's is: a change in its envelope, a row that was flattened, or no change at all.

use super::fault::{Code, Fault, Read};
use super::scanner::Scanner;

/// What happened, by Debezium's letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Create,
    Read,
    Update,
    Delete,
    Truncate,
    /// A logical message (`pg_logical_emit_message`).
    Message,
}

impl Action {
    pub fn letter(self) -> &'static [u8] {
        match self {
            Action::Create => b"c",
            Action::Read => b"r",
            Action::Update => b"u",
            Action::Delete => b"d",
            Action::Truncate => b"t",
            Action::Message => b"m",
        }
    }

    fn of(letter: &[u8]) -> Option<Self> {
        let all = [Self::Create, Self::Read, Self::Update, Self::Delete, Self::Truncate, Self::Message];
        all.into_iter().find(|action| action.letter() == letter)
    }
}

#[derive(Debug)]
pub(super) enum Event<'a> {
    Change(Envelope<'a>),
    /// An object of columns, as ExtractNewRecordState makes it; not read yet.
    Row,
    /// A heartbeat, a transaction's begin or end, or a change of the database's schema.
    NoChange,
    /// The payload is null.
    Nothing,
}

/// The parts of an envelope as text; None where they are null or not there.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    pub action: Action,
    pub before: Option<&'a [u8]>,
    pub after: Option<&'a [u8]>,
    pub source: Option<&'a [u8]>,
    pub ts_ms: Option<&'a [u8]>,
}

/// Reads the payload that is next. Before a row, the scanner stays where it is.
pub(super) fn read<'a>(scanner: &mut Scanner<'a>) -> Read<Event<'a>> {
    let start = scanner.clone();
    if scanner.null()? {
        return Ok(Event::Nothing);
    }
    if scanner.peek() != b'{' {
        return Err(scanner.not_an_object());
    }
    let (mut before, mut after, mut source, mut ts_ms, mut op) = (None, None, None, None, None);
    let mut beside = None;
    scanner.step();
    let mut more = !scanner.closes(b'}');
    while more {
        let place = match scanner.key()?.read(&mut Vec::new())? {
            b"before" => &mut before,
            b"after" => &mut after,
            b"source" => &mut source,
            b"ts_ms" => &mut ts_ms,
            b"op" => &mut op,
            b"transaction" | b"ts_us" | b"ts_ns" | b"message" => &mut beside,
            // Nothing of an envelope's.
            name => {
                let no_change = matches!(name, b"status" | b"databaseName") && is_no_change(&mut start.clone())?;
                if no_change {
                    *scanner = start;
                    scanner.skip()?;
                    return Ok(Event::NoChange);
                }
                *scanner = start;
                return Ok(Event::Row);
            }
        };
        let value = scanner.skip()?;
        *place = (value != b"null").then_some(value);
        more = scanner.more(b'}')?;
    }
    let Some(op) = op else { return Ok(Event::NoChange) }; // A heartbeat has only its time.
    let letter = op.strip_prefix(b"\"").and_then(|op| op.strip_suffix(b"\""));
    let action = letter
        .and_then(Action::of)
        .ok_or_else(|| Fault::new(Code::Unexpected, "Debezium has no such op").within("op"))?;
    Ok(Event::Change(Envelope {
        action,
        before,
        after,
        source,
        ts_ms,
    }))
}

/// Whether an object has the members of a transaction's mark or of a schema change.
fn is_no_change(scanner: &mut Scanner<'_>) -> Read<bool> {
    let mut names = Vec::new();
    scanner.expect(b'{', "an object is expected")?;
    let mut more = !scanner.closes(b'}');
    while more {
        names.push(scanner.key()?.read(&mut Vec::new())?.to_vec());
        scanner.skip()?;
        more = scanner.more(b'}')?;
    }
    let has = |name: &str| names.iter().any(|n| n == name.as_bytes());
    Ok((has("status") && has("event_count") && has("data_collections")) || (has("databaseName") && has("ddl") && has("source")))
}
