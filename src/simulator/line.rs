//! Line: one TCP connection that can be told to end with a reset instead of a goodbye.
//!
//! Knows nothing of HTTP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection.
#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    fuse: Fuse,
}

/// Makes a [`Line`] end with a reset. A clone belongs to the same line.
#[derive(Clone, Debug, Default)]
pub(super) struct Fuse(Arc<AtomicBool>);

impl Fuse {
    /// When the line is dropped, the other side sees a connection reset.
    pub(super) fn light(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Line {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, fuse: Fuse::default() }
    }

    pub(super) fn fuse(&self) -> Fuse {
        self.fuse.clone()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.fuse.0.load(Ordering::Relaxed) {
            // If this fails the connection ends politely, which is the most that can be done about it here.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.fuse.0.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(())); // a goodbye would spoil the reset
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
