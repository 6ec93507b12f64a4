//! Decimals that meet floating point numbers are taken for those, as in Postgres: in comparisons, lists, branches, arithmetic, the arguments of
//! a function, and the columns of UNION and VALUES. Among themselves and with integers, decimals stay exact.
//!
//! DataFusion brings a floating point number and a decimal to a decimal of 15 places: so 1e-20 is 0.0, and NaN and 1e300 have no place. What
//! it brings together, it knows of each expression; so it is asked, and where it would make a decimal of a floating point number, all that
//! it would bring together there are cast to double before.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use deltalake::datafusion::common::config::ConfigOptions;
use deltalake::datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion, TreeNodeRewriter};
use deltalake::datafusion::common::{DFSchema, Result};
use deltalake::datafusion::logical_expr::expr::Cast;
use deltalake::datafusion::logical_expr::expr_rewriter::coerce_plan_expr_for_schema;
use deltalake::datafusion::logical_expr::expr_schema::cast_subquery;
use deltalake::datafusion::logical_expr::logical_plan::Subquery;
use deltalake::datafusion::logical_expr::utils::merge_schema;
use deltalake::datafusion::logical_expr::{Expr, ExprSchemable, Join, LogicalPlan, Union, Values};
use deltalake::datafusion::optimizer::AnalyzerRule;
use deltalake::datafusion::optimizer::analyzer::type_coercion::TypeCoercionRewriter;

use super::expressions::{outside_sets, rewrite};

/// Goes before DataFusion's own coercion, which then finds nothing of this kind left.
#[derive(Debug)]
pub(super) struct DecimalsAsDoubles;

impl AnalyzerRule for DecimalsAsDoubles {
    fn name(&self) -> &str {
        "decimals_as_doubles"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|plan| together(plan).map(Transformed::yes))?.data;
        // Literals are a part of what a column is called, and casts are not.
        outside_sets(plan, |expr, _| nearest(expr))
    }
}

/// Whether they would meet in a decimal.
fn meet(types: &[DataType]) -> bool {
    types.iter().any(is_float) && types.iter().any(is_decimal)
}

fn is_float(data_type: &DataType) -> bool {
    element(data_type).is_floating()
}

fn is_decimal(data_type: &DataType) -> bool {
    element(data_type).is_decimal()
}

/// What lists, and lists of them, are of; a type that is no list is its own.
fn element(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::List(of) | DataType::LargeList(of) | DataType::FixedSizeList(of, _) => element(of.data_type()),
        other => other,
    }
}

/// The same lists, of doubles.
fn of_doubles(data_type: &DataType) -> DataType {
    let inner = |of: &Arc<Field>| Arc::new(of.as_ref().clone().with_data_type(of_doubles(of.data_type())));
    match data_type {
        DataType::List(of) => DataType::List(inner(of)),
        DataType::LargeList(of) => DataType::LargeList(inner(of)),
        DataType::FixedSizeList(of, length) => DataType::FixedSizeList(inner(of), *length),
        _ => DataType::Float64,
    }
}

fn as_double(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let wanted = of_doubles(&expr.get_type(schema)?);
    expr.cast_to(&wanted, schema)
}

/// One step of a plan, whose inputs have been through this.
fn together(plan: LogicalPlan) -> Result<LogicalPlan> {
    let schema = merge_schema(&plan.inputs());
    let plan = rewrite(plan, |expr| expr.rewrite(&mut Meeting { schema: &schema }))?.data;
    let plan = match plan {
        LogicalPlan::Union(union) => LogicalPlan::Union(of_union(union)?),
        LogicalPlan::Join(join) => LogicalPlan::Join(of_join(join)?),
        LogicalPlan::Values(values) => LogicalPlan::Values(of_values(values)?),
        other => other,
    };
    plan.recompute_schema()
}

/// Where operands meet, from the leaves of an expression up.
struct Meeting<'a> {
    schema: &'a DFSchema,
}

impl TreeNodeRewriter for Meeting<'_> {
    type Node = Expr;

    fn f_up(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        let expr = self.operands(self.subquery(expr)?)?;
        self.coerced(expr)
    }
}

