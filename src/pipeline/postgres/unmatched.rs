//! What `follow` asks for and no table has.
//!
//! A name without a table is a mistake from the start, unless there was a table once: then that is gone, and the log says so. A pattern may be
//! ahead of its tables; that it has none is told once.

use std::collections::BTreeSet;

use tracing::warn;

use super::{PostgresFeeds, PostgresToDelta};
use crate::config::pattern::{is_pattern, matches};
use crate::config::{schema_and_table, suggestion};
use crate::error::{Error, Result};
use crate::sources::postgres::catalog::{self, PgTable};
use crate::sources::postgres::connection::Control;
use crate::sources::postgres::preflight::{self, Problem};
use crate::table::full_name;

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Unmatched {
    /// Patterns that no table has, as they are written.
    pub patterns: Vec<String>,
    /// Names that no table has, and what is wrong with each.
    missing: Vec<(String, Problem)>,
    /// Names of tables that are not published.
    unpublished: Vec<String>,
}

impl Unmatched {
    /// `tables`: those of the database that can be published, by schema and name.
    pub(super) fn of(follow: &[String], tables: &[(String, String)], published: &[PgTable], database: &str) -> Self {
        let published: Vec<(&str, &str)> = published.iter().map(|table| (table.schema.as_str(), table.name.as_str())).collect();
        let others = tables.iter().map(|(schema, name)| (schema.as_str(), name.as_str()));
        let all: BTreeSet<(&str, &str)> = published.iter().copied().chain(others).collect();
        let known: Vec<String> = all.iter().map(|(schema, name)| full_name(schema, name)).collect();
        let mut unmatched = Self::default();
        for (text, (schemas, names)) in follow.iter().filter_map(|text| Some((text, schema_and_table(text)?))) {
            let takes = |(schema, name): &(&str, &str)| matches(&schemas, schema) && matches(&names, name);
            if published.iter().any(takes) {
                continue;
            }
            let (is_there, is_name) = (all.iter().any(takes), !is_pattern(&schemas) && !is_pattern(&names));
            let name = full_name(&schemas, &names);
            match (is_name, is_there) {
                (false, true) => {}
                (false, false) => unmatched.patterns.push(text.clone()),
                (true, true) => unmatched.unpublished.push(name),
                (true, false) => {
                    let near = suggestion(&name, known.iter().map(String::as_str));
                    let problem = Problem {
                        code: "table_missing",
                        what: format!("There is no table {name} in {database} that can be followed by itself"),
                        fix: format!("Create it, or correct `follow`{near}"),
                    };
                    unmatched.missing.push((name, problem));
                }
            }
        }
        unmatched
    }

    /// Names that no table ever had, as far as is known. `gone`: the tables that were followed once.
    pub(super) fn mistakes(&self, gone: &BTreeSet<String>) -> Vec<Problem> {
        let never = self.missing.iter().filter(|(name, _)| !gone.contains(name));
        never.map(|(_, problem)| problem.clone()).collect()
    }
}

impl PostgresFeeds {
    pub(super) fn unmatched(&self, tables: &[(String, String)], published: &[PgTable], database: &str) -> Unmatched {
        Unmatched::of(&self.postgres.follow, tables, published, database)
    }
}

impl PostgresToDelta {
    /// None of the tables that are asked for is there (`nothing`): why that stops the pipeline, or that it waits for those of a pattern, or for
    /// those that were there (`once`).
    pub(super) async fn nothing_yet(&self, control: &Control, published: &[PgTable], once: &BTreeSet<String>, nothing: Error) -> Error {
        let may_wait = !self.until_caught_up && self.feeds.named.is_empty();
        let were_there = || Error::transient("no_tables_yet", format!("{nothing}. It waits for those that were there"));
        if self.is_matched && may_wait {
            return were_there();
        }
        let tables = match catalog::candidates(control).await {
            Ok(tables) => tables,
            Err(failure) => return failure,
        };
        let unmatched = self.feeds.unmatched(&tables, published, &self.address.database);
        if let Some(mistake) = preflight::refusal(&unmatched.mistakes(once)) {
            return mistake;
        }
        if may_wait && !unmatched.missing.is_empty() {
            return were_there();
        }
        // A run that is to end has nothing to wait for, and a table that is named has to be there.
        if unmatched.patterns.is_empty() || !may_wait {
            return nothing;
        }
        let what = format!("{nothing}. It waits for tables that the patterns of `follow` take");
        Error::transient("no_tables_yet", what)
    }

    /// At the start: whether all names of `follow` are those of tables, now or once.
    pub(super) async fn must_match(&mut self, control: &Control, published: &[PgTable]) -> Result<()> {
        if self.is_matched {
            return Ok(());
        }
        let tables = catalog::candidates(control).await?;
        let unmatched = self.feeds.unmatched(&tables, published, &self.address.database);
        if let Some(mistake) = preflight::refusal(&unmatched.mistakes(&self.gone)) {
            return Err(mistake);
        }
        let pipeline = &*self.resolved.name;
        for pattern in unmatched.patterns {
            warn!(pipeline, pattern, "`follow` has a pattern that no table has yet");
        }
        // What `create` could not publish yet is told where that was tried.
        for table in unmatched.unpublished.iter().filter(|_| self.publisher.is_none()) {
            warn!(
                pipeline,
                table, "`follow` names a table that is not in the publication: it is followed when it is"
            );
        }
        self.is_matched = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::postgres::catalog::Identity;

    #[test]
    fn what_is_asked_for_in_vain_is_told_by_name() {
        let published = PgTable {
            oid: 16,
            relation: 1,
            schema: "public".to_owned(),
            name: "orders".to_owned(),
            columns: Vec::new(),
            identity: Identity::Default,
            primary_key: Vec::new(),
            identity_index: Vec::new(),
            unique: Vec::new(),
            untold: Vec::new(),
        };
        let tables = [("public", "orders"), ("public", "later")].map(|(schema, name)| (schema.to_owned(), name.to_owned()));
        let follow = [
            "public.orders",
            "public.ord*",
            "public.l*",
            "public.later",
            "public.ordres",
            "shop.*",
            "*.zz",
        ];
        let found = Unmatched::of(&follow.map(str::to_owned), &tables, &[published], "bank");
        assert_eq!(found.patterns, ["shop.*", "*.zz"]);
        assert_eq!(found.unpublished, ["public.later"]);
        let said: Vec<String> = found.mistakes(&BTreeSet::new()).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "There is no table public.ordres in bank that can be followed by itself. Create it, or correct `follow`; did you mean `public.orders`?"
            ]
        );
        assert!(
            found.mistakes(&BTreeSet::from(["public.ordres".to_owned()])).is_empty(),
            "it is gone"
        );
    }
}
