//! The messages of pgoutput, Postgres' own output plugin: bytes into messages, and nothing else.
//!
//! Protocol versions 1 to 4, as the chapter "Logical Replication Message Formats" of Postgres' manual gives them. Pure, without a copy:
//! a message borrows from the bytes that it was read from. Every access is checked: whatever the bytes, the answer is a message or
//! [`Malformed`].

mod two_phase;

use std::fmt;

pub use two_phase::{Prepared, Resolved};

/// What stands where a message should: the message's letter, and what was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub message: char,
    pub what: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message `{}` of pgoutput: {}", self.message.escape_default(), self.what)
    }
}

impl std::error::Error for Malformed {}

/// One message. Times are microseconds since 2000-01-01, as Postgres counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The rows of one committed transaction follow.
    Begin {
        final_lsn: u64,
        time: i64,
        xid: u32,
    },
    /// They were all. `end_lsn` is where the commit's record ends: the transaction's position.
    Commit {
        commit_lsn: u64,
        end_lsn: u64,
        time: i64,
    },
    Origin,
    Relation(Relation),
    Type,
    Insert {
        relation: u32,
        new: Tuple<'a>,
    },
    Update {
        relation: u32,
        old: Option<Old<'a>>,
        new: Tuple<'a>,
    },
    Delete {
        relation: u32,
        old: Old<'a>,
    },
    Truncate {
        relations: Vec<u32>,
    },
    /// What `pg_logical_emit_message` wrote.
    Logical {
        transactional: bool,
        lsn: u64,
        prefix: &'a [u8],
        content: &'a [u8],
    },
    /// A block of the changes of a transaction in progress follows, until `StreamStop`.
    StreamStart {
        xid: u32,
        first: bool,
    },
    StreamStop,
    StreamCommit {
        xid: u32,
        commit_lsn: u64,
        end_lsn: u64,
        time: i64,
    },
    /// A transaction in progress, or with another `subxid` only that part of it, is rolled back.
    StreamAbort {
        xid: u32,
        subxid: u32,
    },
    /// The rows of one transaction that is about to be prepared follow. It and the next four come only where two-phase commits were asked for.
    BeginPrepare(Prepared<'a>),
    /// They were all.
    Prepare(Prepared<'a>),
    /// So they were of a transaction that came in blocks.
    StreamPrepare(Prepared<'a>),
    /// `COMMIT PREPARED`: `lsn` is where its record begins.
    CommitPrepared(Resolved<'a>),
    /// `ROLLBACK PREPARED`: `lsn` is where the record of the PREPARE ended.
    RollbackPrepared(Resolved<'a>),
}

/// What a table looks like from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub id: u32,
    pub namespace: String,
    pub name: String,
    /// `d`efault, `n`othing, `f`ull or `i`ndex.
    pub identity: u8,
    pub columns: Vec<Column>,
}

impl Relation {
    /// Whether updates and deletes tell all columns of the row that was there: replica identity full.
    pub fn tells_all(&self) -> bool {
        self.identity == b'f'
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Whether it is part of the replica identity.
    pub key: bool,
    pub name: String,
    pub type_oid: u32,
    pub type_modifier: i32,
}

/// What an update or a delete tells of the row that was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old<'a> {
    /// Only the columns of the replica identity; the others are null.
    Key(Tuple<'a>),
    /// The whole row: replica identity full.
    Full(Tuple<'a>),
}

impl<'a> Old<'a> {
    pub fn tuple(&self) -> Tuple<'a> {
        match self {
            Old::Key(tuple) | Old::Full(tuple) => *tuple,
        }
    }
}

/// The values of a row, in the order of the relation's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    cells: u16,
    bytes: &'a [u8],
}

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    Null,
    /// A large value that did not change, and was not sent (TOAST).
    Unchanged,
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

impl<'a> Tuple<'a> {
    /// How many columns it has.
    pub fn len(&self) -> usize {
        usize::from(self.cells)
    }

    pub fn is_empty(&self) -> bool {
        self.cells == 0
    }

    pub fn cells(&self) -> impl Iterator<Item = Cell<'a>> + use<'a> {
        // Reading the tuple has walked over all cells, so none is malformed here.
        let mut rest = Bytes {
            rest: self.bytes,
            message: ' ',
        };
        (0..self.cells).map_while(move |_| rest.cell().ok())
    }
}

/// Reads one message. `in_stream`: it came between `StreamStart` and `StreamStop`, where changes tell their transaction; its id is the
/// second part of the answer.
pub fn message(bytes: &[u8], in_stream: bool) -> Result<(Message<'_>, Option<u32>), Malformed> {
    let (&letter, rest) = bytes.split_first().ok_or(Malformed {
        message: ' ',
        what: "no bytes",
    })?;
    let mut rest = Bytes {
        rest,
        message: char::from(letter),
    };
    let of = if in_stream && matches!(letter, b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M') {
        Some(rest.u32()?)
    } else {
        None
    };
    Ok((rest.body(letter)?, of))
}

/// What is left to read of a message.
struct Bytes<'a> {
    rest: &'a [u8],
    message: char,
}

impl<'a> Bytes<'a> {
    fn body(&mut self, letter: u8) -> Result<Message<'a>, Malformed> {
        Ok(match letter {
            b'I' => {
                let relation = self.u32()?;
                self.expect(b'N')?;
                Message::Insert {
                    relation,
                    new: self.tuple()?,
                }
            }
            b'U' => self.update()?,
            b'D' => {
                let relation = self.u32()?;
                let kind = self.u8()?;
                let old = self.old(kind)?;
                Message::Delete {
                    relation,
                    old: old.ok_or_else(|| self.wrong("no old row"))?,
                }
            }
            b'B' => Message::Begin {
                final_lsn: self.u64()?,
                time: self.i64()?,
                xid: self.u32()?,
            },
            b'C' => {
                self.u8()?; // Flags: none yet.
                Message::Commit {
                    commit_lsn: self.u64()?,
                    end_lsn: self.u64()?,
                    time: self.i64()?,
                }
            }
            b'R' => Message::Relation(self.relation()?),
            b'T' => {
                let count = self.u32()?;
                self.u8()?; // CASCADE, RESTART IDENTITY: the server has done it, and tells every table.
                Message::Truncate {
                    relations: self.several(count, Self::u32)?,
                }
            }
            b'M' => {
                let transactional = self.u8()? & 1 == 1;
                let (lsn, prefix) = (self.u64()?, self.terminated()?);
                let length = self.u32()?;
                Message::Logical {
                    transactional,
                    lsn,
                    prefix,
                    content: self.take(length as usize)?,
                }
            }
            b'S' => Message::StreamStart {
                xid: self.u32()?,
                first: self.u8()? == 1,
            },
            b'E' => Message::StreamStop,
            b'c' => {
                let xid = self.u32()?;
                self.u8()?; // Flags: none yet.
                Message::StreamCommit {
                    xid,
                    commit_lsn: self.u64()?,
                    end_lsn: self.u64()?,
                    time: self.i64()?,
                }
            }
            b'A' => Message::StreamAbort {
                xid: self.u32()?,
                subxid: self.u32()?,
            },
            b'O' => Message::Origin,
            b'Y' => Message::Type,
            b'b' | b'P' | b'K' | b'r' | b'p' => self.two_phase(letter)?,
            _ => return Err(self.wrong("not known")),
        })
    }

    fn update(&mut self) -> Result<Message<'a>, Malformed> {
        let relation = self.u32()?;
        let kind = self.u8()?;
        let old = self.old(kind)?;
        if old.is_some() {
            self.expect(b'N')?;
        }
        Ok(Message::Update {
            relation,
            old,
            new: self.tuple()?,
        })
    }

    /// The old row that a letter announces; none where it announces the new one.
    fn old(&mut self, kind: u8) -> Result<Option<Old<'a>>, Malformed> {
        match kind {
            b'K' => Ok(Some(Old::Key(self.tuple()?))),
            b'O' => Ok(Some(Old::Full(self.tuple()?))),
            b'N' => Ok(None),
            _ => Err(self.wrong("a row of an unknown kind")),
        }
    }

    fn relation(&mut self) -> Result<Relation, Malformed> {
        let (id, namespace, name) = (self.u32()?, self.text()?, self.text()?);
        let (identity, count) = (self.u8()?, self.u16()?);
        let columns = self.several(u32::from(count), |bytes| {
            Ok(Column {
                key: bytes.u8()? & 1 == 1,
                name: bytes.text()?.to_owned(),
                type_oid: bytes.u32()?,
                type_modifier: bytes.u32()?.cast_signed(),
            })
        })?;
        // An empty name is that of pg_catalog.
        let namespace = if namespace.is_empty() { "pg_catalog" } else { namespace };
        Ok(Relation {
            id,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity,
            columns,
        })
    }

    fn tuple(&mut self) -> Result<Tuple<'a>, Malformed> {
        let cells = self.u16()?;
        let begin = self.rest;
        for _ in 0..cells {
            self.cell()?;
        }
        let length = begin.len() - self.rest.len();
        Ok(Tuple {
            cells,
            bytes: &begin[..length],
        })
    }

    fn cell(&mut self) -> Result<Cell<'a>, Malformed> {
        match self.u8()? {
            b'n' => Ok(Cell::Null),
            b'u' => Ok(Cell::Unchanged),
            kind @ (b't' | b'b') => {
                let length = self.u32()?;
                let value = self.take(length as usize)?;
                Ok(if kind == b't' { Cell::Text(value) } else { Cell::Binary(value) })
            }
            _ => Err(self.wrong("a value of an unknown kind")),
        }
    }

    /// `count` comes from the bytes: nothing is reserved by it.
    fn several<T>(&mut self, count: u32, mut each: impl FnMut(&mut Self) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(each(self)?);
        }
        Ok(all)
    }

    fn wrong(&self, what: &'static str) -> Malformed {
        Malformed {
            message: self.message,
            what,
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.wrong("cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| self.wrong("cut short"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }
    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }
    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }
    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }
    fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    fn expect(&mut self, letter: u8) -> Result<(), Malformed> {
        if self.u8()? == letter {
            Ok(())
        } else {
            Err(self.wrong("no new row"))
        }
    }

    fn terminated(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self
            .rest
            .iter()
            .position(|&byte| byte == 0)
            .ok_or_else(|| self.wrong("a name without an end"))?;
        let text = self.take(end)?;
        self.u8()?;
        Ok(text)
    }

    /// Names come in the client's encoding, which is UTF-8.
    fn text(&mut self) -> Result<&'a str, Malformed> {
        str::from_utf8(self.terminated()?).map_err(|_| self.wrong("a name that is not UTF-8"))
    }
}

#[cfg(test)]
mod tests;
