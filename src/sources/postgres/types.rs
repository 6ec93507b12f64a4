//! What becomes of a column's type: the table's column, and how its values are read.
//!
//! | Postgres | table |
//! |---|---|
//! | boolean | boolean |
//! | int2, int4; int8, oid, xid | int; long |
//! | float4; float8 | float; double |
//! | numeric(p, s) up to 38 digits; money | decimal |
//! | numeric without precision, or of more digits | string, as the server prints it: no other type holds them all |
//! | bytea | binary |
//! | date; timestamp; timestamptz | date; timestamp_ntz; timestamp |
//! | arrays | array, whose elements may be null |
//! | hstore | map of strings |
//! | domains | as their base type |
//! | all others | string, exactly as the server prints it |

mod names;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};

/// How deep arrays, records, ranges and domains may lie in each other; people stop at three.
const DEPTH_MAX: usize = 16;
/// Of how many types one column may be made: composite types of composite types multiply, and a wide table's row has a thousand.
const PARTS_MAX: usize = 10_000;
/// The OID of `money`.
const MONEY: u32 = 790;
/// The first OID that is not the server's own.
const FIRST_USER_OID: u32 = 16_384;

/// All types that a column can have, one per row; a [`TypeRow`] has these columns in this order, the last three as one list of fields.
/// For PostgreSQL 14 and later.
///
/// An array type is one that prints as an array does: `int2vector` has elements too, and does not. Row types of tables count only
/// where something is declared with them: a server may have a hundred thousand tables.
pub const TYPES_SQL: &str = "\
SELECT t.oid, t.typname::text, t.typtype, t.typcategory,
       CASE WHEN t.typoutput = 'pg_catalog.array_out'::regproc THEN t.typelem ELSE 0::oid END,
       t.typdelim, t.typbasetype, t.typtypmod,
       coalesce((SELECT CASE t.typtype WHEN 'r' THEN r.rngsubtype ELSE r.rngtypid END
                 FROM pg_catalog.pg_range r WHERE t.oid = r.rngtypid OR t.oid = r.rngmultitypid), 0::oid),
       coalesce(f.names, '{}'), coalesce(f.types, '{}'), coalesce(f.modifiers, '{}')
FROM pg_catalog.pg_type t
LEFT JOIN LATERAL (
    SELECT array_agg(a.attname::text ORDER BY a.attnum) AS names, array_agg(a.atttypid ORDER BY a.attnum) AS types,
           array_agg(a.atttypmod ORDER BY a.attnum) AS modifiers
    FROM pg_catalog.pg_attribute a
    WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
) f ON true
WHERE t.typtype IN ('b', 'd', 'e', 'r', 'm')
   OR t.typtype = 'c' AND t.oid IN (
        SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE NOT a.attisdropped
        UNION ALL SELECT d.typbasetype FROM pg_catalog.pg_type d WHERE d.typtype = 'd'
        UNION ALL SELECT e.typelem FROM pg_catalog.pg_type e JOIN pg_catalog.pg_attribute a ON a.atttypid = e.oid
        UNION ALL SELECT e.typelem FROM pg_catalog.pg_type e JOIN pg_catalog.pg_type d ON d.typbasetype = e.oid
   )";

/// The decimal places of `money`, which follow the server's `lc_monetary`; see [`Types::with_money_digits`].
pub const MONEY_DIGITS_SQL: &str = "SELECT pg_catalog.scale('0'::pg_catalog.money::pg_catalog.numeric)";

/// A type as [`TYPES_SQL`] reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeRow {
    pub oid: u32,
    pub name: String,
    /// `b`ase, `c`omposite, `d`omain, `e`num, `r`ange or `m`ultirange.
    pub typtype: u8,
    pub category: u8,
    /// Of an array: the type of its elements. Otherwise 0.
    pub element: u32,
    /// What stands between the elements of an array of this type.
    pub delimiter: u8,
    /// Of a domain: the type that it restricts, with its modifier (-1: none). Otherwise 0.
    pub base: u32,
    pub base_modifier: i32,
    /// Of a range: the type of its bounds. Of a multirange: the range. Otherwise 0.
    pub range_of: u32,
    /// Of a composite type: name, type and modifier of each field.
    pub fields: Vec<(String, u32, i32)>,
}

/// The server's types, by their OID.
#[derive(Clone, Debug)]
pub struct Types {
    rows: HashMap<u32, TypeRow>,
    money_digits: u8,
}

impl Types {
    pub fn new(rows: impl IntoIterator<Item = TypeRow>) -> Self {
        Self {
            rows: rows.into_iter().map(|row| (row.oid, row)).collect(),
            money_digits: 2,
        }
    }

