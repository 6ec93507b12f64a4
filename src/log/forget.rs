//! How a table is told to be loaded again: the one commit by which a mark goes back.
//!
//! The mark of a lane becomes 0, which no source ever reaches; the rows stay as they are, until whoever feeds the table replaces them and
//! sets the mark anew in one version. A writer that is at work meanwhile is fenced by it, opens again from the log, and sees what is asked.

use tracing::info;

use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::change::Change;
use crate::log::commit::{Put, RACES_MAX};
use crate::position::{Checkpoint, Lane, Position};
use crate::table::Version;

/// Of a lane whose rows are to be loaded again.
pub const FORGOTTEN: Position = Position(0);

impl Log {
    /// Publishes that what the table holds of this lane is to be loaded again.
    ///
    /// Errors: `conflict` where others commit without a pause; a lane that the table does not hold is the caller's mistake.
    pub async fn forget(&mut self, lane: &Lane) -> Result<Version> {
        let name = self.url.to_string();
        let Some(held) = self.checkpoint().get(lane) else {
            return Err(Error::bug(format!(
                "the table {name} holds nothing of lane {lane} that it could forget"
            )));
        };
        let version = self.set(&Checkpoint::from_iter([(lane.clone(), FORGOTTEN)]), "RESNAPSHOT").await?;
        info!(table = name, held = lane.show(held), "to be loaded again");
        Ok(version)
    }

    /// Publishes positions by themselves, be they behind those that are there.
    pub async fn set(&mut self, marks: &Checkpoint, operation: &'static str) -> Result<Version> {
        let name = self.url.to_string();
        for _ in 0..RACES_MAX {
            let change = Change {
                mark: marks.clone(),
                base: self.checkpoint().only(|lane| marks.get(lane).is_some()),
                operation,
                ..Change::default()
            };
            self.same_table().await?;
            let plan = self.plan(&change).await?;
            match self.put(&plan, &name).await? {
                Put::Made(e_tag) | Put::Recovered(e_tag) => return self.adopt(plan, e_tag),
                Put::Lost => {
                    self.catch_up().await?;
                    self.wait(1).await;
                }
            }
        }
        let what = format!("{RACES_MAX} commits to {name} lost their race: other programs flood the table");
        Err(Error::transient("conflict", what))
    }
}
