//! A branch of CASE is evaluated for its own rows only, and what fails for others, as a division by zero does, does not fail the query.
//!
//! DataFusion knows this, but makes AND and OR of a CASE whose results are conditions, or constants that are compared, and evaluates both sides
//! of these for all rows. It does so of `CASE WHEN … THEN …` only. `CASE true WHEN … THEN …` asks the same, so where a branch may fail, it is
//! given that.

use arrow::datatypes::DataType;
use deltalake::datafusion::common::config::ConfigOptions;
use deltalake::datafusion::common::tree_node::{Transformed, TreeNode};
use deltalake::datafusion::common::{DFSchema, Result, ScalarValue};
use deltalake::datafusion::logical_expr::{Case, Expr, ExprSchemable, LogicalPlan, Operator};
use deltalake::datafusion::optimizer::AnalyzerRule;

use super::expressions::outside_sets;

/// Goes behind all rules that look at CASE.
#[derive(Debug)]
pub(super) struct GuardedBranches;

impl AnalyzerRule for GuardedBranches {
    fn name(&self) -> &str {
        "guarded_branches"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        outside_sets(plan, guarded)
    }
}

fn guarded(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match &expr {
        Expr::Case(case) if case.expr.is_none() && is_made_over(case, &expr, schema) && a_branch_may_fail(case)? => {
            let always = Expr::Literal(ScalarValue::Boolean(Some(true)), None);
            let same = Expr::Case(Case {
                expr: Some(Box::new(always)),
                ..case.clone()
            });
            // DataFusion takes it for one that may be NULL more often. The columns of the plan were told otherwise.
            if same.nullable(schema)? == expr.nullable(schema)? {
                Ok(Transformed::yes(same))
            } else {
                Ok(Transformed::no(expr))
            }
        }
        _ => Ok(Transformed::no(expr)),
    }
}

/// Whether DataFusion may make AND and OR of it.
fn is_made_over(case: &Case, expr: &Expr, schema: &DFSchema) -> bool {
    let constant = |result: &Expr| result.column_refs().is_empty();
    let constants = case.when_then_expr.iter().all(|(_, then)| constant(then)) && case.else_expr.as_deref().is_none_or(constant);
    constants || expr.get_type(schema).is_ok_and(|of| of == DataType::Boolean)
}

/// Whether anything may fail that is not evaluated for each row: all but the first condition.
fn a_branch_may_fail(case: &Case) -> Result<bool> {
    let conditions = case.when_then_expr.iter().skip(1).map(|(when, _)| when);
    let results = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
    for part in conditions.chain(results) {
        if part.exists(|expr| Ok(may_fail(expr)))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn may_fail(expr: &Expr) -> bool {
    use Operator::{Divide, Minus, Modulo, Multiply, Plus};
    match expr {
        Expr::BinaryExpr(of) => matches!(of.op, Plus | Minus | Multiply | Divide | Modulo),
        Expr::ScalarFunction(_) | Expr::Cast(_) => true,
        _ => false,
    }
}
