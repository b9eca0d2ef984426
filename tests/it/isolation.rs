//! Isolation: whatever is asked, by whoever, in whatever order and spelling, nobody gets an answer that was made for
//! another credential, namespace, provider or question.
//!
//! The provider says in each answer whom it has answered what, so that a strange answer is noticed by its bytes. All by
//! chance, the same each time but for what calls at once do to each other; `WEIR_FUZZ_SECONDS` says for how long.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::fake::{Fake, Received, Script};
use crate::support::random::Random;
use crate::support::weir::Weir;

/// Callers at once.
const CALLERS: u64 = 8;

/// So many answers from the cache show nothing yet.
const MOST_FEW: u64 = 100;

/// How much longer it may take to come to more.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one call is about. Equal calls have equal answers, byte for byte, and no others have.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    provider: &'static str,
    credential: (String, String),
    namespace: Option<String>,
    body: Value,
}

impl Asked {
    fn by_chance(random: &mut Random) -> Self {
        let one_of = |random: &mut Random, values: &[&str]| values[random.below(values.len())].to_owned();
        let namespace = one_of(random, &["", "a", "b", "a b"]);
        Self {
            provider: ["one", "two"][random.below(2)],
            credential: (
                one_of(random, &["authorization", "x-api-key", "api-key"]),
                one_of(random, &["Bearer a", "Bearer b"]),
            ),
            namespace: Some(namespace).filter(|namespace| !namespace.is_empty()),
            body: body(random),
        }
    }

    /// What came to the provider of this name.
    fn of(provider: &'static str, received: &Received) -> Self {
        let header = |name: &str| received.header(name).map(str::to_owned);
        let sent = ["authorization", "x-api-key", "api-key"].into_iter().find_map(|name| Some((name, header(name)?)));
        let (name, value) = sent.unwrap();
        Self {
            provider,
            credential: (name.to_owned(), value),
            namespace: header("x-cache-namespace"),
            body: serde_json::from_slice(&received.body).unwrap(),
        }
    }

    fn streams(&self) -> bool {
        self.body["stream"] == true
    }

    /// What the provider answers, in the pieces it sends.
    fn answer(&self) -> Vec<Vec<u8>> {
        let Self { provider, credential: (name, value), namespace, body } = self;
        let question = canonical(body);
        let content = format!("{provider}|{name}: {value}|{namespace:?}|{question}");
        let usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15});
        if !self.streams() {
            let message = json!({"role": "assistant", "content": content});
            let choices = json!([{"index": 0, "message": message, "finish_reason": "stop"}]);
            return vec![json!({"model": "m", "choices": choices, "usage": usage}).to_string().into_bytes()];
        }
        let choices = json!([{"index": 0, "delta": {"content": content}, "finish_reason": "stop"}]);
        let event = format!("data: {}\n\n", json!({"model": "m", "choices": choices}));
        vec![event.into_bytes(), b"data: [DONE]\n\n".to_vec()]
    }

    fn script(&self) -> Script {
        let pieces = self.answer();
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        if self.streams() { Script::sse(&pieces) } else { Script::json(200, pieces[0]) }
    }

    /// Asks weir, in one of the ways that the same may be said in, and gives back whether the answer was a stored one.
    async fn ask(&self, client: &Client, weir: &str, random: &mut Random) -> bool {
        let mut headers = vec![(self.credential.0.as_str(), self.credential.1.as_str())];
        headers.extend(self.namespace.as_deref().map(|namespace| ("x-cache-namespace", namespace)));
        headers.extend([("cache-control", "no-cache"), ("x-user-id", "u")].get(random.below(20)).copied());
        let mut text = String::new();
        respell(&self.body, random, &mut text);
        let url = format!("{weir}/{}/v1/chat/completions", self.provider);
        let answer = client.post(&url, &headers, text.as_bytes()).await;
        assert_eq!(answer.body, self.answer().concat(), "{self:?} was asked as {text} with {headers:?}");
        answer.header("x-cache") == "HIT"
    }
}

