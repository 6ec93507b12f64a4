//! A bucket, which Azure calls a container, on a small server of its own: PyPI's moto for S3, npm's Azurite for Azure. Where writers race for
//! names, S3's is PyPI's LocalBucket. `ALLUVIUM_VERSITYGW` names the program of another server of S3, versitygw, to be used in the place of both.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path as FilePath;
use std::process::Stdio;
use std::time::Duration;

use alluvium::log::store;
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use url::Url;

use super::program::free_port;
use super::python::{interpreter, needed};

/// Who may write: an account of Azure, or the name of a key of S3.
pub const ACCOUNT: &str = "alluvium";
/// The secret, as Azure wants it: in Base64. moto takes any.
pub const KEY: &str = "YWxsdXZpdW0=";
/// What the account gives away: to make containers, and what is in them, until the next century. It is signed with its key.
pub const SIGNATURE: &str = "sv=2023-11-03&ss=b&srt=co&sp=rwdlc&se=2100-01-01&sig=Y22G9TEFuKH9PycsAWs0ad5bWOJFueRUnOxi8YB8TOY%3D";

/// A service of object stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    S3,
    Azure,
}

impl Service {
    /// The URL of a place in the bucket.
    pub fn place(self, path: &str) -> String {
        self.elsewhere("bucket", path)
    }

    /// The same in another bucket.
    pub fn elsewhere(self, bucket: &str, path: &str) -> String {
        let scheme = match self {
            Service::S3 => "s3",
            Service::Azure => "az",
        };
        format!("{scheme}://{bucket}/{path}")
    }

    /// The options of a store at this port: the server's own, or that of something in between.
    pub fn options(self, port: u16) -> BTreeMap<String, String> {
        let server = format!("http://127.0.0.1:{port}");
        let options = match self {
            Service::S3 => vec![
                ("aws_endpoint", server),
                ("aws_allow_http", "true".to_owned()),
                ("aws_region", "us-east-1".to_owned()),
                ("aws_access_key_id", ACCOUNT.to_owned()),
                ("aws_secret_access_key", KEY.to_owned()),
            ],
            Service::Azure => vec![
                ("azure_storage_endpoint", format!("{server}/{ACCOUNT}")),
                ("azure_allow_http", "true".to_owned()),
                ("azure_storage_account_name", ACCOUNT.to_owned()),
                ("azure_storage_account_key", KEY.to_owned()),
            ],
        };
        options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The same as a section of a configuration. The secret lies in the site's file `secret`.
    pub fn section(self, port: u16) -> String {
        let mut lines = "[storage]\n".to_owned();
        for (name, value) in self.options(port) {
            let value = match value.as_str() {
                KEY => "{ file = \"{dir}/secret\" }".to_owned(),
                _ => format!("\"{value}\""),
            };
            writeln!(lines, "{name} = {value}").expect("a text takes it");
        }
        lines
    }

    /// The same as variables of the environment.
    pub fn environment(self, port: u16) -> BTreeMap<String, String> {
        let options = self.options(port).into_iter();
        options.map(|(name, value)| (name.to_uppercase(), value)).collect()
    }

    /// The path by which the bucket is made, with what allows it.
    fn making(self) -> String {
        match self {
            Service::S3 => "/bucket".to_owned(),
            Service::Azure => format!("/{ACCOUNT}/bucket?restype=container&{SIGNATURE}"),
        }
    }
}

/// The bucket `bucket`, and the server that has it. Both end with their handle.
pub struct Bucket {
    pub service: Service,
    port: u16,
    _server: Child,
    _folder: tempfile::TempDir,
}

impl Bucket {
    pub async fn of(service: Service) -> Bucket {
        Self::start(service, moto).await
    }

    /// The same where several writers come with one name at a time: of those, this server lets one have it.
    pub async fn for_races(service: Service) -> Bucket {
        Self::start(service, local_bucket).await
    }

    async fn start(service: Service, s3: fn(u16, &FilePath) -> Command) -> Bucket {
        // A port that was free a moment ago: not all of the servers can be asked to choose one and say which.
        let port = free_port();
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = match (service, std::env::var_os("ALLUVIUM_VERSITYGW")) {
            (Service::S3, Some(program)) => versitygw(&program, port, folder.path()),
            (Service::S3, None) => s3(port, folder.path()),
            (Service::Azure, _) => azurite(port),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = command.kill_on_drop(true).spawn().expect("the server starts");
        for _ in 0..1_800 {
            if put(port, &service.making()).await.is_ok_and(|answer| answer.starts_with("HTTP/")) {
                return Bucket {
                    service,
                    port,
                    _server: server,
                    _folder: folder,
                };
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no server of {service:?} came up on port {port} within three minutes: run scripts/setup.sh test");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// All that lies below a place of it.
    pub async fn objects(&self, place: &str) -> Vec<ObjectMeta> {
        let url = Url::parse(place).expect("a URL");
        let store = store::open(&url, &self.service.options(self.port)).expect("a store");
        store.list(None).try_collect().await.expect("a list")
    }

    /// Copies that into a folder, for readers of files.
    pub async fn copy(&self, place: &str, to: &FilePath) {
        let url = Url::parse(place).expect("a URL");
        let store = store::open(&url, &self.service.options(self.port)).expect("a store");
        for object in self.objects(place).await {
            let path = to.join(object.location.as_ref());
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            let bytes = store
                .get(&object.location)
                .await
                .expect("it is there")
                .bytes()
                .await
                .expect("bytes");
            std::fs::write(path, bytes).expect("a file");
        }
    }
}

/// It looks whether a name is there and then writes it, in two steps.
fn moto(port: u16, _: &FilePath) -> Command {
    let mut command = Command::new(interpreter());
    command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
    command
}

/// It serves a folder, and gives a file its name by a link, which fails where the name is taken. But it takes for whole what came of a file
/// before its connection broke, as S3 never does, and cannot delete as the client asks for it.
fn local_bucket(port: u16, folder: &FilePath) -> Command {
    let mut command = Command::new(interpreter());
    command.args(["-m", "localbucket", "--port", &port.to_string()]).arg(folder);
    command
}

/// It serves a folder, whose folders are the buckets.
fn versitygw(program: &OsStr, port: u16, folder: &FilePath) -> Command {
    std::fs::create_dir(folder.join("bucket")).expect("a folder");
    let mut command = Command::new(program);
    command.args(["--port", &format!("127.0.0.1:{port}"), "posix"]).arg(folder);
    command.env("ROOT_ACCESS_KEY", ACCOUNT).env("ROOT_SECRET_KEY", KEY);
    command
}

/// This version of it lists from the beginning, wherever a list is to begin, as other servers of Azure's kind do.
fn azurite(port: u16) -> Command {
    let mut command = Command::new("node");
    command.arg(needed("azurite/node_modules/azurite/dist/src/blob/main.js", "test"));
    command.args(["--blobPort", &port.to_string(), "--inMemoryPersistence", "--silent"]);
    command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"));
    command
}

async fn put(port: u16, target: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("PUT {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}
