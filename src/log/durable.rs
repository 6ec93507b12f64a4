//! The file system of this machine as an object store whose puts survive a loss of power.
//!
//! `object_store`'s `LocalFileSystem` leaves written data to the kernel's leisure: after a crash a commit that was acknowledged
//! could be gone, or, worse, be there and be empty. Here a file's data is on the disk before its name is, and its name is on the
//! disk before the put returns. Lists come in order, as object stores give them and the Delta library expects them. Reading and
//! deleting are `LocalFileSystem`'s own.

use std::fmt;
use std::io::{self, SeekFrom};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use tokio::fs;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::Mutex;

/// See the head of the file. Its root is the file system's: give it a prefix.
#[derive(Clone, Debug, Default)]
pub struct DurableStore {
    inner: Arc<LocalFileSystem>,
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let path = self.inner.path_to_filesystem(location)?;
        let staged = stage(&path, payload).await.map_err(|e| failed(&path, e))?;
        let named = match options.mode {
            // A hard link fails where the name exists: that makes it the conditional put.
            PutMode::Create => fs::hard_link(&staged, &path).await,
            PutMode::Overwrite => fs::rename(&staged, &path).await,
            PutMode::Update(_) => Err(io::ErrorKind::Unsupported.into()),
        };
        if !matches!((&options.mode, &named), (PutMode::Overwrite, Ok(()))) {
            // What is left behind is hidden from listings; it does not change what came of the put.
            let _ = fs::remove_file(&staged).await;
        }
        named.map_err(|e| failed(&path, e))?;
        sync_folder(&path).await.map_err(|e| failed(&path, e))?;
        Ok(PutResult {
            e_tag: self.inner.head(location).await?.e_tag,
            version: None,
        })
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        if !options.attributes.is_empty() {
            return Err(StoreError::NotImplemented {
                operation: "files with attributes".to_owned(),
                implementer: self.to_string(),
            });
        }
        let path = self.inner.path_to_filesystem(location)?;
        let (staged, file) = create_staged(&path).await.map_err(|e| failed(&path, e))?;
        Ok(Box::new(DurableUpload {
            store: self.clone(),
            location: location.clone(),
            path,
            staged: Some(staged),
            file: Arc::new(Mutex::new(file)),
            size: 0,
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        in_order(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        in_order(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        let path = self.inner.path_to_filesystem(to)?;
        sync_folder(&path).await.map_err(|e| failed(&path, e))
    }
}

impl fmt::Display for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableStore({})", self.inner)
    }
}

/// A file in parts. Its data is on the disk before it has its name, as with a file that is put whole.
#[derive(Debug)]
struct DurableUpload {
    store: DurableStore,
    location: Path,
    path: PathBuf,
    /// None when the file has its name, or is given up.
    staged: Option<PathBuf>,
    /// Parts may be written at the same time, each in its place.
    file: Arc<Mutex<fs::File>>,
    /// Of the parts so far: where the next one begins.
    size: u64,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (file, path, start) = (Arc::clone(&self.file), self.path.clone(), self.size);
        self.size += data.content_length() as u64;
        let write = async move {
            let mut file = file.lock().await;
            file.seek(SeekFrom::Start(start)).await?;
            for chunk in &data {
                file.write_all(chunk).await?;
            }
            file.flush().await
        };
        async move { write.await.map_err(|e| failed(&path, e)) }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let Some(staged) = &self.staged else {
            return Err(failed(&self.path, io::Error::other("the upload has ended already")));
        };
        let named = async {
            self.file.lock().await.sync_all().await?;
            fs::rename(staged, &self.path).await
        };
        named.await.map_err(|e| failed(&self.path, e))?;
        self.staged = None;
        sync_folder(&self.path).await.map_err(|e| failed(&self.path, e))?;
        Ok(PutResult {
            e_tag: self.store.inner.head(&self.location).await?.e_tag,
            version: None,
        })
    }

    async fn abort(&mut self) -> Result<()> {
        match self.staged.take() {
            Some(staged) => fs::remove_file(staged).await.map_err(|e| failed(&self.path, e)),
            None => Ok(()),
        }
    }
}

impl Drop for DurableUpload {
    fn drop(&mut self) {
        if let Some(staged) = self.staged.take() {
            let _ = std::fs::remove_file(staged); // One that stays is hidden, and only takes space.
        }
    }
}

/// A folder's names come in the order of its own; readers of a log want theirs.
fn in_order(listed: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    let sorted = async {
        let mut all: Vec<ObjectMeta> = listed.try_collect().await?;
        all.sort_unstable_by(|one, other| one.location.cmp(&other.location));
        let all: Result<_> = Ok(stream::iter(all.into_iter().map(Ok)));
        all
    };
    stream::once(sorted).try_flatten().boxed()
}

/// Writes the data to the disk under a name of its own, which `LocalFileSystem` takes for an unfinished upload and hides.
async fn stage(path: &FilePath, payload: PutPayload) -> io::Result<PathBuf> {
    let (staged, mut file) = create_staged(path).await?;
    let written = async {
        for chunk in &payload {
            file.write_all(chunk).await?;
        }
        file.flush().await?;
        file.sync_all().await
    };
    match written.await {
        Ok(()) => Ok(staged),
        Err(e) => {
            let _ = fs::remove_file(&staged).await; // On a full disk the half of a file is the last thing that is needed.
            Err(e)
        }
    }
}

async fn create_staged(path: &FilePath) -> io::Result<(PathBuf, fs::File)> {
    let mut number = 0_u64;
    loop {
        number += 1;
        let mut name = path.as_os_str().to_owned();
        name.push(format!("#{number}"));
        let staged = PathBuf::from(name);
        match fs::File::create_new(&staged).await {
            Ok(file) => return Ok((staged, file)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {} // Another writer's, or one that a crash left: the next number.
            Err(e) if e.kind() == io::ErrorKind::NotFound && number == 1 => make_folder(path).await?,
            Err(e) => return Err(e),
        }
    }
}

/// Makes the folders of a file, and their names durable.
async fn make_folder(path: &FilePath) -> io::Result<()> {
    let mut missing = Vec::new();
    for folder in path.ancestors().skip(1) {
        if fs::try_exists(folder).await? {
            break;
        }
        missing.push(folder);
    }
    if let Some(folder) = missing.first() {
        let made = fs::create_dir_all(folder).await;
        made.map_err(|e| match e.kind() {
            // A link that leads nowhere is in the way. It is not the file that is there already.
            io::ErrorKind::AlreadyExists => io::Error::new(io::ErrorKind::NotADirectory, format!("{}: {e}", folder.display())),
            _ => e,
        })?;
    }
    for folder in missing {
        sync_folder(folder).await?;
    }
    Ok(())
}

/// Makes the name of a file durable: it stands in its folder.
async fn sync_folder(path: &FilePath) -> io::Result<()> {
    match path.parent() {
        Some(folder) => fs::File::open(folder).await?.sync_all().await,
        None => Ok(()),
    }
}

fn failed(path: &FilePath, error: io::Error) -> StoreError {
    let (path, source) = (path.display().to_string(), Box::new(error));
    match source.kind() {
        io::ErrorKind::AlreadyExists => StoreError::AlreadyExists { path, source },
        io::ErrorKind::NotFound => StoreError::NotFound { path, source },
        io::ErrorKind::PermissionDenied => StoreError::PermissionDenied { path, source },
        io::ErrorKind::Unsupported => StoreError::NotSupported { source },
        _ => StoreError::Generic {
            store: "DurableStore",
            source,
        },
    }
}
