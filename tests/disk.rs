//! A disk without room, and a lake that may not be written: the program says so, waits, goes on or ends as it should, and loses nothing.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use alluvium::log::store;
use object_store::path::Path as Name;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};
use url::Url;

use crate::support::changes::Changes;
use crate::support::kafka::Broker;
use crate::support::program::{self, Program, Site, free_port, get, http};
use crate::support::shop::{LIVE_MAX, PARTITIONS, Shop, Source, served};
use crate::support::stream::Stream;
use crate::support::verdict;

/// Mounts a small disk where only it sees that, and gives it another size for each line that comes, until no more can come. Whoever is not root
/// is root in a namespace of users too.
const HOLDER: &str = r#"
unshare --mount true 2> /dev/null || user=--map-root-user
exec unshare $user --mount sh -ec '
  mount -t tmpfs -o "size=$1,mode=777" tmpfs "$0"
  echo "$1"
  while read -r size; do
    # No option is told again but the size: the owner may be a number that nobody has there.
    mount --options-mode ignore -o "remount,size=$size" "$0"
    echo "$size"
  done
' "$0" "$1"
"#;

/// A small file system of its own. A process has it mounted, and others reach it through that process. It is gone with its handle.
struct SmallDisk {
    holder: Child,
    says: BufReader<ChildStdout>,
    path: PathBuf,
}

impl SmallDisk {
    /// The folder is there for the holder; to others it stays empty.
    fn mount(folder: &Path, size: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        // A link would be followed outside of the holder's view.
        let folder = folder.canonicalize().unwrap();
        let mut holder = Command::new("sh");
        holder.args(["-c", HOLDER]).arg(&folder).arg(size);
        let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell starts");
        let says = BufReader::new(holder.stdout.take().expect("it is piped"));
        let inside = folder.strip_prefix("/").expect("the path is absolute");
        let path = PathBuf::from(format!("/proc/{}/root", holder.id())).join(inside);
        let mut disk = Self { holder, says, path };
        disk.has_size(size);
        disk
    }

    /// Where all processes of this user reach it. Names that are made canonical lead elsewhere.
    fn path(&self) -> &Path {
        &self.path
    }

    fn resize(&mut self, size: &str) {
        let stdin = self.holder.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{size}").expect("the holder lives");
        self.has_size(size);
    }

    fn has_size(&mut self, size: &str) {
        let mut said = String::new();
        self.says.read_line(&mut said).expect("a line");
        assert_eq!(
            said.trim_end(),
            size,
            "no small disk can be mounted: scripts/setup.sh test says what is missing"
        );
    }

