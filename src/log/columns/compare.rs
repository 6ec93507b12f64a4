//! A column of a table beside that of rows which come: whether it holds them as it is, or in a wider type, or with more fields within, or
//! not at all.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields};

use super::{Widening, Within, addable};
use crate::widening::{widened, writes_alike};

/// Compares one column. What cannot be held is told among the differences, one sentence each.
pub(super) struct Comparison<'a> {
    widening: &'a Widening,
    /// Whether its values are written elsewhere, too, as a key's or a partition's.
    is_written: bool,
    /// What changes within the column.
    pub within: Within,
    differences: &'a mut Vec<String>,
}

impl<'a> Comparison<'a> {
    pub fn new(widening: &'a Widening, column: &String, differences: &'a mut Vec<String>) -> Self {
        Self {
            is_written: widening.written.contains(column),
            widening,
            within: Within::default(),
            differences,
        }
    }

    /// The type that holds what is there and what comes. It is the table's own where that does, and after a difference.
    pub fn grown(&mut self, there: &DataType, coming: &DataType, name: &str) -> DataType {
        match (there, coming) {
            (DataType::Struct(there), DataType::Struct(coming)) => DataType::Struct(self.structs(there, coming, name)),
            (DataType::List(there), DataType::List(coming)) => {
                DataType::List(Arc::new(self.inner(there, coming, &format!("{name}.element"))))
            }
            (DataType::Map(there, sorted), DataType::Map(coming, _)) => match (there.data_type(), coming.data_type()) {
                // The names inside of a map are Arrow's matter, not Delta's: by place.
                (DataType::Struct(own), DataType::Struct(coming)) if own.len() == 2 && coming.len() == 2 => {
                    let before = self.within.added.len();
                    let key = self.grown(own[0].data_type(), coming[0].data_type(), &format!("{name}.key"));
                    let value = self.inner(&own[1], &coming[1], &format!("{name}.value"));
                    // deltalake and whatever else reads with DataFusion could not read the files before any more.
                    for path in self.within.added.split_off(before) {
                        self.differences
                            .push(format!("field `{path}` is not in the table, and a map's values cannot gain one"));
                    }
                    let pair = vec![Arc::new(own[0].as_ref().clone().with_data_type(key)), Arc::new(value)];
                    let entries = there.as_ref().clone().with_data_type(DataType::Struct(pair.into()));
                    DataType::Map(Arc::new(entries), *sorted)
                }
                _ => {
                    self.differences.push(format!("column `{name}` is not a map of keys and values"));
                    there.data_type().clone()
                }
            },
            _ => self.plain(there, coming, name),
        }
    }

    /// Fields are matched by their names, those that are new stand behind the others. What only the table has is null in what comes.
    fn structs(&mut self, there: &Fields, coming: &Fields, path: &str) -> Fields {
        let mut grown: Vec<FieldRef> = Vec::with_capacity(there.len());
        for own in there {
            let path = format!("{path}.{}", own.name());
            grown.push(Arc::new(match coming.find(own.name()) {
                Some((_, field)) => self.inner(own, field, &path),
                None => self.nullable(own.as_ref().clone(), true, &path),
            }));
        }
        for field in coming.iter().filter(|field| there.find(field.name()).is_none()) {
            match addable(grown.iter(), field) {
                Ok(()) => {
                    grown.push(Arc::new(field.as_ref().clone().with_nullable(true)));
                    self.within.added.push(format!("{path}.{}", field.name()));
                }
                Err(why) => self.differences.push(format!("within `{path}`: {why}")),
            }
        }
        grown.into()
    }

    fn inner(&mut self, there: &Field, coming: &Field, path: &str) -> Field {
        let kind = self.grown(there.data_type(), coming.data_type(), path);
        self.nullable(there.clone().with_data_type(kind), coming.is_nullable(), path)
    }

    /// The field, which may be null from now on if what comes may be.
    fn nullable(&mut self, own: Field, may_be_null: bool, path: &str) -> Field {
        if own.is_nullable() || !may_be_null {
            return own;
        }
        self.within.nullable.push(path.to_owned());
        own.with_nullable(true)
    }

    fn plain(&mut self, there: &DataType, coming: &DataType, name: &str) -> DataType {
        let advice = match widened(there, coming) {
            // The column holds all that comes, whatever the configuration says.
            Some(wider) if wider == *there => return wider,
            Some(wider) if self.widening.allowed && (!self.is_written || writes_alike(there, &wider)) => {
                self.within.widened = true;
                return wider;
            }
            Some(_) if self.widening.allowed => {
                ", and a column of the key or of `partition_by` can only become a larger integer, or a decimal of as many decimal places"
            }
            Some(_) => ", which the column could be widened to: set `type_widening = true`",
            None => "",
        };
        self.differences
            .push(format!("column `{name}` is {there} in the table and {coming} here{advice}"));
        there.clone()
    }
}
