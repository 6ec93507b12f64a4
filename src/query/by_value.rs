//! Floating point numbers are compared value by value, with one zero, and with one NaN as the greatest, as in Postgres: in comparisons, and where
//! rows are sorted, grouped, joined, or told apart.
//!
//! Statistics of most writers leave NaN out, and tell two zeros apart, as the values of partitions do, and the sets that long lists become: rows
//! would be missed. So what is compared goes through a function, of which nothing is known before the rows are read.

use std::sync::Arc;

use arrow::datatypes::DataType;
use async_trait::async_trait;
use deltalake::datafusion::catalog::Session;
use deltalake::datafusion::common::config::ConfigOptions;
use deltalake::datafusion::common::tree_node::{Transformed, TreeNode};
use deltalake::datafusion::common::{Column, DFSchema, JoinConstraint, Result};
use deltalake::datafusion::execution::context::QueryPlanner;
use deltalake::datafusion::logical_expr::expr::Sort;
use deltalake::datafusion::logical_expr::utils::merge_schema;
use deltalake::datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, Join, LogicalPlan, Projection};
use deltalake::datafusion::optimizer::AnalyzerRule;
use deltalake::datafusion::physical_plan::ExecutionPlan;
use deltalake::datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

use super::canonical::{canonical, canonical_scalar, is_canonical};
use super::expressions::{compares, outside_sets, rewrite};
use super::extremes::{is_extreme, of_floats};

/// Functions that hold their arguments against each other.
const COMPARING: [&str; 3] = ["nullif", "greatest", "least"];

/// Aggregates that hold the values of rows against each other.
pub(super) const ORDERING: [&str; 4] = ["min", "max", "median", "percentile_cont"];

/// What is compared in expressions. Goes behind DataFusion's coercion: operands have the types that they are compared with.
#[derive(Debug)]
pub(super) struct FloatsByValue;

impl AnalyzerRule for FloatsByValue {
    fn name(&self) -> &str {
        "floats_by_value"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        outside_sets(plan, by_value)
    }
}

/// What rows are sorted, grouped and joined by. Goes behind all of DataFusion's rules: only they make the last joins and groups, of subqueries,
/// DISTINCT and INTERSECT.
#[derive(Debug)]
pub(super) struct KeysByValue;

#[async_trait]
impl QueryPlanner for KeysByValue {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = plan.clone().transform_up_with_subqueries(keyed)?.data;
        DefaultPhysicalPlanner::default().create_physical_plan(&plan, session).await
    }
}

