//! The Delta tables of a pipeline: their stores, and their sinks.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use url::Url;

use super::resolve::{Resolved, Storage};
use crate::error::Result;
use crate::log::{Log, store};
use crate::sinks::delta::DeltaSink;
use crate::table::{Lanes, Table};

/// Opens tables.
pub struct Tables {
    pipeline: Arc<str>,
    storage: Storage,
    state: PathBuf,
    /// Stores that were seen to refuse a second put of the same key.
    probed: BTreeSet<String>,
}

impl Tables {
    pub fn new(resolved: &Resolved) -> Self {
        Self {
            pipeline: Arc::clone(&resolved.name),
            storage: resolved.storage.clone(),
            state: resolved.state.clone(),
            probed: BTreeSet::new(),
        }
    }

    /// The store of a table. What keeps two writers apart is proven once for each place.
    pub async fn store(&mut self, location: &Url) -> Result<Arc<dyn ObjectStore>> {
        if self.probed.contains(location.as_str()) {
            return open_store(location, &self.storage);
        }
        let store = probed_store(location, &self.storage).await?;
        self.probed.insert(location.to_string());
        Ok(store)
    }

    /// The table, made where it is not there yet: one that begins with a copy, by that. `share`: bytes that its staged rows may take.
    pub async fn sink(&mut self, table: &Table, store: Arc<dyn ObjectStore>, share: usize) -> Result<DeltaSink> {
        let log = match table.lanes {
            Lanes::Slot(_) => Log::open_or_prepare(&table.location, store, table, &self.pipeline).await?,
            Lanes::Topics(_) | Lanes::TopicPattern(_) | Lanes::All => {
                Log::open_or_create(&table.location, store, table, &self.pipeline).await?
            }
        };
        DeltaSink::open(table, log, &self.pipeline, share, &self.state).await
    }
}

/// The store of a place, once it was seen to take a write and to refuse a second one of the same key. That leaves no folder behind: a table
/// may be made late, or never.
pub async fn probed_store(location: &Url, storage: &Storage) -> Result<Arc<dyn ObjectStore>> {
    let nearest = open_store(&store::nearest(location), storage)?;
    store::probe_conditional_put(nearest.as_ref(), location.as_str()).await?;
    open_store(location, storage)
}

/// The store of a place, rooted there.
pub fn open_store(location: &Url, storage: &Storage) -> Result<Arc<dyn ObjectStore>> {
    store::open(location, &storage.0)
}
