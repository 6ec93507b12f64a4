//! Values as Postgres sends them, binary or text, into columns: each value is read once, straight into its cell.
//!
//! ```text
//! ColumnBuilder ─ binary ─► numeric, time, wire …      a number, a moment: the cell
//!               │         └ print ─► nested, float …   what no column type holds: the text that the server would print
//!               └ text ───► numeric, time, literal …   the same cells out of what the server has printed
//! ```
//! A value that cannot be read leaves no trace in the column.

mod clock;
mod column;
mod float;
mod geometry;
mod literal;
mod nested;
mod network;
mod numeric;
mod print;
mod time;
mod wire;

pub use column::ColumnBuilder;

use super::types::{Attribute, ColumnType, Element, Kind, Shape};
use crate::sources::cells::Overflow;

/// Longest text that one value is printed as; a server has no longer ones either.
const CELL_BYTES_MAX: usize = 1 << 30;

/// What becomes of values that their column cannot hold: infinite dates, NaN as a decimal, arrays of more than one dimension …
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Specials {
    /// The row is refused.
    #[default]
    Reject,
    /// The cell is null.
    Null,
}

/// Why a value cannot become a cell. Says nothing of the value itself, which may be anybody's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadValue {
    /// A word of a small fixed set, for `dead_letters_total{reason}`.
    pub code: &'static str,
    pub message: &'static str,
}

type Read<T = ()> = Result<T, BadValue>;

impl ColumnType {
    /// A value in binary form as the server prints it; None where it is none of this type.
    pub(super) fn print(&self, value: &[u8]) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        print::print(&self.kind, value, &mut text).is_ok().then_some(text)
    }
}

impl BadValue {
    /// Not how values of this type look like.
    #[cold]
    fn malformed(message: &'static str) -> Self {
        Self {
            code: "malformed",
            message,
        }
    }

    /// A value of another type, or of an older state of this one.
    #[cold]
    fn type_mismatch(message: &'static str) -> Self {
        Self {
            code: "type_mismatch",
            message,
        }
    }

    /// A value has in it one of a type that was not known when the types were read.
    #[cold]
    fn new_type(message: &'static str) -> Self {
        Self { code: NEW_TYPE, message }
    }

    /// Nothing tells a row apart whose key is null.
    #[cold]
    pub(super) fn missing_key() -> Self {
        Self {
            code: MISSING_KEY,
            message: "the key is null",
        }
    }

    /// A value that no row of before is there to tell.
    #[cold]
    pub(super) fn unavailable() -> Self {
        Self {
            code: "unavailable_value",
            message: "the change does not bring it, because it is large and did not change: ALTER TABLE … REPLICA IDENTITY FULL, or add \
                      `__unchanged` to the table's `metadata`",
        }
    }

    /// A true value that the column cannot hold.
    #[cold]
    fn out_of_range(message: &'static str) -> Self {
        Self {
            code: OUT_OF_RANGE,
            message,
        }
    }

    #[cold]
    fn too_large() -> Self {
        Self {
            code: "too_large",
            message: "the value is longer than 1 GiB as text",
        }
    }

    fn is_special(self) -> bool {
        self.code == OUT_OF_RANGE
    }

    /// Whether it can be read where the types are read anew.
    pub(super) fn is_of_new_type(self) -> bool {
        self.code == NEW_TYPE
    }

    pub(super) fn is_missing_key(self) -> bool {
        self.code == MISSING_KEY
    }
}

const OUT_OF_RANGE: &str = "out_of_range";
const NEW_TYPE: &str = "new_type";
const MISSING_KEY: &str = "missing_key";

impl From<Overflow> for BadValue {
    fn from(_: Overflow) -> Self {
        Self {
            code: "too_large",
            message: "more than 2 GiB in one column of one run",
        }
    }
}
