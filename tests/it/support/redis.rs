//! A real Redis, Debian's, and a way to it that can be disturbed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::{Client, Connection, FromRedisValue};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::until;

/// Whether there is a Redis to test with. In CI there must be.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) fn is_here() -> bool {
    let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return true;
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "redis-server is missing: run scripts/deps.sh");
    eprintln!("skipped: redis-server is not installed; scripts/deps.sh does it");
    false
}

/// A running server, on a socket in a folder of its own. Ended by its id.
#[derive(Debug)]
pub(crate) struct Redis {
    dir: TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Redis {
    /// A server without a port.
    pub(crate) async fn start() -> Self {
        Self::with(&["--port", "0"]).await
    }

    /// A server with these arguments beside a socket.
    pub(crate) async fn with(arguments: &[&str]) -> Self {
        let mut server = Self {
            dir: tempfile::tempdir().unwrap(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            process: None,
        };
        server.begin().await;
        server
    }

    /// Starts it again, after [`Redis::kill`]: empty, since it keeps nothing.
    pub(crate) async fn begin(&mut self) {
        let socket = self.socket();
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("redis-server");
        command.args(["--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        command.arg("--dir").arg(self.dir.path()).args(&self.arguments);
        self.process = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until("redis-server listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Sends it a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    pub(crate) fn connection(&self) -> Connection {
        Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// What it answers to a command of words.
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        command.query(&mut self.connection()).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// How often it has been asked to do this, by anybody.
    pub(crate) fn done(&self, command: &str) -> usize {
        let stats: String = self.ask(&["INFO", "commandstats"]);
        let name = format!("cmdstat_{command}:calls=");
        let calls = stats.lines().find_map(|line| line.strip_prefix(&name)?.split(',').next()?.parse().ok());
        calls.unwrap_or_default()
    }

    /// The names of all keys.
    pub(crate) fn names(&self) -> Vec<String> {
        self.ask(&["KEYS", "*"])
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Three servers that are one cluster, and their ports.
pub(crate) async fn cluster() -> Vec<(Redis, u16)> {
    let mut nodes = Vec::new();
    for slots in ["0 5460", "5461 10922", "10923 16383"] {
        let (port, bus) = (free_port(), free_port());
        let (port_text, bus_text) = (port.to_string(), bus.to_string());
        let node = Redis::with(&[
            "--port",
            &port_text,
            "--bind",
            "127.0.0.1",
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus_text,
        ])
        .await;
        let (first, last) = slots.split_once(' ').unwrap();
        node.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
        nodes.push((node, port, bus));
    }
    for (_, port, bus) in &nodes[1..] {
        nodes[0].0.ask::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port.to_string(), &bus.to_string()]);
    }
    for (node, ..) in &nodes {
        let begun = Instant::now();
        while !node.ask::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok") {
            assert!(begun.elapsed() < Duration::from_secs(30), "no cluster");
            sleep(Duration::from_millis(20)).await;
        }
    }
    nodes.into_iter().map(|(node, port, _)| (node, port)).collect()
}

/// What the way does with what the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Way {
    /// Passes it on.
    Open,
    /// Passes it on, each byte after a while.
    Slow,
    /// Says nothing, and does not hang up.
    Silent,
    /// Says something else.
    Garbage,
    /// Hangs up within the first answer.
    Cut,
}

impl Way {
    fn of(number: u8) -> Self {
        [Self::Open, Self::Slow, Self::Silent, Self::Garbage, Self::Cut][usize::from(number)]
    }
}

/// A way to a server over TCP, which can be disturbed and closed.
pub(crate) struct Proxy {
    address: SocketAddr,
    server: PathBuf,
    way: Arc<AtomicU8>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    pub(crate) async fn before(server: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Self { address, server: server.socket(), way: Arc::default(), accepting: Mutex::default() };
        proxy.accept(listener);
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.store(way as u8, Ordering::SeqCst);
    }

    /// Nobody listens any more; open connections break.
    pub(crate) fn close(&self) {
        if let Some(accepting) = self.accepting.lock().unwrap().take() {
            accepting.abort();
        }
    }

    /// Listens again, at the same address.
    pub(crate) async fn reopen(&self) {
        let bind = async {
            loop {
                match TcpListener::bind(self.address).await {
                    Ok(listener) => return listener,
                    Err(_) => sleep(Duration::from_millis(5)).await,
                }
            }
        };
        self.accept(timeout(Duration::from_secs(10), bind).await.unwrap());
    }

    fn accept(&self, listener: TcpListener) {
        let (server, way) = (self.server.clone(), Arc::clone(&self.way));
        let accepting = tokio::spawn(async move {
            // Dropped with the task: then connections break.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                connections.spawn(pass(tcp, server.clone(), Arc::clone(&way)));
            }
        });
        *self.accepting.lock().unwrap() = Some(accepting);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.close();
    }
}

/// A fault: how it begins, and how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Slow,
    Silent,
    Garbage,
    Cut,
    Refused,
    Frozen,
    Killed,
    Full,
    ReadOnly,
    LockedOut,
}

impl Fault {
    pub(crate) const ALL: [Self; 10] = [
        Self::Slow,
        Self::Silent,
        Self::Garbage,
        Self::Cut,
        Self::Refused,
        Self::Frozen,
        Self::Killed,
        Self::Full,
        Self::ReadOnly,
        Self::LockedOut,
    ];

    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Slow => "each byte takes 20 ms",
            Self::Silent => "half open: nothing comes",
            Self::Garbage => "answers are garbage",
            Self::Cut => "answers are cut",
            Self::Refused => "connections are refused",
            Self::Frozen => "frozen (SIGSTOP)",
            Self::Killed => "killed",
            Self::Full => "full (OOM)",
            Self::ReadOnly => "read-only replica",
            Self::LockedOut => "password changed",
        }
    }

