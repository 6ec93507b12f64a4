//! What a table in a folder asks of the disk, and in which order: the calls of the system are seen on their way.

use std::ffi::{CStr, c_char, c_int};
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Mutex;

use alluvium::error::Kind;
use alluvium::log::{Change, Log, maintain, store};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutMode, PutOptions};
use url::Url;

use crate::support::delta::{append_table, change, data_file};

/// Folders that are watched, and what was asked of them.
static WATCHED: Mutex<Vec<(PathBuf, Vec<String>)>> = Mutex::new(Vec::new());

/// Notes a call for whoever watches the folder of these files.
fn note(call: &str, files: &[PathBuf]) {
    for (folder, calls) in WATCHED.lock().expect("nothing panics with the lock").iter_mut() {
        if files.iter().all(|file| file.starts_with(&*folder)) {
            let names = files.iter().map(|file| match file.strip_prefix(&*folder) {
                Ok(name) if name.as_os_str().is_empty() => ".".to_owned(),
                Ok(name) => without_number(&name.display().to_string()),
                Err(_) => file.display().to_string(),
            });
            calls.push(std::iter::once(call.to_owned()).chain(names).collect::<Vec<_>>().join(" "));
        }
    }
}

/// Names that are for a moment only end in a number, of which only its `#` matters.
fn without_number(name: &str) -> String {
    name.split_inclusive('#').next().unwrap_or(name).to_owned()
}

fn path(text: *const c_char) -> PathBuf {
    // SAFETY: callers of these calls give strings that end.
    let text = unsafe { CStr::from_ptr(text) };
    PathBuf::from(text.to_string_lossy().into_owned())
}

// These stand before the C library's own, for everything in this program.

#[unsafe(no_mangle)]
extern "C" fn fsync(file: c_int) -> c_int {
    if let Ok(path) = fs::read_link(format!("/proc/self/fd/{file}")) {
        note("sync", &[path]);
    }
    // SAFETY: the same call, handed on.
    unsafe { libc::syscall(libc::SYS_fsync, file) as c_int }
}

#[unsafe(no_mangle)]
extern "C" fn linkat(from_folder: c_int, from: *const c_char, to_folder: c_int, to: *const c_char, flags: c_int) -> c_int {
    note("link", &[path(from), path(to)]);
    // SAFETY: the same call, handed on.
    unsafe { libc::syscall(libc::SYS_linkat, from_folder, from, to_folder, to, flags) as c_int }
}

#[unsafe(no_mangle)]
extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    note("rename", &[path(from), path(to)]);
    // SAFETY: the same call, handed on.
    unsafe { libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) as c_int }
}

/// What is asked of a folder from now on.
struct Watch(PathBuf);

impl Watch {
    fn on(folder: &FilePath) -> Self {
        WATCHED
            .lock()
            .expect("nothing panics with the lock")
            .push((folder.to_owned(), Vec::new()));
        Self(folder.to_owned())
    }

    /// What was asked since the last look.
    fn calls(&self) -> Vec<String> {
        let mut watched = WATCHED.lock().expect("nothing panics with the lock");
        let found = watched.iter_mut().find(|(folder, _)| *folder == self.0).expect("it is watched");
        std::mem::take(&mut found.1)
    }
}

