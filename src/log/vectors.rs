//! Deletion vectors: which rows of a data file are deleted, as Delta's RoaringBitmapArray (64 bits, portable form).
//!
//! All vectors of a commit lie in one file: a version byte, then for each vector its size, its bytes and their checksum. The log
//! names the file by a uuid in base 85, and the place of a vector by the offset of its size. Writing and reading bytes is pure;
//! [`read`] is the only I/O here.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use roaring::RoaringTreemap;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::log::snapshot::{LiveFile, Vector};
use crate::log::store::fault;

/// First byte of a file of vectors.
const FORMAT_VERSION: u8 = 1;
/// First four bytes of a vector, little endian: RoaringBitmapArray in its portable form.
const MAGIC: u32 = 1_681_511_377;
/// Characters of a uuid in base 85.
const UUID_CHARS: usize = 20;
/// Length and checksum around a vector, four bytes each.
const FRAME_BYTES: u64 = 4;

/// A file of vectors in the making.
#[derive(Debug)]
pub(crate) struct VectorFile {
    id: Uuid,
    bytes: Vec<u8>,
}

impl VectorFile {
    pub(crate) fn new() -> Self {
        Self {
            id: Uuid::new_v4(),
            bytes: vec![FORMAT_VERSION],
        }
    }

    /// Adds a vector, and says how the log names it.
    pub(crate) fn push(&mut self, rows: Arc<RoaringTreemap>) -> Result<Vector> {
        let body = encode(&rows);
        let too_large = |_| {
            Error::bug(format!(
                "the deletion vectors of one commit take {} bytes, more than Delta can address",
                self.bytes.len()
            ))
        };
        let offset = i32::try_from(self.bytes.len()).map_err(too_large)?;
        let size = i32::try_from(body.len()).map_err(too_large)?;
        self.bytes.extend_from_slice(&size.to_be_bytes());
        self.bytes.extend_from_slice(&body);
        self.bytes.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
        Ok(Vector {
            storage_type: 'u',
            path_or_inline: z85::encode(self.id.as_bytes()).into(),
            offset: Some(offset),
            size,
            cardinality: rows.len(),
            rows: Some(rows),
        })
    }

    /// Where the file belongs, and its bytes; None when no vector was added.
    pub(crate) fn finish(self) -> Option<(Path, Bytes)> {
        (self.bytes.len() > 1).then(|| (Path::from(file_name(self.id)), self.bytes.into()))
    }
}

fn file_name(id: Uuid) -> String {
    format!("deletion_vector_{id}.bin")
}

/// The bytes of a vector.
fn encode(rows: &RoaringTreemap) -> Vec<u8> {
    let mut body = Vec::with_capacity(4 + rows.serialized_size());
    body.extend_from_slice(&MAGIC.to_le_bytes());
    rows.serialize_into(&mut body).expect("writing to memory does not fail");
    body
}

/// The rows of a vector's bytes; the text says what is wrong with them.
fn decode(body: &[u8]) -> Result<RoaringTreemap, String> {
    let (magic, rest) = body.split_first_chunk::<4>().ok_or("it is too short")?;
    let magic = u32::from_le_bytes(*magic);
    if magic != MAGIC {
        return Err(format!("it begins with {magic}, not with {MAGIC}"));
    }
    RoaringTreemap::deserialize_from(rest).map_err(|e| e.to_string())
}

/// The bytes of a vector in its frame of length and checksum.
fn unframe(framed: &[u8], size: usize) -> Result<&[u8], String> {
    let (length, rest) = framed.split_first_chunk::<4>().ok_or("it is too short")?;
    if u32::from_be_bytes(*length) as usize != size {
        return Err(format!("the log says {size} bytes, the file {}", u32::from_be_bytes(*length)));
    }
    let (body, check) = rest.split_at_checked(size).ok_or("it is too short")?;
    let check = check.first_chunk::<4>().ok_or("it is too short")?;
    if crc32fast::hash(body) != u32::from_be_bytes(*check) {
        return Err("its checksum does not fit its bytes".to_owned());
    }
    Ok(body)
}

