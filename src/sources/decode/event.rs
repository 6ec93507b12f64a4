//! What a message of Debezium's is: a change in its envelope, a row that was flattened, or no change at all.
//!
//! Nothing in a message says which. So its members do, all of them: transforms add members of their own to an envelope, in front or behind,
//! and a table may have columns that are called as an envelope's members are. What could be either is no row: a row out of the wrong
//! object has nothing but nulls. Nor is an envelope whose rows are no objects, as MongoDB's are: they are text.

use super::Message;
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

    /// As an event writes it.
    fn of(text: &[u8]) -> Option<Self> {
        Self::of_letter(text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""))?)
    }

    pub fn of_letter(letter: &[u8]) -> Option<Self> {
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

/// The parts of an envelope as text; None where they are null or not there. `before` and `after` are objects.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    pub action: Action,
    pub before: Option<&'a [u8]>,
    pub after: Option<&'a [u8]>,
    pub source: Option<&'a [u8]>,
    pub ts_ms: Option<&'a [u8]>,
}

impl Event<'_> {
    /// Whether it has a row, or the key of one.
    pub fn is_of_row(&self) -> bool {
        match self {
            Event::Change(envelope) => envelope.action != Action::Message,
            Event::Row => true,
            Event::NoChange | Event::Nothing => false,
        }
    }
}

/// Reads the payload that is next. Before a row, the scanner stays where it is.
pub(super) fn read<'a>(scanner: &mut Scanner<'a>) -> Read<Event<'a>> {
    if scanner.null()? {
        return Ok(Event::Nothing);
    }
    if scanner.peek() != b'{' {
        return Err(scanner.not_an_object());
    }
    let start = scanner.clone();
    let event = Members::read(scanner)?.event()?;
    if matches!(event, Event::Row) {
        *scanner = start;
    }
    Ok(event)
}

/// Whether the row had another key before: the create behind the delete of the old one says so in its headers, flattened or not.
pub(super) fn had_another_key(message: &Message<'_>) -> bool {
    let headers = message.headers.0;
    headers.is_some_and(|headers| (0..headers.count()).any(|index| headers.header(index).0 == "__debezium.oldkey"))
}

/// The text of a member; None where it is not there.
type Member<'a> = Option<&'a [u8]>;

/// An object's members, as far as Debezium's messages that are no rows have them.
#[derive(Default)]
struct Members<'a> {
    before: Member<'a>,
    after: Member<'a>,
    source: Member<'a>,
    op: Member<'a>,
    ts_ms: Member<'a>,
    ts_us: Member<'a>,
    ts_ns: Member<'a>,
    transaction: Member<'a>,
    message: Member<'a>,
    /// Of MongoDB's events.
    update: Member<'a>,
    /// Of a transaction's begin or end.
    status: Member<'a>,
    event_count: Member<'a>,
    data_collections: Member<'a>,
    /// Of a change of the database's schema.
    database: Member<'a>,
    ddl: Member<'a>,
    /// Whether there are any beside these.
    others: bool,
}

impl<'a> Members<'a> {
    fn read(scanner: &mut Scanner<'a>) -> Read<Self> {
        let mut members = Self::default();
        scanner.open(b'{', "an object is expected")?;
        let mut more = !scanner.closes(b'}');
        while more {
            let member = members.named(scanner.key()?.read(&mut Vec::new())?);
            let value = scanner.skip()?;
            match member {
                None => members.others = true,
                Some((name, member)) => {
                    if member.replace(value).is_some() {
                        return Err(Fault::new(Code::DuplicateColumn, "it stands twice in one object").within(name));
                    }
                }
            }
            more = scanner.more(b'}')?;
        }
        Ok(members)
    }

