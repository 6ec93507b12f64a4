//! What tables are copied by: each in parts by the places of its rows. Pure.

use crate::sources::postgres::Feed;
use crate::sources::postgres::catalog::Part;
use crate::sources::postgres::connection::identifier;
use crate::sources::postgres::followed::FollowedColumn;

/// What one COPY reads: large enough that its start does not count, small enough that connections end together.
const PART_BYTES: u64 = 64 << 20;
/// Of Postgres' pages, unless it was built otherwise; then the parts are larger or smaller, and still whole.
const PAGE_BYTES: u64 = 8192;

/// A run of rows of one table by their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub table: usize,
    /// The table or partition that has the rows, and as SQL names it.
    pub oid: u32,
    pub part: String,
    pub sql: String,
    /// What it weighs at the source.
    pub bytes: u64,
}

/// What one table is copied by.
pub(super) fn copies_of(number: usize, table: &Feed, parts: &[Part], filter: Option<&str>) -> Vec<Job> {
    let each = parts.iter().flat_map(|part| {
        // Who may read some columns only, may not ask where rows lie.
        let conditions = if part.is_whole {
            ranges(part.bytes)
        } else {
            vec!["true".to_owned()]
        };
        let bytes = part.bytes_in_all / conditions.len() as u64;
        conditions.into_iter().map(move |condition| Job {
            table: number,
            oid: part.oid,
            part: format!("{}.{}", identifier(&part.schema), identifier(&part.name)),
            sql: copy_sql(table, part, &condition, filter),
            bytes,
        })
    });
    each.collect()
}

/// Conditions that part a table by the places of its rows; the last has no end, for the table may have grown.
fn ranges(bytes: u64) -> Vec<String> {
    let step = PART_BYTES / PAGE_BYTES;
    let parts = bytes.div_ceil(PART_BYTES).max(1);
    let range = |part: u64| {
        let begin = format!("ctid >= '({},0)'::tid", part * step);
        if part + 1 == parts {
            begin
        } else {
            format!("{begin} AND ctid < '({},0)'::tid", (part + 1) * step)
        }
    };
    (0..parts).map(range).collect()
}

fn copy_sql(table: &Feed, part: &Part, condition: &str, filter: Option<&str>) -> String {
    let column = |column: &FollowedColumn| {
        let name = identifier(&column.name);
        if column.kind.reads_binary() {
            name
        } else {
            format!("{name}::text")
        }
    };
    let columns: Vec<String> = table.followed.columns.iter().map(column).collect();
    let filter = filter.map(|filter| format!(" AND ({filter})")).unwrap_or_default();
    format!(
        "COPY (SELECT {} FROM ONLY {}.{} WHERE {condition}{filter}) TO STDOUT (FORMAT binary)",
        columns.join(", "),
        identifier(&part.schema),
        identifier(&part.name),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pages at which a range begins and ends.
    fn pages(condition: &str) -> (u64, Option<u64>) {
        let page = |text: &str| {
            text.strip_prefix("'(")
                .and_then(|text| text.strip_suffix(",0)'::tid"))
                .map(str::to_owned)
        };
        let number = |text: &str| page(text).expect("a place").parse::<u64>().expect("a number");
        let (begin, end) = match condition.split_once(" AND ctid < ") {
            Some((begin, end)) => (begin, Some(number(end))),
            None => (condition, None),
        };
        (number(begin.strip_prefix("ctid >= ").expect("a begin")), end)
    }

    #[test]
    fn the_ranges_of_a_table_have_each_page_once_whatever_it_grows_to() {
        let page = PAGE_BYTES;
        for (bytes, count) in [
            (0, 1),
            (page, 1),
            (PART_BYTES - page, 1),
            (PART_BYTES, 1),
            (PART_BYTES + page, 2),
            (2 * PART_BYTES, 2),
            (7 * PART_BYTES + 1, 8),
        ] {
            let ranges: Vec<_> = ranges(bytes).iter().map(|range| pages(range)).collect();
            assert_eq!(ranges.len(), count, "{bytes}");
            let ends: Vec<_> = ranges.iter().map(|(_, end)| *end).collect();
            let begins: Vec<_> = ranges.iter().map(|(begin, _)| Some(*begin)).collect();
            assert_eq!(begins[0], Some(0), "{bytes}");
            assert_eq!(ends[..count - 1], begins[1..], "{bytes}: each begins where the one before ends");
            assert_eq!(ends[count - 1], None, "{bytes}: the table may have grown");
            assert!(ranges.iter().all(|(begin, _)| *begin == 0 || begin * page < bytes), "{bytes}");
        }
    }
}
