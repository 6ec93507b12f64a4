//! How tables look, as the server said it last. Pure.
//!
//! The server introduces a table once in a session, before its first change, and again when it has changed. A transaction that is kept until
//! it ends may be the one that has the introduction: then others need it before, and it may need one that came in another. So what is kept
//! gets the introductions that it lacks, and others get those that were only kept. In the blocks of a stream none of this is needed: there
//! the server introduces tables for each transaction anew.

use std::collections::{BTreeMap, BTreeSet};

use super::pgoutput::Message;

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Introduced {
    /// The last Relation of each, as it came outside of streams.
    latest: BTreeMap<u32, Vec<u8>>,
    /// Those whose last Relation is not what was last read.
    due: BTreeSet<u32>,
    /// Those that the transaction which is being kept has.
    kept: BTreeSet<u32>,
}

impl Introduced {
    /// A transaction to be kept begins.
    pub fn begin(&mut self) {
        self.kept.clear();
    }

    /// A message is kept. What is to be kept before it.
    pub fn keep(&mut self, message: &Message<'_>, bytes: &[u8]) -> Vec<Vec<u8>> {
        if let Message::Relation(relation) = message {
            self.latest.insert(relation.id, bytes.to_vec());
            self.due.insert(relation.id);
            self.kept.insert(relation.id);
        }
        let lacks = relations(message).iter().filter(|id| self.kept.insert(**id));
        lacks.filter_map(|id| self.latest.get(id).cloned()).collect()
    }

    /// A message is read as it comes. What is to be read before it.
    pub fn read(&mut self, message: &Message<'_>, bytes: &[u8]) -> Vec<Vec<u8>> {
        if let Message::Relation(relation) = message {
            self.latest.insert(relation.id, bytes.to_vec());
            self.due.remove(&relation.id);
        }
        if self.due.is_empty() {
            return Vec::new();
        }
        let due = relations(message).iter().filter(|id| self.due.remove(*id));
        due.filter_map(|id| self.latest.get(id).cloned()).collect()
    }

    /// A message is read back of a transaction that came in blocks and was committed: what it introduces is introduced. `bytes` as in a stream.
    pub fn read_back(&mut self, message: &Message<'_>, bytes: &[u8]) {
        if let (Message::Relation(relation), Some((letter, body))) = (message, bytes.split_first_chunk::<5>()) {
            self.latest.insert(relation.id, [&letter[..1], body].concat());
            self.due.remove(&relation.id);
        }
    }

    /// A message is read back of a transaction that was prepared. What it introduces is how tables looked when that was.
    pub fn read_back_prepared(&mut self, message: &Message<'_>) {
        if let Message::Relation(relation) = message {
            self.due.insert(relation.id);
        }
    }
}

/// Those that a message changes rows of.
fn relations<'m>(message: &'m Message<'_>) -> &'m [u32] {
    match message {
        Message::Insert { relation, .. } | Message::Update { relation, .. } | Message::Delete { relation, .. } => {
            std::slice::from_ref(relation)
        }
        Message::Truncate { relations } => relations,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::postgres::pgoutput::message;

    /// Relation 7 with columns of this number, each an integer.
    fn relation(columns: u8) -> Vec<u8> {
        let mut bytes = b"R\0\0\0\x07public\0t\0d\0".to_vec();
        bytes.push(columns);
        for column in 0..columns {
            bytes.extend([0, b'a' + column, 0, 0, 0, 0, 23, 255, 255, 255, 255]);
        }
        bytes
    }

    fn insert() -> Vec<u8> {
        b"I\0\0\0\x07N\0\x01n".to_vec()
    }

    fn keep(introduced: &mut Introduced, bytes: &[u8]) -> Vec<Vec<u8>> {
        introduced.keep(&message(bytes, false).unwrap().0, bytes)
    }

    fn read(introduced: &mut Introduced, bytes: &[u8]) -> Vec<Vec<u8>> {
        introduced.read(&message(bytes, false).unwrap().0, bytes)
    }

    #[test]
    fn what_was_introduced_in_a_kept_transaction_is_read_by_others_once() {
        let mut introduced = Introduced::default();
        introduced.begin();
        assert!(keep(&mut introduced, &relation(1)).is_empty());
        assert!(keep(&mut introduced, &insert()).is_empty());
        assert_eq!(read(&mut introduced, &insert()), [relation(1)]);
        assert!(read(&mut introduced, &insert()).is_empty());
    }

    #[test]
    fn what_is_kept_is_whole_by_itself() {
        let mut introduced = Introduced::default();
        read(&mut introduced, &relation(1));
        introduced.begin();
        assert_eq!(keep(&mut introduced, &insert()), [relation(1)]);
        assert!(keep(&mut introduced, &insert()).is_empty());
        introduced.begin();
        assert_eq!(keep(&mut introduced, &insert()), [relation(1)], "and so is the next");
        // It looked otherwise in between: what was kept does not count for what comes.
        read(&mut introduced, &relation(2));
        introduced.read_back_prepared(&message(&relation(1), false).unwrap().0);
        assert_eq!(read(&mut introduced, &insert()), [relation(2)]);
    }

    #[test]
    fn what_was_read_as_it_came_is_not_read_again() {
        let mut introduced = Introduced::default();
        introduced.begin();
        keep(&mut introduced, &relation(1));
        assert!(read(&mut introduced, &relation(2)).is_empty());
        assert!(read(&mut introduced, &insert()).is_empty());
    }

    #[test]
    fn a_committed_stream_introduces_as_well() {
        let mut introduced = Introduced::default();
        introduced.begin();
        keep(&mut introduced, &relation(1));
        let (whole, mut in_stream) = (relation(2), vec![b'R', 0, 0, 3, 3]);
        in_stream.extend(&whole[1..]);
        introduced.read_back(&message(&in_stream, true).unwrap().0, &in_stream);
        assert!(read(&mut introduced, &insert()).is_empty());
        introduced.begin();
        assert_eq!(keep(&mut introduced, &insert()), [relation(2)]);
    }
}
