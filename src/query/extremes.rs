//! `min` and `max` of floating point numbers in groups. DataFusion's own for groups begins with the least finite number, which is not the
//! greatest of infinities, and forgets NaN with the next number. Here they are held against each other in the total order, which is that of
//! Postgres, as there is one zero and one NaN: see `by_value`.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::{ArrowNativeTypeOp, ArrowPrimitiveType, DataType, FieldRef, Float32Type, Float64Type};
use deltalake::datafusion::common::{Result, internal_err};
use deltalake::datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use deltalake::datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};
use deltalake::datafusion::physical_expr::NullState;

/// Whether it is one of the two.
pub(super) fn is_extreme(function: &AggregateUDF) -> bool {
    ["min", "max"].contains(&function.name())
}

/// The function that takes the place of DataFusion's. Its values have one zero and one NaN.
pub(super) fn of_floats(function: Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(Extreme(function)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme(Arc<AggregateUDF>);

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.0.coerce_types(arguments)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.0.return_type(arguments)
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.0.state_fields(arguments)
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.0.accumulator(arguments)
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let better = if self.name() == "max" { Ordering::Greater } else { Ordering::Less };
        match arguments.return_type() {
            DataType::Float32 => Ok(Box::new(Extremes::<Float32Type>::new(better))),
            DataType::Float64 => Ok(Box::new(Extremes::<Float64Type>::new(better))),
            other => internal_err!("{} of {other} is none of floating point numbers", self.name()),
        }
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.0.create_sliding_accumulator(arguments)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// The best number of each group. What is known of a group on the way is this number, too.
struct Extremes<T: ArrowPrimitiveType> {
    best: Vec<T::Native>,
    /// The groups that have a number at all.
    seen: NullState,
    /// How a better number compares with another.
    better: Ordering,
}

impl<T: ArrowPrimitiveType + Send> Extremes<T> {
    fn new(better: Ordering) -> Self {
        Self {
            best: Vec::new(),
            seen: NullState::new(),
            better,
        }
    }

    /// What no number is worse than.
    fn worst(&self) -> T::Native {
        match self.better {
            Ordering::Greater => <T::Native as ArrowNativeTypeOp>::MIN_TOTAL_ORDER,
            Ordering::Less | Ordering::Equal => <T::Native as ArrowNativeTypeOp>::MAX_TOTAL_ORDER,
        }
    }
}

impl<T: ArrowPrimitiveType + Send> GroupsAccumulator for Extremes<T> {
    fn update_batch(&mut self, values: &[ArrayRef], groups: &[usize], filter: Option<&BooleanArray>, total: usize) -> Result<()> {
        let [values] = values else {
            return internal_err!("the extreme of {} columns", values.len());
        };
        let (worst, better) = (self.worst(), self.better);
        self.best.resize(total, worst);
        let best = &mut self.best;
        self.seen
            .accumulate(groups, values.as_primitive::<T>(), filter, total, |group, value| {
                if value.compare(best[group]) == better {
                    best[group] = value;
                }
            });
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let best = emit.take_needed(&mut self.best);
        let seen = self.seen.build(emit);
        Ok(Arc::new(PrimitiveArray::<T>::new(best.into(), seen)))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.update_batch(states, groups, None, total)
    }

    /// Each row is a group of its own.
    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |values| values.len());
        let groups: Vec<usize> = (0..rows).collect();
        let mut each = Self::new(self.better);
        each.update_batch(values, &groups, filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.best.capacity() * size_of::<T::Native>() + self.seen.size()
    }
}
