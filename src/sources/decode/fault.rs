//! Why one message cannot be read: a code, a sentence, and the column. Never the value, which may be anybody's secret.

use std::borrow::Cow;

use crate::error::Error;
use crate::reject::Reject;
use crate::sources::cells::Overflow;

/// The result of reading a part of one message. Boxed, because the good path moves it about for every cell.
pub(super) type Read<T = ()> = Result<T, Box<Fault>>;

#[derive(Debug)]
pub(super) struct Fault {
    pub code: Code,
    what: Cow<'static, str>,
    /// From the inside out, as the names are learnt while the error goes up.
    path: Vec<String>,
    in_key: bool,
}

/// The label of `dead_letters_total{reason}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// Not JSON, or not only JSON, or not UTF-8.
    Malformed,
    /// JSON, but not the object that is expected.
    Unexpected,
    TooDeep,
    TypeMismatch,
    OutOfRange,
    /// A required column is null or not there.
    MissingValue,
    DuplicateColumn,
    MissingKey,
    /// Debezium did not send the cell, and there is no older row to take it from.
    Unavailable,
    /// More bytes than rows are made of.
    TooLarge,
    /// All rows are gone, and of some it is not known whether they were there before.
    TruncateOverPartitions,
}

impl Code {
    fn name(self) -> &'static str {
        match self {
            Code::Malformed => "malformed",
            Code::Unexpected => "unexpected",
            Code::TooDeep => "too_deep",
            Code::TypeMismatch => "type_mismatch",
            Code::OutOfRange => "out_of_range",
            Code::MissingValue => "missing_value",
            Code::DuplicateColumn => "duplicate_column",
            Code::MissingKey => "missing_key",
            Code::Unavailable => "unavailable_value",
            Code::TooLarge => "too_large",
            Code::TruncateOverPartitions => "truncate_over_partitions",
        }
    }

    fn stage(self) -> &'static str {
        match self {
            Code::Malformed | Code::Unexpected | Code::TooDeep => "decode",
            Code::MissingKey => "key",
            Code::TooLarge => "size",
            _ => "value",
        }
    }
}

impl Fault {
    #[cold]
    pub fn new(code: Code, what: impl Into<Cow<'static, str>>) -> Box<Self> {
        Box::new(Self {
            code,
            what: what.into(),
            path: Vec::new(),
            in_key: false,
        })
    }

    #[cold]
    pub fn malformed(what: &'static str) -> Box<Self> {
        Self::new(Code::Malformed, what)
    }

    #[cold]
    pub fn mismatch(expected: &'static str) -> Box<Self> {
        Self::new(Code::TypeMismatch, expected)
    }

    #[cold]
    pub fn range(what: &'static str) -> Box<Self> {
        Self::new(Code::OutOfRange, what)
    }

    #[cold]
    pub fn missing() -> Box<Self> {
        Self::new(Code::MissingValue, "it is required, and it is null or not there")
    }

    #[cold]
    pub fn too_large(bytes: usize, limit: usize) -> Box<Self> {
        let what = format!("the record has {bytes} bytes, and the limit is {limit}, an eighth of `memory`");
        Self::new(Code::TooLarge, what)
    }

    #[cold]
    pub fn truncate_over_partitions() -> Box<Self> {
        let what = "the source's table was emptied, and which rows came before that is not known where a table is fed from several \
                    partitions: its rows stay. Give the topic one partition, and the table one topic, or have Debezium leave truncates out \
                    (`skipped.operations` with `t`); then begin a new table with a new snapshot of Debezium's";
        Self::new(Code::TruncateOverPartitions, what)
    }

    /// And what may be done about it.
    #[cold]
    pub fn advising(mut self: Box<Self>, advice: &str) -> Box<Self> {
        self.what = format!("{}; {advice}", self.what).into();
        self
    }

    /// The column, or the part of a column, in which it happened.
    #[cold]
    pub fn within(mut self: Box<Self>, name: &str) -> Box<Self> {
        self.path.push(name.to_owned());
        self
    }

    /// It happened in the message's key.
    #[cold]
    pub fn in_key(mut self: Box<Self>) -> Box<Self> {
        self.in_key = true;
        self
    }

    /// As a dead letter says it, for the message at `index` of the run.
    pub fn into_reject(mut self, index: usize) -> Reject {
        self.path.reverse();
        let mut message = String::new();
        if self.in_key {
            message.push_str("message key: ");
        }
        if !self.path.is_empty() {
            message.push_str(&format!("column `{}`: ", self.path.join(".")));
        }
        message.push_str(&self.what);
        let stage = if self.in_key { "key" } else { self.code.stage() };
        Reject {
            index,
            stage,
            code: self.code.name(),
            message,
        }
    }
}

/// What ends the reading of a message: a fault of its own, or one that ends the run.
#[derive(Debug)]
pub(super) enum Trouble {
    Reject(Box<Fault>),
    Stop(Error),
}

impl From<Box<Fault>> for Trouble {
    fn from(fault: Box<Fault>) -> Self {
        Trouble::Reject(fault)
    }
}

impl From<Overflow> for Box<Fault> {
    fn from(_: Overflow) -> Self {
        Fault::range("more than 2 GiB in one column of one run")
    }
}
