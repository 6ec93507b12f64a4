//! What stands before a server and answers the login itself: a proxy with a process of the server for each session, or a pooler that gives one
//! process to all of them, transaction by transaction. It carries commands and their answers, no streams.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Serves until it is dropped.
pub struct Pooler {
    port: u16,
    _tasks: JoinSet<()>,
}

impl Pooler {
    /// Before this port of 127.0.0.1. `shares`: all sessions have one process, but for those that speak of replication.
    pub async fn before(port: u16, shares: bool) -> Pooler {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("a bound socket").port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (shared, mut sessions) = (Place::default(), JoinSet::new());
            while let Ok((client, _)) = listener.accept().await {
                let place = if shares { Arc::clone(&shared) } else { Place::default() };
                sessions.spawn(session(client, port, place));
            }
        });
        Pooler { port: own, _tasks: tasks }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A process of the server, once somebody has logged in.
type Place = Arc<Mutex<Option<Process>>>;

struct Process {
    stream: TcpStream,
    /// What is said to whoever logs in.
    greeting: Vec<u8>,
}

impl Process {
    async fn begin(port: u16, startup: &[u8]) -> Option<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(startup).await.ok()?;
        let mut greeting = Vec::new();
        loop {
            let mut message = read(&mut stream).await?;
            // The process's number is not the pooler's to tell, for it may be another one later.
            if message[0] == b'K' {
                message[5] ^= 0x40;
            }
            greeting.extend_from_slice(&message);
            if message[0] == b'Z' {
                return Some(Self { stream, greeting });
            }
        }
    }
}

/// None: somebody has hung up.
async fn session(mut client: TcpStream, port: u16, place: Place) -> Option<()> {
    let length = client.read_u32().await.ok()?;
    let mut startup = length.to_be_bytes().to_vec();
    startup.resize(length as usize, 0);
    client.read_exact(&mut startup[4..]).await.ok()?;
    let replicates = startup.windows(11).any(|part| part == b"replication");
    let place = if replicates { Place::default() } else { place };
    let mut process = place.lock().await;
    if process.is_none() {
        *process = Some(Process::begin(port, &startup).await?);
    }
    client.write_all(&process.as_ref()?.greeting).await.ok()?;
    drop(process);
    loop {
        let mut message = read(&mut client).await?;
        let mut process = place.lock().await;
        let server = &mut process.as_mut()?.stream;
        // Until the end of its transaction.
        loop {
            if message[0] == b'X' {
                return None;
            }
            server.write_all(&message).await.ok()?;
            if matches!(message[0], b'Q' | b'S') && answer(server, &mut client).await? == b'I' {
                break;
            }
            message = read(&mut client).await?;
        }
    }
}

/// Brings the answer to the client. Whether the process is within a transaction then: `I` where it is not.
async fn answer(server: &mut TcpStream, client: &mut TcpStream) -> Option<u8> {
    loop {
        let message = read(server).await?;
        client.write_all(&message).await.ok()?;
        if message[0] == b'Z' {
            return message.get(5).copied();
        }
    }
}

/// A message: a type byte, a length, and that many bytes.
async fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let tag = stream.read_u8().await.ok()?;
    let length = stream.read_u32().await.ok()?;
    let mut message = vec![tag];
    message.extend_from_slice(&length.to_be_bytes());
    message.resize(1 + length as usize, 0);
    stream.read_exact(&mut message[5..]).await.ok()?;
    Some(message)
}
