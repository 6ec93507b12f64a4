//! An HTTP gateway before a server of an object store that has bad days: it answers in the server's place, or hangs up, before a request is
//! carried out or after.
//!
//! `FaultyStore` stands above the client of a store. Here the client itself meets the fault: its retries, and what it makes of an answer.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// Something that is put, by the part that it has in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Put {
    DataFile,
    /// Of a file that goes in parts: its beginning (S3's only), a part, and its end.
    Begin,
    Part,
    Complete,
    Vectors,
    Commit,
    Checkpoint,
    Hint,
}

/// What the client gets in the place of the server's answer.
#[derive(Clone, Copy, Debug)]
pub enum Wrong {
    /// A status, and the service's word for it.
    Answer(u16, &'static str),
    /// The end of the connection.
    Cut,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Fate {
    Pass,
    /// It waits for the others of its barrier, and then all pass at once.
    Together(Arc<Barrier>),
    /// It is not carried out.
    Instead(Wrong),
    /// It is carried out, and the client is not told.
    After(Wrong),
    /// The last byte of it is lost with the connection, and so is the answer.
    Short,
    /// It is carried out whatever it says of a name that is taken, as by a server that knows no conditions.
    Unconditional,
}

pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
}

impl Request {
    /// What it puts, if it does.
    pub fn put(&self) -> Option<Put> {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let (folder, name) = path.rsplit_once('/')?;
        Some(match self.method.as_str() {
            "POST" if query.starts_with("uploads") => Put::Begin,
            "POST" if query.contains("uploadId=") => Put::Complete,
            "PUT" if query.contains("partNumber=") => Put::Part,
            "PUT" if query.starts_with("comp=blocklist") => Put::Complete,
            "PUT" if query.starts_with("comp=block&") => Put::Part,
            "PUT" if name == "_last_checkpoint" => Put::Hint,
            "PUT" if name.contains(".checkpoint.") => Put::Checkpoint,
            "PUT" if folder.ends_with("/_delta_log") => Put::Commit,
            "PUT" if name.starts_with("deletion_vector_") => Put::Vectors,
            "PUT" if name.ends_with(".parquet") => Put::DataFile,
            _ => return None,
        })
    }
}

type Judge = Arc<Mutex<dyn FnMut(&Request) -> Fate + Send>>;

/// Forwards requests to one server until it is dropped.
pub struct Gateway {
    port: u16,
    _tasks: JoinSet<()>,
}

impl Gateway {
    /// A gateway before this port of 127.0.0.1. `judge` is asked about each request, one after the other.
    pub async fn before(port: u16, judge: impl FnMut(&Request) -> Fate + Send + 'static) -> Gateway {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("a bound socket").port();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, port, Arc::new(Mutex::new(judge))));
        Gateway { port: own, _tasks: tasks }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

async fn accept(listener: TcpListener, server: u16, judge: Judge) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        // A connection that breaks is the client's matter.
        connections.spawn(serve(client, server, Arc::clone(&judge)));
        while connections.try_join_next().is_some() {}
    }
}

/// One request. For the next one the client connects again.
async fn serve(mut client: TcpStream, server: u16, judge: Judge) -> io::Result<()> {
    let (request, bytes) = read(&mut client).await?;
    let fate = {
        let mut judge = judge.lock().unwrap_or_else(PoisonError::into_inner);
        (*judge)(&request)
    };
    let answer = match fate {
        Fate::Instead(wrong) => wrong.bytes(),
        Fate::After(wrong) => {
            forward(server, &bytes).await?;
            wrong.bytes()
        }
        Fate::Together(others) => {
            others.wait().await;
            forward(server, &bytes).await?
        }
        Fate::Short => {
            forward_short(server, &bytes).await?;
            Vec::new()
        }
        Fate::Unconditional => forward(server, &without_condition(bytes)).await?,
        Fate::Pass => forward(server, &bytes).await?,
    };
    client.write_all(&answer).await?;
    client.shutdown().await
}

/// A request, and its bytes as they go on.
async fn read(client: &mut TcpStream) -> io::Result<(Request, Vec<u8>)> {
    let mut bytes: Vec<u8> = Vec::with_capacity(64 << 10);
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(0, |(_, length)| length.trim().parse().expect("a length is a number"));
    let missing = (head + length).saturating_sub(bytes.len());
    client.take(missing as u64).read_to_end(&mut bytes).await?;
    let mut words = text.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    // The end of the connection is the end of the answer. The head is signed, but for what is added.
    let second_line = text.find('\n').map_or(head, |end| end + 1);
    bytes.splice(second_line..second_line, *b"Connection: close\r\n");
    Ok((Request { method, target }, bytes))
}

async fn forward(server: u16, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
    server.write_all(request).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Returns when the server has done what it does with a request that breaks off.
async fn forward_short(server: u16, request: &[u8]) -> io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
    server.write_all(&request[..request.len() - 1]).await?;
    server.shutdown().await?;
    server.read_to_end(&mut Vec::new()).await.map(drop)
}

/// The request without the line of its head that asks for a name that is not taken.
fn without_condition(mut request: Vec<u8>) -> Vec<u8> {
    let end = request
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map_or(request.len(), |end| end + 2);
    let head = String::from_utf8_lossy(&request[..end]).into_owned();
    let asks = |line: &&str| line.to_ascii_lowercase().starts_with("if-none-match:");
    let kept: String = head.split_inclusive("\r\n").filter(|line| !asks(line)).collect();
    request.splice(..end, kept.into_bytes());
    request
}

impl Wrong {
    fn bytes(self) -> Vec<u8> {
        let Wrong::Answer(status, code) = self else { return Vec::new() };
        let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>injected</Message></Error>");
        let length = body.len();
        format!("HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
            .into_bytes()
    }
}
