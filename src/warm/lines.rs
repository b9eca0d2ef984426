//! Lines: the requests to send, one JSON object a line: the format of OpenAI's batch files, plus `headers`.
//!
//! Knows the file; sends nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Lines as TextLines};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// How many mistakes of one file are told.
const MOST_MISTAKES: usize = 20;

/// One request.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its line in the file, from 1.
    pub number: usize,
    /// Tells this line from others, wherever it stands.
    pub digest: Digested,
    /// Its path, as an app would write it: `/openai/v1/chat/completions`.
    pub uri: Uri,
    /// Its own headers.
    pub headers: HeaderMap,
    /// Its body, byte for byte as it is written.
    pub body: Bytes,
}

/// The beginning of the SHA-256 of a line's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digested(pub u64);

impl fmt::Display for Digested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A file of requests that cannot be sent as it is.
#[derive(Debug, thiserror::Error)]
pub enum BadFile {
    /// It cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Lines are no requests.
    #[error("{path} has mistakes, and nothing was sent:{list}", path = path.display(), list = listed(mistakes))]
    Mistaken {
        /// The file.
        path: PathBuf,
        /// Each line that is wrong, and why.
        mistakes: Vec<(usize, String)>,
    },
}

fn listed(mistakes: &[(usize, String)]) -> String {
    let told = mistakes.iter().take(MOST_MISTAKES).map(|(number, why)| format!("\n  line {number}: {why}"));
    let more = mistakes.len().saturating_sub(MOST_MISTAKES);
    told.chain((more > 0).then(|| format!("\n  and {more} more"))).collect()
}

/// What a line may say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    url: String,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(borrow)]
    body: &'a RawValue,
    /// The name that a batch file gives a request.
    #[serde(default, rename = "custom_id")]
    _custom_id: Option<String>,
}

/// The requests of a file, one after the other, never all of them in memory.
#[derive(Debug)]
pub struct Lines {
    text: TextLines<BufReader<File>>,
    number: usize,
}

impl Lines {
    /// Opens the file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(path: &Path) -> Result<Self, BadFile> {
        let file = File::open(path).map_err(|source| BadFile::Unreadable { path: path.to_owned(), source })?;
        Ok(Self { text: BufReader::new(file).lines(), number: 0 })
    }

    /// Reads all of it once, and says how many requests there are.
    ///
    /// # Errors
    /// With every line that is wrong.
    pub fn check(path: &Path) -> Result<usize, BadFile> {
        let (mut count, mut mistakes) = (0, Vec::new());
        for line in Self::open(path)? {
            match line {
                Ok(_) => count += 1,
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if mistakes.is_empty() { Ok(count) } else { Err(BadFile::Mistaken { path: path.to_owned(), mistakes }) }
    }
}

impl Iterator for Lines {
    type Item = Result<Line, (usize, String)>;

    /// The next line that is not empty.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let text = self.text.next()?;
            self.number += 1;
            let number = self.number;
            match text {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => return Some(read(number, &text).map_err(|why| (number, why))),
                Err(error) => return Some(Err((number, error.to_string()))),
            }
        }
    }
}

fn read(number: usize, text: &str) -> Result<Line, String> {
    let Written { url, method, headers, body, .. } = serde_json::from_str(text).map_err(|error| {
        format!(
            "{error}: write {{\"url\": \"/openai/v1/chat/completions\", \"body\": {{…}}}}, and `headers` if need be"
        )
    })?;
    if let Some(method) = method.filter(|method| method != "POST") {
        return Err(format!("method: `{method}` cannot be warmed: only POST has an answer that is stored"));
    }
    let uri = url.parse::<Uri>().ok().filter(|uri| uri.authority().is_none() && uri.path().starts_with('/'));
    let uri = uri.ok_or_else(|| format!("url: `{url}` is no path: write one such as /openai/v1/chat/completions"))?;
    if !body.get().starts_with('{') {
        return Err("body: is no JSON object".to_owned());
    }
    let headers = headers.iter().map(|(name, value)| header(name, value)).collect::<Result<_, _>>()?;
    let hash: [u8; 32] = Sha256::digest(text.trim()).into();
    let digest = Digested(u64::from_be_bytes(hash[..8].try_into().expect("8 of 32 bytes")));
    Ok(Line { number, digest, uri, headers, body: Bytes::copy_from_slice(body.get().as_bytes()) })
}

/// A header as it is written. Its value may be a secret, and is not repeated.
///
/// # Errors
/// With which part of it is none.
pub fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parsed = name.parse().map_err(|_| format!("headers: `{name}` is not the name of a header"))?;
    let mut value =
        HeaderValue::from_str(value.trim()).map_err(|_| format!("headers.{name}: is not a header's value"))?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("the file is written");
        file
    }

    #[test]
    fn a_batch_file_of_openai_s_is_read_as_it_is() {
        let text = concat!(
            r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model": "m"}}"#,
            "\n\n",
            r#"{"url":"/anthropic/v1/messages?beta=true","headers":{"X-Cache-Namespace":" team "},"body":{}}"#,
        );
        let file = file(text);
        assert_eq!(Lines::check(file.path()).expect("it is right"), 2);
        let lines: Vec<Line> = Lines::open(file.path()).expect("a file").map(|line| line.expect("right")).collect();
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(&*lines[0].body, br#"{"model": "m"}"#);
        assert_eq!(lines[1].uri, "/anthropic/v1/messages?beta=true");
        assert_eq!(lines[1].headers["x-cache-namespace"], "team");
        assert_ne!(lines[0].digest, lines[1].digest);
    }

    #[test]
    fn every_line_that_is_wrong_is_named_with_its_fix() {
        for (line, expected) in [
            (r#"{"url":"/v1/x"}"#, "missing field `body`"),
            (r#"{"url":"/v1/x","body":{},"headres":{}}"#, "unknown field `headres`"),
            (r#"{"url":"https://api.openai.com/v1/x","body":{}}"#, "url: `https://api.openai.com/v1/x` is no path"),
            (r#"{"url":"/v1/x","method":"GET","body":{}}"#, "method: `GET` cannot be warmed"),
            (r#"{"url":"/v1/x","body":[]}"#, "body: is no JSON object"),
            (r#"{"url":"/v1/x","body":{},"headers":{"a b":"c"}}"#, "`a b` is not the name of a header"),
            (r#"{"url":"/v1/x","body":{},"headers":{"a":"secret\n"}}"#, ""),
            (r#"{"url":"/v1/x","body":{},"headers":{"a":"sec\nret"}}"#, "headers.a: is not a header's value"),
        ] {
            match Lines::check(file(&format!("\n{line}\n")).path()) {
                Err(mistakes) => {
                    let told = mistakes.to_string();
                    assert!(told.contains("line 2: ") && told.contains(expected) && !told.contains("secret"), "{told}");
                    assert!(!expected.is_empty(), "{told}");
                }
                Ok(count) => assert_eq!((count, expected), (1, ""), "{line}"),
            }
        }
    }

    #[test]
    fn of_many_mistakes_the_first_are_told() {
        let told = Lines::check(file(&"x\n".repeat(50)).path()).expect_err("no JSON").to_string();
        assert!(told.contains("line 20: ") && !told.contains("line 21: ") && told.ends_with("and 30 more"), "{told}");
    }
}
