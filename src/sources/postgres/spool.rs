//! Transactions whose end is open: kept until it is known, in memory while they are small, then in files.
//!
//! The server sends the changes of large transactions before it knows whether they will be committed, in blocks between those of others;
//! and those of prepared ones when they are prepared, where that was asked for.
//! A transaction that is committed is read back in its order, without the parts that were rolled back; one that is not is forgotten.
//! Files have no name from their first moment on: whatever happens, nothing of them is left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use bytes::{Buf, BytesMut};

use super::pgoutput::{self, Message};
use crate::error::{Error, Result};

/// What is read back at once.
const BLOCK_BYTES: usize = 1 << 20;
/// Before each message: its length, and where it stands in the WAL.
const HEAD_BYTES: usize = 4 + 8;

/// See the head of the file.
pub struct Spool {
    folder: PathBuf,
    /// Of all transactions together.
    memory_max: usize,
    memory: usize,
    open: BTreeMap<u32, Kept>,
}

#[derive(Default)]
struct Kept {
    /// Its messages came between StreamStart and StreamStop.
    in_stream: bool,
    aborted: BTreeSet<u32>,
    /// What came behind the file's end.
    memory: Vec<u8>,
    file: Option<File>,
}

impl Spool {
    pub fn new(folder: &Path, memory_max: usize) -> Self {
        Self {
            folder: folder.to_owned(),
            memory_max,
            memory: 0,
            open: BTreeMap::new(),
        }
    }

    /// Keeps a message of a transaction. `in_stream`: it came between StreamStart and StreamStop; all of a transaction do, or none.
    pub fn push(&mut self, xid: u32, in_stream: bool, lsn: u64, message: &[u8]) -> Result<()> {
        let length = u32::try_from(message.len())
            .map_err(|_| Error::data("too_large", format!("a change of transaction {xid} is larger than 4 GiB")))?;
        let kept = self.open.entry(xid).or_default();
        kept.in_stream = in_stream;
        kept.memory.extend_from_slice(&length.to_le_bytes());
        kept.memory.extend_from_slice(&lsn.to_le_bytes());
        kept.memory.extend_from_slice(message);
        self.memory += HEAD_BYTES + message.len();
        while self.memory > self.memory_max {
            self.write_largest()?;
        }
        Ok(())
    }

    /// A transaction, or with another `subxid` a part of it, is rolled back.
    pub fn abort(&mut self, xid: u32, subxid: u32) {
        if xid == subxid {
            self.memory -= self.open.remove(&xid).map_or(0, |kept| kept.memory.len());
        } else if let Some(kept) = self.open.get_mut(&xid) {
            kept.aborted.insert(subxid);
        }
    }

    /// A transaction is committed: what is to be read back. None where nothing of it was kept.
    pub fn commit(&mut self, xid: u32) -> Result<Option<Replay>> {
        let Some(mut kept) = self.open.remove(&xid) else { return Ok(None) };
        self.memory -= kept.memory.len();
        if let Some(file) = &mut kept.file {
            file.rewind().map_err(|e| failed(&self.folder, e))?;
        }
        Ok(Some(Replay {
            folder: self.folder.clone(),
            in_stream: kept.in_stream,
            aborted: kept.aborted,
            file: kept.file,
            memory: kept.memory,
            block: BytesMut::new(),
        }))
    }

    fn write_largest(&mut self) -> Result<()> {
        let Some(kept) = self.open.values_mut().max_by_key(|kept| kept.memory.len()) else {
            return Ok(());
        };
        let written = match &mut kept.file {
            Some(file) => file.write_all(&kept.memory),
            none => nameless(&self.folder).and_then(|file| none.insert(file).write_all(&kept.memory)),
        };
        written.map_err(|e| failed(&self.folder, e))?;
        self.memory -= kept.memory.len();
        kept.memory = Vec::new();
        Ok(())
    }
}

/// A committed transaction, read back message by message.
pub struct Replay {
    folder: PathBuf,
    in_stream: bool,
    aborted: BTreeSet<u32>,
    file: Option<File>,
    memory: Vec<u8>,
    block: BytesMut,
}