#[tokio::test]
async fn f14_data_is_on_the_disk_before_its_name_and_the_name_before_the_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let watch = Watch::on(folder.path());
    let url = Url::from_directory_path(folder.path()).expect("a URL");
    let store = store::open(&url, &Default::default()).expect("a store");
    let create = PutOptions {
        mode: PutMode::Create,
        ..PutOptions::default()
    };
    store.put_opts(&Path::from("log/new"), "1".into(), create).await.expect("put");
    assert_eq!(
        watch.calls(),
        ["sync .", "sync log/new#", "link log/new# log/new", "sync log"],
        "put if absent"
    );
    store.put(&Path::from("log/new"), "2".into()).await.expect("put");
    assert_eq!(watch.calls(), ["sync log/new#", "rename log/new# log/new", "sync log"], "put over");
    let mut upload = store.put_multipart(&Path::from("log/parts")).await.expect("an upload");
    let parts = [
        upload.put_part("12".into()),
        upload.put_part("345".into()),
        upload.put_part("6".into()),
    ];
    // They may be sent in any order.
    for part in parts.into_iter().rev() {
        part.await.expect("a part");
    }
    assert_eq!(watch.calls(), Vec::<String>::new(), "parts are forced to the disk once, at the end");
    upload.complete().await.expect("complete");
    assert_eq!(
        watch.calls(),
        ["sync log/parts#", "rename log/parts# log/parts", "sync log"],
        "put in parts"
    );
    let read = store
        .get(&Path::from("log/parts"))
        .await
        .expect("there")
        .bytes()
        .await
        .expect("bytes");
    assert_eq!(read, "123456");
}

#[tokio::test]
async fn an_upload_that_is_given_up_or_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = Url::from_directory_path(folder.path()).expect("a URL");
    let store = store::open(&url, &Default::default()).expect("a store");
    for drops in [false, true] {
        let mut upload: Box<dyn MultipartUpload> = store.put_multipart(&Path::from("x")).await.expect("an upload");
        upload.put_part("1".into()).await.expect("a part");
        if !drops {
            upload.abort().await.expect("given up");
            upload.complete().await.expect_err("it has ended");
        }
        drop(upload);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "dropped: {drops}");
    }
}

#[tokio::test]
async fn f14_every_file_of_a_commit_is_on_the_disk_before_the_commit_has_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let watch = Watch::on(folder.path());
    let url = Url::from_directory_path(folder.path()).expect("a URL");
    let store = store::open(&url, &Default::default()).expect("a store");
    let mut log = Log::open_or_create(&url, store.clone(), &append_table(), "shop")
        .await
        .expect("a table");
    let file = data_file(&store, 0..10, "a").await;
    let name = file.path.to_string();
    let with_file = Change {
        adds: vec![file],
        ..change(None, 9)
    };
    log.commit(&with_file).await.expect("a commit");
    maintain::checkpoint(&url, store, 1).await.expect("a checkpoint");
    let calls = watch.calls();
    let at = |call: String| {
        calls
            .iter()
            .position(|made| *made == call)
            .unwrap_or_else(|| panic!("no `{call}` in {calls:#?}"))
    };
    let commit = "_delta_log/00000000000000000001.json";
    let order = [
        at(format!("sync {name}#")),
        at(format!("rename {name}# {name}")),
        at(format!("sync {commit}#")),
        at(format!("link {commit}# {commit}")),
    ];
    assert!(order.is_sorted(), "{calls:#?}");
    let checkpoint = "_delta_log/00000000000000000001.checkpoint.parquet";
    let hint = "_delta_log/_last_checkpoint";
    let order = [
        at(format!("sync {checkpoint}#")),
        at(format!("rename {checkpoint}# {checkpoint}")),
        at(format!("rename {hint}# {hint}")),
    ];
    assert!(order.is_sorted(), "{calls:#?}");
}

#[tokio::test]
async fn a_file_or_a_link_to_nowhere_in_the_place_of_a_folder_is_told_and_not_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("file"), "1").expect("a file");
    std::os::unix::fs::symlink(folder.path().join("nowhere"), folder.path().join("link")).expect("a link");
    for lake in ["file", "link"] {
        let url = Url::from_directory_path(folder.path().join(lake).join("orders")).expect("a URL");
        let store = store::open(&url, &Default::default()).expect("a store");
        let error = Log::open_or_create(&url, store.clone(), &append_table(), "shop")
            .await
            .expect_err(lake);
        assert_eq!(
            (error.kind, error.code, error.exit_code()),
            (Kind::Config, "cannot_create", 73),
            "{lake}: {error}"
        );
        let error = store::probe_conditional_put(store.as_ref(), url.as_str()).await.expect_err(lake);
        assert_eq!((error.kind, error.code), (Kind::Config, "cannot_create"), "{lake}: {error}");
    }
}
