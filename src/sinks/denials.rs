//! Denials: requests to the operator's side that were denied, by why. Knows no token and nobody who showed one.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;

use crate::semconv;
use crate::sinks::now::write;

/// Why a request was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// There is no token that could be shown.
    NoToken,
    /// None was shown.
    NotShown,
    /// What was shown is none.
    Wrong,
    /// So many that are none were shown that this one was not looked at.
    TooMany,
    /// The token is for reading.
    ReadsOnly,
}

impl Denial {
    /// Every reason there is.
    pub const ALL: [Self; 5] = [Self::NoToken, Self::NotShown, Self::Wrong, Self::TooMany, Self::ReadsOnly];

    /// The reason as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::NotShown => "not_shown",
            Self::Wrong => "wrong",
            Self::TooMany => "too_many",
            Self::ReadsOnly => "reads_only",
        }
    }
}

/// How often each happened.
#[derive(Debug, Default)]
pub(super) struct Denials([AtomicU64; Denial::ALL.len()]);

impl Denials {
    pub(super) fn note(&self, why: Denial) {
        self.0[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn write_all(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let count = |why: Denial| self.0[why as usize].load(Ordering::Relaxed);
        let each = Denial::ALL.map(|why| ([why.as_str()], ConstCounter::new(count(why))));
        write(encoder, &semconv::ADMIN_DENIED, each)
    }
}