    /// Copies all that is on it.
    fn copy(&self, to: &Path) {
        let copied = Command::new("cp").arg("-r").arg(&self.path).arg(to).status().expect("cp starts");
        assert!(copied.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait(); // It ends where its orders end.
    }
}

/// Waits until `/readyz` says 503 and names these words.
async fn until_not_ready(program: &mut Program, port: u16, words: &[&str]) {
    let says = || {
        get(port, "/readyz")
            .filter(|(code, text)| *code == 503 && words.iter().all(|word| text.contains(word)))
            .map(drop)
    };
    program
        .until(&format!("/readyz naming {words:?}"), Duration::from_secs(120), says)
        .await;
    assert_eq!(get(port, "/livez").map(|(code, _)| code), Some(200), "it lives, and waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn c20_a_full_disk_pauses_the_pipeline_until_there_is_room_again() {
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let (site, port) = (Site::new(), free_port());
    let mut disk = SmallDisk::mount(&site.path("small"), "24m");
    let lake = disk.path().display().to_string();
    let config = Shop {
        top: &http(port),
        commit: "interval = \"200 ms\"",
        lake: &lake,
        ..Shop::on(&source)
    }
    .configure(&site);
    let stream = Stream::start(&source, 20_000);
    let mut program = site.run("program", &config);
    until_not_ready(&mut program, port, &["No space left", &lake]).await;
    disk.resize("512m");
    program
        .until("readiness", Duration::from_secs(90), || {
            get(port, "/readyz").filter(|(code, _)| *code == 200)
        })
        .await;
    let model = stream.finish().await;
    program.kill().await;
    site.catch_up(&config).await;
    disk.copy(&site.path("lake"));
    verdict::every_version_is_right(&site, &model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c20_where_the_state_folder_has_no_room_the_next_start_reads_the_table_and_nothing_is_lost() {
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let (site, config, _) = served(&source, "200 ms");
    // Less than the keys of the rows take.
    let disk = SmallDisk::mount(&site.path("small"), "8k");
    symlink(disk.path(), site.path("state-shop")).unwrap();
    let mut producer = source.fill(10_000);
    let mut before = 0;
    for start in 1..=3 {
        site.catch_up(&config).await;
        let log = std::fs::read_to_string(site.path("catch-up.log")).unwrap();
        let said = &log[std::mem::replace(&mut before, log.len())..];
        let not_saved = |line: &&str| line.contains("the next start will read the table") && line.contains("No space left");
        assert!(said.lines().any(|line| not_saved(&line)), "start {start}:\n{said}");
        assert_eq!(names(disk.path()), Vec::<String>::new(), "half an index is of no use");
        Changes::new(44, LIVE_MAX).take(1_000).for_each(|change| producer.send(&change));
        producer.flush();
    }
    site.catch_up(&config).await;
    verdict::every_version_is_right(&site, &producer.model).await;
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

#[tokio::test]
async fn c20_of_a_file_that_was_written_in_part_when_the_disk_was_full_nothing_stays() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&folder.path().join("small"), "1m");
    let url = Url::from_directory_path(disk.path()).unwrap();
    let store = store::open(&url, &BTreeMap::new()).unwrap();
    let name = Name::from("log/file");
    let bytes = |count: usize| PutPayload::from(vec![7; count]);
    let (small, large) = (512 << 10, 2 << 20);
    let is_full = |error: object_store::Error, how: &str| {
        let error = store::fault(error, "write");
        assert_eq!((error.code, error.exit_code()), ("store_full", 75), "{how}: {error}");
        assert_eq!(names(&disk.path().join("log")), Vec::<String>::new(), "{how}");
    };
    for mode in [PutMode::Create, PutMode::Overwrite] {
        let how = format!("{mode:?}");
        let options = PutOptions {
            mode,
            ..PutOptions::default()
        };
        let error = store.put_opts(&name, bytes(large), options).await.expect_err("no room");
        is_full(error, &how);
    }
    let mut upload = store.put_multipart(&name).await.unwrap();
    upload.put_part(bytes(small)).await.unwrap();
    let error = upload.put_part(bytes(large)).await.expect_err("no room");
    upload.abort().await.unwrap();
    // As long as it holds the file, the disk has no room for another.
    drop(upload);
    is_full(error, "in parts");
    store.put(&name, bytes(small)).await.expect("there is room for this one");
    assert_eq!(store.head(&name).await.unwrap().size, small as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn c21_a_denied_folder_is_named_and_nothing_is_lost() {
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let (site, config, _) = served(&source, "200 ms");
    let lake = site.path("lake");
    std::fs::create_dir(&lake).unwrap();
    let producer = source.fill(20_000);
    std::fs::set_permissions(&lake, Permissions::from_mode(0o555)).unwrap();
    let mut program = site.start_with(
        "program",
        &["run", "--config", config.to_str().unwrap(), "--until-caught-up"],
        program::obey_permissions,
    );
    let exit = program.wait(Duration::from_secs(60)).await;
    assert_eq!(exit.status.code(), Some(77), "{}", program.log_tail());
    assert!(program.log_text().contains(&lake.display().to_string()), "{}", program.log_tail());
    std::fs::set_permissions(&lake, Permissions::from_mode(0o755)).unwrap();
    site.catch_up(&config).await;
    verdict::every_version_is_right(&site, &producer.model).await;
}