    /// How many decimal places `money` has; 2 if nobody says.
    #[must_use]
    pub fn with_money_digits(mut self, digits: i32) -> Self {
        // A locale that names no sensible number means 2 to the server, too.
        self.money_digits = u8::try_from(digits).ok().filter(|digits| *digits <= 10).unwrap_or(2);
        self
    }

    /// What a column of this type and modifier (`atttypmod`) becomes. A type that nobody knows is taken as text.
    pub fn column(&self, oid: u32, modifier: i32) -> ColumnType {
        ColumnType {
            name: self.name(oid, modifier).into(),
            kind: self.kind(oid, modifier, 0, &mut { PARTS_MAX }),
        }
    }

    /// Whether the server had this type when its types were read: others may have come since, or be gone again.
    pub fn knows(&self, oid: u32) -> bool {
        let is_there = |row: &TypeRow| row.element == 0 || self.knows(row.element);
        Kind::builtin(oid, -1).is_some() || oid == MONEY || self.rows.get(&oid).is_some_and(is_there)
    }

    fn name(&self, oid: u32, modifier: i32) -> String {
        let plain = |oid: u32, row: &TypeRow| names::sql_name(oid, modifier).unwrap_or_else(|| row.name.clone());
        match self.rows.get(&oid) {
            Some(row) if row.element != 0 && row.typtype == b'b' => match self.rows.get(&row.element) {
                Some(element) => format!("{}[]", plain(row.element, element)),
                None => row.name.clone(),
            },
            Some(row) => plain(oid, row),
            None => names::sql_name(oid, modifier).unwrap_or_else(|| format!("type {oid}")),
        }
    }

    fn kind(&self, oid: u32, modifier: i32, depth: usize, parts_left: &mut usize) -> Kind {
        if depth > DEPTH_MAX || *parts_left == 0 {
            return Kind::Opaque;
        }
        *parts_left -= 1;
        if oid == MONEY {
            return Kind::Money(self.money_digits);
        }
        if let Some(kind) = Kind::builtin(oid, modifier) {
            return kind;
        }
        let Some(row) = self.rows.get(&oid) else {
            return Kind::Opaque;
        };
        let mut inner = |oid: u32, modifier: i32| self.kind(oid, modifier, depth + 1, parts_left);
        match row.typtype {
            b'd' => inner(row.base, row.base_modifier),
            b'e' => Kind::Text,
            b'c' => Kind::Record(
                row.fields
                    .iter()
                    .map(|(_, oid, modifier)| Attribute {
                        oid: *oid,
                        kind: inner(*oid, *modifier),
                    })
                    .collect(),
            ),
            b'r' => Kind::Range(Arc::new(inner(row.range_of, -1))),
            b'm' => match inner(row.range_of, -1) {
                Kind::Range(bound) => Kind::Multirange(bound),
                _ => Kind::Opaque,
            },
            b'b' if row.element != 0 => Kind::Array(Arc::new(Element {
                oid: row.element,
                kind: inner(row.element, modifier),
                delimiter: self.rows.get(&row.element).map_or(b',', |element| element.delimiter),
            })),
            // Types of extensions have no OIDs of their own; these two say what they are by name and category.
            b'b' if oid >= FIRST_USER_OID && row.name == "hstore" && row.category == b'U' => Kind::Hstore,
            b'b' if oid >= FIRST_USER_OID && row.name == "citext" && row.category == b'S' => Kind::Text,
            _ => Kind::Opaque,
        }
    }
}

/// A column's type: what it is in the table, and how its values are read.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnType {
    name: Arc<str>,
    pub(super) kind: Kind,
}

impl ColumnType {
    /// For messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As the table has it.
    pub fn data_type(&self) -> DataType {
        self.kind.data_type()
    }

    /// Whether values can be taken in binary form. If not, the server must be asked for text.
    pub fn reads_binary(&self) -> bool {
        self.kind.reads_binary()
    }
}

/// Precision and scale of a decimal column: `0 <= scale <= precision <= 38`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub precision: u8,
    pub scale: u8,
}

/// How the values of a type are read and printed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Boolean,
    Int2,
    Int4,
    Int8,
    /// 32 bits without a sign.
    Oid,
    Float4,
    Float8,
    Decimal(Shape),
    /// A numeric that no decimal column holds.
    Numeric,
    /// With its decimal places.
    Money(u8),
    /// What is text in both forms.
    Text,
    /// `"char"`, a byte.
    Char,
    /// Text with the number of a version before it: jsonb, jsonpath.
    Versioned,
    Uuid,
    Bytea,
    Date,
    Time,
    Timetz,
    Timestamp,
    Timestamptz,
    Interval,
    Inet,
    /// macaddr, macaddr8
    Macaddr,
    /// bit, varbit
    Bits,
    Lsn,
    Xid8,
    Tid,
    Tsvector,
    Point,
    Segment,
    Path,
    Box,
    Polygon,
    Line,
    Circle,
    Hstore,
    Array(Arc<Element>),
    Record(Arc<[Attribute]>),
    /// With the type of its bounds.
    Range(Arc<Kind>),
    Multirange(Arc<Kind>),
    /// Only the server can print it.
    Opaque,
}

