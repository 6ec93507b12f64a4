//! Which letters the dead-letter table holds already, of those that a source may come to once more.
//!
//! Letters are committed before the data, so after a crash they may be ahead of a table, whose bad records are then read again. But a
//! table that was added later, or was left out for a while, is behind the letters too, and its letters are not there. No mark tells the
//! one from the other: the letters themselves do. So a letter is passed over if and only if that very letter is there.

use std::collections::HashSet;

/// Letters, by their ids.
#[derive(Debug, Default)]
pub struct Delivered(HashSet<Box<str>>);

impl Delivered {
    pub fn insert(&mut self, id: &str) {
        self.0.insert(id.into());
    }

    pub fn has(&self, id: &str) -> bool {
        self.0.contains(id)
    }
}
