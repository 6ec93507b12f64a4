//! Which columns of a data file get statistics, as the table's properties say.
//!
//! `delta.dataSkippingStatsColumns` names them, and goes before `delta.dataSkippingNumIndexedCols`, which says how many of the first.

use std::collections::BTreeMap;

use crate::log::Log;

pub(super) const NUMBER: &str = "delta.dataSkippingNumIndexedCols";
pub(super) const NAMES: &str = "delta.dataSkippingStatsColumns";
/// Delta's own number, where a table does not say.
const INDEXED_COLUMNS: usize = 32;

/// The columns that get statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Indexed {
    /// So many of the first leaf columns.
    First(usize),
    /// Those of these paths, and all within them.
    Named(Vec<Vec<String>>),
}

impl Log {
    /// Which columns of new files get statistics.
    pub fn indexed(&self) -> Indexed {
        Indexed::of(&self.snapshot().properties)
    }
}

impl Indexed {
    /// What says nothing that can be read says nothing.
    pub(super) fn of(properties: &BTreeMap<String, String>) -> Self {
        let named = properties.get(NAMES).and_then(|text| names(text));
        let number = || properties.get(NUMBER).and_then(|text| text.parse::<i64>().ok());
        named.map(Self::Named).unwrap_or_else(|| match number() {
            // All of them where it is negative.
            Some(count) => Self::First(usize::try_from(count).unwrap_or(usize::MAX)),
            None => Self::First(INDEXED_COLUMNS),
        })
    }

    /// Asked for each leaf column in their order, by its path: whether it gets statistics.
    pub fn chooser(&self) -> impl FnMut(&[&str]) -> bool + '_ {
        let mut seen = 0;
        move |path| {
            seen += 1;
            match self {
                Self::First(count) => seen <= *count,
                Self::Named(names) => names.iter().any(|name| is_within(path, name)),
            }
        }
    }
}

/// Whether a column lies at a path or below it. Delta's names are the same in whatever case.
fn is_within(column: &[&str], path: &[String]) -> bool {
    path.len() <= column.len() && path.iter().zip(column).all(|(one, other)| one.eq_ignore_ascii_case(other))
}

/// The columns of a list such as ``id, address.city, `odd.name` ``; None where it is none.
pub(super) fn names(text: &str) -> Option<Vec<Vec<String>>> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Some(Vec::new());
    }
    let mut names = vec![Vec::new()];
    loop {
        let (part, behind) = part(rest)?;
        names.last_mut()?.push(part);
        let behind = behind.trim_start();
        let mut next = behind.chars();
        match next.next() {
            None => return Some(names),
            Some('.') => {}
            Some(',') => names.push(Vec::new()),
            Some(_) => return None,
        }
        rest = next.as_str().trim_start();
    }
}

/// One part of a name, which may stand between backticks, and what follows.
fn part(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('`') else {
        let (part, rest) = text.split_at(text.find(['.', ',', '`']).unwrap_or(text.len()));
        let part = part.trim_end();
        return (!part.is_empty()).then(|| (part.to_owned(), rest));
    };
    let mut part = String::new();
    loop {
        let (plain, behind) = rest.split_once('`')?;
        part.push_str(plain);
        match behind.strip_prefix('`') {
            // Two of them are one that belongs to the name.
            Some(behind) => {
                part.push('`');
                rest = behind;
            }
            None => return (!part.is_empty()).then_some((part, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_columns_are_read_as_spark_writes_them() {
        let cases: [(&str, Option<&[&[&str]]>); 12] = [
            ("", Some(&[])),
            (" id ", Some(&[&["id"]])),
            ("id,name", Some(&[&["id"], &["name"]])),
            ("id , a.b . c,`a.b`.`c,d`", Some(&[&["id"], &["a", "b", "c"], &["a.b", "c,d"]])),
            ("`a``b`", Some(&[&["a`b"]])),
            ("größe", Some(&[&["größe"]])),
            ("a,", None),
            (",a", None),
            ("a..b", None),
            ("`a", None),
            ("``", None),
            ("`a`ö", None),
        ];
        for (text, expected) in cases {
            let read = names(text);
            let read: Option<Vec<Vec<&str>>> = read
                .as_ref()
                .map(|names| names.iter().map(|name| name.iter().map(String::as_str).collect()).collect());
            let expected = expected.map(|names| names.iter().map(|name| name.to_vec()).collect::<Vec<_>>());
            assert_eq!(read, expected, "{text:?}");
        }
    }

    #[test]
    fn names_go_before_the_number_and_both_before_the_first_32() {
        let of = |properties: &[(&str, &str)]| {
            let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Indexed::of(&properties.collect())
        };
        let named = Indexed::Named(vec![vec!["id".to_owned()]]);
        assert_eq!(of(&[]), Indexed::First(32));
        assert_eq!(of(&[(NUMBER, "2")]), Indexed::First(2));
        assert_eq!(of(&[(NUMBER, "-1")]), Indexed::First(usize::MAX));
        assert_eq!(of(&[(NUMBER, "2"), (NAMES, "id")]), named);
        let chosen = |indexed: &Indexed| {
            let columns: [&[&str]; 5] = [&["ID"], &["a"], &["a", "b"], &["a", "c"], &["idx"]];
            let wants = indexed.chooser();
            columns.map(wants)
        };
        assert_eq!(chosen(&Indexed::First(2)), [true, true, false, false, false]);
        assert_eq!(chosen(&named), [true, false, false, false, false]);
        let within = Indexed::Named(names("a.b, idx").unwrap());
        assert_eq!(chosen(&within), [false, false, true, false, true]);
        assert_eq!(
            chosen(&Indexed::Named(vec![vec!["a".to_owned()]])),
            [false, true, true, true, false]
        );
    }
}
