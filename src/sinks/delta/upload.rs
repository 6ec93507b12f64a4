//! One object, written piece by piece: put whole when it is small, in parts when it is large, and given up when a part fails.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, UploadPart};

/// Size of a part, and of the largest object that is put whole. Stores ask for at least 5 MiB a part and at most 10,000 parts.
const PART_BYTES: usize = 8 << 20;
/// Parts on their way at once. Together with the one that is filled they bound the memory of an upload.
const PARTS_AT_ONCE: usize = 2;

/// An object that nobody sees before [`Upload::finish`].
pub struct Upload {
    store: Arc<dyn ObjectStore>,
    path: Path,
    pieces: Vec<Bytes>,
    buffered: usize,
    parts: Option<Parts>,
}

struct Parts {
    upload: Box<dyn MultipartUpload>,
    on_their_way: FuturesUnordered<UploadPart>,
}

impl Upload {
    pub fn new(store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self {
            store,
            path,
            pieces: Vec::new(),
            buffered: 0,
            parts: None,
        }
    }

    /// Adds bytes. After an error the object is given up: drop it.
    pub async fn write(&mut self, bytes: Bytes) -> object_store::Result<()> {
        self.buffered += bytes.len();
        self.pieces.push(bytes);
        if self.buffered < PART_BYTES {
            return Ok(());
        }
        let sent = self.send_parts().await;
        self.abort_if(sent).await
    }

    /// Makes the object visible, whole.
    pub async fn finish(mut self) -> object_store::Result<()> {
        let rest: PutPayload = std::mem::take(&mut self.pieces).into_iter().collect();
        let Some(parts) = &mut self.parts else {
            return self.store.put(&self.path, rest).await.map(drop);
        };
        let finished = parts.finish(rest).await;
        self.abort_if(finished).await
    }

    /// Gives the object up.
    pub async fn abandon(mut self) {
        if let Some(mut parts) = self.parts.take() {
            // What a store keeps of an upload that cannot even be given up is its own to clean.
            let _ = parts.upload.abort().await;
        }
    }

    /// Sends all whole parts that are buffered. All parts but the last have the same size, which some stores insist on.
    async fn send_parts(&mut self) -> object_store::Result<()> {
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => {
                let upload = self.store.put_multipart(&self.path).await?;
                none.insert(Parts {
                    upload,
                    on_their_way: FuturesUnordered::new(),
                })
            }
        };
        while self.buffered >= PART_BYTES {
            parts.send(take_part(&mut self.pieces)).await?;
            self.buffered -= PART_BYTES;
        }
        Ok(())
    }

    async fn abort_if(&mut self, done: object_store::Result<()>) -> object_store::Result<()> {
        if done.is_err()
            && let Some(mut parts) = self.parts.take()
        {
            // The first error is the one to tell.
            let _ = parts.upload.abort().await;
        }
        done
    }
}

impl Parts {
    async fn send(&mut self, part: PutPayload) -> object_store::Result<()> {
        while self.on_their_way.len() >= PARTS_AT_ONCE {
            self.on_their_way.next().await.transpose()?;
        }
        self.on_their_way.push(self.upload.put_part(part));
        Ok(())
    }

    async fn finish(&mut self, rest: PutPayload) -> object_store::Result<()> {
        if rest.content_length() > 0 {
            self.send(rest).await?;
        }
        while let Some(sent) = self.on_their_way.next().await {
            sent?;
        }
        self.upload.complete().await.map(drop)
    }
}

/// The first part of pieces that make one.
fn take_part(pieces: &mut Vec<Bytes>) -> PutPayload {
    let mut left = PART_BYTES;
    let mut whole = 0;
    while left > 0 && pieces[whole].len() <= left {
        left -= pieces[whole].len();
        whole += 1;
    }
    let cut = (left > 0).then(|| pieces[whole].split_to(left));
    pieces.drain(..whole).chain(cut).collect()
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn objects_of_all_sizes_arrive_as_they_were_written() {
        for (size, piece) in [
            (0, 1),
            (5, 2),
            (PART_BYTES - 1, 1 << 20),
            (PART_BYTES, 1 << 20),
            (3 * PART_BYTES + 7, 3 << 20),
            (20 << 20, 20 << 20),
        ] {
            let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let written: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let mut upload = Upload::new(Arc::clone(&store), Path::from("x"));
            for piece in written.chunks(piece) {
                upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            assert!(
                store.head(&Path::from("x")).await.is_err(),
                "nobody sees an object that is not finished"
            );
            upload.finish().await.unwrap();
            let read = store.get(&Path::from("x")).await.unwrap().bytes().await.unwrap();
            assert!(read == written, "{size} bytes in pieces of {piece}");
        }
    }
}
