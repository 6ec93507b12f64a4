//! Casts that lose something, as of decimals to integers, stay where they are written. DataFusion takes a cast off what is compared with a
//! literal, and casts the literal back instead: 12.34 cast to an integer is 12, and 12 cast back is not 12.34.
//!
//! Filters move through a plan, down to casts of any column that they name: so each such cast goes through a function that leaves it as it is,
//! and that DataFusion does not look through. Casts that lose nothing, as all are that DataFusion adds, it may take off: then files are passed
//! over by them.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, TimeUnit};
use deltalake::datafusion::common::config::ConfigOptions;
use deltalake::datafusion::common::tree_node::Transformed;
use deltalake::datafusion::common::{DFSchema, Result};
use deltalake::datafusion::logical_expr::{ColumnarValue, Expr, ExprSchemable, LogicalPlan};
use deltalake::datafusion::optimizer::AnalyzerRule;

use super::expressions::everywhere;
use super::opaque::{self, Function};

/// Goes behind DataFusion's coercion: the types of operands are known.
#[derive(Debug)]
pub(super) struct KeptCasts;

impl AnalyzerRule for KeptCasts {
    fn name(&self) -> &str {
        "kept_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        everywhere(plan, |expr, schema| Ok(kept(expr, schema)))
    }
}

fn kept(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    if !is_lossy(&expr, schema) {
        return Transformed::no(expr);
    }
    Transformed::yes(opaque::call(Kept, expr))
}

/// What becomes of a value that has no place in the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misfit {
    Error,
    Null,
}

/// Whether it is a cast that must not be taken off.
fn is_lossy(expr: &Expr, schema: &DFSchema) -> bool {
    let (operand, misfit) = match expr {
        Expr::Cast(cast) => (cast.expr.as_ref(), Misfit::Error),
        Expr::TryCast(cast) => (cast.expr.as_ref(), Misfit::Null),
        // They become casts later.
        Expr::ScalarFunction(function) => match (function.func.name(), function.args.first()) {
            ("arrow_cast" | "cast_to_type", Some(operand)) => (operand, Misfit::Error),
            ("arrow_try_cast" | "try_cast_to_type", Some(operand)) => (operand, Misfit::Null),
            _ => return false,
        },
        _ => return false,
    };
    if matches!(operand, Expr::Literal(..)) {
        return false;
    }
    match (operand.get_type(schema), expr.get_type(schema)) {
        (Ok(from), Ok(to)) => !is_exact(&from, &to, misfit),
        // What has no type by itself, like a lambda, is left to DataFusion.
        _ => false,
    }
}

/// Whether a comparison says the same without the cast. Of types that are not named here DataFusion takes off no cast, or none that loses
/// anything: of text, of floating point numbers, and of times to coarser ones.
fn is_exact(from: &DataType, to: &DataType, misfit: Misfit) -> bool {
    if let (DataType::Timestamp(unit, zone), DataType::Timestamp(wanted, other)) = (from, to) {
        // A time of day becomes an instant, or an instant a time of day: its number changes, unless the zone is UTC.
        let is_utc = |zone: &Option<Arc<str>>| matches!(zone.as_deref(), None | Some("UTC" | "+00:00"));
        let one_clock = zone.is_some() == other.is_some() || (is_utc(zone) && is_utc(other));
        // A literal that is finer than the column would be cut. Of nanoseconds, which no column has, only `now()` and the like are, to which
        // DataFusion brings columns: those have times that nanoseconds do not reach, and must not be cast.
        return one_clock && (unit == wanted || (*wanted == TimeUnit::Nanosecond && misfit == Misfit::Error));
    }
    if is_time(from) && is_time(to) {
        return true;
    }
    let (Some((values, places)), Some((room, wanted))) = (numbers(from), numbers(to)) else {
        return true;
    };
    let fits = room.contains(values.start()) && room.contains(values.end());
    // The widest decimals are what DataFusion compares others in, where a comparison without the cast is right and does not fail.
    let is_widest = matches!(to, DataType::Decimal128(DECIMAL128_MAX_PRECISION, _)) && misfit == Misfit::Error;
    places <= wanted && (fits || is_widest)
}

fn is_time(of: &DataType) -> bool {
    matches!(of, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}

/// The whole numbers that a type has, and its decimal places.
fn numbers(of: &DataType) -> Option<(RangeInclusive<i128>, i8)> {
    let whole = |least: i128, greatest: i128| Some((least..=greatest, 0));
    match of {
        DataType::Int8 => whole(i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => whole(i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 | DataType::Date32 => whole(i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 | DataType::Date64 | DataType::Timestamp(..) => whole(i64::MIN.into(), i64::MAX.into()),
        DataType::UInt8 => whole(0, u8::MAX.into()),
        DataType::UInt16 => whole(0, u16::MAX.into()),
        DataType::UInt32 => whole(0, u32::MAX.into()),
        DataType::UInt64 => whole(0, u64::MAX.into()),
        DataType::Decimal32(digits, places) | DataType::Decimal64(digits, places) | DataType::Decimal128(digits, places) => {
            let before = u32::try_from(i16::from(*digits) - i16::from(*places)).unwrap_or(0);
            let greatest = 10_i128.checked_pow(before).map_or(i128::MAX, |power| power - 1);
            Some((-greatest..=greatest, *places))
        }
        _ => None,
    }
}

/// Leaves a cast as it is, and its column the name of the cast.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Kept;

impl Function for Kept {
    const NAME: &'static str = "kept";

    fn of(value: &ColumnarValue) -> Result<ColumnarValue> {
        Ok(value.clone())
    }

    fn column(operand: &Expr) -> String {
        operand.schema_name().to_string()
    }
}
