//! Beginning: the corridor's part about prompts that begin alike: what the ledger is told of how one begins.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use highway::{HighwayBuildHasher, Key};
use serde_json_borrow::Value;

use crate::exchange::Rooms;
use crate::provider::beginning::{Piece, pieces};
use crate::provider::endpoint::Endpoint;
use crate::record::prefix::{Prefixes, Reading, SHORTEST};

/// What fingerprints are made with: `HighwayHash` with a key of this process, which nobody else ever has. What began before a
/// restart is then not known again; no provider's cache that is looked for would have lasted much longer. A prompt is hashed
/// for every call: `SipHash`, which is as strong, takes several times as long.
static KEY: LazyLock<HighwayBuildHasher> = LazyLock::new(|| {
    let random = RandomState::new();
    HighwayBuildHasher::new(Key([0, 1, 2, 3].map(|part: u8| random.hash_one(part))))
});

/// The beginnings of the prompt of a request whose body is `text` and says `body`, if there is a ledger to keep them. A short
/// one is not looked at: in JSON, a text is no shorter than it is.
pub(super) fn prefixes(rooms: &Rooms, endpoint: Endpoint, text: &[u8], body: &Value<'_>) -> Option<Prefixes> {
    rooms.sinks.ledger().filter(|_| text.len() as u64 >= SHORTEST)?;
    let mut reading = Reading::new(&*KEY);
    pieces(endpoint, body, &mut |piece| match piece {
        Piece::Text(text) => reading.text(text),
        Piece::End => reading.ends(),
        Piece::Media => reading.stop(),
    });
    reading.finish()
}
