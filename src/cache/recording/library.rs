//! Library: the recordings that answer in the place of providers, by what they answer; and why there is none.
//!
//! Knows recordings and the keys it is given for them; not how a key is made, not providers. Does no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::HashMap;

use crate::cache::key::Key;
use crate::cache::recording::difference::Difference;
use crate::cache::recording::file::{Damage, Damages};
use crate::cache::recording::{Recording, Request};

/// How many bytes of recorded requests are compared to find the nearest one.
const MOST_COMPARED_BYTES: usize = 64 << 20;
/// How many paths, and how long ones, are compared to find the nearest one.
const MOST_PATHS: usize = 1000;
const LONGEST_PATH: usize = 256;

/// Recordings, and the directory they are from.
#[derive(Debug)]
pub struct Library {
    dir: PathBuf,
    recordings: BTreeMap<String, Arc<Recording>>,
    by_key: HashMap<Key, Arc<Recording>>,
}

impl Library {
    /// The `recordings` of the files at `dir`; `key` tells the key of a request, or why it can have none.
    ///
    /// # Errors
    /// With every recording that can never answer: whose request has no key, or the same one as another.
    pub fn new(
        dir: &Path,
        recordings: BTreeMap<String, Recording>,
        key: impl Fn(&Request) -> Result<Key, String>,
    ) -> Result<Self, Damages> {
        let mut damages = Vec::new();
        let mut owners = HashMap::<Key, String>::default();
        let mut by_key = HashMap::default();
        let recordings: BTreeMap<_, _> =
            recordings.into_iter().map(|(name, recording)| (name, Arc::new(recording))).collect();
        for (name, recording) in &recordings {
            let reason = match key(&recording.request) {
                Ok(key) => match owners.insert(key, name.clone()) {
                    None => {
                        by_key.insert(key, Arc::clone(recording));
                        continue;
                    }
                    Some(other) => format!("its request is the same as that of {other}: remove one"),
                },
                Err(reason) => reason,
            };
            damages.push(Damage { path: dir.join(name), line: None, reason });
        }
        if damages.is_empty() { Ok(Self { dir: dir.to_owned(), recordings, by_key }) } else { Err(Damages(damages)) }
    }

    /// The recording of the request that has this key.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<&Arc<Recording>> {
        self.by_key.get(key)
    }

    /// How many recordings there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.recordings.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.recordings.is_empty()
    }

    /// What to tell the app whose request has no recording: the nearest one that there is, where it differs, and how to
    /// record. `ignored` members of the body tell no requests apart. Takes its time: up to half a second where the
    /// recordings are large.
    #[must_use]
    pub fn explain(&self, request: &Request, ignored: &[&str]) -> String {
        let dir = self.dir.display();
        let fix = "to record it, run once with `cache.mode: record`";
        let Some((name, Difference { places, first })) = self.nearest(request, ignored) else {
            let Request { method, path, provider, .. } = request;
            return format!("weir has no recording in `{dir}` of {method} {path} to provider `{provider}`: {fix}");
        };
        let more = match places.saturating_sub(1) {
            0 => String::new(),
            1 => " (and at 1 more place)".to_owned(),
            more => format!(" (and at {more} more places)"),
        };
        let nearest = match &*first {
            // Of members with one name, for which JSON has no rule, the order counts.
            "" => format!("the nearest, {name}, differs only in how its JSON is written"),
            first => format!("the nearest, {name}, differs: {first}{more}"),
        };
        format!("weir has no recording of this request in `{dir}`; {nearest}; {fix}")
    }

    /// The recording with the fewest differences, of the same path, or else of the path that looks most like it.
    fn nearest(&self, request: &Request, ignored: &[&str]) -> Option<(&str, Difference)> {
        let path = self.nearest_path(request)?;
        let mut left = MOST_COMPARED_BYTES;
        self.beside(request)
            .filter(|(_, recording)| *recording.request.path == *path)
            .take_while(|(_, recording)| {
                let size = recording.request.body.len() + request.body.len();
                let fits = left >= size;
                left = left.saturating_sub(size);
                fits
            })
            .map(|(name, recording)| (name, difference(&recording.request, request, ignored)))
            .min_by_key(|(_, difference)| difference.places)
    }

    fn nearest_path(&self, request: &Request) -> Option<&str> {
        let paths: BTreeSet<&str> = self.beside(request).map(|(_, recording)| &*recording.request.path).collect();
        if let Some(same) = paths.get(&*request.path) {
            return Some(same);
        }
        let length = request.path.len();
        paths
            .into_iter()
            .filter(|path| path.len().max(length) <= LONGEST_PATH)
            .take(MOST_PATHS)
            .map(|path| (strsim::damerau_levenshtein(path, &request.path), path))
            .min()
            .filter(|(distance, _)| *distance <= length / 3)
            .map(|(_, path)| path)
    }

    /// The recordings of requests to the same provider by the same method.
    fn beside(&self, request: &Request) -> impl Iterator<Item = (&str, &Recording)> {
        let all = self.recordings.iter().map(|(name, recording)| (&**name, &**recording));
        let is_beside = |one: &Request| one.provider == request.provider && one.method == request.method;
        all.filter(move |(_, recording)| is_beside(&recording.request))
    }
}

