//! Whether the publication tells all changes that a Delta table is made of.
//!
//! What a publication leaves out passes unseen, and what was left out for a while nothing tells afterwards.

use crate::error::{Error, Result};
use crate::sources::postgres::again::NEW_TABLE;
use crate::sources::postgres::catalog::PgTable;
use crate::sources::postgres::connection::identifier;
use crate::sources::postgres::followed::{Becomes, Followed};

/// Errors: it does not. A table of inserts needs no other changes.
pub(super) fn must_be_told(followed: &Followed, source: &PgTable, publication: &str) -> Result<()> {
    let needs = |kind: &str| kind == "insert" || followed.becomes != Becomes::Inserts;
    let untold: Vec<&str> = source.untold.iter().map(String::as_str).filter(|kind| needs(kind)).collect();
    if untold.is_empty() {
        return Ok(());
    }
    let then = match followed.becomes {
        Becomes::State { .. } => {
            "it is copied again, within `discovery` or by the next start, for such changes may have passed unseen".to_owned()
        }
        Becomes::Inserts | Becomes::Changes => {
            format!("start again; such changes that have passed unseen are missing in it for ever: if there were any, {NEW_TABLE}")
        }
    };
    let (publication, kinds) = (identifier(publication), untold.join(", "));
    let what = format!(
        "the publication {publication} does not tell {kinds} of {}, and table `{}` is made of these, too. Run: ALTER PUBLICATION {publication} SET \
         (publish = 'insert, update, delete, truncate'); then {then}",
        source.full_name(),
        followed.id
    );
    Err(Error::config("publication_partial", what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::postgres::catalog::{Column, Identity};
    use crate::sources::postgres::followed::Metadata;
    use crate::sources::postgres::types::Types;
    use crate::table::TableId;

    fn source(untold: &[&str]) -> PgTable {
        PgTable {
            relation: 1,
            oid: 16,
            schema: "public".to_owned(),
            name: "t".to_owned(),
            columns: vec![Column {
                name: "id".to_owned(),
                number: 1,
                type_oid: 23,
                type_modifier: -1,
                has_default: false,
            }],
            identity: Identity::Default,
            primary_key: vec!["id".to_owned()],
            identity_index: Vec::new(),
            unique: Vec::new(),
            untold: untold.iter().map(|kind| (*kind).to_owned()).collect(),
        }
    }

    #[test]
    fn a_table_needs_the_changes_that_it_is_made_of() {
        let cases: [(&[&str], [bool; 3]); 6] = [
            (&[], [true, true, true]),
            (&["truncate"], [false, false, true]),
            (&["delete"], [false, false, true]),
            (&["update"], [false, false, true]),
            (&["delete", "truncate", "update"], [false, false, true]),
            (&["insert"], [false, false, false]),
        ];
        for (untold, fits) in cases {
            let source = source(untold);
            let (state, changes, inserts) = ((false, vec![]), (true, vec![Metadata::Op]), (true, vec![Metadata::Lsn]));
            for ((append, metadata), fits) in [state, changes, inserts].into_iter().zip(fits) {
                let id = TableId::new("t");
                let followed = Followed::new(id, &source, &Types::new([]), &[], append, metadata).unwrap();
                let told = must_be_told(&followed, &source, "p");
                assert_eq!(told.is_ok(), fits, "{:?} {untold:?}", followed.becomes);
                if let Err(error) = told {
                    let said = error.to_string();
                    assert!(said.contains("ALTER PUBLICATION \"p\" SET") && said.contains(untold[0]), "{said}");
                }
            }
        }
    }
}
