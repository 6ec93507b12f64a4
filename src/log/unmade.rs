//! A table that the first commit makes: no reader sees it before it holds something.
//!
//! Until then its version 0 is in memory only, and the log looks as if it were there.

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
use crate::table::Table;
use crate::telemetry;

impl Log {
    /// Opens the table for writing, as [`Log::open_or_create`] does; one that is not there is made by the first commit.
    pub async fn open_or_prepare(url: &Url, store: Arc<dyn ObjectStore>, table: &Table, pipeline: &str) -> Result<Self> {
        let mut log = match Self::open(url, Arc::clone(&store), pipeline).await? {
            Some(log) => log,
            None => Self::unmade(url, store, table, pipeline)?,
        };
        log.check(table).await?;
        Ok(log)
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
    pub(super) async fn make(&mut self) -> Result<()> {
        let mut actions = std::mem::take(&mut self.unmade);
        let Some(info) = actions.iter_mut().find_map(|action| action.commit_info.as_mut()) else {
            return Ok(());
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
        let name = self.url.to_string();
        match self.put(&plan, &name).await? {
            Put::Made(e_tag) | Put::Recovered(e_tag) => self.adopt(plan, e_tag).map(drop),
            Put::Lost => Err(Error::fenced(format!(
                "another has made the table at {name} meanwhile: this one opens again from the log"
            ))),
        }
    }
}
