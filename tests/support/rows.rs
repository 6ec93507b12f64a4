//! The smallest table there is: a key and a value. Enough for everything that is about order.

use std::sync::Arc;

use alluvium::batch::Op;
use alluvium::table::{Limits, Mode, Table, TableId};
use arrow::array::{Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("value", DataType::Int64, true),
    ]))
}

pub fn rows(pairs: &[(i64, i64)]) -> RecordBatch {
    let keys = Int64Array::from_iter_values(pairs.iter().map(|pair| pair.0));
    let values = Int64Array::from_iter_values(pairs.iter().map(|pair| pair.1));
    RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(values)]).unwrap()
}

pub fn pairs(rows: &RecordBatch) -> Vec<(i64, i64)> {
    let column = |index: usize| rows.column(index).as_any().downcast_ref::<Int64Array>().unwrap().clone();
    let (keys, values) = (column(0), column(1));
    (0..rows.num_rows())
        .map(|row| (keys.value(row), if values.is_null(row) { -1 } else { values.value(row) }))
        .collect()
}

pub fn puts(count: usize) -> Vec<Op> {
    vec![Op::Put; count]
}

pub fn table(name: &str, limits: Limits) -> Arc<Table> {
    let location = url::Url::parse(&format!("memory:///{name}")).unwrap();
    Arc::new(Table {
        limits,
        ..Table::new(TableId::new(name), location, Mode::Append, schema())
    })
}
