//! From pgoutput's messages to rows of tables: transactions, relations, keys. Pure: no clock, no connection.
//!
//! A transaction's rows are handed to each table that does not hold it yet. What a table holds is a position behind which nothing of it
//! is missing: the end of a transaction, or the point at which it was copied. So a transaction whose commit record begins before that
//! position is in the table, whole, and any other is not in it at all.

mod grow;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use grow::grow;

use super::followed::{Becomes, Followed};
use super::pgoutput::{Cell, Message, Old, Relation, Tuple};
use super::rows::{BadRow, Event, Places, Rows};
use super::types::Types;
use super::values::Specials;
use crate::batch::{ChangeBatch, Flow, Op};
use crate::error::{Error, Result};
use crate::position::Lane;
use crate::reject::{DeadLetter, DeadLetters, Reject};
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
}

struct TableState {
    followed: Followed,
    rows: Rows,
    /// What the table holds already.
    held: u64,
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

/// A table that a relation feeds.
struct Target {
    table: usize,
    places: Places,
    /// In the tuple: the columns that the key is made of.
    key: Vec<usize>,
}

/// See the head of the file.
pub struct Changes {
    lane: Lane,
    tables: Vec<TableState>,
    relations: BTreeMap<u32, Vec<Target>>,
    /// Those that came with a transaction that some table holds already, and from where on they are of concern to it.
    kept: BTreeMap<u32, (u64, Relation)>,
    /// Tables of rows as they stand that have other columns now. What these hold in rows that were there before, no change tells.
    altered: Vec<TableId>,
    types: Types,
    specials: Specials,
    letters: DeadLetters,
    letters_id: TableId,
    /// Rows of tables whose columns have grown in between.
    done: Vec<ChangeBatch>,
}

impl Changes {
    /// `tables`: each with the position that it holds.
    pub fn new(
        lane: Lane,
        tables: Vec<(Followed, u64)>,
        types: Types,
        specials: Specials,
        letters: DeadLetters,
        letters_id: TableId,
    ) -> Self {
        let state = |(followed, held): (Followed, u64)| TableState {
            rows: Rows::new(&followed, specials),
            followed,
            held,
            told: None,
            seen: (0, 0),
            counts: Counts::default(),
        };
        Self {
            lane,
            tables: tables.into_iter().map(state).collect(),
            relations: BTreeMap::new(),
            kept: BTreeMap::new(),
            altered: Vec::new(),
            types,
            specials,
            letters,
            letters_id,
            done: Vec::new(),
        }
    }