impl Meeting<'_> {
    /// What DataFusion makes of an expression whose operands have been through it.
    fn coerced(&self, expr: Expr) -> Result<Transformed<Expr>> {
        TypeCoercionRewriter::new(self.schema).f_up(expr)
    }

    fn operands(&self, expr: Expr) -> Result<Expr> {
        let before = self.types(&expr)?;
        if !meet(&before) {
            return Ok(expr);
        }
        let after = self.types(&self.coerced(expr.clone())?.data)?;
        let lossy: Vec<&DataType> = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| is_float(before) && is_decimal(after))
            .map(|(_, after)| element(after))
            .collect();
        let mut unfit = before
            .iter()
            .zip(&after)
            // A float has fewer digits than the decimal that is added to it.
            .map(|(before, after)| lossy.contains(&element(after)) || (is_decimal(before) && is_float(after)));
        let cast = expr.map_children(|operand| match unfit.next() {
            Some(true) => as_double(operand, self.schema).map(Transformed::yes),
            _ => Ok(Transformed::no(operand)),
        });
        Ok(cast?.data)
    }

    /// The types of what stands right below an expression, in the order of `map_children`.
    fn types(&self, expr: &Expr) -> Result<Vec<DataType>> {
        let mut types = Vec::new();
        expr.apply_children(|operand| {
            // What has no type by itself, like a lambda, meets nothing.
            types.push(operand.get_type(self.schema).unwrap_or(DataType::Null));
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(types)
    }

    /// A value that is compared with the rows of a subquery, which is no operand.
    fn subquery(&self, expr: Expr) -> Result<Expr> {
        let compared = |value: &mut Expr, rows: &mut Subquery| {
            let (left, right) = (value.get_type(self.schema)?, rows.subquery.schema().field(0).data_type().clone());
            let wanted = of_doubles(&right);
            if meet(&[left, right]) {
                *value = as_double(std::mem::take(value), self.schema)?;
                *rows = cast_subquery(rows.clone(), &wanted)?;
            }
            Ok(())
        };
        match expr {
            Expr::InSubquery(mut within) => compared(&mut within.expr, &mut within.subquery).map(|()| Expr::InSubquery(within)),
            Expr::SetComparison(mut with) => compared(&mut with.expr, &mut with.subquery).map(|()| Expr::SetComparison(with)),
            other => Ok(other),
        }
    }
}

fn of_union(union: Union) -> Result<Union> {
    let mut inputs = union.inputs;
    let columns = inputs.iter().map(|input| input.schema().fields().len()).min().unwrap_or_default();
    let met: Vec<bool> = (0..columns)
        .map(|column| {
            let types: Vec<DataType> = inputs
                .iter()
                .map(|input| input.schema().field(column).data_type().clone())
                .collect();
            meet(&types)
        })
        .collect();
    if met.contains(&true) {
        for input in &mut inputs {
            let wanted = with_doubles(input.schema(), &met)?;
            *input = Arc::new(coerce_plan_expr_for_schema(input.as_ref().clone(), &wanted)?);
        }
    }
    // The schema that it was planned with knows nothing of what the inputs have become.
    Union::try_new_with_loose_types(inputs)
}

fn of_join(mut join: Join) -> Result<Join> {
    for (left, right) in &mut join.on {
        let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
        if meet(&[left.get_type(left_schema)?, right.get_type(right_schema)?]) {
            *left = as_double(std::mem::take(left), left_schema)?;
            *right = as_double(std::mem::take(right), right_schema)?;
        }
    }
    Ok(join)
}

/// The rows of VALUES have been brought together when they were planned: what they were stands within the casts.
fn of_values(mut values: Values) -> Result<Values> {
    let nothing = DFSchema::empty();
    let mut met = vec![false; values.schema.fields().len()];
    for (column, met) in met.iter_mut().enumerate() {
        let common = values.schema.field(column).data_type().clone();
        let types = values.values.iter().map(|row| uncast(&row[column], &common).get_type(&nothing));
        *met = is_decimal(&common) && meet(&types.collect::<Result<Vec<_>>>()?);
        for row in values.values.iter_mut().filter(|_| *met) {
            row[column] = as_double(uncast(&row[column], &common).clone(), &nothing)?;
        }
    }
    values.schema = Arc::new(with_doubles(&values.schema, &met)?);
    Ok(values)
}

fn uncast<'a>(expr: &'a Expr, common: &DataType) -> &'a Expr {
    match expr {
        Expr::Cast(cast) if cast.field.data_type() == common => &cast.expr,
        other => other,
    }
}

/// A schema whose columns that are marked are of doubles.
fn with_doubles(schema: &DFSchema, met: &[bool]) -> Result<DFSchema> {
    let fields = schema.iter().zip(met).map(|((table, field), met)| match met {
        true => (
            table.cloned(),
            Arc::new(field.as_ref().clone().with_data_type(of_doubles(field.data_type()))),
        ),
        false => (table.cloned(), Arc::clone(field)),
    });
    DFSchema::new_with_metadata(fields.collect(), HashMap::new())
}

/// A literal becomes the floating point number that is nearest to its text: a cast of a decimal rounds twice.
fn nearest(expr: Expr) -> Result<Transformed<Expr>> {
    if let Expr::Cast(Cast { expr: inner, field }) = &expr
        && let Expr::Literal(value, metadata) = inner.as_ref()
        && value.data_type().is_decimal()
        && field.data_type().is_floating()
    {
        let value = value.cast_to(&DataType::Utf8)?.cast_to(field.data_type())?;
        return Ok(Transformed::yes(Expr::Literal(value, metadata.clone())));
    }
    Ok(Transformed::no(expr))
}
