//! From pgoutput's messages to rows of tables: transactions, relations, keys. Pure: no clock, no connection.
//!
//! A transaction's rows are handed to each table that does not hold it yet. What a table holds is a position behind which nothing of it
//! is missing: the end of a transaction, or the point at which it was copied. So a transaction whose commit record begins before that
//! position is in the table, whole, and any other is not in it at all.

mod doubt;
mod grow;
mod target;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use doubt::Doubt;
use doubt::doubt;
use grow::grow;
use target::Target;

use super::again::Held;
use super::followed::{Becomes, Followed};
use super::learned::Learned;
use super::letter::told;
use super::pgoutput::{Cell, Message, Old, Relation, Tuple};
use super::rows::{BadRow, Event, Rows};
use super::types::Types;
use super::values::Specials;
use crate::batch::{ChangeBatch, Flow, Op};
use crate::error::{Error, Result};
use crate::position::Lane;
use crate::reject::{DeadLetter, DeadLetters, Place, Reject};
use crate::table::TableId;
use crate::telemetry;

/// Microseconds from 1970-01-01 to 2000-01-01, where Postgres begins to count.
const EPOCH_US: i64 = 946_684_800_000_000;

/// A transaction, as its rows are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Where its commit record begins.
    pub commit_lsn: u64,
    pub xid: u32,
    /// Microseconds since 2000-01-01.
    pub time: i64,
}

impl Transaction {
    fn committed_ms(&self) -> i64 {
        self.time.saturating_add(EPOCH_US).div_euclid(1000)
    }
}

/// What became of the records of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub written: u64,
    pub deduplicated: u64,
    pub dead_letter: u64,
    /// Of their values, those that only the server can print.
    pub printed_by_server: u64,
}

/// A table, and what is known of it when the stream begins.
#[derive(Clone, Debug)]
pub struct Begin {
    pub followed: Followed,
    /// What it holds already.
    pub held: u64,
    pub known: Known,
}

/// The columns that a Delta table has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Those of which its rows have values of the column that has the name now, in the order of the server.
    pub same: Vec<String>,
    /// All.
    pub all: BTreeSet<String>,
}

/// How values come, and what is known of them.
#[derive(Clone, Debug)]
pub struct Reading {
    pub types: Types,
    /// They were asked for in binary form.
    pub binary: bool,
    pub specials: Specials,
    pub learned: Learned,
}

impl Reading {
    /// A column that another flow may read, and this one cannot: of a type that came later, or that has no binary form.
    fn unreadable<'r>(&self, table: &TableId, relation: &'r Relation) -> Option<&'r str> {
        let mut columns = relation.columns.iter();
        let found = columns.find(|column| {
            let is_read = self.types.knows(column.type_oid)
                && (!self.binary || self.types.column(column.type_oid, column.type_modifier).reads_binary());
            !is_read && self.learned.cannot_read(table, &column.name, self.binary)
        });
        found.map(|column| column.name.as_str())
    }
}

struct TableState {
    followed: Followed,
    rows: Rows,
    /// What the table holds already.
    held: u64,
    known: Known,
    /// The columns that the server has told since the slot was opened: before, they are the catalog's, which may be ahead.
    told: Option<Vec<String>>,
    /// The transaction of the last change, and how many changes of the table came in it.
    seen: (u64, u64),
    counts: Counts,
}

/// What happened to one row, or to all.
#[derive(Clone, Copy)]
enum Change<'a> {
    Insert(Tuple<'a>),
    Update(Option<Old<'a>>, Tuple<'a>),
    Delete(Old<'a>),
    Truncate,
}

impl<'a> Change<'a> {
    /// The rows that it tells, as they were and as they are.
    fn tuples(self) -> impl Iterator<Item = Tuple<'a>> {
        let (old, new) = match self {
            Change::Insert(new) => (None, Some(new)),
            Change::Update(old, new) => (old, Some(new)),
            Change::Delete(old) => (Some(old), None),
            Change::Truncate => (None, None),
        };
        old.map(|old| old.tuple()).into_iter().chain(new)
    }
}

/// See the head of the file.
pub struct Changes {
    lane: Lane,
    tables: Vec<TableState>,
    relations: BTreeMap<u32, Vec<Target>>,
    /// Those that came with a transaction that some table holds already, and from where on they are of concern to it.
    kept: BTreeMap<u32, (u64, Relation)>,
    doubts: Vec<Doubt>,
    /// Why the flow has to be opened again. From here on nothing is taken.
    reopen: Option<String>,
    reading: Reading,
    letters: DeadLetters,
    letters_id: TableId,
    /// Rows of tables whose columns have grown in between.
    done: Vec<ChangeBatch>,
}

