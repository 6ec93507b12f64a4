//! Whether a table's changes still tell all of it, when the server tells that it looks otherwise.

use super::{Known, Transaction};
use crate::sources::postgres::followed::{Becomes, Followed};
use crate::sources::postgres::pgoutput::{Column, Relation};
use crate::sources::postgres::rewriting::keeps_values;
use crate::table::TableId;

/// A table of rows as they stand, of which the stream alone does not tell whether changes tell enough: the catalog has to be asked before
/// any of them is handed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    pub table: TableId,
    /// The transaction that has brought it, of which the catalog has to know before it is asked.
    pub xid: u32,
    /// Columns that the relation had, and has not now, or at another place; or whose values another type has made others of. Where the
    /// catalog has them, they had another name meanwhile, or that type.
    pub lost: Vec<String>,
}

/// What the catalog has to be asked where the relation looks like this from `of` on. `told`: the columns that the server told before.
pub(super) fn doubt(followed: &Followed, known: &Known, told: Option<&[String]>, relation: &Relation, of: &Transaction) -> Option<Doubt> {
    let now: Vec<&str> = relation.columns.iter().map(|column| column.name.as_str()).collect();
    let follows = |name: &str| followed.columns.iter().any(|column| column.name == name);
    let (lost, other_columns, untold_key) = match &followed.becomes {
        Becomes::State { chosen, .. } => {
            let rewritten = rewritten(followed, relation);
            // What the catalog has may be what came later, and so may the types: it tells whether they did.
            let other_columns = now.iter().any(|name| !follows(name)) || told.is_none() && !rewritten.is_empty();
            let lost = match told {
                Some(told) => [lost(told, &now), rewritten].concat(),
                None if now.iter().all(|name| follows(name) || known.all.contains(*name)) => moved(&known.same, &now),
                None => lost(&known.same, &now),
            };
            (lost, other_columns, relation.tells_all() && !chosen)
        }
        Becomes::Inserts | Becomes::Changes => (Vec::new(), false, false),
    };
    let other_name = (&followed.schema, &followed.table) != (&relation.namespace, &relation.name);
    (!lost.is_empty() || other_columns || other_name || untold_key).then(|| Doubt {
        table: followed.id.clone(),
        xid: of.xid,
        lost,
    })
}

/// Columns of which another type has made other values than the rows had.
fn rewritten(followed: &Followed, relation: &Relation) -> Vec<String> {
    let is_rewritten = |now: &&Column| {
        let before = followed.columns.iter().find(|before| before.name == now.name);
        before.is_some_and(|before| !keeps_values(before.declared, (now.type_oid, now.type_modifier)))
    };
    let rewritten = relation.columns.iter().filter(is_rewritten);
    rewritten.map(|column| column.name.clone()).collect()
}

/// Columns of before that are not there now, or at another place.
fn lost(before: &[String], now: &[&str]) -> Vec<String> {
    let gone = before.iter().filter(|name| !now.contains(&name.as_str())).cloned();
    gone.chain(moved(before, now)).collect()
}

/// Columns of before that stand in another order now: they have each other's names.
fn moved(before: &[String], now: &[&str]) -> Vec<String> {
    let is_there = |name: &&String| now.contains(&name.as_str());
    let still = now.iter().filter(|name| before.iter().any(|before| before == *name));
    let moved = before.iter().filter(is_there).zip(still).filter(|(before, now)| before != *now);
    moved.map(|(before, _)| before.clone()).collect()
}
