//! Recursive queries: a column has the type of the first term, and what the other makes is cast to it. DataFusion does so without a word: halved
//! again and again, 1.0 is 0.5, and then 0.3. Such a query is refused, as Postgres refuses it.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use deltalake::datafusion::common::config::ConfigOptions;
use deltalake::datafusion::execution::SessionState;
use deltalake::datafusion::logical_expr::LogicalPlan;
use deltalake::datafusion::optimizer::AnalyzerRule;
use deltalake::datafusion::sql::parser::Statement;
use deltalake::datafusion::sql::sqlparser::ast::{
    Cte, Ident, Query, SetExpr, SetOperator, Statement as Ast, TableAlias, Visit, Visitor, With, visit_relations,
};

use super::floats::DecimalsAsDoubles;
use crate::error::{Error, Result};

pub(super) async fn must_keep_types(state: &SessionState, statement: &Statement) -> Result<()> {
    let mut found = Terms::default();
    let inner = match statement {
        Statement::Statement(inner) => inner,
        Statement::Explain(explained) => match explained.statement.as_ref() {
            Statement::Statement(inner) => inner,
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    let _: ControlFlow<()> = inner.visit(&mut found);
    for Term { cte, first, other } in found.0 {
        // What cannot be planned is told of when the whole is.
        let (Ok(first), Ok(other)) = (planned(state, first).await, planned(state, other).await) else {
            continue;
        };
        compare(&cte, first, &other)?;
    }
    Ok(())
}

async fn planned(state: &SessionState, query: Query) -> deltalake::datafusion::error::Result<LogicalPlan> {
    state
        .statement_to_plan(Statement::Statement(Box::new(Ast::Query(Box::new(query)))))
        .await
}

/// One recursive query, as two that are none: in the other, its name is the first's.
struct Term {
    cte: TableAlias,
    first: Query,
    other: Query,
}

#[derive(Default)]
struct Terms(Vec<Term>);

impl Visitor for Terms {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let Some(with) = query.with.as_ref().filter(|with| with.recursive) else {
            return ControlFlow::Continue(());
        };
        for (place, cte) in with.cte_tables.iter().enumerate() {
            if let SetExpr::SetOperation {
                op: SetOperator::Union,
                left,
                right,
                ..
            } = cte.query.body.as_ref()
                && refers(right, &cte.alias.name)
            {
                let mut before = with.cte_tables[..place].to_vec();
                let first = query_of(with, before.clone(), left);
                before.push(Cte {
                    query: Box::new(query_of(with, Vec::new(), left)),
                    ..cte.clone()
                });
                self.0.push(Term {
                    cte: cte.alias.clone(),
                    first,
                    other: query_of(with, before, right),
                });
            }
        }
        ControlFlow::Continue(())
    }
}

/// Whether a relation of this name is read within.
fn refers(body: &SetExpr, name: &Ident) -> bool {
    let found = visit_relations(body, |relation| {
        let is_it = relation.to_string().trim_matches('"').eq_ignore_ascii_case(&name.value);
        if is_it { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found.is_break()
}

/// A query of this body, which can name these others.
fn query_of(with: &With, others: Vec<Cte>, body: &SetExpr) -> Query {
    let others = With {
        cte_tables: others,
        ..with.clone()
    };
    Query {
        with: (!others.cte_tables.is_empty()).then_some(others),
        body: Box::new(body.clone()),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}

fn compare(cte: &TableAlias, first: LogicalPlan, other: &LogicalPlan) -> Result<()> {
    let types = |plan: &LogicalPlan| -> Vec<DataType> { plan.schema().fields().iter().map(|field| field.data_type().clone()).collect() };
    let (columns, planned) = (first.schema().fields().clone(), types(&first));
    // What is brought together as floating point numbers is no decimal any more when the query runs.
    let as_run = DecimalsAsDoubles.analyze(first, &ConfigOptions::default());
    let as_run = as_run.map_or_else(|_| planned.clone(), |plan| types(&plan));
    let unlike = |place: &usize| match (planned.get(*place), as_run.get(*place), types(other).get(*place)) {
        (Some(planned), Some(as_run), Some(other)) => planned != as_run || !holds(planned, other),
        _ => false,
    };
    let Some(place) = (0..columns.len()).find(unlike) else {
        return Ok(());
    };
    let named = cte.columns.get(place).map(|column| &column.name.value);
    let (column, first, other) = (named.unwrap_or(columns[place].name()), &as_run[place], &types(other)[place]);
    let what = format!(
        "column `{column}` of the recursive query `{}` is of type {first} in the first term and of {other} in the other, whose values would \
         be rounded: cast both to one type",
        cte.name.value
    );
    Err(Error::config("usage", what))
}

/// Whether values of the other type are themselves when they are cast to this one, or else an error.
fn holds(own: &DataType, other: &DataType) -> bool {
    match (own, other) {
        (own, other) if own == other || !own.is_numeric() || !other.is_numeric() => true,
        (
            DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale),
            DataType::Decimal128(_, more) | DataType::Decimal256(_, more),
        ) => more <= scale,
        (DataType::Float64, _) => true,
        (DataType::Float32, DataType::Float64) => false,
        (DataType::Float32, _) => true,
        (_, other) => other.is_integer(),
    }
}
