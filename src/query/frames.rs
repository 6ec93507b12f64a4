//! Floating point numbers over a frame of rows that moves are reckoned anew for each row, as in Postgres. DataFusion takes off what leaves the
//! frame, and then infinity is NaN ever after, and 1e300 has swallowed what was small beside it.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef, Schema};
use deltalake::datafusion::common::config::ConfigOptions;
use deltalake::datafusion::common::tree_node::Transformed;
use deltalake::datafusion::common::{DFSchema, Result, ScalarValue, internal_err};
use deltalake::datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use deltalake::datafusion::logical_expr::utils::AggregateOrderSensitivity;
use deltalake::datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, ExprSchemable, LogicalPlan, ReversedUDAF, Signature, WindowFunctionDefinition,
};
use deltalake::datafusion::optimizer::AnalyzerRule;
use deltalake::datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

use super::by_value::ORDERING;
use super::expressions::everywhere;

/// Goes behind DataFusion's coercion: the types of functions are known.
#[derive(Debug)]
pub(super) struct FloatsAnew;

impl AnalyzerRule for FloatsAnew {
    fn name(&self) -> &str {
        "floats_anew"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        everywhere(plan, anew)
    }
}

fn anew(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    // What gives other than floating point numbers, like a count of them, is exact, and a frame may be long.
    let gives_floats = matches!(expr, Expr::WindowFunction(_)) && expr.get_type(schema).is_ok_and(|of| of.is_floating());
    match expr {
        Expr::WindowFunction(mut function) if gives_floats => {
            // Those that order values take one of them, and reckon nothing.
            if let WindowFunctionDefinition::AggregateUDF(aggregate) = &mut function.fun
                && !ORDERING.contains(&aggregate.name())
            {
                *aggregate = Arc::new(AggregateUDF::new_from_impl(Anew(Arc::clone(aggregate))));
            }
            Ok(Transformed::yes(Expr::WindowFunction(function)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// A function of DataFusion's that sees the rows of a frame, and none of those that were in it before.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Anew(Arc<AggregateUDF>);

impl AggregateUDFImpl for Anew {
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

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        self.0.return_field(arguments)
    }

    fn is_nullable(&self) -> bool {
        self.0.is_nullable()
    }

    /// Of a frame without rows.
    fn default_value(&self, of: &DataType) -> Result<ScalarValue> {
        self.0.default_value(of)
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.0.state_fields(arguments)
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.0.accumulator(arguments)
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Frame {
            function: Arc::clone(&self.0),
            call: Call::of(&arguments),
            rows: Vec::new(),
        }))
    }

    /// Backwards, what grows from the first row would move: all rows would be reckoned anew for each. So they are sorted once more.
    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.0.order_sensitivity()
    }
}

/// The rows of a frame. Those that leave it are the first that came.
#[derive(Debug)]
struct Frame {
    function: Arc<AggregateUDF>,
    call: Call,
    /// One array for each argument, or none before the first row.
    rows: Vec<ArrayRef>,
}

impl Frame {
    /// What has seen the rows of the frame only.
    fn reckoned(&self) -> Result<Box<dyn Accumulator>> {
        let mut accumulator = self.function.accumulator(self.call.arguments())?;
        if !self.rows.is_empty() {
            accumulator.update_batch(&self.rows)?;
        }
        Ok(accumulator)
    }
}

impl Accumulator for Frame {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.rows.is_empty() {
            self.rows = values.to_vec();
            return Ok(());
        }
        for (held, new) in self.rows.iter_mut().zip(values) {
            *held = concat(&[held.as_ref(), new.as_ref()])?;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for (held, gone) in self.rows.iter_mut().zip(values) {
            let Some(left) = held.len().checked_sub(gone.len()) else {
                return internal_err!("{} rows leave a frame of {}", gone.len(), held.len());
            };
            *held = held.slice(gone.len(), left);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.reckoned()?.evaluate()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.rows.iter().map(|held| held.get_array_memory_size()).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.reckoned()?.state()
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        internal_err!("frames are not merged")
    }
}

/// What DataFusion lends to make an accumulator of, kept to make more of them.
#[derive(Debug)]
struct Call {
    return_field: FieldRef,
    schema: Schema,
    ignore_nulls: bool,
    order_bys: Vec<PhysicalSortExpr>,
    is_reversed: bool,
    name: String,
    is_distinct: bool,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
}

impl Call {
    fn of(arguments: &AccumulatorArgs) -> Self {
        Self {
            return_field: Arc::clone(&arguments.return_field),
            schema: arguments.schema.clone(),
            ignore_nulls: arguments.ignore_nulls,
            order_bys: arguments.order_bys.to_vec(),
            is_reversed: arguments.is_reversed,
            name: arguments.name.to_owned(),
            is_distinct: arguments.is_distinct,
            exprs: arguments.exprs.to_vec(),
            expr_fields: arguments.expr_fields.to_vec(),
        }
    }

    fn arguments(&self) -> AccumulatorArgs<'_> {
        AccumulatorArgs {
            return_field: Arc::clone(&self.return_field),
            schema: &self.schema,
            ignore_nulls: self.ignore_nulls,
            order_bys: &self.order_bys,
            is_reversed: self.is_reversed,
            name: &self.name,
            is_distinct: self.is_distinct,
            exprs: &self.exprs,
            expr_fields: &self.expr_fields,
        }
    }
}
