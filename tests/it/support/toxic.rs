//! A way to a server over TCP on which everything can go wrong, and be well again: a proxy that a test disturbs while it
//! runs. What passes is neither read nor changed but for the fault.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::{sleep, timeout};

/// What is wrong with the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    Open,
    /// Nobody listens; what was open breaks.
    Refuse,
    /// Nobody answers when a connection is to be made; what was open breaks.
    Blackhole,
    /// A connection is made, and reset.
    ResetAtOnce,
    /// What the server says suffers, from there on.
    Down(At, Harm),
    /// What the client says suffers, from there on.
    Up(At, Harm),
}

/// From where on, counted on each connection since the fault began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// After so many bytes.
    Byte(u64),
    /// So many bytes after the end of the first head of HTTP/1.1.
    Body(u64),
}

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// They are lost, and the connection is reset on both sides.
    Reset,
    /// They are lost, and the connection ends on both sides.
    HangUp,
    /// They are lost, and this direction ends; the other goes on.
    HalfClose,
    /// They wait until the fault is over.
    Stall,
    /// They come one by one: the first of each piece, for on a busy machine each takes its time.
    Trickle,
    /// They are others.
    Flip,
    /// They come late.
    Late(Duration),
}

/// Bytes of a piece that come one by one.
const MOST_ONE_BY_ONE: usize = 16;
/// How long a connection may take before the queue of those that wait is known to be full.
const ANSWERED_WITHIN: Duration = Duration::from_millis(200);

/// The way: from an address of its own to a server.
pub(crate) struct Toxic {
    pub(crate) address: SocketAddr,
    server: SocketAddr,
    fault: watch::Sender<Fault>,
    /// Ends connections as they are, when it changes.
    broken: watch::Sender<Option<Harm>>,
    /// Directions that are held up now.
    held: Arc<AtomicUsize>,
    accepting: Mutex<Option<JoinHandle<()>>>,
    /// Those that fill the queue of a black hole.
    fillers: Mutex<Vec<TcpStream>>,
    /// Keeps the port while nobody listens on it.
    _port: TcpSocket,
}

impl Toxic {
    /// A way to `server`, with nothing wrong.
    pub(crate) fn before(server: SocketAddr) -> Self {
        let port = socket("127.0.0.1:0".parse().unwrap());
        let address = port.local_addr().unwrap();
        let toxic = Self {
            address,
            server,
            fault: watch::Sender::new(Fault::Open),
            broken: watch::Sender::new(None),
            held: Arc::default(),
            accepting: Mutex::default(),
            fillers: Mutex::default(),
            _port: port,
        };
        toxic.accept();
        toxic
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this is wrong, on open connections too, and nothing else.
    pub(crate) async fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
        let was_closed = self.accepting.lock().unwrap().is_none();
        match fault {
            Fault::Refuse => self.close().await,
            Fault::Blackhole => {
                self.close().await;
                self.fill().await;
            }
            _ if was_closed => {
                self.fillers.lock().unwrap().clear();
                self.accept();
            }
            _ => {}
        }
    }

    /// All is well again.
    pub(crate) async fn heal(&self) {
        self.set(Fault::Open).await;
    }

    /// Open connections end like this, whatever they are doing; further ones do not.
    pub(crate) fn break_open_ones(&self, how: Harm) {
        self.broken.send_replace(Some(how));
    }

    /// Whether something is held up.
    pub(crate) fn holds(&self) -> bool {
        self.held.load(Ordering::SeqCst) > 0
    }

    async fn close(&self) {
        let accepting = self.accepting.lock().unwrap().take();
        if let Some(accepting) = accepting {
            accepting.abort();
            let _ = accepting.await;
        }
        self.fillers.lock().unwrap().clear();
    }

    fn accept(&self) {
        let listener = socket(self.address).listen(1024).unwrap();
        let (server, fault, broken, held) =
            (self.server, self.fault.clone(), self.broken.clone(), Arc::clone(&self.held));
        let accepting = tokio::spawn(async move {
            // Dropped with the task: then connections break.
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                if *fault.borrow() == Fault::ResetAtOnce {
                    tcp.set_zero_linger().unwrap();
                    continue;
                }
                let way = || (fault.subscribe(), Arc::clone(&held));
                connections.spawn(carry(tcp, server, [way(), way()], broken.subscribe()));
            }
        });
        *self.accepting.lock().unwrap() = Some(accepting);
    }

    /// Listens, accepts nothing, and has the system's queue full: further connections are never answered.
    async fn fill(&self) {
        let listener = socket(self.address).listen(0).unwrap();
        let mut fillers = Vec::new();
        while let Ok(filler) = timeout(ANSWERED_WITHIN, TcpStream::connect(self.address)).await {
            fillers.push(filler.unwrap());
            assert!(fillers.len() < 4096, "the queue is never full");
        }
        *self.fillers.lock().unwrap() = fillers;
        *self.accepting.lock().unwrap() = Some(tokio::spawn(async move {
            let _listens = listener;
            std::future::pending::<()>().await;
        }));
    }
}

impl Drop for Toxic {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.lock().unwrap().take() {
            accepting.abort();
        }
    }
}

/// A socket bound there, beside others that are.
fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

/// How a direction came to its end.
enum Ended {
    /// In order: the other may go on.
    InOrder,
    /// The connection is over, like this.
    Over(Harm),
}

