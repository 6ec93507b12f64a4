//! One error type. Its kind says who acts, and is chosen where the error is born; `pipeline` is the only place that matches on it.

use std::error::Error as StdError;
use std::fmt;

use crate::table::TableId;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who acts on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nobody: open again from the log, after a pause.
    Transient,
    /// Another writer has the lane: open again; an operator looks if it keeps happening.
    Fenced,
    /// The operator: the message names the option and the fix.
    Config,
    /// The owner of the data: the message names table, lane and position.
    Data,
    /// Us.
    Bug,
}

impl Kind {
    /// The label of `errors_total{kind}`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Transient => "transient",
            Kind::Fenced => "fenced",
            Kind::Config => "config",
            Kind::Data => "data",
            Kind::Bug => "bug",
        }
    }
}

/// What happened, to what, and what to do.
#[derive(Debug)]
pub struct Error {
    pub kind: Kind,
    /// A word of a small fixed set, for `errors_total{code}` and the logs: "broker_unreachable", "store_denied" …
    pub code: &'static str,
    /// One sentence for a person: what happened, to which table and position, and what to do.
    pub what: String,
    /// The table that it is about, where it stops nothing but that.
    pub table: Option<TableId>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub fn new(kind: Kind, code: &'static str, what: impl Into<String>) -> Self {
        Self {
            kind,
            code,
            what: what.into(),
            table: None,
            source: None,
        }
    }
    pub fn transient(code: &'static str, what: impl Into<String>) -> Self {
        Self::new(Kind::Transient, code, what)
    }
    pub fn fenced(what: impl Into<String>) -> Self {
        Self::new(Kind::Fenced, "fenced", what)
    }
    pub fn config(code: &'static str, what: impl Into<String>) -> Self {
        Self::new(Kind::Config, code, what)
    }
    pub fn data(code: &'static str, what: impl Into<String>) -> Self {
        Self::new(Kind::Data, code, what)
    }
    pub fn bug(what: impl Into<String>) -> Self {
        Self::new(Kind::Bug, "bug", what)
    }
    /// Says which table it is about, if it is of the sort that stops only that one: what the source sends does not fit it.
    #[must_use]
    pub fn of(mut self, table: &TableId) -> Self {
        if self.kind == Kind::Data && matches!(self.code, "schema_changed" | "append_only" | "unknown_row" | "null_key") {
            self.table.get_or_insert_with(|| table.clone());
        }
        self
    }

    /// Says that it stops this table only, of whatever sort it is.
    #[must_use]
    pub fn alone(mut self, table: &TableId) -> Self {
        self.table = Some(table.clone());
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The exit code of the process, after `sysexits.h`.
    pub fn exit_code(&self) -> u8 {
        match (self.code, self.kind) {
            ("usage", _) => 64,
            ("broker_unreachable" | "partitions_waiting" | "store_unreachable" | "postgres_unreachable", _) => 69,
            ("cannot_create", _) => 73,
            ("store_denied" | "broker_denied" | "postgres_denied", _) => 77,
            (_, Kind::Transient | Kind::Fenced) => 75,
            (_, Kind::Config) => 78,
            (_, Kind::Data) => 65,
            (_, Kind::Bug) => 70,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        let mut next = self.source.as_deref().map(|e| e as &dyn StdError);
        let mut said = self.what.clone();
        while let Some(cause) = next {
            // Many libraries repeat their source in their own text: say each thing once.
            let text = cause.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said.push_str(&text);
            }
            next = cause.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}