    fn named(&mut self, name: &[u8]) -> Option<(&'static str, &mut Member<'a>)> {
        Some(match name {
            b"before" => ("before", &mut self.before),
            b"after" => ("after", &mut self.after),
            b"source" => ("source", &mut self.source),
            b"op" => ("op", &mut self.op),
            b"ts_ms" => ("ts_ms", &mut self.ts_ms),
            b"ts_us" => ("ts_us", &mut self.ts_us),
            b"ts_ns" => ("ts_ns", &mut self.ts_ns),
            b"transaction" => ("transaction", &mut self.transaction),
            b"message" => ("message", &mut self.message),
            b"updateDescription" => ("updateDescription", &mut self.update),
            b"status" => ("status", &mut self.status),
            b"event_count" => ("event_count", &mut self.event_count),
            b"data_collections" => ("data_collections", &mut self.data_collections),
            b"databaseName" => ("databaseName", &mut self.database),
            b"ddl" => ("ddl", &mut self.ddl),
            _ => return None,
        })
    }

    fn event(self) -> Read<Event<'a>> {
        if self.is_no_change() {
            return Ok(Event::NoChange);
        }
        if !self.is_envelope() {
            return Ok(Event::Row);
        }
        let unclear = |what: &'static str| Fault::new(Code::Unexpected, what).within("op");
        let op = there(self.op).ok_or_else(|| unclear("the event does not say what happened"))?;
        Ok(Event::Change(Envelope {
            action: Action::of(op).ok_or_else(|| unclear("Debezium has no such op"))?,
            before: image("before", self.before)?,
            after: image("after", self.after)?,
            source: there(self.source),
            ts_ms: there(self.ts_ms),
        }))
    }

    /// Whether it has the members of a transaction's mark or of a schema change; or, as a heartbeat, its time alone.
    fn is_no_change(&self) -> bool {
        let is_mark = self.status.is_some() && self.event_count.is_some() && self.data_collections.is_some();
        let is_of_schema = self.database.is_some() && self.ddl.is_some() && self.source.is_some();
        if self.op.is_some() || is_mark || is_of_schema {
            return self.op.is_none();
        }
        let has_time = self.ts_ms.is_some() || self.ts_us.is_some() || self.ts_ns.is_some();
        let beside = [self.before, self.after, self.source, self.transaction, self.message, self.update];
        has_time && beside.iter().all(Member::is_none) && !self.has_more_than_an_envelope()
    }

    fn is_envelope(&self) -> bool {
        let has_image = is_object(self.before) || is_object(self.after);
        let names_image = self.before.is_some() || self.after.is_some();
        let parts = [self.source, self.transaction, self.message, self.update];
        if !has_image && parts.into_iter().any(is_value) {
            return false;
        }
        if !self.has_more_than_an_envelope() {
            return self.op.is_some() || names_image;
        }
        // An envelope with members of somebody's, or a row with columns of such names: one sign alone may be a column.
        let (says_op, has_source) = (self.op.and_then(Action::of).is_some(), is_object(self.source));
        let has_value = [self.before, self.after].into_iter().any(is_value);
        // With both of the first it is one, whatever its images are.
        let has_signs = says_op && has_source || has_image && !has_value && (says_op || has_source);
        (names_image || is_object(self.message)) && has_signs
    }

    fn has_more_than_an_envelope(&self) -> bool {
        let not_its = [self.status, self.event_count, self.data_collections, self.database, self.ddl];
        self.others || not_its.iter().any(Member::is_some)
    }
}

/// Why what stands in the place of a row, text or something else, is none.
#[cold]
pub(super) fn no_image(name: &str, is_text: bool) -> Box<Fault> {
    let what = match is_text {
        true => {
            "it is text and no object of columns, as Debezium's MongoDB connector writes documents: flatten its events with the transform \
             `ExtractNewDocumentState`"
        }
        false => "an object of columns is expected",
    };
    Fault::new(Code::Unexpected, what).within(name)
}

/// A row before or after the change.
fn image<'a>(name: &'static str, member: Member<'a>) -> Read<Member<'a>> {
    match is_value(member) {
        true => Err(no_image(name, member.is_some_and(|text| text.starts_with(b"\"")))),
        false => Ok(there(member)),
    }
}

fn there(member: Member<'_>) -> Member<'_> {
    member.filter(|text| *text != b"null")
}

fn is_object(member: Member<'_>) -> bool {
    member.is_some_and(|text| text.starts_with(b"{"))
}

/// Whether it is something that the parts of an envelope never are: neither an object nor null.
fn is_value(member: Member<'_>) -> bool {
    there(member).is_some_and(|text| !text.starts_with(b"{"))
}
