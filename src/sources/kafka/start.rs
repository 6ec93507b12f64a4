//! Where a lane is begun: the one decision that everything else trusts, as a pure function.
//!
//! What a table holds is compared with what the topic holds now. Either the next record is where it must be, or nobody guesses: a topic
//! that was made anew, cut back or overtaken by retention stops the pipeline, with the sizes and the choices in the message.

use std::ops::Range;

use crate::config::{OnGap, Start};

/// What is known of a lane before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<'a> {
    /// The first offset that the table lacks; None where nothing says so far where it begins.
    pub next: Option<u64>,
    /// The topic's id as the table has it, and as the broker tells it now; None where none was told.
    pub held_id: Option<&'a str>,
    pub id: Option<&'a str>,
    /// First offset that the broker still has.
    pub low: u64,
    /// First offset that no committed record has yet.
    pub high: u64,
}

/// Where to begin when nothing is known, and whether to pass over what retention took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub start: Start,
    pub on_gap: OnGap,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Read from this offset on.
    At(u64),
    /// Read from the end of these offsets on, and put on record that they are missing.
    Behind(Range<u64>),
}

impl Begin {
    /// The offset that is asked for.
    pub fn offset(&self) -> u64 {
        match self {
            Begin::At(offset) => *offset,
            Begin::Behind(missing) => missing.end,
        }
    }
}

/// Why a lane is not begun at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The name is that of another topic now.
    Recreated { held: String, now: Option<String> },
    /// Retention passed the table: these offsets are gone.
    Gap(Range<u64>),
    /// The table holds offsets that the topic does not have.
    Truncated { held: u64, high: u64 },
}

/// The offset that a lane is begun at for one table.
pub fn begin(known: Known<'_>, policy: Policy) -> Result<Begin, Refusal> {
    let Known {
        next,
        held_id,
        id,
        low,
        high,
    } = known;
    // A table that was fed when the broker told no ids has nothing to compare: the offsets below must do.
    if held_id.is_some() && held_id != id {
        return Err(Refusal::Recreated {
            held: held_id.unwrap_or_default().to_owned(),
            now: id.map(str::to_owned),
        });
    }
    let Some(next) = next else {
        return Ok(Begin::At(match policy.start {
            Start::Earliest => low,
            Start::Latest => high,
        }));
    };
    if next > high {
        return Err(Refusal::Truncated { held: next - 1, high });
    }
    match policy.on_gap {
        _ if next >= low => Ok(Begin::At(next)),
        OnGap::Stop => Err(Refusal::Gap(next..low)),
        OnGap::Earliest => Ok(Begin::Behind(next..low)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STOP: Policy = Policy {
        start: Start::Earliest,
        on_gap: OnGap::Stop,
    };
    const LATEST: Policy = Policy {
        start: Start::Latest,
        on_gap: OnGap::Stop,
    };
    const SKIP: Policy = Policy {
        start: Start::Earliest,
        on_gap: OnGap::Earliest,
    };

    fn known(held: Option<u64>, low: u64, high: u64) -> Known<'static> {
        Known {
            next: held.map(|held| held + 1),
            held_id: Some("A"),
            id: Some("A"),
            low,
            high,
        }
    }

    #[test]
    fn a_lane_begins_where_its_table_ends_or_not_at_all() {
        let cases = [
            ("unread, from the beginning", known(None, 5, 9), STOP, Ok(Begin::At(5))),
            ("unread, from the end", known(None, 5, 9), LATEST, Ok(Begin::At(9))),
            ("unread and empty", known(None, 0, 0), STOP, Ok(Begin::At(0))),
            ("in the middle", known(Some(6), 5, 9), STOP, Ok(Begin::At(7))),
            (
                "start = latest is for unread lanes only",
                known(Some(6), 5, 9),
                LATEST,
                Ok(Begin::At(7)),
            ),
            ("everything read", known(Some(8), 5, 9), STOP, Ok(Begin::At(9))),
            ("everything read and then deleted", known(Some(8), 9, 9), STOP, Ok(Begin::At(9))),
            ("the next record is the oldest", known(Some(4), 5, 9), STOP, Ok(Begin::At(5))),
            ("k4: retention passed us", known(Some(3), 5, 9), STOP, Err(Refusal::Gap(4..5))),
            (
                "k4: retention passed us, which is allowed",
                known(Some(3), 5, 9),
                SKIP,
                Ok(Begin::Behind(4..5)),
            ),
            (
                "k4: all is gone, which is allowed",
                known(Some(3), 9, 9),
                SKIP,
                Ok(Begin::Behind(4..9)),
            ),
            (
                "k5: cut back",
                known(Some(9), 5, 9),
                STOP,
                Err(Refusal::Truncated { held: 9, high: 9 }),
            ),
            (
                "k5: cut back is not a gap",
                known(Some(20), 5, 9),
                SKIP,
                Err(Refusal::Truncated { held: 20, high: 9 }),
            ),
        ];
        for (what, known, policy, expected) in cases {
            assert_eq!(begin(known, policy), expected, "{what}");
        }
    }

    #[test]
    fn k4_a_lane_of_which_nothing_was_read_has_gaps_too() {
        let from_the_first = |low| Known {
            next: Some(0),
            ..known(None, low, 9)
        };
        assert_eq!(begin(from_the_first(0), LATEST), Ok(Begin::At(0)));
        assert_eq!(begin(from_the_first(5), STOP), Err(Refusal::Gap(0..5)));
        assert_eq!(begin(from_the_first(5), SKIP), Ok(Begin::Behind(0..5)));
    }

    #[test]
    fn k6_a_topic_made_anew_is_another_topic_whatever_its_offsets_are() {
        let anew = Known {
            id: Some("B"),
            ..known(Some(6), 0, 9)
        };
        assert_eq!(
            begin(anew, SKIP),
            Err(Refusal::Recreated {
                held: "A".into(),
                now: Some("B".into())
            })
        );
        let untold = Known {
            id: None,
            ..known(Some(6), 0, 9)
        };
        assert_eq!(
            begin(untold, STOP),
            Err(Refusal::Recreated {
                held: "A".into(),
                now: None
            })
        );
        let never_told = Known {
            held_id: None,
            ..known(Some(6), 0, 9)
        };
        assert_eq!(begin(never_told, STOP), Ok(Begin::At(7)));
    }

    proptest! {
        /// Whatever is known: a lane that begins has lost nothing without a word, and asks for an offset that the broker can answer.
        #[test]
        fn nothing_is_passed_over_in_silence(held in 0..30_u64, low in 0..30_u64, more in 0..30_u64, skip: bool) {
            let high = low + more;
            let on_gap = if skip { OnGap::Earliest } else { OnGap::Stop };
            match begin(known(Some(held), low, high), Policy { start: Start::Latest, on_gap }) {
                Ok(Begin::At(offset)) => {
                    prop_assert_eq!(offset, held + 1);
                    prop_assert!((low..=high).contains(&offset));
                }
                Ok(Begin::Behind(missing)) => {
                    prop_assert!(skip);
                    prop_assert_eq!(missing, held + 1..low);
                }
                Err(Refusal::Gap(missing)) => {
                    prop_assert!(!skip);
                    prop_assert_eq!(missing, held + 1..low);
                }
                Err(Refusal::Truncated { .. }) => prop_assert!(held >= high),
                Err(Refusal::Recreated { .. }) => prop_assert!(false, "the ids are equal"),
            }
        }
    }
}