/// A question of few words, so that the same comes again soon.
fn body(random: &mut Random) -> Value {
    const VALUES: [&str; 8] = ["0", "1", "0.5", "true", "null", r#""a""#, r#"["a"]"#, r#"{"user":"a"}"#];
    let content = ["a", "b"][random.below(2)];
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": content}]});
    for member in ["temperature", "seed", "stop", "response_format", "user", "metadata", "weir_unknown"] {
        if random.below(8) == 0 {
            body[member] = serde_json::from_str(VALUES[random.below(VALUES.len())]).unwrap();
        }
    }
    if random.below(4) == 0 {
        body["stream"] = true.into();
    }
    if random.below(6) == 0 {
        let name = ["user", "metadata"][random.below(2)];
        let parameters = json!({"properties": {name: {}}});
        let function = json!({"name": "f", "parameters": parameters});
        body["tools"] = json!([{"type": "function", "function": function}]);
    }
    body
}

/// The question that a body asks, in one spelling: without what docs/cache.md says is left out.
fn canonical(body: &Value) -> String {
    let mut question = body.clone();
    for left_out in ["user", "metadata"] {
        question.as_object_mut().unwrap().remove(left_out);
    }
    question.sort_all_objects();
    with_floats(&mut question);
    question.to_string()
}

fn with_floats(value: &mut Value) {
    match value {
        Value::Number(number) => *value = number.as_f64().into(),
        Value::Array(items) => items.iter_mut().for_each(with_floats),
        Value::Object(members) => members.values_mut().for_each(with_floats),
        _ => {}
    }
}

/// Writes `value` with its members in any order, with white space and escapes.
fn respell(value: &Value, random: &mut Random, text: &mut String) {
    text.push_str(["", "", " ", "\n"][random.below(4)]);
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            let start = random.below(members.len().max(1));
            members.rotate_left(start);
            text.push('{');
            for (at, (name, value)) in members.into_iter().enumerate() {
                text.push_str(if at == 0 { "" } else { "," });
                respell(&name.as_str().into(), random, text);
                text.push(':');
                respell(value, random, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { "," });
                respell(item, random, text);
            }
            text.push(']');
        }
        Value::String(word) if random.below(3) == 0 => {
            text.push('"');
            text.extend(word.chars().map(|letter| format!("\\u{:04x}", u32::from(letter))));
            text.push('"');
        }
        Value::Number(number) if random.below(3) == 0 => {
            write!(text, "{}e-1", number.as_f64().unwrap() * 10.0).unwrap();
        }
        other => text.push_str(&other.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_does_anybody_get_the_answer_to_another() {
    let one = Fake::start(|received| Asked::of("one", received).script()).await;
    let two = Fake::start(|received| Asked::of("two", received).script()).await;
    let provider = |name, fake: &Fake| {
        format!("  {name}: {{ api: openai, base_url: \"{}\", prices: free, ask_for_usage: false }}\n", fake.url())
    };
    let weir = Weir::start(&format!(
        "providers:\n{}{}default_provider: one\ncalls: {{ identity: {{ forward: true }} }}\n",
        provider("one", &one),
        provider("two", &two)
    ))
    .await;
    let seconds = std::env::var("WEIR_FUZZ_SECONDS").map_or(10, |seconds| seconds.parse().unwrap());
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let hits = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|seed| {
            let (client, url, hits) = (Client::default(), weir.app.clone(), Arc::clone(&hits));
            tokio::spawn(async move {
                let mut random = Random(seed);
                // A machine that is busy takes longer to come to enough of them.
                let few = || hits.load(Ordering::Relaxed) <= MOST_FEW && Instant::now() < deadline + PATIENCE;
                while Instant::now() < deadline || few() {
                    let hit = Asked::by_chance(&mut random).ask(&client, &url, &mut random).await;
                    hits.fetch_add(hit.into(), Ordering::Relaxed);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("every answer is the caller's own");
    }
    let (hits, asked) = (hits.load(Ordering::Relaxed), one.received().len() + two.received().len());
    assert!(hits > MOST_FEW && asked > 100, "{hits} answers from the cache, {asked} from the providers");
    weir.stop().await;
}
