//! The primary-key index of an upsert table: which row of which file holds a key.
//!
//! It is never the truth. An entry is believed only where its file is part of the table and its row is not marked as deleted; an entry
//! that is not, is stale. So entries of files that others removed, or of rows that others deleted, do no harm and need no care. It is
//! built from the key columns of the table's files, kept up with each commit, and saved as a cache (`cache`) that may vanish at any time.

mod build;
mod cache;
mod encode;
mod moves;
mod table;

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringTreemap;

pub use build::take_in;
pub use cache::Cache;
pub use encode::KeyEncoder;
pub use table::{Address, Key, KeyTable, Shape};

use self::moves::{Moved, Moves};
use crate::error::{Error, Result};

/// Addresses are led on through the files that have moved, until that many have: then each key is told its new address, which costs a walk
/// through all keys. With as many rows moved as there are keys, the walk is a small part of what moving them cost.
const MOVED_FILES_MAX: usize = 10_000;
const MOVED_ROWS_MIN: u64 = 1 << 20;
/// Keys that are looked for together: about as many as a processor has reads of memory under way.
const TOGETHER: usize = 32;

/// Keys of a table's rows, and the files that their addresses name.
#[derive(Debug)]
pub struct Index {
    keys: KeyTable,
    /// By number. None where the file was gone when the index was saved: no number is given twice.
    files: Vec<Option<Arc<str>>>,
    numbers: HashMap<Arc<str>, u32>,
    /// What compaction has moved since the keys were last told their addresses.
    moves: Moves,
}

impl Index {
    /// An empty index with room for some `keys`.
    pub fn new(shape: Shape, keys: usize) -> Self {
        Self {
            keys: KeyTable::new(shape, keys),
            files: Vec::new(),
            numbers: HashMap::new(),
            moves: Moves::default(),
        }
    }

    fn from_parts(keys: KeyTable, files: Vec<Option<Arc<str>>>) -> Self {
        let named = files
            .iter()
            .enumerate()
            .filter_map(|(number, path)| Some((Arc::clone(path.as_ref()?), number as u32)));
        let numbers = named.collect();
        Self {
            keys,
            files,
            numbers,
            moves: Moves::default(),
        }
    }

    /// The number of a file, which it gets at the first time.
    pub fn number(&mut self, path: &Arc<str>) -> Result<u32> {
        if let Some(&number) = self.numbers.get(path) {
            return Ok(number);
        }
        // The highest number marks what is no file (`stage::DELETED`).
        let number = u32::try_from(self.files.len()).ok().filter(|&number| number < u32::MAX - 1);
        let number =
            number.ok_or_else(|| Error::bug("the key index has numbered as many files as it can; remove it from the state folder"))?;
        self.files.push(Some(Arc::clone(path)));
        self.numbers.insert(Arc::clone(path), number);
        Ok(number)
    }

    pub fn knows(&self, path: &str) -> bool {
        self.numbers.contains_key(path)
    }

    /// The file of a number, or None where it is known to be gone.
    pub fn path(&self, number: u32) -> Option<&Arc<str>> {
        self.files.get(number as usize)?.as_ref()
    }

    /// Takes the next few changes, whose keys will then be found without waiting for memory. False at the end.
    pub fn fetch(&self, changes: &mut dyn Iterator<Item = (Key, Address)>, group: &mut Vec<(Key, Address)>) -> bool {
        group.clear();
        group.extend(changes.take(TOGETHER));
        self.keys.fetch(group.iter().map(|(key, _)| *key));
        !group.is_empty()
    }

    /// Where a key stood when the index last heard of it.
    pub fn get(&self, key: Key) -> Option<Address> {
        self.moves.lead(self.keys.get(key)?)
    }

    pub fn insert(&mut self, key: Key, address: Address) -> Option<Address> {
        self.moves.lead(self.keys.insert(key, address)?)
    }

    /// The rows of a file, `rows` in number, were written again in their order, those in `left` excepted: the first of them is row
    /// `first` of file `to`.
    pub fn move_rows(&mut self, path: &str, rows: u64, to: u32, first: u32, left: Arc<RoaringTreemap>) {
        let Some(&file) = self.numbers.get(path) else { return };
        self.moves.insert(file, rows, Moved { to, first, left });
        if self.moves.files() > MOVED_FILES_MAX || self.moves.rows() > MOVED_ROWS_MIN.max(self.keys.len() as u64) {
            self.settle();
        }
    }

    /// Tells every key the address to which its own leads.
    fn settle(&mut self) {
        if self.moves.files() > 0 {
            let moves = std::mem::take(&mut self.moves);
            // The address of a row that was left behind stays: its file is gone, so that it is stale.
            self.keys.readdress(|at| moves.lead(at).unwrap_or(at));
        }
    }

    pub fn remove(&mut self, key: Key) {
        self.keys.remove(key);
    }

    /// Forgets all keys.
    pub fn clear(&mut self) {
        self.keys = KeyTable::new(self.keys.shape(), 0);
        self.moves = Moves::default();
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Bytes that the keys take.
    pub fn memory(&self) -> usize {
        self.keys.memory()
    }
}
