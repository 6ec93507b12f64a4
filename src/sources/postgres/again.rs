//! What a person does about tables that changes are missing in: they are copied again. What only grows is not, for its rows stay as they are,
//! and a copy would double them: there a new table begins.

use super::followed::Followed;
use crate::error::Error;
use crate::shell::word;

/// How a new table begins in the place of one that only grows.
pub const NEW_TABLE: &str = "let a new table begin with a copy (name another `location`; of a table that `follow` found, in a section of its own: \
                             [pipelines.….tables.NAME] with `table = \"SCHEMA.TABLE\"`)";

/// A table that holds a part of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held<'t> {
    pub table: &'t str,
    /// It holds everything up to here.
    pub at: u64,
    pub only_grows: bool,
}

impl<'t> Held<'t> {
    pub fn of(followed: &'t Followed, at: u64) -> Self {
        Self {
            table: followed.id.as_str(),
            at,
            only_grows: followed.only_grows(),
        }
    }
}

/// Changes are missing in these tables, or will be (`what`): an error that says how they come to all of them.
pub fn copy_again<'t>(code: &'static str, what: impl Into<String>, tables: impl IntoIterator<Item = Held<'t>>) -> Error {
    let (growing, others): (Vec<Held<'_>>, Vec<Held<'_>>) = tables.into_iter().partition(|held| held.only_grows);
    let mut sentences = vec![what.into()];
    if !others.is_empty() {
        let names: Vec<String> = others.iter().map(|held| word(held.table)).collect();
        sentences.push(format!("Copy the tables again (alluvium resnapshot {})", names.join(" ")));
    }
    if !growing.is_empty() {
        let names: Vec<&str> = growing.iter().map(|held| held.table).collect();
        sentences.push(format!(
            "What only grows cannot be copied again in its place (`{}`): {NEW_TABLE}",
            names.join("`, `")
        ));
    }
    Error::data(code, sentences.join(". "))
}

/// A table that only grows was to be copied again.
pub fn only_grows(table: &str) -> Error {
    let what = format!("table `{table}` only grows, so it cannot be copied again in its place: {NEW_TABLE}");
    Error::config("append_only", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_is_told_of_with_what_can_be_done_for_it() {
        let held = |table, only_grows| Held { table, at: 7, only_grows };
        let (again, anew) = (
            "alluvium resnapshot public.a 'public.b c')",
            "(`public.l`, `m`): let a new table begin",
        );
        let all = [
            held("public.a", false),
            held("public.l", true),
            held("public.b c", false),
            held("m", true),
        ];
        let cases: [(&[Held<'_>], [bool; 2]); 4] = [
            (&all, [true, true]),
            (&[all[0], all[2]], [true, false]),
            (&[all[1], all[3]], [false, true]),
            (&[], [false, false]),
        ];
        for (tables, says) in cases {
            let said = copy_again("slot_missing", "It is gone", tables.iter().copied()).to_string();
            assert_eq!([again, anew].map(|part| said.contains(part)), says, "{said}");
            assert_eq!(said.contains("resnapshot"), says[0], "{said}");
        }
    }
}
