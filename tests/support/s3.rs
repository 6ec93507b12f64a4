//! A small S3 server: PyPI's moto.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::program::free_port;
use super::python::interpreter;

/// moto's server looks whether a key is there and then writes it, in two steps: with one request at a time they are one.
const SERVER: &str = "
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple('127.0.0.1', int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
";

/// A server with the bucket `bucket`. It ends with its handle.
pub struct S3 {
    port: u16,
    _server: Child,
}

impl S3 {
    pub async fn start() -> S3 {
        // A port that was free a moment ago: the server cannot be asked to choose one and say which.
        let port = free_port();
        let mut command = Command::new(interpreter());
        command
            .args(["-c", SERVER, &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = command.kill_on_drop(true).spawn().expect("the server starts");
        for _ in 0..600 {
            if create_bucket(port)
                .await
                .is_ok_and(|answer| answer.lines().next().is_some_and(|status| status.contains(" 200 ")))
            {
                return S3 { port, _server: server };
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no S3 server came up on port {port} within a minute: run scripts/setup.sh test");
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

/// The options of a store at this port: the server's own, or that of something in between.
pub fn options(port: u16) -> BTreeMap<String, String> {
    [
        ("aws_endpoint", format!("http://127.0.0.1:{port}").as_str()),
        ("aws_allow_http", "true"),
        ("aws_region", "us-east-1"),
        ("aws_access_key_id", "test"),
        ("aws_secret_access_key", "test"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

async fn create_bucket(port: u16) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
    connection
        .write_all(b"PUT /bucket HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}
