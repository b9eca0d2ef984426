//! Door: takes in connections, for as long as somebody asks for one. The system may refuse: then it waits a moment, says
//! so once in a while, and counts. Knows nothing of who serves them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::seldom::Seldom;

/// How long to wait after the system refuses: it has no descriptor left, most likely, and would refuse again at once for as
/// long as a connection waits to be taken in. Who waits there waits that much longer, and is not turned away.
const PAUSE: Duration = Duration::from_millis(100);

/// Where connections come in.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    side: Side,
    refused: Arc<AtomicU64>,
    told: Seldom,
}

/// Whose connections come in: the label `side`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The app's.
    App,
    /// The operator's.
    Admin,
}

impl Side {
    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Door {
    /// The door on this side.
    #[must_use]
    pub fn new(listener: TcpListener, side: Side) -> Self {
        Self { listener, side, refused: Arc::default(), told: Seldom::default() }
    }

    /// Which side it is on.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.side
    }

    /// Where it is.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Counts how often the system refused.
    #[must_use]
    pub const fn refused(&self) -> &Arc<AtomicU64> {
        &self.refused
    }

    /// The next connection, and where it comes from. Dropped, nothing is lost.
    pub async fn next(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(connection) => return connection,
                // It was gone before it was taken in: that says nothing of the next.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    if let Some(times) = self.told.now() {
                        tracing::warn!(
                            weir.side = self.side.as_str(),
                            weir.times = times,
                            error.message = %error,
                            "connections have to wait: the system refuses to take them in"
                        );
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }
}
