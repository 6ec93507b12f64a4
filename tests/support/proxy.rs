//! A network in between that misbehaves: a TCP proxy that cuts, stalls and delays.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Clone, Copy, Default)]
struct Weather {
    /// Connections of an earlier time are cut.
    time: u64,
    /// When so many bytes more have gone through, all connections are cut.
    left: Option<usize>,
    stalled: bool,
    /// A connection that has brought so many bytes to one side stalls.
    most: Option<usize>,
    /// Connections that had to wait for that.
    held: usize,
    delay: Duration,
}

/// Forwards connections to one address until it is dropped.
pub struct Proxy {
    port: u16,
    weather: Arc<watch::Sender<Weather>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// A proxy before this port of 127.0.0.1.
    pub async fn before(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("a bound socket").port();
        let weather = Arc::new(watch::Sender::new(Weather::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, SocketAddr::from(([127, 0, 0, 1], port)), Arc::clone(&weather)));
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
    /// Cuts all connections in the middle of what they carry, once so many bytes more have gone through, whichever way.
    pub fn cut_behind(&self, bytes: usize) {
        self.weather.send_modify(|weather| weather.left = Some(bytes));
    }
    /// How often it has cut.
    pub fn cuts(&self) -> u64 {
        self.weather.borrow().time
    }
    /// Nothing goes through any more, and nobody is told.
    pub fn stall(&self) {
        self.weather.send_modify(|weather| weather.stalled = true);
    }
    /// Nothing goes through a connection any more once it has brought so many bytes to one side; the others go on.
    pub fn stall_behind(&self, bytes: usize) {
        self.weather.send_modify(|weather| weather.most = Some(bytes));
    }
    /// How many connections that has stalled.
    pub fn held(&self) -> usize {
        self.weather.borrow().held
    }
    /// What waited goes through.
    pub fn flow(&self) {
        self.weather.send_modify(|weather| (weather.stalled, weather.most) = (false, None));
    }
    /// Everything takes this much longer, each way.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, weather: Arc<watch::Sender<Weather>>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let Ok(far) = TcpStream::connect(target).await else { continue };
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        connections.spawn(forward(near_in, far_out, Arc::clone(&weather)));
        connections.spawn(forward(far_in, near_out, Arc::clone(&weather)));
    }
}

/// Moves bytes one way. Ends when either side ends, or when the connection is cut; what it drops ends the other way too.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, weather: Arc<watch::Sender<Weather>>) {
    let time = weather.borrow().time;
    let (mut wind, mut cut) = (weather.subscribe(), weather.subscribe());
    let moves = async {
        let (mut buffer, mut brought) = (vec![0; 64 << 10], 0);
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let is_full = |weather: &Weather| weather.most.is_some_and(|most| brought >= most);
            weather.send_if_modified(|weather| {
                weather.held += usize::from(is_full(weather));
                is_full(weather)
            });
            let flows = |weather: &Weather| !weather.stalled && !is_full(weather);
            let Ok(now) = wind.wait_for(flows).await.map(|now| *now) else {
                return;
            };
            brought += read;
            tokio::time::sleep(now.delay).await;
            let through = let_through(&weather, read);
            if to.write_all(&buffer[..through]).await.is_err() || through < read {
                return;
            }
        }
    };
    tokio::select! {
        () = moves => {}
        _ = cut.wait_for(|weather| weather.time != time) => {}
    }
}

/// How many of these bytes still go through. Where that is not all of them, everything is cut.
fn let_through(weather: &watch::Sender<Weather>, bytes: usize) -> usize {
    let mut through = bytes;
    weather.send_if_modified(|weather| {
        let Some(left) = &mut weather.left else { return false };
        through = bytes.min(*left);
        *left -= through;
        let cut = through < bytes;
        if cut {
            weather.left = None;
            weather.time += 1;
        }
        cut
    });
    through
}