impl Changes {
    pub fn new(lane: Lane, tables: Vec<Begin>, reading: Reading, letters: DeadLetters, letters_id: TableId) -> Self {
        let state = |Begin { followed, held, known }: Begin| TableState {
            rows: Rows::new(&followed, reading.specials),
            followed,
            held,
            known,
            told: None,
            seen: (0, 0),
            counts: Counts::default(),
        };
        Self {
            lane,
            tables: tables.into_iter().map(state).collect(),
            relations: BTreeMap::new(),
            kept: BTreeMap::new(),
            doubts: Vec::new(),
            reopen: None,
            reading,
            letters,
            letters_id,
            done: Vec::new(),
        }
    }

    /// Takes one message of a transaction. `lsn`: where the change stands in the WAL.
    pub fn take(&mut self, message: &Message<'_>, of: &Transaction, lsn: u64) -> Result<()> {
        if self.reopen.is_some() {
            return Ok(());
        }
        match message {
            Message::Insert { relation, new } => self.change(*relation, Change::Insert(*new), of, lsn),
            Message::Update { relation, old, new } => self.change(*relation, Change::Update(*old, *new), of, lsn),
            Message::Delete { relation, old } => self.change(*relation, Change::Delete(*old), of, lsn),
            Message::Truncate { relations } => relations
                .iter()
                .try_for_each(|relation| self.change(*relation, Change::Truncate, of, lsn)),
            Message::Relation(relation) => self.relation(relation, of),
            Message::Origin | Message::Type | Message::Logical { .. } => Ok(()),
            Message::Begin { .. }
            | Message::Commit { .. }
            | Message::StreamStart { .. }
            | Message::StreamStop
            | Message::StreamCommit { .. }
            | Message::StreamAbort { .. }
            | Message::BeginPrepare(_)
            | Message::Prepare(_)
            | Message::StreamPrepare(_)
            | Message::CommitPrepared(_)
            | Message::RollbackPrepared(_) => Err(Error::bug(format!("{message:?} within a transaction"))),
        }
    }

