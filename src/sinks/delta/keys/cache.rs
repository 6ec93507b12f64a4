//! The index on disk: a file of the state folder, named by the table's id and version. It saves reading the table at the next start, and
//! is worth no more than that: one that is damaged, of other columns, or from another program version is passed over.
//!
//! A file of the table is trusted to be in the cache as it is now if it has the same deletion vector as when the cache was
//! written; any other is read again. That holds however many commits lie between, and whoever made them.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use uuid::Uuid;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{Index, KeyEncoder, KeyTable, Shape};
use crate::log::{LiveFile, Snapshot};

/// Changes with the layout of the file, and with the way in which keys are made.
const MAGIC: [u8; 8] = *b"alluvk01";
const EXTENSION: &str = "keys";
/// Bytes read or written at once: large enough for the disk, small enough for the processor's cache.
const BUFFER_BYTES: usize = 256 << 10;
/// A header larger than this is none: it would be a hundred million files.
const HEADER_BYTES_MAX: u64 = 8 << 30;

/// Where the caches of a table lie.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    table_id: String,
    /// Which key columns, and which place: an index is of use only for the same.
    fingerprint: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    table_id: String,
    version: u64,
    fingerprint: String,
    hashed: bool,
    files: Vec<Option<CachedFile>>,
    /// Words of each shard.
    words: Vec<usize>,
}

/// A file, and the deletion vector that it had.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CachedFile {
    path: Arc<str>,
    vector: Option<(Arc<str>, Option<i32>, u64)>,
}

impl CachedFile {
    fn of(file: &LiveFile) -> Self {
        let vector = file
            .vector
            .as_ref()
            .map(|v| (Arc::clone(&v.path_or_inline), v.offset, v.cardinality));
        Self {
            path: Arc::clone(&file.path),
            vector,
        }
    }
}

impl Cache {
    pub fn new(folder: &Path, table_id: &str, encoder: &KeyEncoder) -> Self {
        Self {
            folder: folder.to_owned(),
            table_id: table_id.to_owned(),
            fingerprint: encoder.fingerprint(),
        }
    }

    /// The newest usable cache, and the live files that have to be read into it; None where everything has to be read.
    pub fn load(&self, now: &Snapshot, shape: Shape) -> Option<(Index, Vec<Arc<str>>)> {
        let (version, path) = self.versions().into_iter().rev().find(|(version, _)| *version <= now.version)?;
        match self.read(&path, shape) {
            Ok((header, keys)) => {
                let unread = unread(&header, now);
                info!(path = %path.display(), version, keys = keys.len(), files_to_read = unread.len(), "key index opened from its cache");
                let files = header
                    .files
                    .into_iter()
                    .map(|file| file.map(|file| file.path).filter(|path| now.files.contains_key(path)));
                Some((Index::from_parts(keys, files.collect()), unread))
            }
            Err(error) => {
                warn!(path = %path.display(), %error, "key index is built anew: its cache cannot be used");
                None
            }
        }
    }

    /// Saves the index as it is at a version, and removes what was saved before. It is not needed for anything but speed, so that failing to
    /// save it is no failure.
    pub fn save(&self, index: &mut Index, now: &Snapshot) {
        // Addresses that lead elsewhere mean nothing on disk.
        index.settle();
        let path = self.path(now.version);
        match self.write(index, now, &path) {
            Ok(()) => {
                for (_, old) in self.versions().into_iter().filter(|(version, _)| *version != now.version) {
                    // One that stays is passed over: newer ones come first.
                    let _ = fs::remove_file(old);
                }
            }
            Err(error) => warn!(path = %path.display(), %error, "the key index cannot be saved; the next start will read the table"),
        }
    }

    fn path(&self, version: u64) -> PathBuf {
        self.folder.join(format!("{}-{version:020}.{EXTENSION}", self.table_id))
    }

