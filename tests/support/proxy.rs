//! A network in between that misbehaves: a TCP proxy that cuts, stalls and delays.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Clone, Copy, Default)]
struct Weather {
    /// Connections of an earlier time are cut.
    time: u64,
    stalled: bool,
    delay: Duration,
}

/// Forwards connections to one address until it is dropped.
pub struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// A proxy before this port of 127.0.0.1.
    pub async fn before(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("a bound socket").port();
        let (weather, seen) = watch::channel(Weather::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, SocketAddr::from(([127, 0, 0, 1], port)), seen));
        Proxy {
            port: own,
            weather,
            _tasks: tasks,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
    /// Cuts all connections; new ones may come.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| weather.time += 1);
    }
    /// Nothing goes through any more, and nobody is told.
    pub fn stall(&self) {
        self.weather.send_modify(|weather| weather.stalled = true);
    }
    /// Everything takes this much longer, each way.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, weather: watch::Receiver<Weather>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let Ok(far) = TcpStream::connect(target).await else { continue };
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        connections.spawn(forward(near_in, far_out, weather.clone()));
        connections.spawn(forward(far_in, near_out, weather.clone()));
    }
}

/// Moves bytes one way. Ends when either side ends, or when the connection is cut; what it drops ends the other way too.
async fn forward(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, mut weather: watch::Receiver<Weather>) {
    let time = weather.borrow().time;
    let mut cut = weather.clone();
    let moves = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let Ok(now) = weather.wait_for(|weather| !weather.stalled).await.map(|now| *now) else {
                return;
            };
            tokio::time::sleep(now.delay).await;
            if to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = moves => {}
        _ = cut.wait_for(|weather| weather.time != time) => {}
    }
}
