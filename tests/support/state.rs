//! The rows of a version of a table, from its data files and its deletion vectors; read by a few lines of the tests' own.

use std::collections::HashMap;
use std::sync::Arc;

use alluvium::log::{LiveFile, Snapshot};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use roaring::RoaringTreemap;
use uuid::Uuid;

use super::rows::pairs;

/// Reads the versions of one table of keys and values. Data files never change, so each is read once.
pub struct StateReader {
    store: Arc<dyn ObjectStore>,
    files: HashMap<Arc<str>, Vec<(i64, i64)>>,
}

impl StateReader {
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            files: HashMap::new(),
        }
    }

    /// How many data files were read.
    pub fn files(&self) -> u64 {
        self.files.len() as u64
    }

    /// The rows of a version, sorted; or what cannot be read.
    pub async fn rows(&mut self, snapshot: &Snapshot) -> Result<Vec<(i64, i64)>, String> {
        let mut rows = Vec::new();
        for file in snapshot.files.values() {
            if !self.files.contains_key(&file.path) {
                let bytes = self.get(&file.path).await?;
                self.files
                    .insert(Arc::clone(&file.path), rows_of(bytes).map_err(|e| format!("{}: {e}", file.path))?);
            }
            let deleted = self.deleted(file).await?;
            let all = &self.files[&file.path];
            if file.rows != Some(all.len() as u64) {
                return Err(format!("{} has {} rows, the log says {:?}", file.path, all.len(), file.rows));
            }
            rows.extend((0..).zip(all).filter(|(row, _)| !deleted.contains(*row)).map(|(_, pair)| *pair));
        }
        rows.sort_unstable();
        Ok(rows)
    }

    async fn deleted(&self, file: &LiveFile) -> Result<RoaringTreemap, String> {
        let Some(vector) = &file.vector else {
            return Ok(RoaringTreemap::new());
        };
        assert_eq!(vector.storage_type, 'u', "alluvium writes no others");
        let id = z85::decode(&*vector.path_or_inline).map_err(|e| e.to_string())?;
        let bytes = self
            .get(&format!(
                "deletion_vector_{}.bin",
                Uuid::from_slice(&id).map_err(|e| e.to_string())?
            ))
            .await?;
        // Its size in four bytes, then a magic number in four bytes, then Roaring's own portable form.
        let start = vector.offset.unwrap_or_default() as usize + 8;
        let body = bytes.get(start..).ok_or("the file of vectors is too short")?;
        let rows = RoaringTreemap::deserialize_from(body).map_err(|e| e.to_string())?;
        if rows.len() != vector.cardinality {
            return Err(format!(
                "the vector of {} has {} rows, the log says {}",
                file.path,
                rows.len(),
                vector.cardinality
            ));
        }
        Ok(rows)
    }

    async fn get(&self, path: &str) -> Result<Bytes, String> {
        let found = self.store.get(&Path::from(path)).await.map_err(|e| e.to_string())?;
        found.bytes().await.map_err(|e| e.to_string())
    }
}

fn rows_of(bytes: Bytes) -> Result<Vec<(i64, i64)>, parquet::errors::ParquetError> {
    let mut rows = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()? {
        rows.extend(pairs(&batch?));
    }
    Ok(rows)
}