impl Replay {
    /// Hands the messages of the next block to `take`, with where each stands in the WAL, and its bytes. False: that was the last.
    pub fn next_block(&mut self, mut take: impl FnMut(u64, &Message<'_>, &[u8]) -> Result<()>) -> Result<bool> {
        let more = self.read()?;
        while let Some(mut head) = self.block.get(..HEAD_BYTES) {
            let (length, lsn) = (head.get_u32_le() as usize, head.get_u64_le());
            let Some(bytes) = self.block.get(HEAD_BYTES..HEAD_BYTES + length) else {
                break;
            };
            let (message, of) = pgoutput::message(bytes, self.in_stream)
                .map_err(|e| Error::bug("a message that was kept cannot be read back").because(e))?;
            if !of.is_some_and(|xid| self.aborted.contains(&xid)) {
                take(lsn, &message, bytes)?;
            }
            self.block.advance(HEAD_BYTES + length);
        }
        if !more && !self.block.is_empty() {
            return Err(Error::bug("a transaction that was kept ends in the middle of a message"));
        }
        Ok(more)
    }

    /// Adds the next block. False: there is no further one.
    fn read(&mut self) -> Result<bool> {
        if let Some(file) = &mut self.file {
            let before = self.block.len();
            self.block.resize(before + BLOCK_BYTES, 0);
            let read = file.read(&mut self.block[before..]).map_err(|e| failed(&self.folder, e))?;
            self.block.truncate(before + read);
            if read > 0 {
                return Ok(true);
            }
            self.file = None;
        }
        self.block.extend_from_slice(&self.memory);
        self.memory = Vec::new();
        Ok(false)
    }
}

/// A file that only this process can reach, and that goes with it.
fn nameless(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let path = folder.join(uuid::Uuid::new_v4().to_string());
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn failed(folder: &Path, error: io::Error) -> Error {
    let what = format!(
        "a large transaction cannot be kept in {}: make room there, or name another folder as `state`",
        folder.display()
    );
    Error::transient("spool", what).because(error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A delete of relation `number` by `subxid`, as it comes within a stream.
    fn change(subxid: u32, number: u32) -> Vec<u8> {
        [b"D", &subxid.to_be_bytes()[..], &number.to_be_bytes(), b"K\0\x01n"].concat()
    }

    fn read_back(mut replay: Replay) -> Vec<(u64, u32)> {
        let mut read = Vec::new();
        loop {
            let more = replay.next_block(|lsn, message, _| {
                let Message::Delete { relation, .. } = message else {
                    panic!("{message:?}")
                };
                read.push((lsn, *relation));
                Ok(())
            });
            if !more.unwrap() {
                return read;
            }
        }
    }

    proptest! {
        /// Against the simplest model: a list for each transaction.
        #[test]
        fn a_committed_transaction_is_what_was_sent_without_what_was_rolled_back(
            changes in prop::collection::vec((0..3_u32, 0..3_u32), 1..200),
            aborted in prop::collection::btree_set(1..3_u32, 0..2),
            memory_max in 0..2_000_usize,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut spool = Spool::new(folder.path(), memory_max);
            for (number, (xid, part)) in changes.iter().enumerate() {
                let message = change(xid * 10 + part, number as u32);
                spool.push(xid * 10, true, number as u64, &message).unwrap();
            }
            spool.abort(10, 10);
            for part in &aborted {
                spool.abort(0, *part);
            }
            for xid in 0..3 {
                let expected: Vec<(u64, u32)> = changes
                    .iter()
                    .enumerate()
                    .filter(|(_, (of, part))| *of == xid && xid != 1 && !(xid == 0 && aborted.contains(part)))
                    .map(|(number, _)| (number as u64, number as u32))
                    .collect();
                let read = spool.commit(xid * 10).unwrap().map(read_back).unwrap_or_default();
                prop_assert_eq!(read, expected);
            }
            prop_assert_eq!(spool.memory, 0);
            prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_named() {
        let mut spool = Spool::new(Path::new("/dev/null/spool"), 0);
        let failure = spool.push(7, true, 1, b"I").unwrap_err();
        assert_eq!((failure.code, failure.kind), ("spool", crate::error::Kind::Transient));
        assert!(failure.what.contains("/dev/null/spool"), "{failure}");
    }
}
