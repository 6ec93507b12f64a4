//! Timelines: whether what the tables hold was ever there, on the server that is read now.
//!
//! A standby that is promoted leaves its primary's timeline at the end of the WAL that it has received, and begins one of its own. What the
//! tables hold from behind that point never came to be there, and what is written there anew would be taken for what they hold.

use tracing::warn;

use super::again::{Held, copy_again};
use super::connection::{Address, INTERNAL, POOLER, Replication};
use super::set_back;
use crate::error::{Error, Result};
use crate::position::{Checkpoint, Lane, Lsn, Position};

/// Where the first timeline begins, told from 0, which stands for one that is not known.
const FIRST: u64 = 1;
/// The timeline is not known: a standby goes over to the next one while it is read.
pub const UNKNOWN: Position = Position(0);

/// What refuses the history, of a server that is there: its file may be gone.
const REFUSED: [&str; 4] = ["postgres_error", INTERNAL, "postgres_refused", "postgres_denied"];

/// What a server tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// What tells this cluster from any other, its restored copies excepted.
    pub identifier: String,
    /// Where each of its timelines began, the present one last. Two servers that have one in common have the same WAL up to its end.
    /// Empty where the server does not tell.
    began: Vec<u64>,
}

impl System {
    pub async fn of(address: &Address) -> Result<Self> {
        let mut connection = Replication::open(address).await?;
        if connection.is_pooled().await? {
            let what = format!(
                "a connection pooler stands before {address}: what our sessions are set to, and the snapshots that they read, go for others, or for \
                 none. Connect to the server itself"
            );
            return Err(Error::config(POOLER, what));
        }
        let rows = connection.query("IDENTIFY_SYSTEM").await?;
        let cell = |place: usize| rows.first().and_then(|row| row.get(place).cloned().flatten());
        let strange = || Error::bug("the server answered IDENTIFY_SYSTEM without its identifier and its timeline");
        let (identifier, timeline) = (cell(0).ok_or_else(strange)?, cell(1).ok_or_else(strange)?);
        let mut began = vec![FIRST];
        // The first has no history.
        if timeline != "1" {
            match connection.query(&format!("TIMELINE_HISTORY {timeline}")).await {
                Ok(rows) => {
                    let text = rows.into_iter().next().and_then(|row| row.into_iter().nth(1)).flatten();
                    let left = text.as_deref().and_then(left);
                    began.extend(left.ok_or_else(|| Error::bug(format!("the history of timeline {timeline} cannot be read")))?);
                }
                Err(refused) if REFUSED.contains(&refused.code) => {
                    warn!(timeline, error = %refused, "the server does not tell its timelines: a failover that loses changes cannot be seen");
                    began.clear();
                }
                Err(failure) => return Err(failure),
            }
        }
        connection.close().await;
        Ok(Self { identifier, began })
    }

    /// The present timeline, as it is kept: where it began.
    pub fn timeline(&self) -> Position {
        self.began.last().map_or(UNKNOWN, |&began| Position(began))
    }

    /// How far a slot was seen to have come on the present timeline, by what is kept of it. A slot of a standby that was promoted may be behind
    /// that of its primary.
    pub fn seen(&self, kept: &Checkpoint, slot: &Lane) -> Option<Position> {
        let timeline = kept.get(&lane(slot)).filter(|timeline| *timeline != UNKNOWN);
        kept.get(&set_back::lane(slot)).filter(|_| timeline == Some(self.timeline()))
    }

    /// Up to where this server has the WAL of a timeline that began there. None: it has never had any of it.
    fn end_of(&self, timeline: Position) -> Option<u64> {
        let place = self.began.iter().position(|&began| began == timeline.0)?;
        Some(self.began.get(place + 1).copied().unwrap_or(u64::MAX))
    }

    /// Whether the server has what tables hold that were read on a timeline, where that is known.
    pub fn check<'t>(&self, kept: Option<Position>, held: impl IntoIterator<Item = Held<'t>>) -> Result<()> {
        let Some(kept) = kept.filter(|kept| *kept != UNKNOWN && !self.began.is_empty()) else {
            return Ok(());
        };
        let end = self.end_of(kept);
        let beyond: Vec<Held<'_>> = held.into_iter().filter(|held| end.is_none_or(|end| held.at > end)).collect();
        let Some(most) = beyond.iter().map(|held| held.at).max() else {
            return Ok(());
        };
        let has = end.map_or("has nothing of the timeline that it was read on".to_owned(), |end| {
            format!("left that timeline at {}", Lsn(end))
        });
        let what = format!(
            "the server is not the one that was read: tables hold changes up to {}, and it {has} (a standby was promoted that had not received \
             them, or it was restored to an earlier state)",
            Lsn(most),
        );
        Err(copy_again("timeline_forked", what, beyond))
    }
}

/// The lane whose position is the timeline of a slot's positions.
pub fn lane(slot: &Lane) -> Lane {
    Lane::new(format!("{}/timeline@{}", slot.name(), slot.incarnation().unwrap_or_default()))
}

/// Where each timeline was left, out of the text of a history: lines of a timeline, an LSN and a reason.
fn left(history: &str) -> Option<Vec<u64>> {
    let lines = history
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| Some(Lsn::parse(line.split_whitespace().nth(1)?)?.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(at: u64) -> Held<'static> {
        Held {
            table: "t",
            at,
            only_grows: false,
        }
    }

    fn system(began: &[u64]) -> System {
        System {
            identifier: "7".to_owned(),
            began: began.to_vec(),
        }
    }

    #[test]
    fn a_history_tells_where_each_timeline_was_left() {
        assert_eq!(
            left("1\t0/3000148\tno recovery target specified\n\n2\t1/10\tbefore 2026-01-01\n"),
            Some(vec![0x0300_0148, 0x1_0000_0010])
        );
        assert_eq!(left(""), Some(vec![]));
        assert_eq!(left("1\n"), None);
    }

    #[test]
    fn tables_go_on_where_the_server_has_all_that_they_hold() {
        let promoted = system(&[FIRST, 100, 200]);
        let goes_on = |kept: u64, at: u64| promoted.check(Some(Position(kept)), [held(at)]).is_ok();
        for (kept, at, expected) in [
            (FIRST, 100, true),
            (FIRST, 101, false),
            (100, 200, true),
            (100, 201, false),
            (200, 999, true),
            // Another standby of the same primary was promoted before, and read.
            (150, 160, false),
            (UNKNOWN.0, 999, true),
        ] {
            assert_eq!(goes_on(kept, at), expected, "{kept} {at}");
        }
        assert!(promoted.check(None, [held(999)]).is_ok());
        assert!(promoted.check(Some(Position(150)), []).is_ok(), "nothing is held");
        assert_eq!(promoted.timeline(), Position(200));
        let silent = system(&[]);
        assert!(silent.check(Some(Position(FIRST)), [held(999)]).is_ok(), "nothing can be told");
        assert_eq!(silent.timeline(), UNKNOWN);
    }
}
