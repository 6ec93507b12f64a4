//! What a table must be: every record of a topic, and the fold of them up to any marks.

use std::collections::BTreeMap;

use super::changes::{Change, Encoding, Message, Order};

/// The last offset contained, per partition.
pub type Marks = BTreeMap<i32, u64>;

/// One record as it stands in a partition: its offset is its place there.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub id: i64,
    /// None: the record deletes.
    pub order: Option<Order>,
}

/// The whole of a topic, in memory.
#[derive(Clone)]
pub struct Model {
    encoding: Encoding,
    partitions: Vec<Vec<Record>>,
}

impl Model {
    pub fn new(partitions: usize, encoding: Encoding) -> Self {
        Self {
            encoding,
            partitions: vec![Vec::new(); partitions],
        }
    }

    /// Takes in one change; returns its partition, and the records to produce there.
    pub fn push(&mut self, change: &Change) -> (i32, Vec<Message>) {
        let partition = self.partition_of(change.id);
        let messages = self.encoding.messages(change);
        let record = Record {
            id: change.id,
            order: change.order,
        };
        self.partitions[partition as usize].extend(std::iter::repeat_n(record, messages.len()));
        (partition, messages)
    }

    /// One key always goes to one partition, as a producer that hashes the key would have it.
    pub fn partition_of(&self, id: i64) -> i32 {
        (id as usize % self.partitions.len()) as i32
    }

    pub fn partition(&self, partition: i32) -> &[Record] {
        &self.partitions[partition as usize]
    }

    pub fn records(&self) -> usize {
        self.partitions.iter().map(Vec::len).sum()
    }

    /// The marks of a table that holds everything.
    pub fn end(&self) -> Marks {
        let ends = self.partitions.iter().enumerate().filter(|(_, records)| !records.is_empty());
        ends.map(|(partition, records)| (partition as i32, records.len() as u64 - 1))
            .collect()
    }

    /// Folds from the start.
    pub fn fold(&self) -> Fold<'_> {
        Fold {
            model: self,
            marks: Marks::new(),
            table: BTreeMap::new(),
        }
    }
}

/// The last order of each key that was not deleted, at marks that rise: each fold builds on the one before.
pub struct Fold<'a> {
    model: &'a Model,
    marks: Marks,
    table: BTreeMap<i64, Order>,
}

impl Fold<'_> {
    pub fn upto(&mut self, marks: &Marks) -> &BTreeMap<i64, Order> {
        for (&partition, &last) in marks {
            let first = self.marks.get(&partition).map_or(0, |mark| mark + 1);
            for record in &self.model.partition(partition)[first as usize..=last as usize] {
                match record.order {
                    Some(order) => self.table.insert(record.id, order),
                    None => self.table.remove(&record.id),
                };
            }
        }
        self.marks.clone_from(marks);
        &self.table
    }
}
