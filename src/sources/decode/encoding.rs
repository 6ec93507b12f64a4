//! How the JSON of a cell writes a value of the column's type: the same timestamp may be a text, or a number of one of three units.
//!
//! A schema says it where it says the type, so it travels in the metadata of the Arrow field. A decoder takes it out: the table's
//! columns do not depend on how somebody happened to write them.

use arrow::datatypes::{DataType, Field};

/// The key in a field's metadata.
const KEY: &str = "alluvium.encoding";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As JSON writes it when nothing else is said: numbers as numbers, decimals as number or text, bytes as base64, days and times as
    /// ISO text.
    #[default]
    Natural,
    /// Days since 1970.
    Days,
    /// Milliseconds, since 1970 or since midnight.
    Millis,
    Micros,
    Nanos,
    /// A decimal as its unscaled two's complement bytes, in base64, with this many decimal places.
    Unscaled(i64),
    /// A decimal as `{scale, value}`, the value as above.
    VariableScale,
    /// Nanoseconds since 1970, and since midnight, kept as ISO text: a table's timestamps hold microseconds, and these may be between two.
    NanoTimestamp,
    NanoTime,
    /// A decimal as number or text, where the format's habit is another.
    Text,
    /// Any value at all, kept as its JSON text.
    Json,
}

impl Encoding {
    /// Written into a field's metadata. Natural leaves no trace.
    pub fn mark(self, field: Field) -> Field {
        let text = match self {
            Encoding::Natural => return field,
            Encoding::Unscaled(scale) => format!("unscaled:{scale}"),
            other => other.name().to_owned(),
        };
        let mut metadata = field.metadata().clone();
        metadata.insert(KEY.to_owned(), text);
        field.with_metadata(metadata)
    }

    /// As a field's metadata says.
    pub fn of(field: &Field) -> Self {
        let text = field.metadata().get(KEY).map_or("", String::as_str);
        let named = [
            Self::Days,
            Self::Millis,
            Self::Micros,
            Self::Nanos,
            Self::VariableScale,
            Self::NanoTimestamp,
            Self::NanoTime,
            Self::Text,
            Self::Json,
        ];
        match text.strip_prefix("unscaled:").and_then(|scale| scale.parse().ok()) {
            Some(scale) => Self::Unscaled(scale),
            None => named.into_iter().find(|e| e.name() == text).unwrap_or_default(),
        }
    }

    /// The word that schema files use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Natural => "natural",
            Self::Days => "days",
            Self::Millis => "millis",
            Self::Micros => "micros",
            Self::Nanos => "nanos",
            Self::Unscaled(_) => "base64",
            Self::VariableScale => "variable-scale",
            Self::NanoTimestamp => "nano-timestamp",
            Self::NanoTime => "nano-time",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// The field without encodings, all the way down: as the table has it.
pub(super) fn plain(field: &Field) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.remove(KEY);
    let inner = |field: &Field| std::sync::Arc::new(plain(field));
    let kind = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|f| plain(f)).collect()),
        DataType::List(item) => DataType::List(inner(item)),
        DataType::Map(entries, sorted) => DataType::Map(inner(entries), *sorted),
        other => other.clone(),
    };
    Field::new(field.name(), kind, field.is_nullable()).with_metadata(metadata)
}
