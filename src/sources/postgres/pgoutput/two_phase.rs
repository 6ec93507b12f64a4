//! The messages of two-phase commit, which pgoutput knows since its version 3 (PostgreSQL 15).

use super::{Bytes, Malformed, Message};

/// A transaction that is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared<'a> {
    /// Where the record of the PREPARE begins, and where it ends.
    pub prepare_lsn: u64,
    pub end_lsn: u64,
    pub time: i64,
    pub xid: u32,
    /// The name that it was prepared under.
    pub gid: &'a str,
}

/// A prepared transaction that is committed or rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved<'a> {
    pub lsn: u64,
    /// Where the record of the commit or the rollback ends.
    pub end_lsn: u64,
    /// Of the commit or the rollback.
    pub time: i64,
    pub xid: u32,
    pub gid: &'a str,
}

impl<'a> Bytes<'a> {
    /// The body of a message with one of the letters `b`, `P`, `p`, `K`, `r`.
    pub(super) fn two_phase(&mut self, letter: u8) -> Result<Message<'a>, Malformed> {
        if letter != b'b' {
            self.u8()?; // Flags: none yet.
        }
        Ok(match letter {
            b'b' => Message::BeginPrepare(self.prepared()?),
            b'P' => Message::Prepare(self.prepared()?),
            b'p' => Message::StreamPrepare(self.prepared()?),
            b'K' => Message::CommitPrepared(Resolved {
                lsn: self.u64()?,
                end_lsn: self.u64()?,
                time: self.i64()?,
                xid: self.u32()?,
                gid: self.text()?,
            }),
            b'r' => {
                let (lsn, end_lsn) = (self.u64()?, self.u64()?);
                self.i64()?; // When it was prepared.
                Message::RollbackPrepared(Resolved {
                    lsn,
                    end_lsn,
                    time: self.i64()?,
                    xid: self.u32()?,
                    gid: self.text()?,
                })
            }
            _ => return Err(self.wrong("not one of two-phase commit")),
        })
    }

    fn prepared(&mut self) -> Result<Prepared<'a>, Malformed> {
        Ok(Prepared {
            prepare_lsn: self.u64()?,
            end_lsn: self.u64()?,
            time: self.i64()?,
            xid: self.u32()?,
            gid: self.text()?,
        })
    }
}
