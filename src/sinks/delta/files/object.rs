//! A data file in the object store, as the Parquet reader asks for it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use crate::error::Error;
use crate::log::store::fault;
use crate::log::{LiveFile, is_newest};
use crate::table::Version;

/// Bytes read from a file's end at once: the footers of most files, so that one request is enough.
const FOOTER_BYTES: usize = 64 << 10;

/// Where a data file lies, and how long it is.
#[derive(Clone, Debug)]
pub struct Object {
    pub store: Arc<dyn ObjectStore>,
    pub path: Path,
    pub size: u64,
    /// The newest version that is known to have it. None where no version names it yet, and it may be given up for another.
    pub held_at: Option<Version>,
}

impl Object {
    /// A file of a table at its newest version that is known here.
    pub fn of(store: &Arc<dyn ObjectStore>, file: &LiveFile, version: Version) -> crate::error::Result<Self> {
        Ok(Self {
            store: Arc::clone(store),
            path: file.location()?,
            size: file.size,
            held_at: Some(version),
        })
    }

    /// What it means that the store does not hand it out. No waiting brings back a file of the newest version that is gone; one of an older
    /// version may have been replaced meanwhile.
    pub async fn fault(&self, error: object_store::Error) -> Error {
        let doing = format!("read the data file {}", self.path);
        let (StoreError::NotFound { .. }, Some(version)) = (&error, self.held_at) else {
            return fault(error, &doing);
        };
        match is_newest(self.store.as_ref(), version).await {
            Ok(true) => {
                let what = format!(
                    "the data file {} of version {version}, the table's newest, is gone; restore it, or restore the table to an older version",
                    self.path
                );
                Error::data("bad_file", what).because(error)
            }
            Ok(false) => fault(error, &doing),
            Err(unknown) => fault(unknown, &doing),
        }
    }
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for Object {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move { self.store.get_range(&self.path, range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(&'a mut self, options: Option<&'a ArrowReaderOptions>) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        let size = self.size;
        let mut reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_BYTES));
        if let Some(options) = options {
            reader = reader
                .with_metadata_options(Some(options.metadata_options().clone()))
                .with_column_index_policy(options.column_index_policy())
                .with_offset_index_policy(options.offset_index_policy());
        }
        async move { reader.load_and_finish(self, size).await.map(Arc::new) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::error::Kind;

    #[tokio::test]
    async fn a_file_that_is_gone_is_waited_for_only_where_a_newer_version_may_do_without_it() {
        let store = InMemory::new();
        store
            .put(&Path::from("_delta_log/00000000000000000008.json"), "".into())
            .await
            .unwrap();
        let mut object = Object {
            store: Arc::new(store),
            path: Path::from("part-1.parquet"),
            size: 9,
            held_at: None,
        };
        for (held_at, kind, code, told) in [
            (None, Kind::Transient, "store_unreachable", "part-1.parquet"),
            (Some(7), Kind::Transient, "store_unreachable", "part-1.parquet"),
            (Some(8), Kind::Data, "bad_file", "part-1.parquet of version 8"),
        ] {
            object.held_at = held_at;
            let gone = object.store.get(&object.path).await.unwrap_err();
            let error = object.fault(gone).await;
            assert_eq!((error.kind, error.code), (kind, code), "{held_at:?}");
            assert!(error.to_string().contains(told), "{error}");
        }
    }
}
