//! File: what a file of weir's state looks like, and whether one is whole.
//!
//! JSON, so that an operator can read it: two lines, of which the second is what is kept. The first says what it is, in
//! which version, and the CRC-32 of the second.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What is kept where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// The name of the file, and of what is in it.
    pub name: &'static str,
    /// Which version of it weir writes, and reads.
    pub version: u32,
}

/// Why a file is not what weir wrote.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It is not whole.
    #[error("it is not whole")]
    Broken(#[source] serde_json::Error),
    /// Its checksum is wrong.
    #[error("its checksum is wrong")]
    Checksum,
    /// It is another file, or of another version.
    #[error("it is `{0}`, of version {1}: this weir reads only the version it writes")]
    Foreign(String, u32),
    /// It is whole, and is not what is kept there.
    #[error("what it says makes no sense")]
    Senseless(#[source] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    kept: String,
    version: u32,
    crc32: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    weir: Header,
    #[serde(borrow)]
    state: &'a RawValue,
}

impl Form {
    /// The content of a file that keeps `state`.
    ///
    /// # Errors
    /// If `state` cannot be spelt in JSON.
    pub fn write(self, state: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
        let state = serde_json::to_string(state)?;
        let header = Header { kept: self.name.to_owned(), version: self.version, crc32: checksum(&state) };
        let header = serde_json::to_string(&header)?;
        Ok(format!("{{\"weir\":{header},\n\"state\":{state}}}\n").into_bytes())
    }

    /// What a file keeps.
    ///
    /// # Errors
    /// If it is not a file that this version of weir wrote, to the last bit.
    pub fn read<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, Damage> {
        let Envelope { weir, state } = serde_json::from_slice(bytes).map_err(Damage::Broken)?;
        if weir.kept != self.name || weir.version != self.version {
            return Err(Damage::Foreign(weir.kept, weir.version));
        }
        if weir.crc32 != checksum(state.get()) {
            return Err(Damage::Checksum);
        }
        serde_json::from_str(state.get()).map_err(Damage::Senseless)
    }
}

fn checksum(state: &str) -> String {
    format!("{:08x}", crc32fast::hash(state.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Form = Form { name: "things.json", version: 3 };

    fn things() -> Vec<(String, u128)> {
        (0..20).map(|number| (format!("thing \"{number}\" äöü"), u128::MAX - number)).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = FORM.write(&things()).expect("JSON");
        assert_eq!(FORM.read::<Vec<(String, u128)>>(&bytes).expect("whole"), things());
        let json: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON as a whole");
        assert_eq!((&json["weir"]["kept"], &json["weir"]["version"]), (&"things.json".into(), &3.into()));
    }

    #[test]
    fn a_file_that_is_cut_anywhere_is_not_whole() {
        let bytes = FORM.write(&things()).expect("JSON");
        for cut in 0..bytes.len() - 1 {
            assert!(FORM.read::<Vec<(String, u128)>>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    /// A byte in the white space between may become another white space: then the file says the same.
    #[test]
    fn no_flipped_bit_changes_what_is_read() {
        let bytes = FORM.write(&things()).expect("JSON");
        let mut refused = 0;
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[place] ^= 1 << bit;
                match FORM.read::<Vec<(String, u128)>>(&flipped) {
                    Ok(read) => assert_eq!(read, things(), "bit {bit} of byte {place}"),
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > 8 * bytes.len() - 8, "{refused} of {}", 8 * bytes.len());
    }

    #[test]
    fn what_is_not_this_is_refused_with_the_reason() {
        let whole = FORM.write(&things()).expect("JSON");
        let newer = Form { version: 4, ..FORM }.write(&things()).expect("JSON");
        let other = Form { name: "others.json", ..FORM }.write(&things()).expect("JSON");
        let senseless = FORM.write(&"a text").expect("JSON");
        let text = String::from_utf8(whole).expect("text");
        let changed = text.replace("äöü", "öäü").into_bytes();
        for (bytes, reason) in [
            (&b""[..], "it is not whole"),
            (b"null", "it is not whole"),
            (b"{}", "it is not whole"),
            (&[0; 4096], "it is not whole"),
            (&newer, "it is `things.json`, of version 4: this weir reads only the version it writes"),
            (&other, "it is `others.json`, of version 3: this weir reads only the version it writes"),
            (&changed, "its checksum is wrong"),
            (&senseless, "what it says makes no sense"),
        ] {
            let damage = FORM.read::<Vec<(String, u128)>>(bytes).expect_err("refused");
            assert_eq!(damage.to_string(), reason);
        }
    }
}
