//! The primary-key index of an upsert table: which row of which file holds a key.
//!
//! It is never the truth. An entry is believed only where its file is part of the table and its row is not marked as deleted; an entry
//! that is not, is stale. So entries of files that others removed, or of rows that others deleted, do no harm and need no care. It is
//! built from the key columns of the table's files, kept up with each commit, and saved as a cache (`cache`) that may vanish at any time.

mod build;
mod cache;
mod encode;
mod table;

use std::collections::HashMap;
use std::sync::Arc;

pub use build::take_in;
pub use cache::Cache;
pub use encode::KeyEncoder;
pub use table::{Address, Key, KeyTable, Shape};

use crate::error::{Error, Result};

/// Keys of a table's rows, and the files that their addresses name.
#[derive(Debug)]
pub struct Index {
    keys: KeyTable,
    /// By number. None where the file was gone when the index was saved: no number is given twice.
    files: Vec<Option<Arc<str>>>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Index {
    /// An empty index with room for some `keys`.
    pub fn new(shape: Shape, keys: usize) -> Self {
        Self {
            keys: KeyTable::new(shape, keys),
            files: Vec::new(),
            numbers: HashMap::new(),
        }
    }

    fn from_parts(keys: KeyTable, files: Vec<Option<Arc<str>>>) -> Self {
        let named = files
            .iter()
            .enumerate()
            .filter_map(|(number, path)| Some((Arc::clone(path.as_ref()?), number as u32)));
        let numbers = named.collect();
        Self { keys, files, numbers }
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

    /// Where a key stood when the index last heard of it.
    pub fn get(&self, key: Key) -> Option<Address> {
        self.keys.get(key)
    }

    pub fn insert(&mut self, key: Key, address: Address) -> Option<Address> {
        self.keys.insert(key, address)
    }

    pub fn remove(&mut self, key: Key) {
        self.keys.remove(key);
    }

    /// Forgets all keys.
    pub fn clear(&mut self) {
        self.keys = KeyTable::new(self.keys.shape(), 0);
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
