//! A lake without room, and a lake that may not be written: the program says so, waits or ends as it should, and loses nothing.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::kafka::Broker;
use crate::support::program::{self, Program, get};
use crate::support::shop::{PARTITIONS, Source, served};
use crate::support::stream::Stream;
use crate::support::verdict;

/// A small file system of its own, gone again when it is dropped. It takes root to mount one; sudo will do.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: PathBuf, size: &str) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let disk = Self { path };
        disk.call("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=777"), "tmpfs"]);
        disk
    }

    fn resize(&self, size: &str) {
        self.call("mount", &["-o", &format!("remount,size={size}")]);
    }

    fn call(&self, command: &str, args: &[&str]) {
        // SAFETY: a plain system call without arguments.
        let root = unsafe { libc::geteuid() } == 0;
        let mut call = if root { Command::new(command) } else { Command::new("sudo") };
        if !root {
            call.args(["-n", command]);
        }
        let output = call.args(args).arg(&self.path).output().expect("the command starts");
        assert!(
            output.status.success(),
            "this test mounts a small disk, as root or with sudo: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.call("umount", &["-l"]);
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
    let (site, config, port) = served(&source, "200 ms");
    let disk = SmallDisk::mount(site.path("lake"), "24m");
    let stream = Stream::start(&source, 20_000);
    let mut program = site.run("program", &config);
    let lake = site.path("lake").display().to_string();
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
    verdict::every_version_is_right(&site, &model).await;
    drop(disk);
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
