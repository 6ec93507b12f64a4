//! Checkpoints: a version's whole state in one Parquet file, so that opening a table need not read its log from the start.
//!
//! They are made beside the commits, never as a part of one. A checkpoint that is killed leaves a table that reads as before: its
//! file appears whole or not at all, and `_last_checkpoint` is only a hint (`unhinted.rs`). No file of the log is deleted here.

use std::sync::Arc;

use deltalake::{DeltaTable, DeltaTableBuilder};
use object_store::ObjectStore;
use url::Url;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::log::unhinted::Unhinted;
use crate::table::Version;

/// Writes the checkpoint of a version (the classic kind, unless the table has the feature `v2Checkpoint`). `store` is rooted at the table.
pub async fn checkpoint(url: &Url, store: Arc<dyn ObjectStore>, version: Version) -> Result<()> {
    let failed = |e: deltalake::DeltaTableError| {
        Error::transient(
            "checkpoint_failed",
            format!("cannot write the checkpoint of version {version} of {url}"),
        )
        .because(e)
    };
    let table = open(store, version).await.map_err(failed)?;
    deltalake::checkpoints::create_checkpoint(&table, None).await.map_err(failed)
}

/// Opens a version with the Delta library, over a store that is already rooted at the table.
pub(crate) async fn open(store: Arc<dyn ObjectStore>, version: Version) -> deltalake::DeltaResult<DeltaTable> {
    // The library chooses by scheme how it writes commits, and knows only those that it was built with; over a given store the
    // plainest will do. The host is one of its own, because DataFusion tells stores apart by it.
    let root = Url::parse(&format!("memory://{}/", Uuid::new_v4().simple())).expect("a uuid is a host");
    DeltaTableBuilder::from_url(root.clone())?
        .with_storage_backend(Arc::new(Unhinted(store)), root)
        .with_version(version)
        .load()
        .await
}
