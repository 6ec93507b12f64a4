//! SQL over tables at a moment: DataFusion, with the Delta library's scans, which know deletion vectors.
//!
//! A moment names one version of each table: by number, by time, or by source position, the only one of the three that is the
//! same moment in several tables. Only the tables that the SQL names are opened.

mod arithmetic;
mod bins;
mod brackets;
mod branches;
mod by_value;
mod canonical;
mod casts;
mod expressions;
mod extremes;
mod floats;
mod frames;
mod joins;
mod literals;
mod memberships;
mod opaque;
pub mod parquet;
mod recursive;
mod scans;
mod sums;
mod times;
mod unheard;
mod zones;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use deltalake::datafusion::catalog::MemorySchemaProvider;
use deltalake::datafusion::common::TableReference;
use deltalake::datafusion::error::DataFusionError;
use deltalake::datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use deltalake::datafusion::optimizer::Analyzer;
use deltalake::datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use deltalake::datafusion::prelude::{SessionConfig, SessionContext};
use deltalake::datafusion::sql::parser::Statement;
use deltalake::datafusion::sql::sqlparser::ast::Statement as Ast;
use futures::{StreamExt, TryStreamExt};
use object_store::{Error as StoreError, ObjectStore};
use url::Url;

use crate::error::{Error, Kind, Result};
use crate::log::scannable::scannable;
use crate::log::{Log, When, maintain};
use crate::position::Checkpoint;
use crate::table::{Version, full_name};

/// The catalog that names without one are looked up in.
const DEFAULT_CATALOG: &str = "datafusion";

/// A table that SQL can name. The store is rooted at the table.
#[derive(Clone, Debug)]
pub struct Named {
    pub name: String,
    pub url: Url,
    pub store: Arc<dyn ObjectStore>,
}

/// The rows of an answer, as they come.
pub struct Rows {
    /// Its columns, known before its first row.
    pub schema: SchemaRef,
    /// The version that was read of each table, by name.
    pub versions: Vec<(String, Version)>,
    stream: SendableRecordBatchStream,
}

impl Rows {
    /// The next rows, or None at the end.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        self.stream.next().await.transpose().map_err(while_running)
    }

    /// All rows at once.
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        self.stream.try_collect().await.map_err(while_running)
    }
}

/// Runs one statement of SQL over the tables as they were at `when`.
pub async fn query(sql: &str, tables: &[Named], when: &When) -> Result<Rows> {
    let context = session();
    let state = context.state();
    let mut statement = state
        .sql_to_statement(sql, &state.config_options().sql_parser.dialect)
        .map_err(while_planning)?;
    must_read(&statement)?;
    unheard::must_be_heard(&statement)?;
    brackets::put(&mut statement)?;
    literals::spell_out(&mut statement);
    let mut versions = Vec::new();
    let references = state.resolve_table_references(&statement).map_err(while_planning)?;
    let (catalogs, references): (Vec<_>, Vec<_>) = references
        .into_iter()
        .partition(|reference| reference.schema().is_some_and(|schema| schema == "information_schema"));
    let mut unread = match when {
        When::Mark(mark) => mark.clone(),
        _ => Checkpoint::default(),
    };
    for reference in references {
        // A table's name may have two parts, as in SQL: schema.table.
        let name = match reference.schema() {
            Some(schema) => full_name(schema, reference.table()),
            None => reference.table().to_owned(),
        };
        let found = tables.iter().find(|table| table.name == name);
        let table = found.ok_or_else(|| no_such_table(&name, tables))?;
        let registered = register(&context, reference, table, when).await?;
        unread = unread.only(|lane| registered.lanes.get(lane).is_none());
        versions.push((table.name.clone(), registered.version));
    }
    if !catalogs.is_empty() || matches!(&statement, Statement::Statement(inner) if matches!(**inner, Ast::ShowTables { .. })) {
        // It tells of all tables that are there; of those that it names, as they were.
        for table in tables.iter().filter(|table| versions.iter().all(|(name, _)| *name != table.name)) {
            if Log::open(&table.url, Arc::clone(&table.store), "").await?.is_some() {
                register(&context, reference_of(&table.name), table, &When::Latest).await?;
            }
        }
    }
    if let (false, Some((lane, _))) = (versions.is_empty(), unread.iter().next()) {
        let what = format!("no table of the query has read lane {lane}: `alluvium history TABLE` shows which lanes a table has");
        return Err(Error::config("usage", what));
    }
    recursive::must_keep_types(&context.state(), &statement).await?;
    let plan = context.state().statement_to_plan(statement).await.map_err(while_planning)?;
    let stream = context
        .execute_logical_plan(plan)
        .await
        .map_err(while_planning)?
        .execute_stream()
        .await
        .map_err(while_planning)?;
    Ok(Rows {
        schema: stream.schema(),
        versions,
        stream,
    })
}

