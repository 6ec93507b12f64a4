//! The fold: of all staged changes, the last one of each key wins.
//!
//! Pure, and over columns: it reads keys and operations, never a cell, and answers which rows of which batch are to be written. A put and a
//! later delete leave the delete, because the table may hold an older row of the key. A truncation clears everything before it.

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;

use super::keys::{Address, Key, KeyTable, Shape};
use crate::batch::Op;

/// A run of changes, one key and one operation a row. The key of a truncation is not read.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub keys: &'a [Key],
    pub ops: &'a [Op],
}

/// What is left of a number of runs.
#[derive(Debug)]
pub struct Folded {
    /// All rows that were there before the first run are gone.
    pub truncated: bool,
    /// By run: the rows that are the last word on their key.
    pub last: Vec<BooleanBuffer>,
    /// By run and row, for rows that were asked for: the change of the same key that came before, if these runs hold one.
    pub before: Vec<(Address, Option<Address>)>,
}

/// Folds runs in the order in which they came. Rows for which `follow` holds get the change before them told: rows with cells that
/// the source did not send are filled from there.
pub fn fold(shape: Shape, runs: &[Run<'_>], follow: impl Fn(Address) -> bool) -> Folded {
    let rows: usize = runs.iter().map(|run| run.ops.len()).sum();
    let begin = last_truncate(runs);
    let mut latest = KeyTable::new(shape, rows);
    let mut last: Vec<BooleanBufferBuilder> = runs.iter().map(|run| none(run.ops.len())).collect();
    let mut before = Vec::new();
    let start = begin.map_or((0, 0), |at| (at.file as usize, at.row as usize + 1));
    for (file, run) in runs.iter().enumerate().skip(start.0) {
        let first = if file == start.0 { start.1 } else { 0 };
        for (row, &key) in run.keys.iter().enumerate().skip(first) {
            let here = Address {
                file: file as u32,
                row: row as u32,
            };
            let superseded = latest.insert(key, here);
            if let Some(old) = superseded {
                last[old.file as usize].set_bit(old.row as usize, false);
            }
            last[file].set_bit(row, true);
            if follow(here) {
                before.push((here, superseded));
            }
        }
    }
    let last = last.into_iter().map(|mut bits| bits.finish()).collect();
    Folded {
        truncated: begin.is_some(),
        last,
        before,
    }
}

fn none(rows: usize) -> BooleanBufferBuilder {
    let mut bits = BooleanBufferBuilder::new(rows);
    bits.append_n(rows, false);
    bits
}

fn last_truncate(runs: &[Run<'_>]) -> Option<Address> {
    let with_row = |(file, run): (usize, &Run<'_>)| {
        let row = run.ops.iter().rposition(|&op| op == Op::Truncate)?;
        Some(Address {
            file: file as u32,
            row: row as u32,
        })
    };
    runs.iter().enumerate().rev().find_map(with_row)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![6 => Just(Op::Put), 3 => Just(Op::Delete), 1 => Just(Op::Truncate)]
    }

    fn runs() -> impl Strategy<Value = Vec<Vec<(u64, Op)>>> {
        prop::collection::vec(prop::collection::vec((0..12u64, op()), 0..20), 0..6)
    }

    /// The naive fold: one change after the other into a sorted map of key → (where, what).
    fn naive(runs: &[Vec<(u64, Op)>]) -> (bool, BTreeMap<u64, (Address, Op)>) {
        let (mut truncated, mut map) = (false, BTreeMap::new());
        for (file, run) in runs.iter().enumerate() {
            for (row, &(key, op)) in run.iter().enumerate() {
                if op == Op::Truncate {
                    (truncated, map) = (true, BTreeMap::new());
                } else {
                    map.insert(
                        key,
                        (
                            Address {
                                file: file as u32,
                                row: row as u32,
                            },
                            op,
                        ),
                    );
                }
            }
        }
        (truncated, map)
    }

    proptest! {
        #[test]
        fn the_fold_equals_the_naive_fold(changes in runs(), hashed: bool) {
            let shape = if hashed { Shape::Hashed } else { Shape::Exact };
            let keys: Vec<Vec<Key>> = changes.iter().map(|run| run.iter().map(|c| Key([c.0, 0])).collect()).collect();
            let ops: Vec<Vec<Op>> = changes.iter().map(|run| run.iter().map(|c| c.1).collect()).collect();
            let runs: Vec<Run<'_>> = keys.iter().zip(&ops).map(|(keys, ops)| Run { keys, ops }).collect();
            let folded = fold(shape, &runs, |_| false);
            let (truncated, model) = naive(&changes);
            prop_assert_eq!(folded.truncated, truncated);
            let mut left = BTreeMap::new();
            for (file, bits) in folded.last.iter().enumerate() {
                for row in bits.set_indices() {
                    left.insert(keys[file][row].0[0], (Address { file: file as u32, row: row as u32 }, ops[file][row]));
                }
            }
            prop_assert_eq!(left, model);
        }

        #[test]
        fn a_followed_row_is_told_the_change_before_it(changes in runs()) {
            let keys: Vec<Vec<Key>> = changes.iter().map(|run| run.iter().map(|c| Key([c.0, 0])).collect()).collect();
            let ops: Vec<Vec<Op>> = changes.iter().map(|run| run.iter().map(|c| c.1).collect()).collect();
            let runs: Vec<Run<'_>> = keys.iter().zip(&ops).map(|(keys, ops)| Run { keys, ops }).collect();
            for (here, before) in fold(Shape::Exact, &runs, |_| true).before {
                let (file, row) = (here.file as usize, here.row as usize);
                let mut until: Vec<Vec<(u64, Op)>> = changes[..=file].to_vec();
                until[file].truncate(row);
                // A change before the last truncation of all runs is not told of at all; so only its end can differ from the naive one.
                let expected = naive(&until).1.get(&changes[file][row].0).map(|found| found.0);
                prop_assert_eq!(before, expected);
            }
        }
    }

    #[test]
    fn u2_a_put_and_a_delete_leave_the_delete() {
        let (keys, ops) = ([Key([1, 0]), Key([1, 0])], [Op::Put, Op::Delete]);
        let folded = fold(Shape::Exact, &[Run { keys: &keys, ops: &ops }], |_| false);
        assert_eq!(folded.last[0].set_indices().collect::<Vec<_>>(), [1]);
    }
}
