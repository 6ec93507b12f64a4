//! A table in a store, sinks on it, and what a reader of the Delta library sees in it.

use std::path::PathBuf;
use std::sync::Arc;

use alluvium::error::Result;
use alluvium::log::Log;
use alluvium::position::{Checkpoint, Lane, Position};
use alluvium::sinks::delta::DeltaSink;
use alluvium::table::{Merge, Mode, Table, TableId, Version};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use deltalake::datafusion::prelude::SessionContext;
use deltalake::{DeltaTable, DeltaTableBuilder};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tempfile::TempDir;
use url::Url;

use crate::support::bank;

pub const PIPELINE: &str = "shop";
/// Never reached by the rows of a test, so that everything stays in memory until the commit.
pub const AMPLE: usize = 64 << 20;

pub struct Bed {
    pub store: Arc<dyn ObjectStore>,
    pub table: Table,
    state: TempDir,
}

impl Bed {
    pub fn new(schema: SchemaRef, mode: Mode) -> Self {
        let location = Url::parse("memory://lake/orders/").unwrap();
        Self {
            store: Arc::new(InMemory::new()),
            table: Table::new(TableId::new("orders"), location, mode, schema),
            state: tempfile::tempdir().unwrap(),
        }
    }

    pub fn upsert(schema: SchemaRef, key: &[&str], merge: Merge) -> Self {
        Self::new(
            schema,
            Mode::Upsert {
                key: key.iter().map(|name| (*name).to_owned()).collect(),
                merge,
            },
        )
    }

    pub fn state(&self) -> PathBuf {
        self.state.path().to_owned()
    }

    /// Opens a sink from the log, as every start does.
    pub async fn open(&self, share: usize) -> DeltaSink {
        self.try_open(share).await.unwrap()
    }

    pub async fn try_open(&self, share: usize) -> Result<DeltaSink> {
        self.open_on(Arc::clone(&self.store), share).await
    }

    /// The same through another store, which leads to the bed's own.
    pub async fn open_on(&self, store: Arc<dyn ObjectStore>, share: usize) -> Result<DeltaSink> {
        let log = Log::open_or_create(&self.table.location, store, &self.table, PIPELINE).await?;
        DeltaSink::open(&self.table, log, PIPELINE, share, &self.state()).await
    }

    /// The table as the Delta library opens it.
    pub async fn library(&self, version: Option<Version>) -> DeltaTable {
        let root = Url::parse(&format!("memory://{}/", uuid::Uuid::new_v4().simple())).unwrap();
        let mut builder = DeltaTableBuilder::from_url(root.clone())
            .unwrap()
            .with_storage_backend(Arc::clone(&self.store), root);
        if let Some(version) = version {
            builder = builder.with_version(version);
        }
        builder.load().await.unwrap()
    }

    /// The rows at a version as DataFusion reads them: a text for each, sorted.
    pub async fn rows_at(&self, version: Version) -> Vec<String> {
        let names: Vec<String> = self.table.schema.fields().iter().map(|field| field.name().clone()).collect();
        self.columns_of_rows_at(&names, version).await
    }

    /// The same of these columns.
    pub async fn columns_of_rows_at(&self, columns: &[String], version: Version) -> Vec<String> {
        let table = self.library(Some(version)).await;
        let context = SessionContext::new();
        table.update_datafusion_session(&context.state()).unwrap();
        context.register_table("t", table.table_provider().await.unwrap()).unwrap();
        let names: Vec<String> = columns.iter().map(|name| format!("\"{name}\"")).collect();
        let query = format!("select {} from t", names.join(", "));
        let batches = context.sql(&query).await.unwrap().collect().await.unwrap();
        let mut rows: Vec<String> = batches.iter().flat_map(texts).collect();
        rows.sort();
        rows
    }
}

/// Each row as one text.
pub fn texts(rows: &RecordBatch) -> Vec<String> {
    let rows = bank::rows(std::slice::from_ref(rows));
    rows.into_iter().map(|cells| cells.join("|")).collect()
}

/// A checkpoint as people write it: `mark(&[("orders/0", 41)])`.
pub fn mark(lanes: &[(&str, u64)]) -> Checkpoint {
    lanes.iter().map(|(lane, at)| (Lane::new(*lane), Position(*at))).collect()
}
