//! What becomes of a table's columns when the server tells others.

use arrow::datatypes::DataType;

use crate::error::{Error, Result};
use crate::sources::postgres::followed::{Followed, FollowedColumn};
use crate::sources::postgres::pgoutput::Relation;
use crate::sources::postgres::types::Types;
use crate::widening::widened;

/// Columns that the relation has and the table does not are added behind the table's own; those that have gone stay, and become null.
/// Those of another type are read as of that type, where one column of the table could hold both: its sink says whether it does.
pub(super) fn grow(followed: &Followed, relation: &Relation, types: &Types) -> Result<Followed> {
    let mut grown = followed.clone();
    for column in &relation.columns {
        let declared = (column.type_oid, column.type_modifier);
        let kind = types.column(column.type_oid, column.type_modifier);
        match grown.columns.iter_mut().find(|known| known.name == column.name) {
            None => grown.columns.push(FollowedColumn {
                name: column.name.clone(),
                declared,
                kind,
            }),
            // Another type of the server may be the same to the table, like text and varchar.
            Some(known) if known.kind == kind || follows(&known.kind.data_type(), &kind.data_type()) => {
                known.declared = declared;
                known.kind = kind;
            }
            Some(known) => {
                let what = format!(
                    "column `{}` of {} is {} now and was {}: table `{}` cannot hold both. Copy it again into a new table, or change the column back",
                    column.name,
                    followed.source(),
                    kind.name(),
                    known.kind.name(),
                    followed.id
                );
                return Err(Error::data("schema_changed", what));
            }
        }
    }
    Ok(grown)
}

/// Whether the rows of a table can go on with a column of another type.
fn follows(before: &DataType, now: &DataType) -> bool {
    match (before, now) {
        (DataType::List(before), DataType::List(now)) => follows(before.data_type(), now.data_type()),
        _ => widened(before, now).is_some(),
    }
}
