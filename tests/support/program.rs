//! The built program as users run it: a process with a configuration file, which is signalled, killed, waited for and measured.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::bucket;
use super::changes::ORDERS_AVSC;
pub use super::kafka::free_port;

/// A folder of its own for one test: the lake, the configurations, the logs of the processes.
pub struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("alluvium-").tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("orders.avsc"), ORDERS_AVSC).unwrap();
        // An audit table has rows of nulls where the topic has tombstones.
        let nullable = ORDERS_AVSC.replace(r#""name": "id", "type": "long""#, r#""name": "id", "type": ["null", "long"]"#);
        std::fs::write(dir.path().join("audit.avsc"), nullable).unwrap();
        std::fs::write(dir.path().join("secret"), bucket::KEY).unwrap();
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where a table of this name lies.
    pub fn table(&self, name: &str) -> PathBuf {
        self.path("lake").join(name)
    }

    /// A folder for what readers write down.
    pub fn out(&self) -> PathBuf {
        let out = self.path("out");
        std::fs::create_dir_all(&out).unwrap();
        out
    }

    /// Writes a configuration; `{dir}` in its text is this folder. Returns its path.
    pub fn configure(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(&format!("{name}.toml"));
        std::fs::write(&path, text.replace("{dir}", &self.dir.path().display().to_string())).unwrap();
        path
    }

    /// Starts the program; its output goes to a log file named after `name`.
    pub fn start(&self, name: &str, args: &[&str]) -> Program {
        self.start_with(name, args, |_| {})
    }

    /// Starts the service.
    pub fn run(&self, name: &str, config: &Path) -> Program {
        self.start(name, &["run", "--config", config.to_str().expect("a path in UTF-8")])
    }

    pub fn start_with(&self, name: &str, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Program {
        self.start_other(name, env!("CARGO_BIN_EXE_alluvium"), |command| {
            command.args(args);
            prepare(command);
        })
    }

    /// Starts another program, to be measured as this one is.
    pub fn start_other(&self, name: &str, program: &str, prepare: impl FnOnce(&mut Command)) -> Program {
        let log = self.path(&format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("a log file");
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command.stdout(file.try_clone().unwrap()).stderr(file);
        prepare(&mut command);
        #[allow(
            clippy::zombie_processes,
            reason = "it is waited for by process id, which also tells what it used: `wait4`"
        )]
        let child = command.spawn().expect("the program starts");
        Program {
            pid: child.id() as libc::pid_t,
            log,
            started: Instant::now(),
            peak_rss_bytes: 0,
            exit: None,
        }
    }

    /// Runs the program until it has read what was there at its start, and expects success.
    pub async fn catch_up(&self, config: &Path) -> Exit {
        let mut program = self.start("catch-up", &["run", "--config", config.to_str().unwrap(), "--until-caught-up"]);
        let exit = program.wait(Duration::from_secs(600)).await;
        assert!(
            exit.status.success(),
            "catching up ended with {}:\n{}",
            exit.status,
            program.log_tail()
        );
        exit
    }
}

/// A running process of the program. It is killed when it is dropped.
pub struct Program {
    pid: libc::pid_t,
    log: PathBuf,
    started: Instant,
    /// The most memory that it had, as far as was seen.
    peak_rss_bytes: u64,
    exit: Option<Exit>,
}

/// How a process ended, and what it took.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    pub status: ExitStatus,
    pub wall: Duration,
    /// User and system time of all its threads.
    pub cpu: Duration,
    pub peak_rss_bytes: u64,
}

impl Program {
    pub fn signal(&self, signal: libc::c_int) {
        assert!(self.exit.is_none(), "the process has ended: its number may be another's by now");
        // SAFETY: a plain system call on a child that was not waited for, so the number is still its own.
        unsafe { libc::kill(self.pid, signal) };
    }

    /// SIGKILL, and waits until the process is gone.
    pub async fn kill(&mut self) -> Exit {
        if self.poll().is_none() {
            self.signal(libc::SIGKILL);
        }
        self.wait(Duration::from_secs(30)).await
    }

    /// SIGTERM, and expects that it ends well.
    pub async fn stop(&mut self) -> Exit {
        self.signal(libc::SIGTERM);
        let exit = self.wait(Duration::from_secs(120)).await;
        assert!(exit.status.success(), "{}:\n{}", exit.status, self.log_tail());
        exit
    }

