//! The two raw ends of a WebSocket session: every byte is the test's own.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What an answer of 101 says of the key that [`App::ask`] sends (RFC 6455, section 1.3).
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The head of a message, in lines.
#[derive(Debug)]
pub(crate) struct Head(String);

impl Head {
    /// Reads a head, and not a byte more.
    pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = from.read_u8().await;
            head.push(byte.unwrap_or_else(|_| panic!("no head, but {:?}", String::from_utf8_lossy(&head))));
        }
        Self(String::from_utf8(head).unwrap())
    }

    pub(crate) fn first_line(&self) -> &str {
        self.0.lines().next().unwrap()
    }

    /// The value of a header; `None` without it.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.0.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A provider that waits for sessions.
#[derive(Debug)]
pub(crate) struct Provider(TcpListener);

impl Provider {
    pub(crate) async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// The next request, and the connection it came on.
    pub(crate) async fn asked(&self) -> (Head, TcpStream) {
        let (mut tcp, _) = self.0.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        (Head::read(&mut tcp).await, tcp)
    }

    /// The next request, agreed to.
    pub(crate) async fn agrees(&self) -> (Head, TcpStream) {
        let (head, mut tcp) = self.asked().await;
        agree(&mut tcp, "").await;
        (head, tcp)
    }
}

/// The head that agrees to a session.
pub(crate) fn switching() -> String {
    format!("{ACCEPTED}\r\n")
}

/// Agrees to a session, with these further lines.
pub(crate) async fn agree(tcp: &mut TcpStream, more: &str) {
    tcp.write_all(format!("{ACCEPTED}{more}\r\n").as_bytes()).await.unwrap();
}

/// Asks weir at `base` for a session at `path`, with these further lines, and gives back the connection.
pub(crate) async fn ask(base: &str, path: &str, more: &str) -> TcpStream {
    let host = base.strip_prefix("http://").unwrap();
    let mut tcp = TcpStream::connect(host).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n{more}\r\n"
    );
    tcp.write_all(request.as_bytes()).await.unwrap();
    tcp
}

/// A session from one end to the other: the app's connection, after weir's 101, and the provider's.
pub(crate) async fn session(base: &str, provider: &Provider, path: &str) -> (TcpStream, TcpStream) {
    let (mut app, (_, provider)) = tokio::join!(ask(base, path, ""), provider.agrees());
    let head = Head::read(&mut app).await;
    assert_eq!(head.first_line(), "HTTP/1.1 101 Switching Protocols");
    (app, provider)
}

/// A frame without a mask: its first byte, and its payload.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    if let Ok(short @ ..126) = u8::try_from(payload.len()) {
        bytes.push(short);
    } else {
        bytes.push(126);
        bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    }
    bytes.extend(payload);
    bytes
}

/// A text message in one frame.
pub(crate) fn text(json: &str) -> Vec<u8> {
    frame(0x81, json.as_bytes())
}

/// A close frame with this code.
pub(crate) fn close(code: u16) -> Vec<u8> {
    frame(0x88, &code.to_be_bytes())
}

/// All that still comes; what came before the connection broke, if it does.
pub(crate) async fn rest(mut tcp: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = tcp.read_to_end(&mut rest).await;
    rest
}
