//! `AT TIME ZONE` of microseconds, as the timestamps of the tables are. DataFusion makes nanoseconds of it, which begin in 1677 and end in 2262:
//! other times fail. So it is shown a cast to a type of our own instead, which has the zone with it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use deltalake::datafusion::common::Result;
use deltalake::datafusion::logical_expr::planner::TypePlanner;
use deltalake::datafusion::sql::sqlparser::ast::{CastKind, DataType as SqlType, Expr, Ident, ObjectName};

/// What the type is called. No statement can name it: it is no word, and stands in no quotes.
const AT_TIME_ZONE: &str = "AT TIME ZONE";

fn name() -> ObjectName {
    ObjectName::from(Ident::new(AT_TIME_ZONE))
}

/// The timestamp at a zone.
pub(super) fn at(timestamp: Expr, zone: String) -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(timestamp),
        data_type: SqlType::Custom(name(), vec![zone]),
        array: false,
        format: None,
    }
}

/// Tells DataFusion what the type is.
#[derive(Debug)]
pub(super) struct ZonedMicroseconds;

impl TypePlanner for ZonedMicroseconds {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        Ok(match sql_type {
            SqlType::Custom(called, modifiers) if *called == name() => modifiers.first().map(|zone| {
                let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some(zone.as_str().into()));
                Arc::new(Field::new("", timestamp, true))
            }),
            _ => None,
        })
    }
}