    /// The tables that do not hold a transaction whose commit record begins here.
    pub fn lacking(&self, commit_lsn: u64) -> impl Iterator<Item = Held<'_>> {
        let lacking = self.tables.iter().filter(move |table| commit_lsn >= table.held);
        lacking.map(|table| Held::of(&table.followed, table.held))
    }

    /// Hands over all rows so far.
    pub fn drain(&mut self, into: &mut VecDeque<Flow>) -> Result<()> {
        if let Some(rows) = self.letters.take(telemetry::now_us())? {
            into.push_back(Flow::Rows(ChangeBatch::puts(self.letters_id.clone(), rows)));
        }
        into.extend(self.done.drain(..).map(Flow::Rows));
        for table in &mut self.tables {
            into.extend(table.take()?.map(Flow::Rows));
        }
        Ok(())
    }

    /// What became of the records since the last call, by number of the table.
    pub fn counts(&mut self) -> impl Iterator<Item = (&TableId, Counts)> {
        self.tables
            .iter_mut()
            .map(|table| (&table.followed.id, std::mem::take(&mut table.counts)))
    }

    /// What the catalog has to be asked before any rows are handed on.
    pub fn doubts(&mut self) -> &mut Vec<Doubt> {
        &mut self.doubts
    }

    /// Why no rows may be handed on, and the flow has to be opened again.
    pub fn reopen(&self) -> Option<&str> {
        self.reopen.as_deref()
    }

    fn change(&mut self, relation: u32, change: Change<'_>, of: &Transaction, lsn: u64) -> Result<()> {
        if let Some((from, _)) = self.kept.get(&relation)
            && of.commit_lsn >= *from
            && let Some((_, kept)) = self.kept.remove(&relation)
        {
            self.relation(&kept, of)?;
            if self.reopen.is_some() {
                return Ok(());
            }
        }
        let targets = self.relations.get(&relation).ok_or_else(|| unknown(relation, of))?;
        for target in targets {
            // Else values would slip into the rows before or behind.
            if change.tuples().any(|tuple| tuple.len() != target.places.len()) {
                return Err(Error::bug(format!(
                    "transaction {} tells a row of relation {relation} that has not its {} columns",
                    of.xid,
                    target.places.len()
                )));
            }
            let table = &mut self.tables[target.table];
            if of.commit_lsn < table.held {
                table.counts.deduplicated += 1;
                continue;
            }
            let ordinal = table.number_within(of);
            match table.change(target, change, of, lsn)? {
                Ok(()) => table.counts.written += 1,
                Err(bad) if bad.bad.is_of_new_type() && self.reading.learned.cannot_read(&table.followed.id, &bad.column, true) => {
                    self.reopen = Some(new_type(&bad.column, &table.followed));
                    return Ok(());
                }
                Err(bad) => {
                    table.counts.dead_letter += 1;
                    let reject = reject(&bad);
                    let cells = change.tuples().last().into_iter().flat_map(|row| target.places.cells(row));
                    let is_whole = !matches!(change, Change::Delete(Old::Key(_)));
                    let (key, row) = told(&table.followed, cells.filter(|(_, cell)| is_whole || *cell != Cell::Null));
                    self.letters.push(&DeadLetter {
                        lane: &self.lane,
                        position: of.commit_lsn,
                        place: Place::Ordinal(ordinal),
                        table: table.followed.id.as_str(),
                        key: key.as_deref(),
                        value: Some(&row),
                        headers: None,
                        timestamp_us: Some(of.time.saturating_add(EPOCH_US)),
                        schema_id: None,
                        reject: &reject,
                    });
                }
            }
        }
        Ok(())
    }

    /// A table looks like this from here on. What it looked like in transactions that a table holds already is of no concern to it: it
    /// may have changed since, and the server says so before the next change; or it has not, and will not be said again.
    fn relation(&mut self, relation: &Relation, of: &Transaction) -> Result<()> {
        let names: BTreeSet<&str> = relation.columns.iter().map(|column| &*column.name).collect();
        if names.len() < relation.columns.len() {
            return Err(Error::bug(format!("relation {} has columns of the same name", relation.id)));
        }
        let (mut targets, mut later) = (Vec::new(), None::<u64>);
        for (number, table) in self.tables.iter_mut().enumerate() {
            // By its number: it may have another name for a while, and another table may have its name.
            if table.followed.oid != relation.id {
                continue;
            }
            if of.commit_lsn < table.held {
                targets.extend(Target::new(number, &table.followed, relation));
                later = Some(later.map_or(table.held, |from| from.min(table.held)));
                continue;
            }
            let id = table.followed.id.clone();
            if let Some(column) = self.reading.unreadable(&id, relation) {
                self.reopen = Some(new_type(column, &table.followed));
                return Ok(());
            }
            self.doubts
                .extend(doubt(&table.followed, &table.known, table.told.as_deref(), relation, of));
            let grown = grow(&table.followed, relation, &self.reading.types).map_err(|error| error.of(&id))?;
            table.told = Some(relation.columns.iter().map(|column| column.name.clone()).collect());
            if grown != table.followed {
                self.done.extend(table.take()?);
                table.followed = grown;
                table.rows = Rows::new(&table.followed, self.reading.specials);
            }
            targets.push(Target::new(number, &table.followed, relation).map_err(|error| error.of(&id))?);
        }
        self.relations.insert(relation.id, targets);
        match later {
            Some(from) => self.kept.insert(relation.id, (from, relation.clone())),
            None => self.kept.remove(&relation.id),
        };
        Ok(())
    }
}

impl TableState {
    /// The rows so far.
    fn take(&mut self) -> Result<Option<ChangeBatch>> {
        let batch = self.rows.take(&self.followed)?;
        let printed = batch.as_ref().map(|batch| self.followed.printed_by_server(&batch.rows));
        self.counts.printed_by_server += printed.unwrap_or(0);
        Ok(batch)
    }

    /// The next change's number among those of the table in its transaction, by which its letter is known: the same at every reading,
    /// whichever other tables are read beside it.
    fn number_within(&mut self, of: &Transaction) -> u64 {
        let (transaction, count) = self.seen;
        let number = if transaction == of.commit_lsn { count } else { 0 };
        self.seen = (of.commit_lsn, number + 1);
        number
    }

