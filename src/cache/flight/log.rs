//! Log: what has come of a source that several may ride, as far as it is kept. The buffer of the cache as well. Knows bytes
//! and positions; nobody who reads them.

use bytes::{Buf, Bytes, BytesMut};

/// The most that is copied for a rider at once.
const MAX_COPIED: usize = 64 << 10;

/// What has come of a source, as far as it is kept: all of it while that is within a limit. Beyond the limit, only what
/// somebody still needs.
#[derive(Debug)]
pub struct Log {
    pub(super) kept: BytesMut,
    /// What was kept, once nothing more comes.
    frozen: Bytes,
    /// Where `kept` begins.
    from: u64,
    total: u64,
    limit: usize,
}

impl Log {
    /// An empty log that keeps all of what is no larger than `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { kept: BytesMut::new(), frozen: Bytes::new(), from: 0, total: 0, limit }
    }

    /// Adds a piece that nobody needs to read again.
    pub fn note(&mut self, piece: &[u8]) {
        self.push(piece, None);
    }

    /// Adds a piece. Beyond the limit, only what lies behind `needed_from` is kept.
    pub(super) fn push(&mut self, piece: &[u8], needed_from: Option<u64>) {
        self.total += piece.len() as u64;
        if self.is_whole() {
            return self.kept.extend_from_slice(piece);
        }
        self.let_go(needed_from.unwrap_or(self.total));
        match needed_from {
            Some(_) => self.kept.extend_from_slice(piece),
            None => self.from = self.total,
        }
    }

    /// How much has come.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Whether all that came is kept.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.total <= self.limit as u64
    }

    /// All that came, once nothing more comes; `None` if it was too much.
    #[must_use]
    pub fn whole(&self) -> Option<&Bytes> {
        self.is_whole().then_some(&self.frozen)
    }

    /// Nothing more comes.
    pub fn freeze(&mut self) {
        self.frozen = std::mem::take(&mut self.kept).freeze();
    }

    /// Whether no more should come before somebody has taken of what is kept.
    pub(super) fn is_full(&self) -> bool {
        !self.is_whole() && self.kept.len() >= self.limit
    }

    /// A piece from `at` on; `None` if nothing has come since.
    pub(super) fn read(&self, at: u64) -> Option<Bytes> {
        let skipped = usize::try_from(at - self.from).expect("what is kept fits into memory");
        if at >= self.total {
            None
        } else if self.frozen.is_empty() {
            let rest = &self.kept[skipped..];
            Some(Bytes::copy_from_slice(&rest[..rest.len().min(MAX_COPIED)]))
        } else {
            Some(self.frozen.slice(skipped..))
        }
    }

    pub(super) fn let_go(&mut self, before: u64) {
        let unneeded =
            usize::try_from(before.saturating_sub(self.from)).map_or(self.kept.len(), |n| n.min(self.kept.len()));
        self.from += unneeded as u64;
        if unneeded == self.kept.len() {
            // Given back, not just emptied: it may never be needed again.
            self.kept = BytesMut::new();
        } else {
            self.kept.advance(unneeded);
        }
    }
}
