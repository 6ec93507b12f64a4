//! One zero and one NaN: a function that leaves floating point numbers as they are, but for -0.0, which becomes 0.0, and NaN, of which there are
//! many (the processor's own, as of ∞ × 0, has its sign set), which becomes the one that is greater than all numbers.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use deltalake::datafusion::common::{Result, ScalarValue, internal_err};
use deltalake::datafusion::logical_expr::{ColumnarValue, Expr};

use super::opaque::{self, Function};

/// The expression, with one zero and one NaN.
pub(super) fn canonical(expr: Expr) -> Expr {
    opaque::call(ByValue, expr)
}

/// Whether the expression has been through `canonical`.
pub(super) fn is_canonical(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_canonical(&alias.expr),
        Expr::ScalarFunction(function) => function.name() == ByValue::NAME,
        _ => false,
    }
}

/// The same, of a literal.
pub(super) fn canonical_scalar(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Float32(value) => ScalarValue::Float32(value.map(single)),
        ScalarValue::Float64(value) => ScalarValue::Float64(value.map(double)),
        other => other,
    }
}

fn single(value: f32) -> f32 {
    // A sum of both zeros is 0.0. The bits of Rust's own NaN are not promised.
    if value.is_nan() { f32::from_bits(0x7fc0_0000) } else { value + 0.0 }
}

fn double(value: f64) -> f64 {
    if value.is_nan() {
        f64::from_bits(0x7ff8_0000_0000_0000)
    } else {
        value + 0.0
    }
}

fn canonical_array(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Float32 => Ok(Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(single))),
        DataType::Float64 => Ok(Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(double))),
        other => internal_err!("{} of {other}", ByValue::NAME),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ByValue;

impl Function for ByValue {
    const NAME: &'static str = "by_value";

    fn of(value: &ColumnarValue) -> Result<ColumnarValue> {
        Ok(match value {
            ColumnarValue::Array(values) => ColumnarValue::Array(canonical_array(values)?),
            ColumnarValue::Scalar(value) => ColumnarValue::Scalar(canonical_scalar(value.clone())),
        })
    }
}