    /// SIGKILL as soon as this table has one more version than now, or after `within`. Whether it had.
    pub async fn kill_at_commit(&mut self, table: &Path, within: Duration) -> bool {
        let next = |from: u64| (from..).find(|version| !table.join(format!("_delta_log/{version:020}.json")).exists());
        let version = next(0);
        let deadline = Instant::now() + within;
        let mut came = false;
        while !came && Instant::now() < deadline {
            // Without a pause: what follows a commit takes a millisecond or two.
            tokio::task::yield_now().await;
            came = next(version.unwrap_or(0)) > version;
        }
        self.kill().await;
        came
    }

    /// How it ended, if it has.
    pub fn poll(&mut self) -> Option<Exit> {
        if self.exit.is_none() {
            self.peak_rss_bytes = peak_rss_bytes(self.pid).unwrap_or(self.peak_rss_bytes);
            self.exit = self.reap(libc::WNOHANG);
        }
        self.exit
    }

    fn reap(&self, flags: libc::c_int) -> Option<Exit> {
        let mut status = 0;
        // SAFETY: both out-parameters live through the call, and `rusage` is plain numbers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        let reaped = unsafe { libc::wait4(self.pid, &raw mut status, flags, &raw mut usage) };
        let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
        (reaped == self.pid).then(|| Exit {
            status: ExitStatus::from_raw(status),
            wall: self.started.elapsed(),
            cpu: time(usage.ru_utime) + time(usage.ru_stime),
            // Not what `rusage` says: there a child begins with what its parent has.
            peak_rss_bytes: self.peak_rss_bytes,
        })
    }

    /// Waits for the end; panics with the log's tail when it takes longer than `within`.
    pub async fn wait(&mut self, within: Duration) -> Exit {
        let deadline = Instant::now() + within;
        loop {
            if let Some(exit) = self.poll() {
                return exit;
            }
            assert!(
                Instant::now() < deadline,
                "the program did not end within {within:?}:\n{}",
                self.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until `ready` gives something; panics with the log's tail when the program ends or `within` passes before.
    pub async fn until<T>(&mut self, what: &str, within: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + within;
        loop {
            if let Some(value) = ready() {
                return value;
            }
            if let Some(exit) = self.poll() {
                panic!("the program ended with {} before {what}:\n{}", exit.status, self.log_tail());
            }
            assert!(Instant::now() < deadline, "not within {within:?}: {what}:\n{}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The files that it has open, also those without a name any more.
    pub fn open_files(&self) -> Vec<PathBuf> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("the program runs");
        // One may be closed meanwhile.
        open.flatten().filter_map(|file| std::fs::read_link(file.path()).ok()).collect()
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.poll().is_none() {
            self.signal(libc::SIGKILL);
            self.exit = self.reap(0);
        }
    }
}

/// The most memory that a process had so far; None where it has ended.
fn peak_rss_bytes(pid: libc::pid_t) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// GET on the program's own HTTP server: the status code and the body, or None while it does not listen.
pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let (code, _, body) = ask(port, "GET", path)?;
    Some((code, body))
}

/// The same with any method; the headers stand between, in small letters.
pub fn ask(port: u16, method: &str, path: &str) -> Option<(u16, String, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, head.to_lowercase(), body.to_owned()))
}

/// The line of a configuration that makes the program serve on this port.
pub fn http(port: u16) -> String {
    format!("http = {{ address = \"127.0.0.1:{port}\" }}")
}

/// The sum of a metric over all its labels.
pub fn metric(port: u16, name: &str) -> f64 {
    let Some((200, text)) = get(port, "/metrics") else {
        return 0.0;
    };
    let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// One metric of these labels (`table="orders"`); None where there is none.
pub fn labelled(port: u16, name: &str, labels: &[&str]) -> Option<f64> {
    let (_, text) = get(port, "/metrics")?;
    let is_it = |line: &&str| line.split(['{', ' ']).next() == Some(name) && labels.iter().all(|label| line.contains(label));
    text.lines().find(is_it)?.rsplit(' ').next()?.parse().ok()
}

/// What `/status` says.
pub fn status(port: u16) -> Option<Value> {
    let (_, text) = get(port, "/status")?;
    serde_json::from_str(&text).ok()
}

/// Takes from a process of root the right to pass over file permissions, so that a denied folder is denied to it as to anyone.
pub fn obey_permissions(command: &mut Command) {
    const CAP_DAC_OVERRIDE: libc::c_ulong = 1; // linux/capability.h; the libc crate does not name it.
    // SAFETY: prctl is async-signal-safe and touches nothing of the parent. Where we are not root it fails, and nothing is to be taken.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0);
            Ok(())
        });
    }
}