fn session() -> SessionContext {
    let config = SessionConfig::new()
        .with_information_schema(true)
        // A TIMESTAMPTZ is an instant, told in UTC as those of the tables are; without a zone, its offset would be forgotten.
        .set_str("datafusion.execution.time_zone", "UTC")
        // 0.1 is a tenth, as in other databases: columns of decimals are compared with it exactly.
        .set_bool("datafusion.sql_parser.parse_float_as_decimal", true)
        // A filter that is learned on the way, as by the greatest so far, is held against statistics, and most writers leave NaN out of them.
        .set_bool("datafusion.optimizer.enable_dynamic_filter_pushdown", false);
    // The Delta library's scan for queries that read no column says that it heeds limits, and does not: so limits stay where they are. So do
    // filters, which DataFusion would leave to the reader of files (`FilterPushdown`, and again after the plan is made): see `scans`.
    let rules = PhysicalOptimizer::new()
        .rules
        .into_iter()
        .filter(|rule| rule.name() != "LimitPushdown" && !rule.name().starts_with("FilterPushdown"));
    let mut analysis = Analyzer::new().rules;
    let coercion = analysis.iter().position(|rule| rule.name() == "type_coercion");
    let coercion = coercion.unwrap_or_default();
    analysis.insert(coercion, Arc::new(floats::DecimalsAsDoubles));
    analysis.insert(coercion, Arc::new(times::AsTimestamps));
    analysis.push(Arc::new(times::WholeTimes));
    analysis.push(Arc::new(memberships::KnownMemberships));
    analysis.push(Arc::new(arithmetic::CheckedArithmetic));
    analysis.push(Arc::new(by_value::FloatsByValue));
    analysis.push(Arc::new(frames::FloatsAnew));
    analysis.push(Arc::new(casts::KeptCasts));
    analysis.push(Arc::new(branches::GuardedBranches));
    let state = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_analyzer_rules(analysis)
        .with_optimizer_rules(joins::rules())
        .with_query_planner(Arc::new(by_value::KeysByValue))
        .with_type_planner(Arc::new(zones::ZonedMicroseconds))
        .with_physical_optimizer_rules(rules.collect());
    let context = SessionContext::new_with_state(state.build());
    context.register_udf(bins::date_bin());
    sums::functions().into_iter().for_each(|function| context.register_udaf(function));
    context
}

/// How SQL says a table's name, which may have two parts.
fn reference_of(name: &str) -> TableReference {
    match TableReference::parse_str_normalized(name, true) {
        TableReference::Full { .. } => TableReference::bare(name),
        reference => reference,
    }
}

/// Tables and files are changed by pipelines, never by a query.
fn must_read(statement: &Statement) -> Result<()> {
    let reads = match statement {
        Statement::Statement(inner) => matches!(
            **inner,
            Ast::Query(_) | Ast::ShowTables { .. } | Ast::ShowColumns { .. } | Ast::ExplainTable { .. }
        ),
        Statement::Explain(explained) => return must_read(&explained.statement),
        _ => false,
    };
    if reads {
        Ok(())
    } else {
        Err(Error::config("usage", format!("`{statement}` does not only read: ask with SELECT")))
    }
}

