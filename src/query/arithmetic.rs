//! Arithmetic of integers and decimals whose result has no place in its type is an error, as in Postgres. DataFusion's own wraps integers
//! around, and makes decimals of more digits than can be told.
//!
//! What is to be evaluated becomes a function of ours before anything is reckoned out or shown to a scan: so constants and filters go through
//! it, too. Where floating point numbers and times are reckoned with, DataFusion's own are right.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Datum};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Field, FieldRef};
use arrow::error::ArrowError;
use deltalake::datafusion::common::config::ConfigOptions;
use deltalake::datafusion::common::tree_node::Transformed;
use deltalake::datafusion::common::{DFSchema, Result, internal_err};
use deltalake::datafusion::logical_expr::binary::BinaryTypeCoercer;
use deltalake::datafusion::logical_expr::interval_arithmetic::Interval;
use deltalake::datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use deltalake::datafusion::optimizer::AnalyzerRule;
use deltalake::datafusion::physical_expr_common::datum::apply;

use super::expressions::everywhere;

/// Goes behind DataFusion's coercion: operands have the types that they are reckoned with.
#[derive(Debug)]
pub(super) struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        everywhere(plan, |expr, schema| Ok(checked(expr, schema)))
    }
}

fn checked(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: op @ (Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide),
            right,
        }) if is_exact(&left, schema) && is_exact(&right, schema) => Transformed::yes(Checked::function(op).call(vec![*left, *right])),
        Expr::Negative(operand) if is_exact(&operand, schema) => Transformed::yes(Checked::function(Operator::Minus).call(vec![*operand])),
        other => Transformed::no(other),
    }
}

/// What has no type by itself, like a lambda, is left to DataFusion.
fn is_exact(operand: &Expr, schema: &DFSchema) -> bool {
    operand.get_type(schema).is_ok_and(|of| of.is_integer() || of.is_decimal())
}

/// One of the four operators; with one operand, the sign.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operator: Operator,
    signature: Signature,
}

impl Checked {
    fn function(operator: Operator) -> ScalarUDF {
        ScalarUDF::new_from_impl(Self {
            operator,
            signature: Signature::variadic_any(Volatility::Immutable),
        })
    }

    fn evaluate(&self, left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
        in_range(match self.operator {
            Operator::Plus => numeric::add(left, right),
            Operator::Minus => numeric::sub(left, right),
            Operator::Multiply => numeric::mul(left, right),
            _ => numeric::div(left, right),
        }?)
    }
}

/// The kernels look after their integers, of 128 bits for a decimal; these hold more than its digits.
fn in_range(array: ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Decimal32(digits, _) => array.as_primitive::<Decimal32Type>().validate_decimal_precision(*digits)?,
        DataType::Decimal64(digits, _) => array.as_primitive::<Decimal64Type>().validate_decimal_precision(*digits)?,
        DataType::Decimal128(digits, _) => array.as_primitive::<Decimal128Type>().validate_decimal_precision(*digits)?,
        DataType::Decimal256(digits, _) => array.as_primitive::<Decimal256Type>().validate_decimal_precision(*digits)?,
        _ => {}
    }
    Ok(array)
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.operator {
            Operator::Plus => "add",
            Operator::Minus => "subtract",
            Operator::Multiply => "multiply",
            _ => "divide",
        }
    }

    /// Columns are called what they were called.
    fn schema_name(&self, operands: &[Expr]) -> Result<String> {
        match operands {
            [operand] => Ok(format!("(- {})", operand.schema_name())),
            [left, right] => Ok(format!("{} {} {}", left.schema_name(), self.operator, right.schema_name())),
            _ => internal_err!("{} has one operand or two", self.name()),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, operands: &[DataType]) -> Result<DataType> {
        match operands {
            [operand] => Ok(operand.clone()),
            [left, right] => BinaryTypeCoercer::new(left, &self.operator, right).get_result_type(),
            _ => internal_err!("{} has one operand or two", self.name()),
        }
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let operands = arguments.arg_fields;
        let types: Vec<DataType> = operands.iter().map(|field| field.data_type().clone()).collect();
        let nullable = operands.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn evaluate_bounds(&self, operands: &[&Interval]) -> Result<Interval> {
        let types: Vec<DataType> = operands.iter().map(|operand| operand.data_type()).collect();
        Interval::make_unbounded(&self.return_type(&types)?)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match arguments.args.as_slice() {
            [operand] => Ok(ColumnarValue::Array(numeric::neg(&operand.to_array(arguments.number_rows)?)?)),
            [left, right] => apply(left, right, |left, right| self.evaluate(left, right)),
            _ => internal_err!("{} has one operand or two", self.name()),
        }
    }
}
