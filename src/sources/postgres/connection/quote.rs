//! Names and texts in statements. The replication commands take no parameters, and their grammar knows neither `E''` nor casts: doubling the
//! quotes is all there is, and right in both grammars while `standard_conforming_strings` is on, as it is by default since 9.1.

/// `we"ird` becomes `"we""ird"`.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table as statements name it.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

/// `it's` becomes `'it''s'`.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled_and_nothing_else_is_touched() {
        assert_eq!(identifier("Or\"der.s"), "\"Or\"\"der.s\"");
        assert_eq!(literal("a'b\\c"), "'a''b\\c'");
    }
}
