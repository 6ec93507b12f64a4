//! A seeded stream of changes to a small table, and the fold of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium::batch::{ChangeBatch, Op, Unchanged};
use alluvium::table::TableId;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rand::Rng;
use rand::rngs::SmallRng;

/// A cell that must never be seen: what stands where the source sent nothing.
const NEVER: &str = "never to be seen";
const BODY: usize = 3;

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("place", DataType::Utf8, false),
        Field::new("v", DataType::Utf8, true),
        Field::new("body", DataType::Utf8, true),
    ]))
}

/// One change of a row.
#[derive(Clone, Debug)]
pub struct Change {
    pub op: Op,
    pub id: i64,
    pub place: String,
    pub v: Option<String>,
    /// None: the source did not send it.
    pub body: Option<String>,
}

/// Rows by key, as texts.
#[derive(Clone, Debug, Default)]
pub struct Model {
    rows: BTreeMap<String, Change>,
}

impl Model {
    /// What a change does, and the change as the table must see it.
    pub fn apply(&mut self, key: &[&str], change: &Change) {
        match change.op {
            Op::Put => {
                let mut row = change.clone();
                if row.body.is_none() {
                    row.body = self.rows[&key_of(key, change)].body.clone();
                }
                self.rows.insert(key_of(key, change), row);
            }
            Op::Delete => drop(self.rows.remove(&key_of(key, change))),
            Op::Truncate => self.rows.clear(),
        }
    }

    pub fn has(&self, key: &[&str], change: &Change) -> bool {
        self.rows.contains_key(&key_of(key, change))
    }

    pub fn retain(&mut self, keep: impl Fn(&Change) -> bool) {
        self.rows.retain(|_, row| keep(row));
    }

    /// Each row as one text, sorted, as [`super::bed::Bed::rows_at`] writes them.
    pub fn texts(&self) -> Vec<String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
        let row = |row: &Change| format!("{}|{}|{}|{}", row.id, row.place, text(&row.v), text(&row.body));
        let mut rows: Vec<String> = self.rows.values().map(row).collect();
        rows.sort();
        rows
    }
}

fn key_of(key: &[&str], change: &Change) -> String {
    let column = |name: &&str| {
        if *name == "id" {
            change.id.to_string()
        } else {
            change.place.clone()
        }
    };
    key.iter().map(column).collect::<Vec<_>>().join("\u{1f}")
}

/// A change of one of a few keys, so that they meet often. `serial` makes every put another.
pub fn random(rng: &mut SmallRng, model: &Model, key: &[&str], serial: u64) -> Change {
    let op = match rng.random_range(0..100) {
        0 => Op::Truncate,
        1..30 => Op::Delete,
        _ => Op::Put,
    };
    let v = rng.random_bool(0.9).then(|| format!("v{serial}"));
    let mut change = Change {
        op,
        id: rng.random_range(0..15),
        place: format!("p{}", rng.random_range(0..4)),
        v,
        body: Some(format!("body {serial}")),
    };
    // Only a row that is there can be updated in part.
    if op == Op::Put && model.has(key, &change) && rng.random_bool(0.3) {
        change.body = None;
    }
    change
}

/// Changes as a source hands them over.
pub fn batch(changes: &[Change]) -> ChangeBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(changes.iter().map(|c| c.id)));
    let places: ArrayRef = Arc::new(StringArray::from_iter_values(changes.iter().map(|c| &c.place)));
    let v: ArrayRef = Arc::new(changes.iter().map(|c| c.v.clone()).collect::<StringArray>());
    let body: ArrayRef = Arc::new(StringArray::from_iter_values(
        changes.iter().map(|c| c.body.as_deref().unwrap_or(NEVER)),
    ));
    let unsent = BooleanBuffer::collect_bool(changes.len(), |row| changes[row].body.is_none());
    let unchanged = (unsent.count_set_bits() > 0).then(|| Unchanged(BTreeMap::from([(BODY, unsent)])));
    ChangeBatch {
        table: TableId::new("orders"),
        rows: RecordBatch::try_new(schema(), vec![ids, places, v, body]).unwrap(),
        ops: changes.iter().map(|c| c.op).collect(),
        unchanged,
        newest_ms: None,
        permit: None,
    }
}

pub fn put(id: i64, v: &str) -> Change {
    Change {
        op: Op::Put,
        id,
        place: "p".into(),
        v: Some(v.into()),
        body: Some(format!("body of {id}")),
    }
}

pub fn delete(id: i64) -> Change {
    Change {
        op: Op::Delete,
        ..put(id, "deleted")
    }
}

pub fn truncate() -> Change {
    Change {
        op: Op::Truncate,
        ..put(0, "truncated")
    }
}

/// The row's key, with a body that the source did not send.
pub fn put_without_body(id: i64, v: &str) -> Change {
    Change { body: None, ..put(id, v) }
}
