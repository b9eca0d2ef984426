//! Bodies of requests: what is asked, under which key, what of it personal data is.

use std::fmt::Write;
use std::sync::OnceLock;

use serde_json::value::RawValue;
use serde_json_borrow::Value;
use weir::cache::key::{Key, Question};
use weir::exchange::form::fields;
use weir::json::{self, opened};
use weir::provider::beginning;
use weir::provider::endpoint::Endpoint;
use weir::provider::last_turn::last_turn;
use weir::provider::last_words::last_words;
use weir::provider::parameters::parameters;
use weir::provider::substitute as substitutes;
use weir::redact::Redactor;
use weir::tokens::prompt;

use super::two_parts;

/// Below this, no body has too many values to be read.
const FEW: usize = 128 << 10;

/// A request is read as `serde_json` reads it, and so is what is skipped of a reply. What is taken of it beside what is asked:
/// the last turn, how it begins, its texts, its parameters. The first byte says of which API. Nothing is told that is not in
/// it.
pub fn request(data: &[u8]) {
    let [which, body @ ..] = data else { return };
    let endpoint = Endpoint::ALL[usize::from(*which) % Endpoint::ALL.len()];
    let (value, known) = (opened(body), serde_json::from_slice::<Value<'_>>(body).ok());
    assert!(value == known || (value.is_none() && body.len() >= FEW), "{value:?} is read where {known:?} is written");
    let text = std::str::from_utf8(body).ok();
    let known = text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    let raw = json::read::<&RawValue>(body);
    assert_eq!(raw.map(RawValue::get), known.map(RawValue::get), "what is skipped is whole");
    let Some(value) = value else { return };
    let mut told = 0;
    last_turn(endpoint, &value, &mut |text| told += text.len());
    assert!(told <= 8 * body.len() + 64, "a turn is not longer than the request it is in");
    assert!(last_words(endpoint, &value).is_none_or(|words| words.len() <= body.len()));
    beginning::pieces(endpoint, &value, &mut |_| {});
    let _ = (parameters(endpoint, &value), prompt::most_output(&value));
    let mut texts = 0;
    let _ = prompt::read(&value, &mut |text| texts += text.len());
    assert!(texts <= body.len(), "texts are parts of the request");
}

/// The fields of a form: the first line is what separates its parts.
pub fn form(data: &[u8]) {
    let (boundary, body) = two_parts(data);
    let Ok(boundary) = std::str::from_utf8(boundary) else { return };
    let found: Vec<_> = fields(body, boundary).collect();
    assert!(found.len() <= 64 && found.iter().map(|(name, text)| name.len() + text.len()).sum::<usize>() <= body.len());
}

/// Another model in the place of the one asked for: the rest of the request stays as it is.
pub fn substitute(data: &[u8]) {
    const MODEL: &str = "another \"one\"/é";
    let [which, rest @ ..] = data else { return };
    let endpoint = Endpoint::ALL[usize::from(*which) % Endpoint::ALL.len()];
    let (path, body) = two_parts(rest);
    let Ok(path) = std::str::from_utf8(path) else { return };
    let Some(changed) = substitutes::substitute(endpoint, path, body, MODEL) else { return };
    assert!(changed.path.matches('/').count() <= path.matches('/').count(), "no part of a path more");
    // Texts that are none, such as half a surrogate, are not looked at where they stand.
    let [Ok(before), Ok(after)] = [body, &changed.body].map(serde_json::from_slice::<serde_json::Value>) else {
        return;
    };
    let without = |mut value: serde_json::Value| {
        value.as_object_mut().and_then(|members| members.remove("model"));
        value
    };
    if *changed.body != *body {
        assert_eq!(after["model"], MODEL);
    }
    assert_eq!(without(before), without(after), "nothing else changes");
}

/// What is redacted once has nothing more to redact, and JSON stays JSON.
pub fn redact(data: &[u8]) {
    static REDACTOR: OnceLock<Redactor> = OnceLock::new();
    let redactor = REDACTOR.get_or_init(|| Redactor::new(&[]).expect("no pattern of an operator's is wrong"));
    let Ok(text) = std::str::from_utf8(data) else { return };
    let once = redactor.redact(text);
    assert_eq!(redactor.redact(&once), once, "nothing is left");
    let secrets = redactor.redact_secrets(text);
    assert_eq!(redactor.redact_secrets(&secrets), secrets, "no secret is left");
    let json = redactor.redact_json(text);
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        let still = serde_json::from_str::<serde::de::IgnoredAny>(&json);
        assert!(still.is_ok(), "redacted JSON is JSON: {json}");
    }
}

/// One of each kind of place.
const IGNORED: &[&str] = &["messages[].content[cachePoint]", "tools[].cache_control", "user"];

fn key_of(text: &[u8], body: &Value<'_>) -> Key {
    Key::of(&Question {
        namespace: None,
        provider: "p",
        target: &[],
        credentials: &[],
        headers: &[],
        text,
        body,
        ignored: IGNORED,
    })
}

/// A value in one spelling.
fn plain(value: &Value<'_>, out: &mut String) {
    let done = match value {
        Value::Array(items) => {
            out.push('[');
            for item in items {
                plain(item, out);
            }
            write!(out, "]")
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (name, value) in members {
                write!(out, "{name:?}").expect("memory");
                plain(value, out);
            }
            write!(out, "}}")
        }
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(whole), ..) => write!(out, "{whole:e} "),
            (_, Some(whole), _) => write!(out, "{whole:e} "),
            (.., float) => write!(out, "{:e} ", float.filter(|float| *float != 0.0).unwrap_or(0.0)),
        },
        other => write!(out, "{other:?}"),
    };
    done.expect("memory");
}

/// The first line is one request, the rest another. Where nothing is left out and no number is odd, they have one key
/// exactly if they are one value; where one is odd, they have not unless they are.
pub fn key(data: &[u8]) {
    let texts: [&[u8]; 2] = two_parts(data).into();
    let [Ok(one), Ok(other)] = texts.map(serde_json::from_slice::<Value<'_>>) else { return };
    let spaced = |text: &[u8]| [b" ", text, b"\r\n"].concat();
    let is_odd = key_of(&spaced(texts[0]), &one) != key_of(texts[0], &one);
    let mut plainly = [String::new(), String::new()];
    plain(&one, &mut plainly[0]);
    plain(&other, &mut plainly[1]);
    if ["user", "cache"].iter().any(|word| plainly.iter().any(|text| text.contains(word))) {
        return;
    }
    let same = key_of(texts[0], &one) == key_of(texts[1], &other);
    if same || !(is_odd || key_of(&spaced(texts[1]), &other) != key_of(texts[1], &other)) {
        assert_eq!(same, plainly[0] == plainly[1], "{plainly:?}");
    }
}