/// A table as SQL sees it.
struct Registered {
    version: Version,
    /// The positions that were asked of it: those of its own lanes.
    lanes: Checkpoint,
}

/// Makes the table known to SQL as it was.
async fn register(context: &SessionContext, reference: TableReference, table: &Named, when: &When) -> Result<Registered> {
    let no_table = || {
        Error::config(
            "usage",
            format!(
                "there is no table `{}` at {}: it is made by the first commit of its pipeline",
                table.name, table.url
            ),
        )
    };
    let log = Log::open(&table.url, Arc::clone(&table.store), "").await?.ok_or_else(no_table)?;
    // Each table is asked for the lanes that it has: two topics make one moment of two tables.
    let lanes = match when {
        When::Mark(mark) => log.part_of(mark),
        _ => Checkpoint::default(),
    };
    let version = match when {
        When::Mark(mark) if lanes.is_empty() => log.version_at(&When::Mark(mark.clone())).await?, // It says what the table has.
        When::Mark(_) => log.version_at(&When::Mark(lanes.clone())).await?,
        when => log.version_at(when).await?,
    };
    let snapshot = log.at(When::Version(version)).await?;
    let (store, scanned) = scannable(Arc::clone(&table.store), &snapshot).await?;
    let opened = maintain::open(store, scanned).await;
    let unreadable = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::data(
            "query_failed",
            format!("cannot read version {version} of the table `{}` at {}", table.name, table.url),
        )
        .because(e)
    };
    let opened = opened.map_err(|e| unreadable(e.into()))?;
    opened
        .update_datafusion_session(&context.state())
        .map_err(|e| unreadable(e.into()))?;
    let provider = opened.table_provider().await.map_err(|e| unreadable(e.into()))?;
    if let (Some(catalog), Some(schema)) = (context.catalog(DEFAULT_CATALOG), reference.schema())
        && catalog.schema(schema).is_none()
    {
        catalog
            .register_schema(schema, Arc::new(MemorySchemaProvider::new()))
            .map_err(|e| unreadable(e.into()))?;
    }
    // As the statement names it, whatever its letters.
    let scanned = Arc::new(scans::Scanned(provider));
    context.register_table(reference, scanned).map_err(|e| unreadable(e.into()))?;
    Ok(Registered { version, lanes })
}

fn no_such_table(name: &str, tables: &[Named]) -> Error {
    let nearest = tables
        .iter()
        .map(|table| table.name.as_str())
        .min_by_key(|known| strsim::damerau_levenshtein(known, name));
    let all: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let hint = nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`? "));
    Error::config(
        "usage",
        format!("the configuration has no table `{name}`{hint}(it has {})", all.join(", ")),
    )
}

fn while_planning(error: DataFusionError) -> Error {
    match store_error(&error) {
        Some(_) => while_running(error),
        None => Error::config("usage", "the query is not one that these tables can answer").because(error.strip_backtrace()),
    }
}

fn while_running(error: DataFusionError) -> Error {
    if let Some(path) = gone(&error.find_root().to_string()) {
        let what =
            format!("the file {path} of the table is gone, as a vacuum takes files of old versions: restore it, or read a newer version");
        return Error::data("bad_file", what);
    }
    match store_error(&error) {
        Some(error) => Error::new(
            Kind::Transient,
            "store_unreachable",
            "a file of the table could not be read: try again",
        )
        .because(error.to_string()),
        None => Error::data("query_failed", "the query failed").because(error.strip_backtrace()),
    }
}

/// The file that a store does not have. Of those whose footer was asked for, DataFusion hands on nothing but the text.
fn gone(text: &str) -> Option<&str> {
    let (_, path) = text.split_once("Object at location ")?;
    path.split_once(" not found").map(|(path, _)| path)
}

/// What the store said, where it was the store that failed.
fn store_error(error: &DataFusionError) -> Option<&StoreError> {
    match error.find_root() {
        DataFusionError::ObjectStore(error) => Some(error),
        _ => None,
    }
}