fn by_value(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        // What is compared with a row around it becomes the key of a join, if it is left as it is, and meets no statistics.
        _ if compares(&expr) && expr.contains_outer() => Ok(Transformed::no(expr)),
        _ if compares(&expr) => expr.map_children(|operand| one(operand, schema)),
        Expr::ScalarFunction(ref function) if COMPARING.contains(&function.name()) => expr.map_children(|operand| one(operand, schema)),
        Expr::Case(mut case) => {
            if let Some(value) = &mut case.expr {
                in_place(value, schema)?;
                for (when, _) in &mut case.when_then_expr {
                    in_place(when, schema)?;
                }
            }
            Ok(Transformed::yes(Expr::Case(case)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// An operand with one zero and one NaN, if it is a floating point number. What has no type by itself, like a lambda, is left to DataFusion.
fn one(operand: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if !is_float(&operand, schema) || is_canonical(&operand) {
        return Ok(Transformed::no(operand));
    }
    Ok(Transformed::yes(match operand {
        Expr::Literal(value, metadata) => Expr::Literal(canonical_scalar(value), metadata),
        other => canonical(other),
    }))
}

fn is_float(operand: &Expr, schema: &DFSchema) -> bool {
    matches!(operand.get_type(schema), Ok(DataType::Float32 | DataType::Float64))
}

fn in_place(operand: &mut Expr, schema: &DFSchema) -> Result<()> {
    *operand = one(std::mem::take(operand), schema)?.data;
    Ok(())
}

/// One step of a plan that is about to run.
fn keyed(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&plan.inputs());
    let plan = rewrite(plan, |expr| match expr {
        Expr::GroupingSet(_) => Ok(Transformed::no(expr)),
        other => other.transform_up(|expr| by_value(expr, &schema)?.transform_data(|expr| apart(expr, &schema))),
    })?;
    Ok(Transformed::yes(match plan.data {
        LogicalPlan::Sort(mut sort) => {
            sorted(&mut sort.expr, &schema)?;
            LogicalPlan::Sort(sort)
        }
        LogicalPlan::Join(join) => LogicalPlan::Join(joined(join)?),
        LogicalPlan::Aggregate(aggregate) => LogicalPlan::Aggregate(grouped(aggregate, &schema)?),
        other => other,
    }))
}

fn sorted(by: &mut [Sort], schema: &DFSchema) -> Result<()> {
    by.iter_mut().try_for_each(|by| in_place(&mut by.expr, schema))
}

/// Functions of many rows, which they sort, or tell apart.
fn apart(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::AggregateFunction(mut function) => {
            let ordering = ORDERING.contains(&function.func.name());
            let how = &mut function.params;
            if how.distinct || ordering {
                how.args.iter_mut().try_for_each(|argument| in_place(argument, schema))?;
            }
            sorted(&mut how.order_by, schema)?;
            if is_extreme(&function.func) && how.args.iter().any(|argument| is_float(argument, schema)) {
                function.func = of_floats(function.func);
            }
            Ok(Transformed::yes(Expr::AggregateFunction(function)))
        }
        Expr::WindowFunction(mut function) => {
            let ordering = ORDERING.contains(&function.fun.name());
            let how = &mut function.params;
            if how.distinct || ordering {
                how.args.iter_mut().try_for_each(|argument| in_place(argument, schema))?;
            }
            how.partition_by.iter_mut().try_for_each(|key| in_place(key, schema))?;
            sorted(&mut how.order_by, schema)?;
            Ok(Transformed::yes(Expr::WindowFunction(function)))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn joined(mut join: Join) -> Result<Join> {
    for (left, right) in &mut join.on {
        in_place(left, join.left.schema())?;
        in_place(right, join.right.schema())?;
        if is_canonical(left) || is_canonical(right) {
            // USING knows columns only.
            join.join_constraint = JoinConstraint::On;
        }
    }
    Ok(join)
}

/// The columns of the groups are called what they were called.
fn grouped(mut aggregate: Aggregate, schema: &DFSchema) -> Result<Aggregate> {
    if aggregate.group_expr.iter().any(|key| matches!(key, Expr::GroupingSet(_))) {
        return in_sets(aggregate, schema);
    }
    for key in &mut aggregate.group_expr {
        let (table, name) = key.qualified_name();
        let value = one(std::mem::take(key), schema)?;
        *key = if value.transformed {
            value.data.alias_qualified(table, name)
        } else {
            value.data
        };
    }
    Ok(aggregate)
}

/// In ROLLUP and the like keys have no other names than what they are made of: so they are made below, as columns of these names.
fn in_sets(mut aggregate: Aggregate, schema: &DFSchema) -> Result<Aggregate> {
    let mut made: Vec<(Expr, Expr)> = Vec::new();
    for key in aggregate.group_expr.iter().flat_map(keys_of) {
        let value = key.clone().transform_up(|expr| by_value(expr, schema))?.data;
        let value = one(value, schema)?.data;
        if value != *key && made.iter().all(|(known, _)| known != key) {
            made.push((key.clone(), value));
        }
    }
    if made.is_empty() {
        return Ok(aggregate);
    }
    let is_made = |expr: &Expr| made.iter().any(|(key, _)| key == expr);
    let named = |(key, value): &(Expr, Expr)| {
        let (table, name) = key.qualified_name();
        value.clone().alias_qualified(table, name)
    };
    let columns = aggregate.input.schema().columns().into_iter().map(Expr::Column);
    let columns = columns.filter(|column| !is_made(column)).chain(made.iter().map(named)).collect();
    aggregate.input = Arc::new(LogicalPlan::Projection(Projection::try_new(columns, aggregate.input)?));
    for set in &mut aggregate.group_expr {
        let keys = std::mem::take(set).map_children(|key| {
            if !is_made(&key) {
                return Ok(Transformed::no(key));
            }
            let (table, name) = key.qualified_name();
            Ok(Transformed::yes(Expr::Column(Column::new(table, name))))
        });
        *set = keys?.data;
    }
    Ok(aggregate)
}

fn keys_of(group: &Expr) -> Vec<&Expr> {
    match group {
        Expr::GroupingSet(sets) => sets.distinct_expr(),
        key => vec![key],
    }
}
