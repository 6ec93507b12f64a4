//! Whether a server was set back to an earlier state of its own, as by a snapshot of its disk that was restored.
//!
//! Such a server has the same identifier and the same timeline, and when its WAL has passed once more what the tables hold, nothing that it tells
//! of itself gives it away, but for its slot. From where on a slot keeps WAL (`restart_lsn`) is on the server's disk before it counts, so it
//! never goes back, not in a crash either. The dead-letter table keeps how far it was seen.
//!
//! It moves on when the server logs which transactions are open, every 15 s at the earliest, and to where the oldest of them began: a state
//! from after that has the slot where it was seen, and is not told from one that was never left.

use super::again::{Held, copy_again};
use super::slot::Slot;
use crate::error::Result;
use crate::position::{Lane, Lsn, Position};

/// The lane whose position is how far a slot was seen to have come.
pub fn lane(slot: &Lane) -> Lane {
    Lane::new(format!("{}/restart@{}", slot.name(), slot.incarnation().unwrap_or_default()))
}

/// Whether the slot is where it was seen on this timeline (`kept`), or further on. `held`: tables that hold changes that were read through it.
pub fn check<'t>(slot: &Slot, kept: Option<Position>, held: impl IntoIterator<Item = Held<'t>>) -> Result<()> {
    let (Some(kept), Some(now)) = (kept, slot.restart) else {
        return Ok(());
    };
    let mut held = held.into_iter().peekable();
    if now >= kept.0 || held.peek().is_none() {
        return Ok(());
    }
    let what = format!(
        "the server was set back to an earlier state (a snapshot of its disk was restored): the replication slot `{}` keeps WAL from {}, and did from \
         {} before, which no slot goes back behind. What the server has written since is at positions that tables hold already",
        slot.name,
        Lsn(now),
        Lsn(kept.0),
    );
    Err(copy_again("server_set_back", what, held))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_went_back_tells_of_a_server_that_was_set_back() {
        let cases = [
            (Some(20), Some(20), true, true),
            (Some(20), Some(21), true, true),
            (Some(20), Some(19), true, false),
            // All are to be copied.
            (Some(20), Some(19), false, true),
            // Not seen yet, or given up.
            (None, Some(19), true, true),
            (Some(20), None, true, true),
        ];
        for (kept, restart, is_held, fits) in cases {
            let slot = Slot {
                restart,
                ..Slot::default()
            };
            let held = Held {
                table: "t",
                at: 50,
                only_grows: false,
            };
            let checked = check(&slot, kept.map(Position), is_held.then_some(held));
            assert_eq!(checked.is_ok(), fits, "{kept:?} {restart:?} {is_held}");
            let said = checked.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(fits || said.contains("keeps WAL from 0/13, and did from 0/14"), "{said}");
        }
    }
}
