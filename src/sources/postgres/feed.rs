//! A table that a flow is opened with, and what it holds of the database.

use super::again::Held;
use super::catalog::PgTable;
use super::changes::Known;
use super::followed::Followed;
use crate::position::Position;

/// A table, and what it holds.
#[derive(Clone, Debug)]
pub struct Feed {
    pub source: PgTable,
    pub followed: Followed,
    pub holds: Holds,
    pub known: Known,
    /// Of a table that is ahead of others: where its versions stand behind what these hold.
    pub marks: Vec<Position>,
}

/// What a table holds of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Nothing yet: it is to be copied.
    Nothing,
    /// Rows of an earlier copy, which are to be replaced by a new one.
    OldCopy,
    /// Everything up to here.
    UpTo(u64),
}

impl Feed {
    /// The table, and up to where it holds everything.
    pub fn held_by(&self) -> Option<Held<'_>> {
        Some(Held::of(&self.followed, self.held()?))
    }

    pub fn held(&self) -> Option<u64> {
        match self.holds {
            Holds::UpTo(at) => Some(at),
            Holds::Nothing | Holds::OldCopy => None,
        }
    }
}
