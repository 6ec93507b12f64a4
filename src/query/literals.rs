//! What SQL's text means here, where DataFusion would take it otherwise.
//!
//! `0.1` is a decimal, exactly a tenth, and `1e300` is a floating point number, as SQL has it. DataFusion takes either both for decimals or both
//! for floating point numbers; it is told the first, so those with an exponent are shown to it as what they are.
//!
//! A TIMESTAMP is of microseconds, as those of the tables are, and so is one AT TIME ZONE. DataFusion's nanoseconds end in 2262, and 9999-12-31
//! is a date that real systems write.

use std::mem;
use std::ops::ControlFlow;

use deltalake::datafusion::sql::parser::Statement;
use deltalake::datafusion::sql::sqlparser::ast::{CastKind, DataType, ExactNumberInfo, Expr, Value, visit_expressions_mut};

use super::zones;

/// Digits of the seconds of microseconds.
const MICROSECONDS: u64 = 6;

/// Says in the statement what its literals and casts mean.
pub(super) fn spell_out(statement: &mut Statement) {
    match statement {
        Statement::Statement(inner) => {
            let _: ControlFlow<()> = visit_expressions_mut(inner.as_mut(), |expression| {
                spell_out_one(expression);
                ControlFlow::Continue(())
            });
        }
        Statement::Explain(explained) => spell_out(&mut explained.statement),
        _ => {}
    }
}

fn spell_out_one(expression: &mut Expr) {
    match expression {
        Expr::Value(value) => {
            if let Value::Number(text, _) = &value.value
                && text.contains(['e', 'E'])
            {
                *expression = Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(Expr::Value(Value::SingleQuotedString(text.clone()).into())),
                    data_type: DataType::Double(ExactNumberInfo::None),
                    array: false,
                    format: None,
                };
            }
        }
        Expr::AtTimeZone { timestamp, time_zone } => {
            if let Expr::Value(zone) = time_zone.as_ref()
                && let Value::SingleQuotedString(zone) = &zone.value
            {
                let (timestamp, zone) = (mem::replace(timestamp.as_mut(), Expr::value(Value::Null)), zone.clone());
                *expression = zones::at(timestamp, zone);
            }
        }
        Expr::Cast { data_type, .. } => of_microseconds(data_type),
        Expr::TypedString(text) => of_microseconds(&mut text.data_type),
        _ => {}
    }
}

fn of_microseconds(data_type: &mut DataType) {
    if let DataType::Timestamp(digits @ None, _) = data_type {
        *digits = Some(MICROSECONDS);
    }
}