/// Reads the deleted rows of a file.
pub(crate) async fn read(store: &dyn ObjectStore, place: &str, file: &LiveFile) -> Result<Arc<RoaringTreemap>> {
    let Some(vector) = &file.vector else { return Ok(Arc::default()) };
    if let Some(rows) = &vector.rows {
        return Ok(Arc::clone(rows));
    }
    let damaged = |why: String| {
        let what = format!(
            "the deletion vector of `{}` in {place} cannot be read: {why}; restore it, or restore the table to an older version",
            file.path
        );
        Error::data("bad_vector", what)
    };
    let size = usize::try_from(vector.size).map_err(|_| damaged("its size is negative".to_owned()))?;
    let rows = match vector.storage_type {
        'i' => {
            // The bytes are padded to whole groups of the encoding; the size says where they end.
            let bytes = z85::decode(vector.path_or_inline.as_bytes()).map_err(|e| damaged(e.to_string()))?;
            decode(bytes.get(..size).ok_or_else(|| damaged("it is too short".to_owned()))?)
        }
        'u' => {
            let path = relative_path(&vector.path_or_inline).map_err(damaged)?;
            let start = u64::try_from(vector.offset.unwrap_or(1)).map_err(|_| damaged("its offset is negative".to_owned()))?;
            let range = start..start + size as u64 + 2 * FRAME_BYTES;
            let framed = store.get_range(&path, range).await.map_err(|e| match e {
                object_store::Error::NotFound { .. } => damaged(format!("{path} is gone")),
                e => fault(e, &format!("read {path} of {place}")),
            })?;
            unframe(&framed, size).and_then(decode)
        }
        'p' => Err("it lies outside of the table, as in a shallow clone".to_owned()),
        other => Err(format!("its storage type `{other}` is not known")),
    };
    let rows = rows.map_err(damaged)?;
    if rows.len() != vector.cardinality {
        return Err(damaged(format!("it has {} rows, the log says {}", rows.len(), vector.cardinality)));
    }
    Ok(Arc::new(rows))
}

/// The file that a descriptor of type `u` names: an optional folder, then the uuid.
fn relative_path(text: &str) -> Result<Path, String> {
    let cut = text
        .len()
        .checked_sub(UUID_CHARS)
        .filter(|&cut| text.is_char_boundary(cut))
        .ok_or("its name is too short")?;
    let (folder, id) = text.split_at(cut);
    let id = z85::decode(id).map_err(|e| e.to_string())?;
    let name = file_name(Uuid::from_slice(&id).map_err(|e| e.to_string())?);
    Ok(if folder.is_empty() {
        Path::from(name)
    } else {
        Path::from(format!("{folder}/{name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows() -> impl Strategy<Value = RoaringTreemap> {
        let near = prop::collection::btree_set(0_u64..100_000, 0..300);
        let far = prop::collection::btree_set(0_u64..1 << 40, 0..5);
        (near, far).prop_map(|(near, far)| near.into_iter().chain(far).collect())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(vectors in prop::collection::vec(rows(), 1..5)) {
            let mut file = VectorFile::new();
            let named: Vec<Vector> = vectors.iter().map(|rows| file.push(Arc::new(rows.clone())).expect("small")).collect();
            let (path, bytes) = file.finish().expect("it has vectors");
            for (rows, vector) in vectors.iter().zip(named) {
                prop_assert_eq!(relative_path(&vector.path_or_inline), Ok(path.clone()));
                let (start, size) = (vector.offset.expect("it lies in a file") as usize, vector.size as usize);
                let body = unframe(&bytes[start..start + size + 8], size).expect("its frame holds");
                prop_assert_eq!(&decode(body).expect("its rows"), rows);
                prop_assert_eq!(vector.cardinality, rows.len());
            }
        }

        #[test]
        fn a_damaged_byte_is_noticed(rows in rows(), place in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut file = VectorFile::new();
            let size = file.push(Arc::new(rows)).expect("small").size as usize;
            let (_, bytes) = file.finish().expect("it has a vector");
            let mut framed = bytes[1..].to_vec();
            let place = place.index(framed.len());
            framed[place] ^= flip;
            prop_assert!(unframe(&framed, size).is_err());
        }

        #[test]
        fn bytes_of_anything_are_an_error_or_rows_but_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
            let head = if magic { MAGIC.to_le_bytes().to_vec() } else { Vec::new() };
            let _ = decode(&[head, bytes.clone()].concat());
            let _ = unframe(&bytes, bytes.len());
        }
    }

    #[test]
    fn a_name_in_base_85_is_a_path() {
        // The example of Delta's protocol.
        let path = relative_path("ab^-aqEH.-t@S}K{vb[*k^").expect("a path");
        assert_eq!(path.as_ref(), "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin");
        for wrong in ["", "short", "ab^-aqEH.-t@S}K{vb[*k~", "ééééééééééééééééééééé"] {
            assert!(relative_path(wrong).is_err(), "{wrong}");
        }
    }
}
