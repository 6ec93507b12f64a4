//! What a scan is told of a query's filters, so that it passes files over: what it surely understands, and never in place of the filter.
//!
//! The Delta library says of any filter of partition columns only, and of one without columns, that it heeds it exactly, and drops what it then
//! cannot evaluate: all rows would come. Here every filter stays where it is, above the scan, and the scan is shown columns beside literals. Of
//! floating point numbers it is shown nothing: see `by_value`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use deltalake::datafusion::catalog::{Session, TableProvider};
use deltalake::datafusion::common::Result;
use deltalake::datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use deltalake::datafusion::physical_plan::ExecutionPlan;

/// A table of the Delta library.
#[derive(Debug)]
pub(super) struct Scanned(pub(super) Arc<dyn TableProvider>);

#[async_trait]
impl TableProvider for Scanned {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        self.0.table_type()
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // A limit stands above the filter, which stays: it comes here only if there is none.
        let limit = limit.filter(|_| filters.is_empty());
        self.0.scan(session, projection, filters, limit).await
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        use TableProviderFilterPushDown::{Exact, Inexact, Unsupported};
        let answers = self.0.supports_filters_pushdown(filters)?;
        let hedged = filters.iter().zip(answers).map(|(filter, answer)| match answer {
            Exact | Inexact if is_understood(filter) => Inexact,
            _ => Unsupported,
        });
        Ok(hedged.collect())
    }
}

fn is_understood(filter: &Expr) -> bool {
    use Operator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            And | Or => is_understood(left) && is_understood(right),
            Eq | NotEq | Lt | LtEq | Gt | GtEq => (is_column(left) && is_value(right)) || (is_value(left) && is_column(right)),
            _ => false,
        },
        Expr::Between(between) => is_column(&between.expr) && is_value(&between.low) && is_value(&between.high),
        Expr::InList(within) => is_column(&within.expr) && within.list.iter().all(is_value),
        Expr::IsNull(operand) | Expr::IsNotNull(operand) => is_column(operand),
        _ => false,
    }
}

fn is_column(operand: &Expr) -> bool {
    matches!(operand, Expr::Column(_))
}

fn is_value(operand: &Expr) -> bool {
    matches!(operand, Expr::Literal(value, _) if !value.is_null() && !value.data_type().is_floating())
}
