//! Parts of SQL that are parsed and then passed over: DataFusion would answer another question than was asked. A query with one of them is
//! refused.

use std::ops::ControlFlow;

use deltalake::datafusion::sql::parser::Statement;
use deltalake::datafusion::sql::sqlparser::ast::{
    GroupByExpr, Query, Select, SetExpr, SetOperator, SetQuantifier, TableFactor, Visit, Visitor,
};

use crate::error::{Error, Result};

pub(super) fn must_be_heard(statement: &Statement) -> Result<()> {
    let found = match statement {
        Statement::Statement(inner) => inner.visit(&mut Unheard),
        Statement::Explain(explained) => return must_be_heard(&explained.statement),
        _ => ControlFlow::Continue(()),
    };
    match found {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(what) => Err(Error::config("usage", format!("{what} is not understood here: ask without it"))),
    }
}

/// Looks for the first of them.
struct Unheard;

fn first(parts: &[(bool, &'static str)]) -> ControlFlow<&'static str> {
    match parts.iter().find(|(is_there, _)| *is_there) {
        Some((_, what)) => ControlFlow::Break(what),
        None => ControlFlow::Continue(()),
    }
}

/// DataFusion looks whether a row is on the other side, not how often. Queries within brackets are visited by themselves.
fn in_sets(body: &SetExpr) -> ControlFlow<&'static str> {
    let SetExpr::SetOperation {
        left,
        op,
        set_quantifier,
        right,
    } = body
    else {
        return ControlFlow::Continue(());
    };
    let all = *set_quantifier == SetQuantifier::All;
    first(&[
        (
            all && *op == SetOperator::Intersect,
            "INTERSECT ALL (write INTERSECT, with row_number() OVER (PARTITION BY …) of all columns as one more column on both sides)",
        ),
        (
            all && *op == SetOperator::Except,
            "EXCEPT ALL (write EXCEPT, with row_number() OVER (PARTITION BY …) of all columns as one more column on both sides)",
        ),
    ])?;
    in_sets(left)?;
    in_sets(right)
}

impl Visitor for Unheard {
    type Break = &'static str;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        in_sets(&query.body)
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        let (GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers)) = &select.group_by;
        first(&[
            (select.into.is_some(), "SELECT INTO"),
            (select.prewhere.is_some(), "PREWHERE"),
            (!select.connect_by.is_empty(), "CONNECT BY"),
            (select.exclude.is_some(), "EXCLUDE behind the columns"),
            (!modifiers.is_empty(), "GROUP BY … WITH (write `GROUP BY ROLLUP(…)` or `CUBE(…)`)"),
        ])
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<Self::Break> {
        match table {
            TableFactor::Table {
                sample,
                partitions,
                version,
                with_ordinality,
                json_path,
                ..
            } => first(&[
                (sample.is_some(), "TABLESAMPLE"),
                (!partitions.is_empty(), "PARTITION behind a table"),
                (
                    version.is_some(),
                    "a version behind a table (there are --version, --timestamp and --position)",
                ),
                (*with_ordinality, "WITH ORDINALITY"),
                (json_path.is_some(), "a path behind a table"),
            ]),
            TableFactor::Derived { sample, .. } => first(&[(sample.is_some(), "TABLESAMPLE")]),
            TableFactor::Function { with_ordinality, .. } => first(&[(*with_ordinality, "WITH ORDINALITY")]),
            _ => ControlFlow::Continue(()),
        }
    }
}
