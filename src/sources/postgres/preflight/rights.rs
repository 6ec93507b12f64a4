//! What a run may not do where it is to make the publication and to fill it (`create = true`): what takes the rights of others.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Facts, Found, Table};
use super::{Problem, is_table, needs_identity, problem};
use crate::sources::postgres::connection::{identifier, qualified};

/// Why the publication, which is not there, cannot be made.
pub fn not_made(facts: &Facts, publication: &str) -> Option<Problem> {
    if facts.publication.is_some() || facts.may_create {
        return None;
    }
    let (role, database) = (identifier(&facts.role), identifier(&facts.database));
    let what = format!(
        "{role} may not make the publication {}: it lacks CREATE on the database",
        identifier(publication)
    );
    Some(problem(
        "postgres_denied",
        what,
        format!("Run: GRANT CREATE ON DATABASE {database} TO {role};"),
    ))
}

/// The tables that cannot be put into the publication, by schema and name.
pub fn refusals(facts: &Facts, publication: &str) -> BTreeMap<(String, String), Problem> {
    let refused = facts.tables.iter().filter_map(|table| {
        let found = table.found.as_ref().filter(|found| is_table(found) && !found.published)?;
        let problem = not_published(table, found, facts, publication)?;
        Some(((table.schema.clone(), table.name.clone()), problem))
    });
    refused.collect()
}

/// Why a table cannot be put into the publication. That takes both, and what of the table has no identity gets one.
pub(super) fn not_published(table: &Table, found: &Found, facts: &Facts, publication: &str) -> Option<Problem> {
    let (role, name, into) = (
        identifier(&facts.role),
        qualified(&table.schema, &table.name),
        identifier(publication),
    );
    let of_publication = facts.publication.as_ref().and_then(|publication| publication.owner.as_ref());
    let (unidentified, identity) = match needs_identity(facts) {
        true if !found.unidentified.tables.is_empty() => (Some(&found.unidentified.owners), found.unidentified.sql() + " "),
        _ => (None, String::new()),
    };
    let owners: BTreeSet<&String> = found
        .owner
        .iter()
        .chain(of_publication)
        .chain(unidentified.into_iter().flatten())
        .collect();
    if owners.is_empty() {
        return None;
    }
    let whose = |what: &str, owner: &String| format!("{what} belongs to {}", identifier(owner));
    let whose = [
        found.owner.as_ref().map(|owner| whose("the table", owner)),
        of_publication.map(|owner| whose("the publication", owner)),
    ];
    let whose: Vec<String> = whose.into_iter().flatten().collect();
    let why = match whose.is_empty() {
        true => "partitions of it belong to others".to_owned(),
        false => whose.join(", "),
    };
    let owners: Vec<String> = owners.into_iter().map(|owner| identifier(owner)).collect();
    let once_made = if facts.publication.is_some() {
        ""
    } else {
        " (once a run has made it)"
    };
    let fix = format!(
        "Run, as a superuser{once_made}: {identity}ALTER PUBLICATION {into} ADD TABLE ONLY {name}; or let {role} do so, with all that comes later: GRANT {} TO {role};",
        owners.join(", ")
    );
    let what = format!("{role} may not put {name} into the publication {into}: {why}");
    Some(problem("postgres_denied", what, fix))
}