    /// Versions of which there is a cache, rising.
    fn versions(&self) -> Vec<(u64, PathBuf)> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let version = |path: &Path| {
            let name = path.file_name()?.to_str()?.strip_prefix(&self.table_id)?;
            name.strip_prefix('-')?.strip_suffix(EXTENSION)?.strip_suffix('.')?.parse().ok()
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut versions: Vec<(u64, PathBuf)> = paths.filter_map(|path| Some((version(&path)?, path))).collect();
        versions.sort_unstable();
        versions
    }

    fn read(&self, path: &Path, shape: Shape) -> io::Result<(Header, KeyTable)> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
        let mut start = [0; 24];
        file.read_exact(&mut start)?;
        let (magic, rest) = start.split_at(8);
        let (length, sum) = (word(&rest[..8]), word(&rest[8..]));
        if magic != MAGIC {
            return Err(wrong("it was written by another version of alluvium"));
        }
        if length > HEADER_BYTES_MAX {
            return Err(wrong("its header is damaged"));
        }
        let mut header = Vec::new();
        Read::by_ref(&mut file).take(length).read_to_end(&mut header)?;
        if xxh3_64(&header) != sum {
            return Err(wrong("its header is damaged"));
        }
        let header: Header = serde_json::from_slice(&header)?;
        if header.table_id != self.table_id || header.fingerprint != self.fingerprint || header.hashed != (shape == Shape::Hashed) {
            return Err(wrong("it is the index of another table or of other key columns"));
        }
        let mut sum = Xxh3::new();
        let mut bytes = vec![0; BUFFER_BYTES];
        let keys = KeyTable::from_raw(shape, &header.words, |words| {
            for words in words.chunks_mut(BUFFER_BYTES / 8) {
                let bytes = &mut bytes[..words.len() * 8];
                file.read_exact(bytes)?;
                sum.update(bytes);
                words
                    .iter_mut()
                    .zip(bytes.chunks_exact(8))
                    .for_each(|(into, from)| *into = word(from));
            }
            Ok::<_, io::Error>(())
        })?;
        let mut end = [0; 8];
        file.read_exact(&mut end)?;
        if word(&end) != sum.digest() {
            Err(wrong("its keys are damaged"))
        } else {
            Ok((header, keys))
        }
    }

    fn write(&self, index: &Index, now: &Snapshot, path: &Path) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        // Under a name of its own until it is whole, so that a crash leaves no half cache and two writers do not meet.
        let unfinished = self
            .folder
            .join(format!("{}-{}.unfinished", self.table_id, Uuid::new_v4().simple()));
        let written = self.write_to(index, now, &unfinished).and_then(|()| fs::rename(&unfinished, path));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    fn write_to(&self, index: &Index, now: &Snapshot, path: &Path) -> io::Result<()> {
        let file = |path: &Option<Arc<str>>| Some(CachedFile::of(now.files.get(path.as_ref()?)?));
        let header = serde_json::to_vec(&Header {
            table_id: self.table_id.clone(),
            version: now.version,
            fingerprint: self.fingerprint.clone(),
            hashed: index.keys.shape() == Shape::Hashed,
            files: index.files.iter().map(file).collect(),
            words: index.keys.raw().map(<[u64]>::len).collect(),
        })?;
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?);
        file.write_all(&MAGIC)?;
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&xxh3_64(&header).to_le_bytes())?;
        file.write_all(&header)?;
        let mut sum = Xxh3::new();
        let mut bytes = vec![0; BUFFER_BYTES];
        for words in index.keys.raw().flat_map(|shard| shard.chunks(BUFFER_BYTES / 8)) {
            let bytes = &mut bytes[..words.len() * 8];
            bytes
                .chunks_exact_mut(8)
                .zip(words)
                .for_each(|(into, from)| into.copy_from_slice(&from.to_le_bytes()));
            sum.update(bytes);
            file.write_all(bytes)?;
        }
        file.write_all(&sum.digest().to_le_bytes())?;
        // Not forced to the disk: what a power failure leaves of it is told by its checksums.
        file.flush()
    }
}

