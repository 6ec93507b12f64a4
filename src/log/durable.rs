//! The file system of this machine as an object store whose puts survive a loss of power.
//!
//! `object_store`'s `LocalFileSystem` leaves written data to the kernel's leisure: after a crash a commit that was acknowledged
//! could be gone, or, worse, be there and be empty. Here a file's data is on the disk before its name is, and its name is on the
//! disk before the put returns. Lists come in order, as object stores give them and the Delta library expects them. Reading and
//! deleting are `LocalFileSystem`'s own.

use std::fmt;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use tokio::fs;
use tokio::io::AsyncWriteExt;

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
        let path = self.inner.path_to_filesystem(location)?;
        make_folder(&path).await.map_err(|e| failed(&path, e))?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(DurableUpload { inner, path }))
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

/// A file in parts; its end makes it durable.
#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let put = self.inner.complete().await?;
        let synced = async {
            fs::File::open(&self.path).await?.sync_all().await?;
            sync_folder(&self.path).await
        };
        synced.await.map_err(|e| failed(&self.path, e))?;
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
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
        fs::create_dir_all(folder).await?;
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