async fn carry(
    client: TcpStream,
    server: SocketAddr,
    [up, down]: [(watch::Receiver<Fault>, Arc<AtomicUsize>); 2],
    mut broken: watch::Receiver<Option<Harm>>,
) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut upward = Flow::new(|fault| if let Fault::Up(at, harm) = fault { Some((at, harm)) } else { None }, up);
    let mut downward = Flow::new(|fault| if let Fault::Down(at, harm) = fault { Some((at, harm)) } else { None }, down);
    let how = {
        let both = async {
            let one = upward.pass(&mut from_client, &mut to_server);
            let other = downward.pass(&mut from_server, &mut to_client);
            tokio::pin!(one, other);
            let mut open = [true, true];
            while open[0] || open[1] {
                let (number, ended) = tokio::select! {
                    ended = &mut one, if open[0] => (0, ended),
                    ended = &mut other, if open[1] => (1, ended),
                };
                open[number] = false;
                if let Ended::Over(harm) = ended {
                    return harm;
                }
            }
            Harm::HangUp
        };
        tokio::select! {
            harm = both => harm,
            _ = broken.changed() => broken.borrow().unwrap_or(Harm::HangUp),
        }
    };
    if how == Harm::Reset {
        // It may be closed already.
        let _ = to_client.as_ref().set_zero_linger();
        let _ = to_server.as_ref().set_zero_linger();
    }
}

/// One direction of one connection.
struct Flow {
    own: fn(Fault) -> Option<(At, Harm)>,
    fault: watch::Receiver<Fault>,
    held: Arc<AtomicUsize>,
    /// Bytes since the fault began.
    passed: u64,
    /// Of the end of a head, so many bytes have been seen; where the head ended, once it has.
    matched: usize,
    head: Option<u64>,
}

impl Flow {
    fn new(own: fn(Fault) -> Option<(At, Harm)>, (fault, held): (watch::Receiver<Fault>, Arc<AtomicUsize>)) -> Self {
        Self { own, fault, held, passed: 0, matched: 0, head: None }
    }

    async fn pass(&mut self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> Ended {
        let mut buffer = vec![0; 1 << 14];
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read,
                // Without a test there is nobody left to serve.
                changed = self.fault.changed() => match changed {
                    Ok(()) => { self.begin_anew(); continue }
                    Err(_) => return Ended::Over(Harm::HangUp),
                },
            };
            let count = match read {
                Ok(0) => {
                    let _ = to.shutdown().await;
                    return Ended::InOrder;
                }
                Ok(count) => count,
                Err(_) => return Ended::Over(Harm::Reset),
            };
            if let Some(ended) = self.forward(&mut buffer[..count], from, to).await {
                return ended;
            }
        }
    }

    fn begin_anew(&mut self) {
        (self.passed, self.matched, self.head) = (0, 0, None);
    }

    /// What has come goes on, as far as it may; how the direction ends, if it does.
    async fn forward(&mut self, bytes: &mut [u8], from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> Option<Ended> {
        let fault = *self.fault.borrow_and_update();
        let Some((at, harm)) = (self.own)(fault) else { return written(&to.write_all(bytes).await) };
        let (good, bad) = self.part(at, bytes);
        if to.write_all(good).await.is_err() {
            return Some(Ended::Over(Harm::Reset));
        }
        if bad.is_empty() {
            return None;
        }
        match harm {
            Harm::Reset | Harm::HangUp => Some(Ended::Over(harm)),
            Harm::HalfClose => {
                let _ = to.shutdown().await;
                let mut lost = vec![0; 1 << 14];
                while from.read(&mut lost).await.is_ok_and(|count| count > 0) {}
                Some(Ended::InOrder)
            }
            Harm::Stall => {
                let held = bad.to_vec();
                self.held.fetch_add(1, Ordering::SeqCst);
                let is_over = self.fault.changed().await;
                self.held.fetch_sub(1, Ordering::SeqCst);
                if is_over.is_err() {
                    return Some(Ended::Over(Harm::HangUp));
                }
                self.begin_anew();
                written(&to.write_all(&held).await)
            }
            Harm::Trickle => {
                let (one_by_one, rest) = bad.split_at(bad.len().min(MOST_ONE_BY_ONE));
                for byte in one_by_one {
                    if to.write_all(&[*byte]).await.is_err() {
                        return Some(Ended::Over(Harm::Reset));
                    }
                    yield_now().await;
                }
                written(&to.write_all(rest).await)
            }
            Harm::Flip => {
                for byte in &mut *bad {
                    *byte ^= 0x80;
                }
                written(&to.write_all(bad).await)
            }
            Harm::Late(by) => {
                sleep(by).await;
                written(&to.write_all(bad).await)
            }
        }
    }

    /// The bytes before the fault, and those it is for.
    fn part<'a>(&mut self, at: At, bytes: &'a mut [u8]) -> (&'a mut [u8], &'a mut [u8]) {
        let before = self.passed;
        for byte in &*bytes {
            self.passed += 1;
            if self.head.is_none() {
                self.matched = match (self.matched, byte) {
                    (0 | 2, b'\r') | (1 | 3, b'\n') => self.matched + 1,
                    (_, b'\r') => 1,
                    _ => 0,
                };
                self.head = (self.matched == 4).then_some(self.passed);
            }
        }
        let from = match at {
            At::Byte(count) => Some(count),
            At::Body(count) => self.head.map(|head| head + count),
        };
        let good = from.map_or(bytes.len() as u64, |from| from.saturating_sub(before));
        let good = usize::try_from(good).unwrap_or(usize::MAX).min(bytes.len());
        bytes.split_at_mut(good)
    }
}

fn written(result: &std::io::Result<()>) -> Option<Ended> {
    result.is_err().then_some(Ended::Over(Harm::Reset))
}
