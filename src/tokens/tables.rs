//! Tables: the vocabularies as they are compiled in, a quarter as large as they are published.
//!
//! What is published is text: a token in base64 and its rank on each line, ranks ascending from 0. Here a table is the
//! number of tokens (32 bits, little-endian), their lengths (a byte each) and their bytes, in the order of their ranks, in
//! the zlib format. `UPDATE_EXPECT=1 cargo test --lib tokens` writes the tables from those of `tiktoken-rs`, and the same
//! test tells when they differ.

use std::collections::HashMap;
use std::io::Read;

use flate2::read::ZlibDecoder;
use tiktoken_rs::{CoreBPE, O200K_BASE_PAT_STR};

/// What tells words apart in `cl100k_base` (`tiktoken_ext/openai_public.py`, version 0.12).
const CL100K_WORDS: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s";

/// Why the tables can be relied on.
const WHOLE: &str = "a test reads the very same bytes";

/// `o200k_base`, ready to count with.
pub(super) fn o200k() -> CoreBPE {
    loaded(include_bytes!("o200k_base.zlib"), O200K_BASE_PAT_STR)
}

/// `cl100k_base`, likewise.
pub(super) fn cl100k() -> CoreBPE {
    loaded(include_bytes!("cl100k_base.zlib"), CL100K_WORDS)
}

/// Without special tokens: what looks like one is text like any other.
fn loaded(table: &[u8], words: &str) -> CoreBPE {
    let (lengths, bytes) = unpacked(table);
    let ranks = tokens(&lengths, &bytes).map(<[u8]>::to_vec).zip(0..).collect();
    CoreBPE::new(ranks, HashMap::default(), words).expect(WHOLE)
}

/// The length of each token, and the bytes of all of them.
fn unpacked(table: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut table = ZlibDecoder::new(table);
    let mut count = [0; 4];
    table.read_exact(&mut count).expect(WHOLE);
    let mut lengths = vec![0; u32::from_le_bytes(count) as usize];
    table.read_exact(&mut lengths).expect(WHOLE);
    let mut bytes = Vec::with_capacity(lengths.iter().map(|length| usize::from(*length)).sum());
    table.read_to_end(&mut bytes).expect(WHOLE);
    (lengths, bytes)
}

fn tokens<'a>(lengths: &'a [u8], bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    lengths.iter().map(move |length| {
        let (token, after) = rest.split_at(usize::from(*length));
        rest = after;
        token
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::{env, fs};

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    /// The tokens of a published vocabulary, in the order of their ranks.
    fn published(vocabulary: &CoreBPE) -> Vec<Vec<u8>> {
        (0..).map_while(|rank| vocabulary.decode_bytes(&[rank]).ok()).collect()
    }

    fn packed(tokens: &[Vec<u8>]) -> Vec<u8> {
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
        let lengths: Vec<u8> = tokens.iter().map(|token| u8::try_from(token.len()).expect("a short token")).collect();
        let count = u32::try_from(tokens.len()).expect("fewer than 2³²");
        for part in [&count.to_le_bytes()[..], &lengths, &tokens.concat()] {
            packed.write_all(part).expect("a vector takes all");
        }
        packed.finish().expect("a vector takes all")
    }

    /// What has been in texts that people and programs write, and what trips up what tells words apart.
    const TEXTS: [&str; 6] = [
        "The quick brown fox doesn't jump over 1234567 lazy dogs; they'LL say WE'VE seen it.\r\n\r\n\tfn main() { println!(\"{}\", 1e-9); }",
        "こんにちは、世界。お元気ですか。 的的的的 Ünïcödé straße ДОБРОЕ утро 🙂👩‍👩‍👧‍👦 ﷺ",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"<|endoftext|> is a text like any other\"}]}   \n   ",
        "a\u{a0}b  c   d\n\n\n e \u{3000} f\u{2028}",
        "0123456789 ¼ ½ Ⅷ ٣٤٥ 1,000,000.00 $5 #!?",
        "",
    ];

    #[test]
    fn the_tables_are_those_that_are_published() {
        for (name, table, published_one, ours) in [
            (
                "o200k_base",
                &include_bytes!("o200k_base.zlib")[..],
                tiktoken_rs::o200k_base().expect("it is compiled in"),
                o200k as fn() -> CoreBPE,
            ),
            (
                "cl100k_base",
                &include_bytes!("cl100k_base.zlib")[..],
                tiktoken_rs::cl100k_base().expect("it is compiled in"),
                cl100k,
            ),
        ] {
            let expected = published(&published_one);
            assert!(expected.len() > 100_000, "{name}: {} tokens", expected.len());
            if env::var_os("UPDATE_EXPECT").is_some() {
                fs::write(format!("src/tokens/{name}.zlib"), packed(&expected)).expect("the table is written");
                continue;
            }
            let (lengths, bytes) = unpacked(table);
            assert!(
                tokens(&lengths, &bytes).eq(expected.iter().map(Vec::as_slice)),
                "{name}: UPDATE_EXPECT=1 writes it"
            );
            let ours = ours();
            for text in TEXTS {
                assert_eq!(ours.encode_ordinary(text), published_one.encode_ordinary(text), "{name}: {text}");
            }
        }
    }
}
