//! Sums that do not wrap around. DataFusion adds up bigints as bigints, and decimals of 38 digits as such: a sum beyond that comes out as
//! another number, without a word. Here it is reckoned in a wider type, whatever the order of the rows, and has the type that DataFusion gives
//! it; one that this does not hold is an error. So is an average of durations, whose sum is a bigint.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, FieldRef};
use deltalake::datafusion::common::{Result, ScalarValue, exec_datafusion_err, plan_err};
use deltalake::datafusion::functions_aggregate::average::avg_udaf;
use deltalake::datafusion::functions_aggregate::sum::sum_udaf;
use deltalake::datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use deltalake::datafusion::logical_expr::utils::AggregateOrderSensitivity;
use deltalake::datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};

/// More digits than this leave no room for the sum in the widest type there is.
const MOST_DIGITS: u8 = 63;

/// The functions that take the places of DataFusion's.
pub(super) fn functions() -> [AggregateUDF; 2] {
    [sum_udaf(), avg_udaf()].map(|function| AggregateUDF::new_from_impl(Wide(function)))
}

/// A function of DataFusion's, whose values are widened first, and whose result is narrowed.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Wide(Arc<AggregateUDF>);

impl Wide {
    /// What the values are added up in, where the type of the result does not do. An average brings this along itself, but for durations.
    fn wide(&self, result: &DataType) -> Option<DataType> {
        match result {
            DataType::Duration(_) => Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)),
            _ if self.name() != "sum" => None,
            DataType::Int64 | DataType::UInt64 => Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)),
            DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale)),
            DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale) => Some(DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale)),
            _ => None,
        }
    }

    /// What adds up, between the two casts where it needs them.
    fn made<A>(
        &self,
        arguments: AccumulatorArgs,
        make: impl FnOnce(AccumulatorArgs) -> Result<A>,
        between: impl FnOnce(Widened<A>) -> A,
    ) -> Result<A> {
        let result = arguments.return_type().clone();
        let Some(wide) = self.wide(&result) else {
            return make(arguments);
        };
        let field = of_type(&arguments.return_field, &wide);
        let fields = [Arc::clone(&field)];
        let inner = make(AccumulatorArgs {
            return_field: field,
            expr_fields: &fields,
            ..arguments
        })?;
        Ok(between(Widened { inner, wide, result }))
    }
}

fn of_type(field: &Field, wanted: &DataType) -> FieldRef {
    Arc::new(field.clone().with_data_type(wanted.clone()))
}

impl AggregateUDFImpl for Wide {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        if let [DataType::Decimal256(digits, _)] = arguments
            && *digits > MOST_DIGITS
        {
            return plan_err!("{} of decimals of {digits} digits: cast them to {MOST_DIGITS} or less", self.name());
        }
        self.0.return_type(arguments)
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let Some(wide) = self.wide(arguments.return_type()) else {
            return self.0.state_fields(arguments);
        };
        let field = of_type(&arguments.return_field, &wide);
        let fields = [Arc::clone(&field)];
        self.0.state_fields(StateFieldsArgs {
            input_fields: &fields,
            return_field: field,
            ..arguments
        })
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.made(
            arguments,
            |arguments| self.0.accumulator(arguments),
            |widened| -> Box<dyn Accumulator> { Box::new(widened) },
        )
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs) -> bool {
        self.0.groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.made(
            arguments,
            |arguments| self.0.create_groups_accumulator(arguments),
            |widened| -> Box<dyn GroupsAccumulator> { Box::new(widened) },
        )
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if arguments.is_distinct {
            return plan_err!("{}(DISTINCT …) over rows that leave its window is not understood here", self.name());
        }
        self.made(
            arguments,
            |arguments| self.0.create_sliding_accumulator(arguments),
            |widened| -> Box<dyn Accumulator> { Box::new(widened) },
        )
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.0.order_sensitivity()
    }
}

/// Values are widened on their way in, and the result is narrowed on its way out. States in between are wide.
#[derive(Debug)]
struct Widened<A> {
    inner: A,
    wide: DataType,
    result: DataType,
}

impl<A> Widened<A> {
    fn widen(&self, values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        values.iter().map(|values| exactly(values, &self.wide)).collect()
    }

    fn narrow(&self, results: &ArrayRef) -> Result<ArrayRef> {
        let beyond = |_| exec_datafusion_err!("a sum does not fit its type {}: cast what is added up to a wider one", self.result);
        exactly(results, &self.result).map_err(beyond)
    }
}

/// Casts, or fails where a value has no place.
fn exactly(values: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let whole = match (values.data_type(), wanted) {
        // A duration is a bigint of its unit.
        (DataType::Duration(_), _) | (_, DataType::Duration(_)) => cast_with_options(values, &DataType::Int64, &options)?,
        _ => Arc::clone(values),
    };
    Ok(cast_with_options(&whole, wanted, &options)?)
}

impl Accumulator for Widened<Box<dyn Accumulator>> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = self.widen(values)?;
        self.inner.update_batch(&values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let result = self.inner.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&self.narrow(&result)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = self.widen(values)?;
        self.inner.retract_batch(&values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

impl GroupsAccumulator for Widened<Box<dyn GroupsAccumulator>> {
    fn update_batch(&mut self, values: &[ArrayRef], groups: &[usize], filter: Option<&BooleanArray>, total: usize) -> Result<()> {
        let values = self.widen(values)?;
        self.inner.update_batch(&values, groups, filter, total)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let results = self.inner.evaluate(emit)?;
        self.narrow(&results)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.inner.merge_batch(states, groups, total)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(&self.widen(values)?, filter)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }
}