    /// Takes one message of a transaction. `lsn`: where the change stands in the WAL.
    pub fn take(&mut self, message: &Message<'_>, of: &Transaction, lsn: u64) -> Result<()> {
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
    pub fn lacking(&self, commit_lsn: u64) -> impl Iterator<Item = &TableId> {
        let lacking = self.tables.iter().filter(move |table| commit_lsn >= table.held);
        lacking.map(|table| &table.followed.id)
    }

    /// Hands over all rows so far.
    pub fn drain(&mut self, into: &mut VecDeque<Flow>) -> Result<()> {
        if let Some(rows) = self.letters.take(telemetry::now_us())? {
            into.push_back(Flow::Rows(ChangeBatch::puts(self.letters_id.clone(), rows)));
        }
        into.extend(self.done.drain(..).map(Flow::Rows));
        for table in &mut self.tables {
            into.extend(table.rows.take(&table.followed)?.map(Flow::Rows));
        }
        Ok(())
    }

    /// What became of the records since the last call, by number of the table.
    pub fn counts(&mut self) -> impl Iterator<Item = (&TableId, Counts)> {
        self.tables
            .iter_mut()
            .map(|table| (&table.followed.id, std::mem::take(&mut table.counts)))
    }

    /// Tables of rows as they stand that have other columns now.
    pub fn altered(&mut self) -> &mut Vec<TableId> {
        &mut self.altered
    }

    fn change(&mut self, relation: u32, change: Change<'_>, of: &Transaction, lsn: u64) -> Result<()> {
        if let Some((from, _)) = self.kept.get(&relation)
            && of.commit_lsn >= *from
            && let Some((_, kept)) = self.kept.remove(&relation)
        {
            self.relation(&kept, of)?;
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
                Err(reject) => {
                    table.counts.dead_letter += 1;
                    self.letters.push(&DeadLetter {
                        lane: &self.lane,
                        position: of.commit_lsn,
                        ordinal: Some(ordinal),
                        table: table.followed.id.as_str(),
                        key: None,
                        value: None,
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
            let followed = &mut table.followed;
            if followed.schema != relation.namespace || followed.table != relation.name {
                continue;
            }
            if of.commit_lsn < table.held {
                targets.extend(target(number, followed, relation));
                later = Some(later.map_or(table.held, |from| from.min(table.held)));
                continue;
            }
            let id = followed.id.clone();
            let grown = grow(followed, relation, &self.types, table.told.is_some()).map_err(|error| error.of(&id))?;
            let now: Vec<String> = relation.columns.iter().map(|column| column.name.clone()).collect();
            let is_altered = grown.columns.len() > followed.columns.len() || table.told.as_ref().is_some_and(|told| *told != now);
            if is_altered && matches!(followed.becomes, Becomes::State { .. }) {
                self.altered.push(id.clone());
            }
            table.told = Some(now);
            if grown != *followed {
                self.done.extend(table.rows.take(&table.followed)?);
                table.followed = grown;
                table.rows = Rows::new(&table.followed, self.specials);
            }
            targets.push(target(number, &table.followed, relation).map_err(|error| error.of(&id))?);
        }
        // A table is fed by one relation at a time. That of before has gone, or has another name: the server says so before its next row.
        let feeds = |before: &Target| targets.iter().any(|now: &Target| now.table == before.table);
        self.relations.retain(|id, before| *id == relation.id || !before.iter().any(feeds));
        self.relations.insert(relation.id, targets);
        match later {
            Some(from) => self.kept.insert(relation.id, (from, relation.clone())),
            None => self.kept.remove(&relation.id),
        };
        Ok(())
    }
}

impl TableState {
    /// The next change's number among those of the table in its transaction, by which its letter is known: the same at every reading,
    /// whichever other tables are read beside it.
    fn number_within(&mut self, of: &Transaction) -> u64 {
        let (transaction, count) = self.seen;
        let number = if transaction == of.commit_lsn { count } else { 0 };
        self.seen = (of.commit_lsn, number + 1);
        number
    }

    /// Ok(Err) is a row that cannot be read.
    fn change(&mut self, target: &Target, change: Change<'_>, of: &Transaction, lsn: u64) -> Result<Result<(), Reject>> {
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
    fn change_state(&mut self, target: &Target, change: Change<'_>, of: &Transaction, lsn: u64) -> Result<(), Reject> {
        match change {
            Change::Insert(new) => {
                target.must_have_key(new, &self.followed)?;
                self.put(target, new, None, &event("c", of, lsn))
            }
            Change::Update(old, new) => {
                target.must_have_key(new, &self.followed)?;
                let before = old.map(|old| old.tuple());
                if let Some(before) = before
                    && target.another_key(before, new)
                {
                    target.must_have_key(before, &self.followed)?;
                    self.append(target, before, None, Op::Delete, &event("d", of, lsn))?;
                    self.put(target, new, Some(before), &event("u", of, lsn))?;
                    self.rows.moved();
                    return Ok(());
                }
                self.put(target, new, before, &event("u", of, lsn))
            }
            Change::Delete(old) => {
                target.must_have_key(old.tuple(), &self.followed)?;
                self.append(target, old.tuple(), None, Op::Delete, &event("d", of, lsn))
            }
            Change::Truncate => {
                self.rows.truncate(&self.followed, Op::Truncate, &event("t", of, lsn));
                Ok(())
            }
        }
    }

    fn put(&mut self, target: &Target, new: Tuple<'_>, before: Option<Tuple<'_>>, event: &Event) -> Result<(), Reject> {
        self.append(target, new, before, Op::Put, event).inspect_err(|_| {
            // Under a key that cannot be read either, there is no row.
            let _ = self.append(target, new, before, Op::Delete, event);
        })
    }

    /// The change itself: of a deleted row, what is told of it.
    fn append_change(&mut self, target: &Target, change: Change<'_>, of: &Transaction, lsn: u64) -> Result<(), Reject> {
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

    fn append(&mut self, target: &Target, tuple: Tuple<'_>, before: Option<Tuple<'_>>, op: Op, event: &Event) -> Result<(), Reject> {
        let appended = self.rows.append(&self.followed, &target.places, tuple, before, op, event);
        appended.map_err(|bad| reject(&bad))
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

impl Target {
    /// A state has no row without a key.
    fn must_have_key(&self, tuple: Tuple<'_>, followed: &Followed) -> Result<(), Reject> {
        let mut key = self.key.iter().zip(followed.key());
        let null = key.find(|(place, _)| matches!(tuple.cells().nth(**place), None | Some(Cell::Null)));
        match null {
            None => Ok(()),
            Some((_, column)) => Err(Reject {
                index: 0,
                stage: "key",
                code: "missing_key",
                message: format!("the key column `{column}` of {} is null", followed.source()),
            }),
        }
    }

    fn another_key(&self, before: Tuple<'_>, after: Tuple<'_>) -> bool {
        self.key
            .iter()
            .any(|&place| match (before.cells().nth(place), after.cells().nth(place)) {
                (_, Some(Cell::Unchanged)) => false,
                (before, after) => before != after,
            })
    }
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
        stage: "decode",
        code: bad.bad.code,
        message: format!("column `{}`: {}", bad.column, bad.bad.message),
    }
}

fn target(table: usize, followed: &Followed, relation: &Relation) -> Result<Target> {
    let place = |name: &str| relation.columns.iter().position(|column| column.name == name);
    let mut key = Vec::new();
    for name in followed.key() {
        key.push(place(name).ok_or_else(|| {
            let what = format!(
                "the key column `{name}` of {} is no longer among its columns: table `{}` cannot tell rows apart any more. Choose another `key` \
                 for a new table",
                followed.source(),
                followed.id
            );
            Error::data("schema_changed", what)
        })?);
    }
    Ok(Target {
        table,
        places: Places::of(relation, followed),
        key,
    })
}

fn unknown(relation: u32, of: &Transaction) -> Error {
    Error::bug(format!(
        "transaction {} changes relation {relation}, which was not introduced",
        of.xid
    ))
}

#[cfg(test)]
mod tests;
