//! The expressions of a plan, as the rules of this folder look at them and rewrite them.

use deltalake::datafusion::common::tree_node::{Transformed, TreeNode};
use deltalake::datafusion::common::{DFSchema, Result};
use deltalake::datafusion::logical_expr::expr_rewriter::NamePreserver;
use deltalake::datafusion::logical_expr::utils::merge_schema;
use deltalake::datafusion::logical_expr::{Expr, LogicalPlan, Operator};

/// Rewrites all expressions of a plan and of its subqueries, each behind its operands. `each` is told the columns that it stands over.
pub(super) fn everywhere(plan: LogicalPlan, mut each: impl FnMut(Expr, &DFSchema) -> Result<Transformed<Expr>>) -> Result<LogicalPlan> {
    in_all_steps(plan, |expr, schema| expr.transform_up(|expr| each(expr, schema)))
}

/// The same but for the keys of ROLLUP and the like, whose columns are called what they are made of.
pub(super) fn outside_sets(plan: LogicalPlan, mut each: impl FnMut(Expr, &DFSchema) -> Result<Transformed<Expr>>) -> Result<LogicalPlan> {
    in_all_steps(plan, |expr, schema| match expr {
        Expr::GroupingSet(_) => Ok(Transformed::no(expr)),
        other => other.transform_up(|expr| each(expr, schema)),
    })
}

fn in_all_steps(plan: LogicalPlan, mut whole: impl FnMut(Expr, &DFSchema) -> Result<Transformed<Expr>>) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|plan| {
        let schema = merge_schema(&plan.inputs());
        rewrite(plan, |expr| whole(expr, &schema))
    });
    Ok(plan?.data)
}

/// Rewrites the expressions of one step of a plan. What they are called stays.
pub(super) fn rewrite(plan: LogicalPlan, mut each: impl FnMut(Expr) -> Result<Transformed<Expr>>) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(each(expr)?.update_data(|expr| name.restore(expr)))
    })
}

/// Whether its operands are held against each other.
pub(super) fn compares(expr: &Expr) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    match expr {
        Expr::BinaryExpr(of) => matches!(of.op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom),
        Expr::Between(_) | Expr::InList(_) => true,
        _ => false,
    }
}
