//! How a table is parted.

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