    pub(crate) async fn begin(self, redis: &mut Redis, proxy: &Proxy) {
        match self {
            Self::Slow => proxy.set(Way::Slow),
            Self::Silent => proxy.set(Way::Silent),
            Self::Garbage => proxy.set(Way::Garbage),
            Self::Cut => proxy.set(Way::Cut),
            Self::Refused => proxy.close(),
            Self::Frozen => redis.signal("STOP"),
            Self::Killed => redis.kill(),
            Self::Full => {
                redis.ask::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
                redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1mb"]);
            }
            Self::ReadOnly => redis.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]),
            Self::LockedOut => {
                redis.ask::<()>(&["CONFIG", "SET", "requirepass", "another"]);
                proxy.close();
                proxy.reopen().await;
            }
        }
    }

    pub(crate) async fn end(self, redis: &mut Redis, proxy: &Proxy) {
        match self {
            Self::Slow | Self::Silent | Self::Garbage | Self::Cut => proxy.set(Way::Open),
            Self::Refused => proxy.reopen().await,
            Self::Frozen => redis.signal("CONT"),
            Self::Killed => redis.begin().await,
            Self::Full => redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]),
            Self::ReadOnly => redis.ask::<()>(&["REPLICAOF", "NO", "ONE"]),
            Self::LockedOut => {
                let url = redis.url() + "?pass=another";
                let mut connection = Client::open(url).unwrap().get_connection().unwrap();
                let () = redis::cmd("CONFIG").arg(&["SET", "requirepass", ""]).query(&mut connection).unwrap();
            }
        }
    }

    /// Whether the server still answers, if only with a no.
    pub(crate) const fn leaves_it_up(self) -> bool {
        matches!(self, Self::Full | Self::ReadOnly)
    }
}

async fn pass(tcp: TcpStream, server: PathBuf, way: Arc<AtomicU8>) {
    tcp.set_nodelay(true).unwrap();
    let Ok(socket) = UnixStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = tcp.into_split();
    let (mut from_server, mut to_server) = socket.into_split();
    let up = tokio::io::copy(&mut from_client, &mut to_server);
    let down = async {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let Ok(count @ 1..) = from_server.read(&mut buffer).await else { return };
            let answer = &buffer[..count];
            let passed = match Way::of(way.load(Ordering::SeqCst)) {
                Way::Open => to_client.write_all(answer).await,
                Way::Silent => Ok(()),
                Way::Garbage => to_client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await,
                Way::Cut => {
                    let _ = to_client.write_all(&answer[..count / 2]).await;
                    return;
                }
                Way::Slow => trickle(&mut to_client, answer).await,
            };
            if passed.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = up => {}
        () = down => {}
    }
}

async fn trickle(to: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    for byte in bytes {
        sleep(Duration::from_millis(20)).await;
        to.write_all(&[*byte]).await?;
    }
    Ok(())
}
