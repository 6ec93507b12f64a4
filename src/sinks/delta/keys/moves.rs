//! Rows that compaction has written again: addresses in the old file lead to the new one, by position.
//!
//! A compaction keeps the order of rows, so that a row's new place follows from its old one: it is the number of live rows before it. So the
//! index need not be told of every key that has moved, which would hold up a commit for as long as a file has keys; an address is led
//! on when it is asked for.

use std::sync::Arc;

use roaring::RoaringTreemap;

use super::Address;

/// Where the rows of one file went.
#[derive(Debug)]
pub struct Moved {
    /// The file that has them now.
    pub to: u32,
    /// Where the first of them stands there.
    pub first: u32,
    /// Rows that were dead already, and were left behind.
    pub left: Arc<RoaringTreemap>,
}

/// The files of an index whose rows have moved.
#[derive(Debug, Default)]
pub struct Moves {
    /// By the number of the old file.
    moved: Vec<Option<Moved>>,
    files: usize,
    rows: u64,
}

impl Moves {
    /// The rows of a file, `rows` in number, have moved.
    pub fn insert(&mut self, file: u32, rows: u64, moved: Moved) {
        let place = file as usize;
        if place >= self.moved.len() {
            self.moved.resize_with(place + 1, || None);
        }
        self.moved[place] = Some(moved);
        self.files += 1;
        self.rows += rows;
    }

    /// Where a row stands now; None where it was left behind.
    pub fn lead(&self, mut at: Address) -> Option<Address> {
        while let Some(Some(moved)) = self.moved.get(at.file as usize) {
            let row = u64::from(at.row);
            if moved.left.contains(row) {
                return None;
            }
            // Fewer rows were left behind than there are before this one.
            let before = row - moved.left.rank(row);
            at = Address {
                file: moved.to,
                row: moved.first + before as u32,
            };
        }
        Some(at)
    }

    pub fn files(&self) -> usize {
        self.files
    }

    /// Rows of the files that have moved.
    pub fn rows(&self) -> u64 {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Two files into one, and that with another into a third: each row is found where a copy of the live rows has it.
        #[test]
        fn a_row_is_led_to_where_copying_the_live_rows_puts_it(
            dead in prop::collection::vec(prop::collection::btree_set(0_u64..40, 0..30), 3),
            dead_again in prop::collection::btree_set(0_u64..80, 0..60),
        ) {
            let row = |file: u32, row: u64| Address { file, row: row as u32 };
            let left = |dead: &std::collections::BTreeSet<u64>| Arc::new(dead.iter().copied().collect::<RoaringTreemap>());
            let live = |file: u32, dead: &std::collections::BTreeSet<u64>, rows: u64| {
                (0..rows).filter(|at| !dead.contains(at)).map(|at| row(file, at)).collect::<Vec<_>>()
            };
            let mut moves = Moves::default();
            // Files 0 and 1 go into file 3; what of it lives, and what of file 2 lives, into file 4.
            let third = [live(0, &dead[0], 40), live(1, &dead[1], 40)].concat();
            moves.insert(0, 40, Moved { to: 3, first: 0, left: left(&dead[0]) });
            moves.insert(1, 40, Moved { to: 3, first: 40 - dead[0].len() as u32, left: left(&dead[1]) });
            let survivors: Vec<Address> =
                third.iter().enumerate().filter(|(at, _)| !dead_again.contains(&(*at as u64))).map(|(_, &from)| from).collect();
            let gone = dead_again.iter().copied().filter(|&at| at < third.len() as u64).collect();
            moves.insert(3, third.len() as u64, Moved { to: 4, first: 0, left: left(&gone) });
            moves.insert(2, 40, Moved { to: 4, first: survivors.len() as u32, left: left(&dead[2]) });
            let fourth = [survivors, live(2, &dead[2], 40)].concat();
            for at in (0..3).flat_map(|file| (0..40).map(move |at| row(file, at))) {
                let place = fourth.iter().position(|&from| from == at).map(|place| row(4, place as u64));
                prop_assert_eq!(moves.lead(at), place);
            }
            prop_assert_eq!(moves.lead(row(9, 7)), Some(row(9, 7)));
        }
    }
}
