//! Commits that bring no rows: positions, or properties of the table.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::change::Change;
use crate::log::commit::{Put, RACES_MAX};
use crate::position::Checkpoint;
use crate::table::Version;

impl Log {
    /// Publishes positions by themselves, be they behind those that are there.
    ///
    /// Errors: `conflict` where others commit without a pause.
    pub async fn set(&mut self, marks: &Checkpoint, operation: &'static str) -> Result<Version> {
        self.insist(Change {
            mark: marks.clone(),
            operation,
            ..Change::default()
        })
        .await
    }

    /// Gives properties of the table other values.
    ///
    /// Errors: `conflict` where others commit without a pause.
    pub async fn set_properties(&mut self, properties: BTreeMap<String, String>) -> Result<Version> {
        self.insist(Change {
            properties,
            operation: "SET TBLPROPERTIES",
            ..Change::default()
        })
        .await
    }

    /// Publishes a change without rows, whatever others publish meanwhile.
    async fn insist(&mut self, mut change: Change) -> Result<Version> {
        let name = self.url.to_string();
        self.make(&name).await?;
        for _ in 0..RACES_MAX {
            change.base = self.checkpoint().of_lanes(&change.mark);
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
