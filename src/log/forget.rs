//! How a table is told to be loaded again: the one commit by which a mark goes back.
//!
//! The mark of a lane becomes 0, which no source ever reaches; the rows stay as they are, until whoever feeds the table replaces them and
//! sets the mark anew in one version. A writer that is at work meanwhile is fenced by it ([`TOLD_AGAIN`]), opens again
//! from the log, and sees what is asked.

use tracing::info;

use crate::error::{Error, Result};
use crate::log::Log;
use crate::position::{Checkpoint, Lane, Position};
use crate::table::Version;

/// Of a lane whose rows are to be loaded again.
pub const FORGOTTEN: Position = Position(0);

/// The code of the error by which a writer finds out.
pub const TOLD_AGAIN: &str = "told_again";

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
}
