//! Where the right side of IS [NOT] DISTINCT FROM ends: before AND and OR, as in Postgres. The parser reads on to the end of the condition, and
//! `a IS DISTINCT FROM b AND c` comes as `a IS DISTINCT FROM (b AND c)`.
//!
//! Brackets that were written stand in the tree as such, so an AND or OR that is the last operand of what binds more tightly, and has none around
//! it, is one that the parser took too early: it is lifted out. What Postgres cannot read either, like `a IS DISTINCT FROM b IS NULL`, is
//! refused.

use std::mem;
use std::ops::ControlFlow;

use deltalake::datafusion::sql::parser::Statement;
use deltalake::datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Value, visit_expressions_mut};

use crate::error::{Error, Result};

/// Puts the statement together as it was meant.
pub(super) fn put(statement: &mut Statement) -> Result<()> {
    let found = match statement {
        Statement::Statement(inner) => visit_expressions_mut(inner.as_mut(), regroup),
        Statement::Explain(explained) => return put(&mut explained.statement),
        _ => ControlFlow::Continue(()),
    };
    match found {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(what) => {
            let what = format!("`{what}` can be read in two ways: put brackets around the right side of IS DISTINCT FROM");
            Err(Error::config("usage", what))
        }
    }
}

/// Lifts AND and OR out of the last operand. Those within an operand have been lifted out before: operands are visited first.
fn regroup(expression: &mut Expr) -> ControlFlow<String> {
    let own = match &*expression {
        Expr::BinaryOp { op, .. } => strength(op),
        _ => TIGHT,
    };
    let Some(last) = last_operand(expression) else {
        return ControlFlow::Continue(());
    };
    match mem::replace(last, Expr::value(Value::Null)) {
        Expr::BinaryOp { left, op, right } if strength(&op) < own => {
            *last = *left;
            let mut first = mem::replace(expression, Expr::value(Value::Null));
            regroup(&mut first)?;
            *expression = Expr::BinaryOp {
                left: Box::new(first),
                op,
                right,
            };
        }
        other => {
            let unclear = is_test(&other);
            *last = other;
            if unclear && matches!(expression, Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..)) {
                return ControlFlow::Break(expression.to_string());
            }
        }
    }
    ControlFlow::Continue(())
}

/// How tightly all that is neither AND nor OR binds, for all that matters here.
const TIGHT: u8 = 2;

fn strength(operator: &BinaryOperator) -> u8 {
    match operator {
        BinaryOperator::Or => 0,
        BinaryOperator::And => 1,
        _ => TIGHT,
    }
}

/// The operand that an expression ends with.
fn last_operand(expression: &mut Expr) -> Option<&mut Expr> {
    match expression {
        Expr::IsDistinctFrom(_, last)
        | Expr::IsNotDistinctFrom(_, last)
        | Expr::BinaryOp { right: last, .. }
        | Expr::UnaryOp { expr: last, .. } => Some(last.as_mut()),
        _ => None,
    }
}

/// Whether it is one of those with IS, which do not follow each other without brackets.
fn is_test(expression: &Expr) -> bool {
    matches!(
        expression,
        Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_)
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
            | Expr::IsNormalized { .. }
    )
}
