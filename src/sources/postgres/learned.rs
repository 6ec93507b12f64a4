//! What a flow has found out that the next one has to know, and that no table tells. It is kept as long as the process lives; another process
//! reads the same changes, and finds it out again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::partitions::Leaves;
use crate::table::TableId;

/// See the head of the file.
#[derive(Clone, Debug, Default)]
pub struct Learned(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Columns whose values could not be read, as far as the types were known.
    unread: BTreeSet<(TableId, String)>,
    as_text: bool,
    in_whole: bool,
    /// How many points for copies the stream has passed, one after the other.
    points_passed: usize,
    /// Copies were begun since the slot is ours.
    copies: bool,
    /// Tables that have to be copied again, and why.
    again: BTreeMap<TableId, &'static str>,
    /// What the partitioned tables were made of at the last look.
    leaves: Leaves,
}

impl Learned {
    /// The values of a column cannot be read with the types that are known. Whether another flow may read them: it reads the types anew; and
    /// where that did not help, because they are gone by now, it asks for text, which the server alone makes.
    pub fn cannot_read(&self, table: &TableId, column: &str, binary: bool) -> bool {
        let mut state = self.state();
        let is_new = state.unread.insert((table.clone(), column.to_owned()));
        state.as_text |= !is_new;
        is_new || binary
    }

    /// Whether values have to be asked for as text.
    pub fn as_text(&self) -> bool {
        self.state().as_text
    }

    /// The server fails at decoding transactions that are in progress: some have been seen to, at the same place each time, where DDL and
    /// subtransactions meet. Whether that is news.
    pub fn read_in_whole(&self) -> bool {
        !std::mem::replace(&mut self.state().in_whole, true)
    }

    /// Whether transactions are to be read when they are committed only.
    pub fn in_whole(&self) -> bool {
        self.state().in_whole
    }

    /// How many points for copies the stream has passed since it met one.
    pub fn points_passed(&self) -> usize {
        self.state().points_passed
    }

    /// The stream meets a point, or has passed it. Returns how many it has passed by now.
    pub fn point_was(&self, met: bool) -> usize {
        let mut state = self.state();
        state.points_passed = if met { 0 } else { state.points_passed + 1 };
        state.points_passed
    }

    /// Copies are begun. Whether they are the first since the slot is ours.
    pub fn copies_first(&self) -> bool {
        !std::mem::replace(&mut self.state().copies, true)
    }

    /// Another process has it.
    pub fn lose_slot(&self) {
        self.state().copies = false;
    }

    /// A table has to be copied again when the next flow is opened.
    pub fn copy_again(&self, table: &TableId, why: &'static str) {
        self.state().again.insert(table.clone(), why);
    }

    /// Why a table has to be copied again.
    pub fn again(&self, table: &TableId) -> Option<&'static str> {
        self.state().again.get(table).copied()
    }

    /// It will be: its log says so.
    pub fn is_to_be_copied(&self, table: &TableId) {
        self.state().again.remove(table);
    }

    pub fn leaves(&self) -> Leaves {
        self.state().leaves.clone()
    }

    pub fn are_made_of(&self, leaves: Leaves) {
        self.state().leaves = leaves;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