/// What an array is made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Element {
    pub oid: u32,
    pub kind: Kind,
    pub delimiter: u8,
}

/// A field of a composite type.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attribute {
    pub oid: u32,
    pub kind: Kind,
}

impl Kind {
    /// Types whose OIDs are the same on all servers.
    pub fn builtin(oid: u32, modifier: i32) -> Option<Self> {
        Some(match oid {
            16 => Kind::Boolean,
            17 => Kind::Bytea,
            18 => Kind::Char,
            20 => Kind::Int8,
            21 => Kind::Int2,
            23 => Kind::Int4,
            26 | 28 => Kind::Oid,
            27 => Kind::Tid,
            // name, text, json, xml, bpchar, varchar, refcursor
            19 | 25 | 114 | 142 | 1042 | 1043 | 1790 => Kind::Text,
            600 => Kind::Point,
            601 => Kind::Segment,
            602 => Kind::Path,
            603 => Kind::Box,
            604 => Kind::Polygon,
            628 => Kind::Line,
            718 => Kind::Circle,
            650 | 869 => Kind::Inet,
            700 => Kind::Float4,
            701 => Kind::Float8,
            774 | 829 => Kind::Macaddr,
            1082 => Kind::Date,
            1083 => Kind::Time,
            1114 => Kind::Timestamp,
            1184 => Kind::Timestamptz,
            1186 => Kind::Interval,
            1266 => Kind::Timetz,
            1560 | 1562 => Kind::Bits,
            1700 => numeric(modifier),
            2950 => Kind::Uuid,
            3220 => Kind::Lsn,
            3614 => Kind::Tsvector,
            3802 | 4072 => Kind::Versioned,
            5069 => Kind::Xid8,
            _ => return None,
        })
    }

    pub fn data_type(&self) -> DataType {
        match self {
            Kind::Boolean => DataType::Boolean,
            Kind::Int2 | Kind::Int4 => DataType::Int32,
            Kind::Int8 | Kind::Oid => DataType::Int64,
            Kind::Float4 => DataType::Float32,
            Kind::Float8 => DataType::Float64,
            Kind::Decimal(shape) => DataType::Decimal128(shape.precision, shape.scale as i8),
            Kind::Money(digits) => DataType::Decimal128(19, *digits as i8),
            Kind::Bytea => DataType::Binary,
            Kind::Date => DataType::Date32,
            Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Kind::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Kind::Array(element) => DataType::List(Arc::new(Field::new("element", element.kind.data_type(), true))),
            Kind::Hstore => {
                let pair = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)];
                DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(pair.into()), false)), false)
            }
            _ => DataType::Utf8,
        }
    }

    fn reads_binary(&self) -> bool {
        match self {
            Kind::Money(_) => true,
            Kind::Array(element) => element.kind.reads_binary(),
            other => other.prints_binary(),
        }
    }

    /// Whether a value in binary form can be printed as the server does. Money cannot: that is a matter of the server's locale.
    fn prints_binary(&self) -> bool {
        match self {
            Kind::Money(_) | Kind::Opaque => false,
            Kind::Array(element) => element.kind.prints_binary(),
            Kind::Record(fields) => fields.iter().all(|field| field.kind.prints_binary()),
            Kind::Range(bound) | Kind::Multirange(bound) => bound.prints_binary(),
            _ => true,
        }
    }
}

/// A numeric column by its modifier: precision in the upper half, an eleven-bit scale with a sign in the lower one, and 4 added.
fn numeric(modifier: i32) -> Kind {
    let Some(packed) = modifier.checked_sub(4).filter(|packed| *packed >= 0) else {
        return Kind::Numeric;
    };
    let precision = packed >> 16;
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    // Zeros before the decimal point (a scale below 0) and behind it (a scale above the precision) are digits, too.
    let precision = if scale < 0 { precision - scale } else { precision.max(scale) };
    match (u8::try_from(precision), u8::try_from(scale.max(0))) {
        (Ok(precision @ 1..=38), Ok(scale)) => Kind::Decimal(Shape { precision, scale }),
        _ => Kind::Numeric,
    }
}
