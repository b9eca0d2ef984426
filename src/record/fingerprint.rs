//! Fingerprint: whether two texts are the same, told without keeping either.
//!
//! 64 bits of FNV-1a (Fowler, Noll and Vo; RFC 9923): equal in every process, and however a text is cut on its way. It is
//! no secret and proves nothing: whoever knows a text can make another with the same fingerprint.

use serde::{Deserialize, Serialize};

/// The fingerprint of what was pushed so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The same for different things on either side of it: a byte that is in no UTF-8.
    const SEAM: u8 = 0xff;

    /// Adds the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        // "FNV_prime" and the order of the steps: RFC 9923, section 2.
        self.0 = piece.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    }

    /// Tells what follows from what came before: `ab`, `c` is not `a`, `bc`.
    pub fn seam(&mut self) {
        self.push(&[Self::SEAM]);
    }
}

/// Of nothing: RFC 9923's offset basis.
impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[&str]) -> Fingerprint {
        let mut made = Fingerprint::default();
        for piece in pieces {
            made.push(piece.as_bytes());
        }
        made
    }

    #[test]
    fn it_is_fnv_1a_as_published() {
        // The authors' test vectors for 64 bits.
        for (text, expected) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            assert_eq!(of(&[text]), Fingerprint(expected), "{text}");
        }
    }

    #[test]
    fn only_a_seam_tells_where_a_text_was_cut() {
        assert_eq!(of(&["foo", "bar"]), of(&["f", "oobar"]));
        let mut seamed = of(&["foo"]);
        seamed.seam();
        seamed.push(b"bar");
        assert_ne!(seamed, of(&["foobar"]));
    }
}
