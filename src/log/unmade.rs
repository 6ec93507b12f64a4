//! How a table comes to be: its version 0 is prepared in memory, where the log looks as if it were there, and put before the first
//! commit; or at once, where readers are to see an empty table.

use std::sync::Arc;

use object_store::ObjectStore;
use url::Url;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::commit::Put;
use crate::log::create::first_actions;
use crate::log::entries::Entries;
use crate::log::plan::{Plan, body};
use crate::log::replay::Replayed;
use crate::log::snapshot::Snapshot;
use crate::table::{Table, Version};
use crate::telemetry;

impl Log {
    /// Opens the table for writing, and makes it if it is not there. Of two that make it at once, the loser opens what the winner made.
    pub async fn open_or_create(url: &Url, store: Arc<dyn ObjectStore>, table: &Table, pipeline: &str) -> Result<Self> {
        let mut log = Self::open_or_prepare(url, Arc::clone(&store), table, pipeline).await?;
        match log.try_make(table.id.as_str()).await? {
            true => Ok(log),
            false => Self::open_or_prepare(url, store, table, pipeline).await,
        }
    }

    /// Opens the table for writing, and checks that it is what the pipeline takes it for; one that is not there is made by the first commit.
    pub async fn open_or_prepare(url: &Url, store: Arc<dyn ObjectStore>, table: &Table, pipeline: &str) -> Result<Self> {
        let mut log = match Self::open(url, Arc::clone(&store), pipeline).await? {
            Some(log) => log,
            None => Self::unmade(url, store, table, pipeline)?,
        };
        log.check(table).await?;
        Ok(log)
    }

    /// The newest version that is known here; None of a table that is still to be made.
    pub fn version(&self) -> Option<Version> {
        self.unmade.is_empty().then_some(self.snapshot.version)
    }

    fn unmade(url: &Url, store: Arc<dyn ObjectStore>, table: &Table, pipeline: &str) -> Result<Self> {
        let entries = Entries {
            store,
            place: url.as_str().into(),
        };
        let actions = first_actions(table, pipeline, telemetry::now_us() / 1000)?;
        let mut snapshot = Snapshot::empty();
        snapshot.apply(actions.clone())?;
        let replayed = Replayed {
            snapshot,
            tail: Vec::new(),
            e_tag: None,
            checkpointed: 0,
        };
        Ok(Self {
            unmade: actions,
            ..Self::from_parts(entries, url, replayed, pipeline)
        })
    }

    /// Makes the table if that is left to do.
    ///
    /// Errors: `fenced` where another has made it meanwhile.
    pub(super) async fn make(&mut self, name: &str) -> Result<()> {
        match self.try_make(name).await? {
            true => Ok(()),
            false => Err(Error::fenced(format!(
                "another has made the table at {} meanwhile: this one opens again from the log",
                self.url
            ))),
        }
    }

    /// False: another has made it meanwhile.
    async fn try_make(&mut self, name: &str) -> Result<bool> {
        let mut actions = std::mem::take(&mut self.unmade);
        let Some(info) = actions.iter_mut().find_map(|action| action.commit_info.as_mut()) else {
            return Ok(true);
        };
        // Its time is that of its making: what was staged for it may have taken long.
        let (timestamp_ms, txn_id) = (telemetry::now_us() / 1000, Uuid::new_v4().to_string());
        (info.timestamp, info.txn_id) = (Some(timestamp_ms), Some(txn_id.clone()));
        let plan = Plan {
            timestamp_ms,
            txn_id,
            body: body(&actions)?,
            ..Plan::default()
        };
        match self.put(&plan, name).await? {
            Put::Made(e_tag) | Put::Recovered(e_tag) => self.adopt(plan, e_tag).map(|_| true),
            Put::Lost => Ok(false),
        }
    }
}
