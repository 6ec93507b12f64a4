//! Prepared transactions, and how far the slot may be told while they are open. Pure.
//!
//! Where two-phase commits are asked for, the server sends a transaction's changes at its PREPARE, and at COMMIT PREPARED no more than that
//! it was committed. It sends the changes again only if the session begins at or before the PREPARE, and sessions begin where the slot
//! is: so the slot is held there until all tables have what became of the transaction, however far the tables are otherwise.

use std::collections::BTreeMap;

/// See the head of the file.
#[derive(Debug)]
pub struct Prepared {
    /// Where the slot was when the session began. What was prepared before that and is sent nevertheless is always sent with its commit.
    began: u64,
    /// All up to here was read in this session.
    read: u64,
    /// All tables have everything up to here.
    held: u64,
    /// By number: where the record of the PREPARE begins.
    open: BTreeMap<u32, u64>,
    committed: Vec<Committed>,
}

#[derive(Debug)]
struct Committed {
    prepare_lsn: u64,
    end_lsn: u64,
}

impl Prepared {
    pub fn new(began: u64) -> Self {
        Self {
            began,
            read: began,
            held: 0,
            open: BTreeMap::new(),
            committed: Vec::new(),
        }
    }

    /// Where the slot was when the session began.
    pub fn began(&self) -> u64 {
        self.began
    }

    /// A transaction is prepared.
    pub fn prepare(&mut self, xid: u32, prepare_lsn: u64) {
        self.open.insert(xid, prepare_lsn);
    }

    /// It is committed. False: its PREPARE was not sent in this session.
    pub fn commit(&mut self, xid: u32, end_lsn: u64) -> bool {
        let Some(prepare_lsn) = self.open.remove(&xid) else { return false };
        self.committed.push(Committed { prepare_lsn, end_lsn });
        true
    }

    /// It is rolled back. Nothing of it is needed any more.
    pub fn roll_back(&mut self, xid: u32) {
        self.open.remove(&xid);
    }

    /// All up to here was read.
    pub fn read(&mut self, upto: u64) {
        self.read = self.read.max(upto);
    }

    /// All tables have everything up to here.
    pub fn hold(&mut self, upto: u64) {
        self.held = self.held.max(upto);
        self.committed.retain(|committed| committed.end_lsn > upto);
    }

    /// What the slot may be told; None where that is nothing new to it.
    pub fn safe(&self) -> Option<u64> {
        let committed = self.committed.iter().map(|committed| committed.prepare_lsn);
        let needed = self.open.values().copied().chain(committed).filter(|&lsn| lsn >= self.began);
        let safe = needed.chain([self.read, self.held]).min();
        safe.filter(|&safe| safe >= self.began)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What happens in the WAL: at each place a record of these.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Record {
        Prepare(u32),
        Commit(u32),
        RollBack(u32),
        Other,
    }

    const LENGTH: u64 = 10;

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let one = (0..4_u32, 0..4_u32).prop_map(|(kind, xid)| match kind {
            0 => Record::Prepare(xid),
            1 => Record::Commit(xid),
            2 => Record::RollBack(xid),
            _ => Record::Other,
        });
        prop::collection::vec(one, 1..40).prop_map(|records| {
            let mut open = std::collections::BTreeSet::new();
            let possible = |record: &Record| match record {
                Record::Prepare(xid) => open.insert(*xid),
                Record::Commit(xid) | Record::RollBack(xid) => open.remove(xid),
                Record::Other => true,
            };
            records.into_iter().filter(possible).collect()
        })
    }

    proptest! {
        /// A server that sends what it sends, tables that lag behind, and a session that begins anew at any moment, where the slot is.
        #[test]
        fn every_commit_that_tables_lack_comes_with_its_changes(
            records in records(),
            sessions in prop::collection::vec((1..20_usize, 0..6_usize), 1..6),
        ) {
            let (mut slot, mut held) = (LENGTH, LENGTH);
            for (length, lag) in sessions {
                let mut prepared = Prepared::new(slot);
                prepared.hold(held);
                let from = usize::try_from(slot / LENGTH - 1).unwrap();
                for (place, record) in records.iter().enumerate().skip(from).take(length) {
                    let (begin, end) = ((place as u64 + 1) * LENGTH, (place as u64 + 2) * LENGTH);
                    match *record {
                        Record::Prepare(xid) => prepared.prepare(xid, begin),
                        Record::Commit(xid) => {
                            let seen = prepared.commit(xid, end);
                            prop_assert!(seen || begin < held, "{record:?} at {begin}, and tables hold {held}");
                        }
                        Record::RollBack(xid) => prepared.roll_back(xid),
                        Record::Other => {}
                    }
                    prepared.read(end);
                    held = held.max(end.saturating_sub(lag as u64 * LENGTH));
                    prepared.hold(held);
                    let safe = prepared.safe().unwrap();
                    prop_assert!(slot <= safe && safe <= held.min(end), "{slot} {safe} {held} {end}");
                    slot = safe;
                }
            }
        }
    }

    #[test]
    fn the_slot_waits_for_what_is_open_and_goes_on_when_tables_have_it() {
        let mut prepared = Prepared::new(100);
        prepared.hold(500);
        assert_eq!(prepared.safe(), Some(100), "nothing was read yet, whatever the tables hold");
        prepared.prepare(1, 110);
        prepared.prepare(2, 130);
        prepared.read(400);
        assert_eq!(prepared.safe(), Some(110));
        prepared.roll_back(1);
        assert_eq!(prepared.safe(), Some(130));
        assert!(prepared.commit(2, 600));
        prepared.read(600);
        assert_eq!(prepared.safe(), Some(130), "no table has it");
        prepared.hold(600);
        assert_eq!(prepared.safe(), Some(600));
    }

    #[test]
    fn what_was_prepared_before_the_session_and_is_sent_with_its_commit_holds_nothing() {
        let mut prepared = Prepared::new(100);
        prepared.hold(100);
        prepared.prepare(1, 50);
        assert!(prepared.commit(1, 200));
        assert!(!prepared.commit(3, 210), "this one was not sent");
        prepared.read(210);
        assert_eq!(prepared.safe(), Some(100));
        prepared.hold(210);
        assert_eq!(prepared.safe(), Some(210));
    }

    #[test]
    fn a_slot_is_never_told_to_go_back() {
        let mut prepared = Prepared::new(100);
        prepared.hold(90);
        assert_eq!(prepared.safe(), None);
    }
}
