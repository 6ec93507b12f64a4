//! Functions of one operand that DataFusion does not look through: of their values nothing is known before the rows are read. What they give is
//! of the operand's type, and null where it is.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use deltalake::datafusion::common::{Result, internal_err};
use deltalake::datafusion::logical_expr::interval_arithmetic::Interval;
use deltalake::datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// What such a function gives.
pub(super) trait Function: Debug + Eq + Hash + Send + Sync + 'static {
    const NAME: &'static str;

    /// Of the operand's type.
    fn of(value: &ColumnarValue) -> Result<ColumnarValue>;

    /// What its column is called.
    fn column(operand: &Expr) -> String {
        format!("{}({})", Self::NAME, operand.schema_name())
    }
}

/// The function of an operand.
pub(super) fn call<F: Function>(function: F, operand: Expr) -> Expr {
    let opaque = Opaque {
        function,
        signature: Signature::any(1, Volatility::Immutable),
    };
    ScalarUDF::new_from_impl(opaque).call(vec![operand])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Opaque<F> {
    function: F,
    signature: Signature,
}

/// The operand. A plan that has others is none of ours.
fn only<'o, T>(name: &str, operands: &'o [T]) -> Result<&'o T> {
    match operands {
        [operand] => Ok(operand),
        _ => internal_err!("{name} has one operand"),
    }
}

impl<F: Function> ScalarUDFImpl for Opaque<F> {
    fn name(&self) -> &str {
        F::NAME
    }

    fn schema_name(&self, operands: &[Expr]) -> Result<String> {
        only(F::NAME, operands).map(F::column)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, operands: &[DataType]) -> Result<DataType> {
        only(F::NAME, operands).cloned()
    }

    /// What is known of a column is known of its values.
    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let operand = only(F::NAME, arguments.arg_fields)?;
        Ok(Arc::new(operand.as_ref().clone().with_name(F::NAME)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn evaluate_bounds(&self, operands: &[&Interval]) -> Result<Interval> {
        Interval::make_unbounded(&only(F::NAME, operands)?.data_type())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        F::of(only(F::NAME, &arguments.args)?)
    }
}
