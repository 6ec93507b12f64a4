//! Numbers in SQL's text: `0.1` is a decimal, exactly a tenth, and `1e300` is a floating point number, as SQL has it. DataFusion takes either
//! both for decimals or both for floating point numbers; it is told the first, so those with an exponent are shown to it as what they are.

use std::ops::ControlFlow;

use deltalake::datafusion::sql::parser::Statement;
use deltalake::datafusion::sql::sqlparser::ast::{CastKind, DataType, ExactNumberInfo, Expr, Value, visit_expressions_mut};

/// Makes literals with an exponent floating point numbers.
pub(super) fn approximate(statement: &mut Statement) {
    match statement {
        Statement::Statement(inner) => {
            let _: ControlFlow<()> = visit_expressions_mut(inner.as_mut(), |expression| {
                if let Expr::Value(value) = expression
                    && let Value::Number(text, _) = &value.value
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
                ControlFlow::Continue(())
            });
        }
        Statement::Explain(explained) => approximate(&mut explained.statement),
        _ => {}
    }
}
