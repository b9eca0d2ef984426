#![no_main]

use std::fmt::Write;

use serde_json_borrow::Value;
use weir::cache::key::{Key, Question};

/// One of each kind of place.
const IGNORED: &[&str] = &["messages[].content[cachePoint]", "tools[].cache_control", "user"];

fn key(text: &[u8], body: &Value<'_>) -> Key {
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
            items.iter().for_each(|item| plain(item, out));
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

// The first line is one request, the rest another. Where nothing is left out and no number is odd, they have one key
// exactly if they are one value; where one is odd, they have not unless they are.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let texts = [&data[..end], data.get(end + 1..).unwrap_or_default()];
    let [Ok(one), Ok(other)] = texts.map(|text| serde_json::from_slice::<Value<'_>>(text)) else { return };
    let spaced = |text: &[u8]| [b" ", text, b"\r\n"].concat();
    let is_odd = key(&spaced(texts[0]), &one) != key(texts[0], &one);
    let mut plainly = [String::new(), String::new()];
    plain(&one, &mut plainly[0]);
    plain(&other, &mut plainly[1]);
    if ["user", "cache"].iter().any(|word| plainly.iter().any(|text| text.contains(word))) {
        return;
    }
    let same = key(texts[0], &one) == key(texts[1], &other);
    if same || !(is_odd || key(&spaced(texts[1]), &other) != key(texts[1], &other)) {
        assert_eq!(same, plainly[0] == plainly[1], "{plainly:?}");
    }
});
