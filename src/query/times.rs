//! Timestamps beside text and dates. DataFusion brings them to nanoseconds, which end in 2262: the timestamps of a column overflow, and text that
//! is finer than they are is cut, and equal to what it is not. Here text and dates become timestamps as the others are, and text that is finer
//! is refused.

use arrow::datatypes::{DataType, TimeUnit};
use deltalake::datafusion::common::config::ConfigOptions;
use deltalake::datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use deltalake::datafusion::common::{DFSchema, Result, plan_err};
use deltalake::datafusion::logical_expr::expr::{Cast, TryCast};
use deltalake::datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use deltalake::datafusion::optimizer::AnalyzerRule;

use super::expressions::{compares, everywhere};

/// Goes before DataFusion's coercion, which then finds nothing of this kind left.
#[derive(Debug)]
pub(super) struct AsTimestamps;

impl AnalyzerRule for AsTimestamps {
    fn name(&self) -> &str {
        "as_timestamps"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        everywhere(plan, as_timestamps)
    }
}

fn as_timestamps(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if !compares(&expr) {
        return Ok(Transformed::no(expr));
    }
    let mut timestamps = None;
    expr.apply_children(|operand| {
        // What has no type by itself is left to DataFusion.
        if let Ok(found @ DataType::Timestamp(..)) = operand.get_type(schema) {
            timestamps.get_or_insert(found);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let Some(wanted) = timestamps else {
        return Ok(Transformed::no(expr));
    };
    expr.map_children(|operand| {
        let is_text = matches!(&operand, Expr::Literal(value, _) if value.try_as_str().is_some());
        if is_text || operand.get_type(schema).is_ok_and(|of| of == DataType::Date32) {
            operand.cast_to(&wanted, schema).map(Transformed::yes)
        } else {
            Ok(Transformed::no(operand))
        }
    })
}

/// Goes behind the coercion, and before any text is read.
#[derive(Debug)]
pub(super) struct WholeTimes;

impl AnalyzerRule for WholeTimes {
    fn name(&self) -> &str {
        "whole_times"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.apply_with_subqueries(|plan| {
            plan.apply_expressions(|expr| {
                expr.apply(|expr| {
                    must_be_whole(expr)?;
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        Ok(plan)
    }
}

fn must_be_whole(expr: &Expr) -> Result<()> {
    if let Expr::Cast(Cast { expr: inner, field }) | Expr::TryCast(TryCast { expr: inner, field }) = expr
        && let (Expr::Literal(value, _), DataType::Timestamp(unit, _)) = (inner.as_ref(), field.data_type())
        && let Some(Some(text)) = value.try_as_str()
    {
        let (digits, name) = match unit {
            TimeUnit::Second => (0, "seconds"),
            TimeUnit::Millisecond => (3, "milliseconds"),
            // No table has finer ones, and beside a column of one nanoseconds would be cut.
            TimeUnit::Microsecond | TimeUnit::Nanosecond => (6, "microseconds"),
        };
        if is_finer(text, digits) {
            return plan_err!("'{text}' is finer than a timestamp of {name}, which it is compared with or cast to, and would be cut");
        }
    }
    Ok(())
}

/// Whether the seconds of the text have more digits than these, but for zeros.
fn is_finer(text: &str, digits: usize) -> bool {
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    let mut beyond = fraction.bytes().take_while(u8::is_ascii_digit).skip(digits);
    beyond.any(|digit| digit != b'0')
}
