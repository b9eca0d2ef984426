//! House: the rooms in force. Each call takes them once, at its beginning, and ends with them; whoever comes later finds
//! those of the configuration of then.
//!
//! Taking them is one atomic load. Knows nothing of configurations.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::exchange::Rooms;

/// The rooms in force.
#[derive(Debug)]
pub struct House(ArcSwap<Rooms>);

impl House {
    /// These are.
    #[must_use]
    pub fn of(rooms: Arc<Rooms>) -> Self {
        Self(ArcSwap::new(rooms))
    }

    /// Those that are now.
    #[must_use]
    pub fn rooms(&self) -> Arc<Rooms> {
        self.0.load_full()
    }

    /// From now on these are.
    pub fn refit(&self, rooms: Arc<Rooms>) {
        self.0.store(rooms);
    }
}