    /// Ok(Err) is a row that cannot be read.
    fn change(&mut self, target: &Target, change: Change<'_>, of: &Transaction, lsn: u64) -> Result<Result<(), BadRow>> {
        match &self.followed.becomes {
            Becomes::State { .. } => Ok(self.change_state(target, change, of, lsn)),
            Becomes::Changes => Ok(self.append_change(target, change, of, lsn)),
            Becomes::Inserts => match change {
                Change::Insert(_) => Ok(self.append_change(target, change, of, lsn)),
                Change::Update(..) => Err(self.no_place_for("an UPDATE", of)),
                Change::Delete(_) => Err(self.no_place_for("a DELETE", of)),
                Change::Truncate => Err(self.no_place_for("a TRUNCATE", of)),
            },
        }
    }

    /// The row as it stands after the change. A row that gets another key goes away under the old one. One that cannot be read is not in the
    /// table from then on, as if it had just been copied: what was there is no longer so, and no later change may be filled from it.
    fn change_state(&mut self, target: &Target, change: Change<'_>, of: &Transaction, lsn: u64) -> Result<(), BadRow> {
        match change {
            Change::Insert(new) => self.put(target, new, None, &event("c", of, lsn)),
            Change::Update(old, new) => {
                let before = old.map(|old| old.tuple());
                let left = before.filter(|before| target.another_key(*before, new));
                // Under a key that is null, or cannot be read, there was no row.
                let deleted = left.is_some_and(|left| self.append(target, left, None, Op::Delete, &event("d", of, lsn)).is_ok());
                self.put(target, new, before, &event("u", of, lsn))?;
                if deleted {
                    self.rows.moved();
                }
                Ok(())
            }
            Change::Delete(old) => self.append(target, old.tuple(), None, Op::Delete, &event("d", of, lsn)),
            Change::Truncate => {
                self.rows.truncate(&self.followed, Op::Truncate, &event("t", of, lsn));
                Ok(())
            }
        }
    }

    fn put(&mut self, target: &Target, new: Tuple<'_>, before: Option<Tuple<'_>>, event: &Event) -> Result<(), BadRow> {
        self.append(target, new, before, Op::Put, event).inspect_err(|_| {
            // Under a key that cannot be read either, there is no row.
            let _ = self.append(target, new, before, Op::Delete, event);
        })
    }

    /// The change itself: of a deleted row, what is told of it.
    fn append_change(&mut self, target: &Target, change: Change<'_>, of: &Transaction, lsn: u64) -> Result<(), BadRow> {
        let (tuple, before, letter) = match change {
            Change::Insert(new) => (new, None, "c"),
            Change::Update(old, new) => (new, old.map(|old| old.tuple()), "u"),
            Change::Delete(old) => (old.tuple(), None, "d"),
            Change::Truncate => {
                self.rows.truncate(&self.followed, Op::Put, &event("t", of, lsn));
                return Ok(());
            }
        };
        self.append(target, tuple, before, Op::Put, &event(letter, of, lsn))
    }

    fn append(&mut self, target: &Target, tuple: Tuple<'_>, before: Option<Tuple<'_>>, op: Op, event: &Event) -> Result<(), BadRow> {
        self.rows.append(&self.followed, &target.places, tuple, before, op, event)
    }

    fn no_place_for(&self, what: &str, of: &Transaction) -> Error {
        let (id, source) = (&self.followed.id, self.followed.source());
        let what = format!(
            "{what} of {source} in transaction {} has no place in table `{id}`, which holds inserts alone: add \"__op\" to its `metadata`, so \
             that it holds changes; or give {source} a key, so that it holds rows as they stand",
            of.xid
        );
        Error::data("append_only", what).of(&self.followed.id)
    }
}

fn new_type(column: &str, followed: &Followed) -> String {
    format!("column `{column}` of {} has values of a type that came later", followed.source())
}

fn event(op: &'static str, of: &Transaction, lsn: u64) -> Event {
    Event {
        op,
        lsn,
        xid: Some(of.xid),
        committed_ms: Some(of.committed_ms()),
    }
}

/// A row with a value that cannot be read, as a reject.
pub(super) fn reject(bad: &BadRow) -> Reject {
    Reject {
        index: 0,
        stage: if bad.bad.is_missing_key() { "key" } else { "decode" },
        code: bad.bad.code,
        message: format!("column `{}`: {}", bad.column, bad.bad.message),
    }
}

fn unknown(relation: u32, of: &Transaction) -> Error {
    Error::bug(format!(
        "transaction {} changes relation {relation}, which was not introduced",
        of.xid
    ))
}

#[cfg(test)]
mod tests;
