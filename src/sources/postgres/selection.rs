//! Which tables of a database are asked for: by name, or by pattern. Pure.

use std::collections::BTreeSet;

use crate::config::pattern::matches;

/// See the head of the file.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    named: BTreeSet<(String, String)>,
    patterns: Vec<(String, String)>,
}

impl Selection {
    /// Each by its schema and its name; in those of patterns, `*` stands for any characters.
    pub fn new(named: impl IntoIterator<Item = (String, String)>, patterns: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            named: named.into_iter().collect(),
            patterns: patterns.into_iter().collect(),
        }
    }

    pub fn wants(&self, schema: &str, table: &str) -> bool {
        self.names(schema, table) || self.follows(schema, table)
    }

    /// Whether it is asked for by its name.
    pub fn names(&self, schema: &str, table: &str) -> bool {
        self.named.iter().any(|(own, name)| own == schema && name == table)
    }

    /// Whether it is asked for by a pattern.
    pub fn follows(&self, schema: &str, table: &str) -> bool {
        let mut patterns = self.patterns.iter();
        patterns.any(|(schemas, tables)| matches(schemas, schema) && matches(tables, table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_asked_for_by_name_or_by_pattern() {
        let pair = |schema: &str, table: &str| (schema.to_owned(), table.to_owned());
        let selection = Selection::new([pair("s", "named")], [pair("public", "*")]);
        let cases = [
            ("s", "named", [true, true, false]),
            ("public", "any", [true, false, true]),
            ("s", "other", [false; 3]),
        ];
        for (schema, table, expected) in cases {
            let asked = [
                selection.wants(schema, table),
                selection.names(schema, table),
                selection.follows(schema, table),
            ];
            assert_eq!(asked, expected, "{schema}.{table}");
        }
    }
}
