//! A version of a table as the Delta library's scans take it.
//!
//! The library refuses tables with the feature `typeWidening`, although its scans give the values of older files the types that the
//! table has now (Parquet says in each file what its types are), and with `vacuumProtocolCheck`, which asks nothing of a scan. So it is shown
//! such a version as a log of one commit, with the same files and columns and without the feature's name. Nothing is written to the table's
//! store.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};

use crate::error::{Error, Result};
use crate::log::actions::{Action, Add, Protocol};
use crate::log::entries::commit_path;
use crate::log::features::{ENABLE_TYPE_WIDENING, TYPE_WIDENING, VACUUM_PROTOCOL_CHECK};
use crate::log::plan::body;
use crate::log::snapshot::Snapshot;
use crate::table::Version;

/// Features that the library's scans fulfil, and that it does not know.
const UNKNOWN_TO_LIBRARY: [&str; 2] = [TYPE_WIDENING, VACUUM_PROTOCOL_CHECK];

/// The store and the version under which the library finds what `snapshot` is. `store` is rooted at the table.
pub(crate) async fn scannable(store: Arc<dyn ObjectStore>, snapshot: &Snapshot) -> Result<(Arc<dyn ObjectStore>, Version)> {
    if snapshot.protocol.reader_features.iter().flatten().all(|feature| is_known(feature)) {
        return Ok((store, snapshot.version));
    }
    let log = InMemory::new();
    let put = log.put(&commit_path(0), body(&actions(snapshot))?.into()).await;
    put.map_err(|e| Error::bug("memory takes no file").because(e))?;
    Ok((
        Arc::new(WithOtherLog {
            table: store,
            log: Arc::new(log),
        }),
        0,
    ))
}

fn is_known(feature: &str) -> bool {
    !UNKNOWN_TO_LIBRARY.contains(&feature)
}

fn actions(snapshot: &Snapshot) -> Vec<Action> {
    let known = |features: &Option<Vec<String>>| {
        let known = |names: &Vec<String>| names.iter().filter(|name| is_known(name)).cloned().collect();
        features.as_ref().map(known)
    };
    let protocol = Protocol {
        reader_features: known(&snapshot.protocol.reader_features),
        writer_features: known(&snapshot.protocol.writer_features),
        ..snapshot.protocol.clone()
    };
    let mut metadata = snapshot.metadata.as_ref().clone();
    metadata.configuration.remove(ENABLE_TYPE_WIDENING);
    let files = snapshot.files.values().map(|file| Action::from(Add::of(file, false)));
    [protocol.into(), metadata.into()].into_iter().chain(files).collect()
}

/// A table's files under another log. For reading only.
#[derive(Debug)]
struct WithOtherLog {
    table: Arc<dyn ObjectStore>,
    log: Arc<InMemory>,
}

impl WithOtherLog {
    fn store_of(&self, path: Option<&Path>) -> &dyn ObjectStore {
        match path.and_then(|path| path.parts().next()) {
            Some(first) if first.as_ref() == "_delta_log" => self.log.as_ref(),
            _ => self.table.as_ref(),
        }
    }

    fn refused(&self, operation: &str) -> StoreError {
        StoreError::NotImplemented {
            operation: operation.to_owned(),
            implementer: self.to_string(),
        }
    }
}

#[async_trait]
impl ObjectStore for WithOtherLog {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.store_of(Some(location)).get_opts(location, options).await
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.store_of(prefix).list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.store_of(prefix).list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.store_of(prefix).list_with_delimiter(prefix).await
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> StoreResult<PutResult> {
        Err(self.refused("put"))
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        Err(self.refused("put"))
    }

    fn delete_stream(&self, _: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        let refused = self.refused("delete");
        futures::stream::once(async { Err(refused) }).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> StoreResult<()> {
        Err(self.refused("copy"))
    }
}

impl fmt::Display for WithOtherLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with a log for reading", self.table)
    }
}
