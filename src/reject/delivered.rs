//! Which letters the dead-letter table holds already, of those that a source may come to once more.
//!
//! Letters are committed before the data, so after a crash they may be ahead of a table, whose bad records are then read again. But a
//! table that was added later, or was left out for a while, is behind the letters too, and its letters are not there. No mark tells the
//! one from the other: the letters themselves do. So a letter is passed over if and only if that very letter is there.

use std::collections::{HashMap, HashSet};

/// Letters, by what tells them apart: the table that they are for, and their id.
#[derive(Debug, Default)]
pub struct Delivered(HashMap<Box<str>, HashSet<Box<str>>>);

impl Delivered {
    pub fn insert(&mut self, table: &str, id: &str) {
        match self.0.get_mut(table) {
            Some(ids) => _ = ids.insert(id.into()),
            None => _ = self.0.insert(table.into(), HashSet::from([id.into()])),
        }
    }

    pub fn has(&self, table: &str, id: &str) -> bool {
        self.0.get(table).is_some_and(|ids| ids.contains(id))
    }

    pub fn len(&self) -> usize {
        self.0.values().map(HashSet::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
