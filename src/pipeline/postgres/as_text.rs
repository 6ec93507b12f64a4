//! Columns of types that only the server can print. They are text; and because a server sends all values of a stream in one form, so are the
//! changes of all tables beside them.

use crate::sources::postgres::followed::Followed;
use crate::sources::postgres::preflight::Problem;
use crate::sources::postgres::types::ColumnType;

/// Those of tables that are followed, each with its type.
pub(super) fn of_followed<'f>(tables: impl Iterator<Item = &'f Followed>) -> Vec<String> {
    let each = tables.flat_map(|table| {
        let source = table.source();
        let columns = table.columns.iter();
        columns.filter_map(move |column| named(&source, &column.name, &column.kind))
    });
    each.collect()
}

fn named(source: &str, column: &str, kind: &ColumnType) -> Option<String> {
    (!kind.reads_binary()).then(|| format!("{source}.{column} ({})", kind.name()))
}

/// What there is to know about such columns; None where there are none.
pub(super) fn advice(columns: &[String]) -> Option<Problem> {
    (!columns.is_empty()).then(|| Problem {
        code: "unknown_types",
        what: format!(
            "Only the server can print what is in {}: it is read as text, and so are the changes of all tables of the pipeline, which takes both \
             sides longer",
            columns.join(", ")
        ),
        fix: "Where that is too slow, leave these columns out of the publication, or give their tables a pipeline of their own".to_owned(),
    })
}