/// How a recorded request differs from one that is asked and whose recording it is not: if in nothing else, then in what
/// would not count otherwise.
fn difference(recorded: &Request, asked: &Request, ignored: &[&str]) -> Difference {
    let difference = Difference::between(recorded, asked, ignored);
    if difference.places > 0 { difference } else { Difference::between(recorded, asked, &[]) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method, StatusCode};

    use super::*;
    use crate::cache::key::Question;
    use crate::cache::recording::Response;

    fn request(path: &str, body: &str) -> Request {
        Request {
            method: Method::POST,
            provider: "openai".into(),
            path: path.into(),
            query: None,
            headers: HeaderMap::new(),
            body: Bytes::from(body.to_owned()),
        }
    }

    fn key(request: &Request) -> Result<Key, String> {
        let body = serde_json::from_slice(&request.body).map_err(|_| "not JSON".to_owned())?;
        Ok(Key::of(&Question {
            namespace: None,
            provider: &request.provider,
            target: &[request.path.as_bytes()],
            credentials: &[],
            headers: &[],
            text: b"",
            body: &body,
            ignored: &[],
        }))
    }

    fn library(requests: &[(&str, &str, &str)]) -> Result<Library, Damages> {
        let response =
            Response { status: StatusCode::OK, headers: HeaderMap::new(), body: Bytes::new(), timing: Vec::new() };
        let recordings = requests.iter().map(|(name, path, body)| {
            ((*name).to_owned(), Recording { request: request(path, body), response: response.clone() })
        });
        Library::new(Path::new("dir"), recordings.collect(), key)
    }

    #[test]
    fn an_equal_request_is_found_and_another_is_not() {
        let library = library(&[("a.json", "/v1/a", r#"{"x":1}"#), ("b.json", "/v1/b", r#"{"x":1}"#)]).expect("sound");
        let find = |path, body| library.find(&key(&request(path, body)).expect("a key"));
        assert_eq!(&*find("/v1/b", r#"{"x": 1.0}"#).expect("found").request.path, "/v1/b");
        assert!(find("/v1/b", r#"{"x":2}"#).is_none());
    }

    #[test]
    fn what_can_never_answer_is_named() {
        let found = library(&[("a.json", "/", "{}"), ("b.json", "/", "{ }"), ("c.json", "/", "x")]).expect_err("two");
        let expected = "2 files cannot be replayed:\ndir/b.json: its request is the same as that of a.json: remove one\n\
            dir/c.json: not JSON";
        assert_eq!(found.to_string(), expected);
    }

    #[test]
    fn a_miss_is_explained_by_the_nearest_recording() {
        let library = library(&[
            ("far.json", "/v1/chat/completions", r#"{"messages":["a","b"],"model":"m"}"#),
            ("near.json", "/v1/chat/completions", r#"{"messages":["a","c"],"model":"n"}"#),
            ("path.json", "/v1/models/flash:generate", "{}"),
        ])
        .expect("sound");
        let fix = "to record it, run once with `cache.mode: record`";
        for (path, body, expected) in [
            (
                "/v1/chat/completions",
                r#"{"messages":["a","c"],"model":"n","store":true}"#,
                r"of this request in `dir`; the nearest, near.json, differs: /store: recorded nothing, asked true",
            ),
            (
                "/v1/chat/completions",
                r#"{"model":"n","model":"n","messages":["a","c"]}"#,
                r"of this request in `dir`; the nearest, near.json, differs only in how its JSON is written",
            ),
            (
                "/v1/chat/completions",
                r#"{"messages":["a","d"],"model":"n"}"#,
                r#"of this request in `dir`; the nearest, near.json, differs: /messages/1: recorded "c", asked "d""#,
            ),
            (
                "/v1/chat/completions",
                r#"{"messages":["a","b"],"model":"o","x":[1,2]}"#,
                r#"of this request in `dir`; the nearest, far.json, differs: /model: recorded "m", asked "o" (and at 2 more places)"#,
            ),
            (
                "/v1/models/pro:generate",
                "{}",
                r#"of this request in `dir`; the nearest, path.json, differs: path: recorded "/v1/models/flash:generate", asked "/v1/models/pro:generate""#,
            ),
            ("/v1/embeddings", "{}", "in `dir` of POST /v1/embeddings to provider `openai`"),
        ] {
            let told = library.explain(&request(path, body), &["store"]);
            let separator = if expected.contains("nearest") { ";" } else { ":" };
            assert_eq!(told, format!("weir has no recording {expected}{separator} {fix}"));
        }
        let other = Request { provider: "groq".into(), ..request("/v1/chat/completions", "{}") };
        let expected = "weir has no recording in `dir` of POST /v1/chat/completions to provider `groq`";
        assert!(library.explain(&other, &[]).starts_with(expected));
    }
}
