//! `IN (SELECT …)` that may be NULL. DataFusion makes a join of it, which finds a row or does not: NULL is false there, and NOT IN is true where
//! it is NULL. That is right where NULL and false lead to the same, and for NOT IN where a join is made that looks for nulls; elsewhere the query
//! is refused.

use deltalake::datafusion::common::config::ConfigOptions;
use deltalake::datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use deltalake::datafusion::common::{DFSchema, ExprSchema, Result, plan_err};
use deltalake::datafusion::logical_expr::expr::InSubquery;
use deltalake::datafusion::logical_expr::utils::merge_schema;
use deltalake::datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use deltalake::datafusion::optimizer::AnalyzerRule;

/// Goes behind DataFusion's coercion, when all expressions know whether they may be NULL.
#[derive(Debug)]
pub(super) struct KnownMemberships;

impl AnalyzerRule for KnownMemberships {
    fn name(&self) -> &str {
        "known_memberships"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.apply_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            match plan {
                LogicalPlan::Filter(filter) => must_be_known(&filter.predicate, Place::Condition, &schema)?,
                LogicalPlan::Join(join) => {
                    for (left, right) in &join.on {
                        must_be_known(left, Place::Value, &schema)?;
                        must_be_known(right, Place::Value, &schema)?;
                    }
                    if let Some(filter) = &join.filter {
                        must_be_known(filter, Place::Condition, &schema)?;
                    }
                }
                other => {
                    other.apply_expressions(|expr| {
                        must_be_known(expr, Place::Value, &schema)?;
                        Ok(TreeNodeRecursion::Continue)
                    })?;
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(plan)
    }
}

/// Where an expression stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// One of the conditions that a row must meet: a join is made of it.
    Condition,
    /// Within one, where NULL is as good as false.
    Part,
    /// Anywhere else.
    Value,
}

fn must_be_known(expr: &Expr, place: Place, schema: &DFSchema) -> Result<()> {
    match expr {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: op @ (Operator::And | Operator::Or),
            right,
        }) if place != Place::Value => {
            let place = if *op == Operator::And { place } else { Place::Part };
            must_be_known(left, place, schema)?;
            must_be_known(right, place, schema)
        }
        Expr::InSubquery(within) => of_membership(within, within.negated, place, schema),
        Expr::Not(inner) => match inner.as_ref() {
            Expr::InSubquery(within) => of_membership(within, !within.negated, place, schema),
            other => must_be_known(other, Place::Value, schema),
        },
        Expr::IsTrue(inner) | Expr::IsNotTrue(inner) => must_be_known(inner, Place::Part, schema),
        Expr::Case(case) if case.expr.is_none() => {
            for (when, then) in &case.when_then_expr {
                must_be_known(when, Place::Part, schema)?;
                must_be_known(then, Place::Value, schema)?;
            }
            case.else_expr.iter().try_for_each(|or| must_be_known(or, Place::Value, schema))
        }
        other => {
            other.apply_children(|operand| {
                must_be_known(operand, Place::Value, schema)?;
                Ok(TreeNodeRecursion::Continue)
            })?;
            Ok(())
        }
    }
}

fn of_membership(within: &InSubquery, negated: bool, place: Place, schema: &DFSchema) -> Result<()> {
    must_be_known(&within.expr, Place::Value, schema)?;
    let rows = within.subquery.subquery.schema().fields();
    let rows_nullable = rows.first().is_none_or(|column| column.is_nullable());
    let nullable = rows_nullable || within.expr.nullable(schema).unwrap_or(true);
    let known = match place {
        Place::Condition => !negated || looks_for_nulls(within, rows_nullable, schema),
        Place::Part => !negated,
        Place::Value => false,
    };
    match (known || !nullable, negated) {
        (true, _) => Ok(()),
        (false, true) => plan_err!(
            "NOT IN (SELECT …) that may be NULL is understood only by itself or beside AND, of a column, and with a subquery that names no \
             column of the query around it: write NOT EXISTS (SELECT … WHERE … = …), or coalesce(…) on both sides, so that neither is NULL \
             (IS NOT NULL beside it is not enough)"
        ),
        (false, false) => plan_err!(
            "IN (SELECT …) that may be NULL is understood only as a condition, by itself or beside AND and OR: write \
             EXISTS (SELECT … WHERE … = …), or coalesce(…) on both sides, so that neither is NULL"
        ),
    }
}

/// Whether NOT IN becomes a join that looks for nulls, and finds them. It looks where a column may be null, whatever is made of the columns; what
/// names no column is held against the rows of the subquery before they are joined, and the nulls are gone; and beside conditions of the
/// subquery on the rows around it, the nulls of all its rows are taken for those of each.
fn looks_for_nulls(within: &InSubquery, rows_nullable: bool, schema: &DFSchema) -> bool {
    let columns = within.expr.column_refs();
    let nullable = rows_nullable || columns.iter().any(|column| schema.nullable(column).unwrap_or(true));
    within.subquery.outer_ref_columns.is_empty() && !columns.is_empty() && nullable
}