/// Live files that are not in the cache as they are now.
fn unread(header: &Header, now: &Snapshot) -> Vec<Arc<str>> {
    let cached: std::collections::HashMap<&str, &CachedFile> = header.files.iter().flatten().map(|file| (&*file.path, file)).collect();
    let changed = now
        .files
        .values()
        .filter(|file| cached.get(&*file.path).is_none_or(|then| **then != CachedFile::of(file)));
    changed.map(|file| Arc::clone(&file.path)).collect()
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("callers give eight bytes"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::super::{Address, Key};
    use super::*;
    use crate::log::Vector;
    use crate::table::TableId;

    fn encoder(name: &str) -> KeyEncoder {
        let schema = Schema::new(vec![Field::new(name, DataType::Int64, false)]);
        KeyEncoder::new(&TableId::new("t"), &schema, &[name.to_owned()]).unwrap()
    }

    fn live(path: &str, deleted: Option<u64>) -> LiveFile {
        let vector = |cardinality| Vector {
            storage_type: 'u',
            path_or_inline: format!("vector-{cardinality}").into(),
            offset: Some(1),
            size: 1,
            cardinality,
            rows: None,
        };
        LiveFile {
            path: path.into(),
            size: 1,
            rows: Some(10),
            partition_values: Arc::default(),
            stats: None,
            tags: None,
            modified_ms: 0,
            vector: deleted.map(vector),
        }
    }

    fn snapshot(version: u64, files: Vec<LiveFile>) -> Snapshot {
        Snapshot {
            version,
            table_id: "id".into(),
            protocol: serde_json::from_str(r#"{"minReaderVersion":1,"minWriterVersion":2}"#).unwrap(),
            files: files
                .into_iter()
                .map(|file| (Arc::clone(&file.path), file))
                .collect::<HashMap<_, _>>(),
            ..Snapshot::empty()
        }
    }

    fn index() -> Index {
        let mut index = Index::new(Shape::Exact, 0);
        for path in ["a", "b"] {
            let file = index.number(&path.into()).unwrap();
            for row in 0..1000 {
                index.insert(Key([u64::from(file * 1000 + row), 0]), Address { file, row });
            }
        }
        index
    }

    #[test]
    fn a_saved_index_is_opened_again_and_changed_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path(), "id", &encoder("k"));
        let then = snapshot(3, vec![live("a", None), live("b", Some(2))]);
        cache.save(&mut index(), &then);
        let (same, unread) = cache.load(&then, Shape::Exact).unwrap();
        assert_eq!(unread, Vec::<Arc<str>>::new());
        assert!(same.keys.iter().eq(index().keys.iter()));
        assert_eq!(same.path(1).map(|path| &**path), Some("b"));

        let later = snapshot(9, vec![live("a", Some(1)), live("c", None)]);
        let (mut stale, mut unread) = cache.load(&later, Shape::Exact).unwrap();
        unread.sort();
        assert_eq!(unread, ["a".into(), "c".into()]);
        assert_eq!(
            (stale.path(0).is_some(), stale.path(1)),
            (true, None),
            "a file that is gone is forgotten, its number is not"
        );
        cache.save(&mut stale, &later);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "older caches are removed");
        assert!(
            cache.load(&then, Shape::Exact).is_none(),
            "a cache from the future (the table was restored) is of no use"
        );
    }

    #[test]
    fn a_damaged_or_foreign_cache_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path(), "id", &encoder("k"));
        let now = snapshot(3, vec![live("a", None), live("b", None)]);
        cache.save(&mut index(), &now);
        assert!(
            Cache::new(folder.path(), "id", &encoder("other"))
                .load(&now, Shape::Exact)
                .is_none()
        );
        assert!(Cache::new(folder.path(), "other", &encoder("k")).load(&now, Shape::Exact).is_none());
        let path = cache.path(3);
        let whole = fs::read(&path).unwrap();
        for at in [0, 9, 20, 30, whole.len() / 2, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            fs::write(&path, damaged).unwrap();
            assert!(cache.load(&now, Shape::Exact).is_none(), "byte {at}");
        }
        for length in [0, 7, 24, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(cache.load(&now, Shape::Exact).is_none(), "{length} bytes");
        }
        fs::write(&path, &whole).unwrap();
        assert!(cache.load(&now, Shape::Exact).is_some());
    }
}
