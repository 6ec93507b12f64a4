//! Joins by IS NOT DISTINCT FROM. DataFusion says of a whole join, and not of one of its conditions, that null is equal to null there. Later
//! rules then take `a = b` into such a join, or make one row of joins out of it and others, and what is said of one is said of all: rows with
//! null would be joined by `=`, or lost by IS NOT DISTINCT FROM. Those rules leave such joins alone.

use std::sync::Arc;

use deltalake::datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use deltalake::datafusion::common::{NullEquality, Result};
use deltalake::datafusion::logical_expr::{JoinType, LogicalPlan};
use deltalake::datafusion::optimizer::{ApplyOrder, Optimizer, OptimizerConfig, OptimizerRule};

type Rule = Arc<dyn OptimizerRule + Send + Sync>;

/// DataFusion's rules.
pub(super) fn rules() -> Vec<Rule> {
    let rules = Optimizer::new().rules.into_iter();
    rules
        .map(|rule| match rule.name() {
            // Of one step of a plan at a time: further conditions of the join stay a filter on what it has joined.
            "extract_equijoin_predicate" => unless(rule, |plan| Ok(joins_nulls(plan))),
            // Of the plan as a whole.
            "eliminate_cross_join" => unless(rule, joins_nulls_within),
            _ => rule,
        })
        .collect()
}

fn unless(rule: Rule, unless: fn(&LogicalPlan) -> Result<bool>) -> Rule {
    Arc::new(Unless { rule, unless })
}

fn joins_nulls(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Join(join) if join.null_equality == NullEquality::NullEqualsNull)
}

/// Whether there is such a join among those that are put in a row; INTERSECT and EXCEPT are none.
fn joins_nulls_within(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|plan| {
        found |= matches!(plan, LogicalPlan::Join(join) if join.join_type == JoinType::Inner && joins_nulls(plan));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// A rule that leaves some plans as they are.
#[derive(Debug)]
struct Unless {
    rule: Rule,
    unless: fn(&LogicalPlan) -> Result<bool>,
}

impl OptimizerRule for Unless {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if (self.unless)(&plan)? {
            return Ok(Transformed::no(plan));
        }
        self.rule.rewrite(plan, config)
    }
}
