//! Model: another opinion on which requests are the same question, which shares nothing with the code but the page that
//! describes it.
//!
//! Requests are made from each other by chance and spelt by chance; every pair has one key exactly if the model says so.
//! The same chance each time; `WEIR_FUZZ_SECONDS` says for how long.

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use weir::provider::Reuse;

use crate::random::Random;
use crate::{ROWS, Row, documented, key, reuse, root};

/// A value, as its text says it.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    Null,
    Bool(bool),
    Number(Decimal),
    Text(String),
    List(Vec<Self>),
    /// In the order of the text; names may come twice.
    Object(Vec<(String, Self)>),
}

/// The digits of a number, without zeros at either end, and how many places the point is behind the last of them.
#[derive(Clone, Debug, PartialEq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    exponent: i32,
}

impl Decimal {
    fn new(is_negative: bool, digits: &str, exponent: i32) -> Self {
        let digits = digits.trim_start_matches('0');
        let shorter = digits.trim_end_matches('0');
        let exponent = exponent + i32::try_from(digits.len() - shorter.len()).expect("short");
        let is_zero = shorter.is_empty();
        Self {
            is_negative: is_negative && !is_zero,
            digits: shorter.to_owned(),
            exponent: if is_zero { 0 } else { exponent },
        }
    }

    fn read(text: &str) -> Self {
        let lower = text.to_lowercase();
        let (number, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let exponent: i32 = exponent.parse().expect("an exponent");
        let digits = format!("{}{fraction}", whole.trim_start_matches('-'));
        Self::new(text.starts_with('-'), &digits, exponent - i32::try_from(fraction.len()).expect("short"))
    }

    /// One of the ways to write it.
    fn spell(&self, random: &mut Random) -> String {
        let sign = if self.is_negative || (self.digits.is_empty() && random.below(4) == 0) { "-" } else { "" };
        let digits = if self.digits.is_empty() { "0" } else { &self.digits };
        let zeros = "0".repeat(random.below(3));
        let is_short = (-20..20).contains(&self.exponent);
        match (random.below(3), usize::try_from(self.exponent)) {
            (0, Ok(places)) if is_short => format!("{sign}{digits}{}", "0".repeat(places)),
            (1, Ok(places)) if is_short => format!("{sign}{digits}{}.0{zeros}", "0".repeat(places)),
            (0 | 1, Err(_)) if is_short => {
                let places = usize::try_from(-self.exponent).expect("negative");
                let padded = format!("{}{digits}", "0".repeat((places + 1).saturating_sub(digits.len())));
                let (whole, fraction) = padded.split_at(padded.len() - places);
                format!("{sign}{whole}.{fraction}{zeros}")
            }
            _ => {
                let moved = random.below(3);
                let letter = ["e", "E", if self.exponent >= 3 { "e+" } else { "e" }][random.below(3)];
                let exponent = self.exponent - i32::try_from(moved).expect("small");
                let letter = if exponent < 0 { letter.trim_end_matches('+') } else { letter };
                format!("{sign}{digits}{}{letter}{exponent}", "0".repeat(moved))
            }
        }
    }
}

/// Whether what is spelt so survives a parser: as an integer of 64 bits, or as what a float of 64 bits is called.
fn survives(spelt: &str) -> bool {
    if spelt.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()) {
        let whole: Option<i128> = spelt.parse().ok();
        if whole.is_some_and(|whole| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&whole)) {
            return true;
        }
    }
    let float: f64 = spelt.parse().expect("a number");
    Decimal::read(&float.to_string()) == Decimal::read(spelt)
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Number(Decimal::read(&number.to_string())),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(members) => {
                Self::Object(members.iter().map(|(name, value)| (name.clone(), value.into())).collect())
            }
        }
    }
}

/// A text, and whether every number of it survives a parser.
struct Spelt {
    text: String,
    survives: bool,
}

impl Json {
    /// One of the ways to write it.
    fn spell(&self, random: &mut Random, out: &mut Spelt) {
        space(random, out);
        match self {
            Self::Null => out.text.push_str("null"),
            Self::Bool(value) => write!(out.text, "{value}").expect("memory"),
            Self::Number(number) => {
                let spelt = number.spell(random);
                out.survives &= survives(&spelt);
                out.text.push_str(&spelt);
            }
            Self::Text(text) => quote(text, random, &mut out.text),
            Self::List(items) => {
                out.text.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.text.push_str(if at == 0 { "" } else { "," });
                    item.spell(random, out);
                }
                space(random, out);
                out.text.push(']');
            }
            Self::Object(members) => {
                let mut order: Vec<_> = members.iter().collect();
                shuffle(&mut order, random);
                out.text.push('{');
                for (at, (name, value)) in order.into_iter().enumerate() {
                    out.text.push_str(if at == 0 { "" } else { "," });
                    space(random, out);
                    quote(name, random, &mut out.text);
                    space(random, out);
                    out.text.push(':');
                    value.spell(random, out);
                }
                out.text.push('}');
            }
        }
        space(random, out);
    }

    /// What of it is a question: without what stands at one of these places, and in one order.
    fn question(&self, places: &[String]) -> Self {
        self.at("", places)
    }

    fn at(&self, here: &str, places: &[String]) -> Self {
        match self {
            Self::Object(members) => {
                let place = |name: &str| if here.is_empty() { name.to_owned() } else { format!("{here}.{name}") };
                // A name with a sign of a place in it would read like one.
                let named = |name: &str| place(&name.replace(['.', '[', ']'], "\u{0}"));
                let counts = |(name, _): &&(String, Self)| !places.contains(&named(name));
                let mut members: Vec<_> = members
                    .iter()
                    .filter(counts)
                    .map(|(name, value)| (name.clone(), value.at(&named(name), places)))
                    .collect();
                members.sort_by(|(one, _), (other, _)| one.cmp(other));
                Self::Object(members)
            }
            Self::List(items) => {
                let marks = |item: &&Self| match item {
                    Self::Object(members) => match &members[..] {
                        [(name, _)] => places.contains(&format!("{here}[{}]", name.replace(['.', '[', ']'], "\u{0}"))),
                        _ => false,
                    },
                    _ => false,
                };
                let items = items.iter().filter(|item| !marks(item));
                Self::List(items.map(|item| item.at(&format!("{here}[]"), places)).collect())
            }
            other => other.clone(),
        }
    }

    /// It and all that it holds, each to be changed.
    fn parts(&mut self, visit: &mut impl FnMut(&mut Self)) {
        visit(self);
        match self {
            Self::List(items) => items.iter_mut().for_each(|item| item.parts(visit)),
            Self::Object(members) => members.iter_mut().for_each(|(_, value)| value.parts(visit)),
            _ => {}
        }
    }

    /// The same but for one part, which is changed; perhaps to what it was.
    fn change(&mut self, random: &mut Random) {
        let mut count = 0;
        self.parts(&mut |_| count += 1);
        let mut left = random.below(count);
        self.parts(&mut |part| {
            if left == 0 {
                part.change_here(random);
            }
            left = left.wrapping_sub(1);
        });
    }

    fn change_here(&mut self, random: &mut Random) {
        match self {
            Self::Bool(value) => *value = !*value,
            Self::Number(number) => *number = near(number, random),
            Self::Text(text) if random.below(2) == 0 => {
                text.push(['a', '\u{0}', '"', '\u{1f600}', '\n'][random.below(5)]);
            }
            Self::Null | Self::Text(_) => *self = some_value(random),
            Self::List(items) => match random.below(4) {
                0 if !items.is_empty() => drop(items.remove(random.below(items.len()))),
                1 if !items.is_empty() => {
                    let (one, other) = (random.below(items.len()), random.below(items.len()));
                    items.swap(one, other);
                }
                2 => items
                    .insert(random.below(items.len() + 1), Self::Object(vec![(some_name(random), some_value(random))])),
                _ => *self = Self::Object(vec![(some_name(random), self.clone())]),
            },
            Self::Object(members) => match random.below(5) {
                0 if !members.is_empty() => drop(members.remove(random.below(members.len()))),
                1 if !members.is_empty() => {
                    let at = random.below(members.len());
                    members[at].0 = some_name(random);
                }
                2 if !members.is_empty() => {
                    let again = members[random.below(members.len())].0.clone();
                    members.push((again, some_value(random)));
                }
                3 => *self = Self::List(vec![self.clone()]),
                _ => members.insert(random.below(members.len() + 1), (some_name(random), some_value(random))),
            },
        }
    }
}

/// Changes the order, but not of members with one name.
fn shuffle(members: &mut [&(String, Json)], random: &mut Random) {
    for at in (1..members.len()).rev() {
        let other = random.below(at + 1);
        let between = &members[other..=at];
        if !between[1..].iter().any(|(name, _)| *name == between[0].0)
            && !between[..between.len() - 1].iter().any(|(name, _)| *name == members[at].0)
        {
            members.swap(at, other);
        }
    }
}

fn space(random: &mut Random, out: &mut Spelt) {
    out.text.push_str(["", "", "", "", " ", "\n", "\t\r\n"][random.below(7)]);
}

fn quote(text: &str, random: &mut Random, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        let escapes = random.below(8) == 0 || matches!(letter, '"' | '\\' | '\u{0}'..='\u{1f}');
        match letter {
            '"' | '\\' | '/' if escapes && random.below(2) == 0 => out.extend(['\\', letter]),
            '\n' if random.below(2) == 0 => out.push_str("\\n"),
            _ if escapes => {
                let mut units = [0; 2];
                for unit in letter.encode_utf16(&mut units) {
                    write!(out, "\\u{unit:04x}").expect("memory");
                }
            }
            _ => out.push(letter),
        }
    }
    out.push('"');
}

/// Names that mean something somewhere, and some that read as if they did.
fn some_name(random: &mut Random) -> String {
    const NAMES: [&str; 20] = [
        "a",
        "",
        "user",
        "metadata",
        "store",
        "messages",
        "content",
        "source",
        "system",
        "tools",
        "toolConfig",
        "input",
        "cache_control",
        "cachePoint",
        "serviceTier",
        "labels",
        "messages[].content",
        "tools[].cache_control",
        "toolConfig.tools",
        "].content[cachePoint",
    ];
    NAMES[random.below(NAMES.len())].to_owned()
}

fn some_value(random: &mut Random) -> Json {
    match random.below(9) {
        0 => Json::Null,
        1 => Json::Bool(random.below(2) == 0),
        2 => Json::Number(some_number(random)),
        3 => Json::Text(["", "a", "0", "null", "default"][random.below(5)].to_owned()),
        4 => Json::List(vec![]),
        5 => Json::Object(vec![]),
        6 => Json::List(vec![Json::Object(vec![(some_name(random), some_value(random))])]),
        _ => Json::Object(vec![(some_name(random), some_value(random))]),
    }
}

fn some_number(random: &mut Random) -> Decimal {
    const ODD: [&str; 12] = [
        "0",
        "1",
        "0.1",
        "-0.7",
        "0.30000000000000004",
        "9007199254740993",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "1e23",
        "1.7976931348623157e308",
        "4.9e-324",
    ];
    let odd = Decimal::read(ODD[random.below(ODD.len())]);
    if random.below(2) == 0 { odd } else { near(&odd, random) }
}

/// A number that differs a little, or by its sign.
fn near(number: &Decimal, random: &mut Random) -> Decimal {
    let Decimal { is_negative, digits, exponent } = number;
    match random.below(4) {
        0 => Decimal::new(!is_negative, digits, *exponent),
        1 => Decimal::new(*is_negative, &format!("{digits}1"), exponent - 1),
        2 => Decimal::new(*is_negative, &format!("{digits}000000000000000001"), exponent - 18),
        _ => {
            let mut digits = digits.clone();
            let last = digits.pop().unwrap_or('0');
            digits.push(char::from(b'0' + (last as u8 - b'0' + 1) % 10));
            Decimal::new(*is_negative, &digits, *exponent)
        }
    }
}

/// Requests of the fixtures that may be cached, with the row they belong to.
fn requests() -> Vec<(&'static Row, Json)> {
    let mut requests: Vec<(&Row, Json)> = Vec::new();
    for (folder, number) in
        [("openai", 0), ("anthropic", 2), ("bedrock", 3), ("gemini", 5), ("cohere", 6), ("ollama", 7)]
    {
        let files = std::fs::read_dir(root().join("tests/fixtures").join(folder)).expect("the folder is there");
        let mut paths: Vec<_> = files.map(|file| file.expect("readable").path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.to_string_lossy().ends_with(".request.json")) {
            let request: Value = serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("JSON");
            let row = &ROWS[number];
            if matches!(reuse(row.endpoints[0], row.path, &request["body"].to_string()), Reuse::Allowed(_)) {
                requests.push((row, Json::from(&request["body"])));
            }
        }
    }
    requests
}

/// How long chance has.
fn time() -> Duration {
    let seconds = std::env::var("WEIR_FUZZ_SECONDS").map(|seconds| seconds.parse().expect("a number of seconds"));
    Duration::from_secs(seconds.unwrap_or(10))
}

#[test]
fn two_requests_have_one_key_exactly_if_the_model_says_so() {
    let (requests, documented) = (requests(), documented());
    assert!(requests.len() > 20, "{} requests to begin with", requests.len());
    let begun = Instant::now();
    let (mut same, mut without_parts, mut inexact, mut different) = (0, 0, 0, 0);
    for seed in 0.. {
        if begun.elapsed() > time() && seed > 1000 {
            break;
        }
        let random = &mut Random(seed);
        let (row, one) = &requests[random.below(requests.len())];
        let places = &documented[row.requests].left_out;
        let mut one = one.clone();
        (0..random.below(3)).for_each(|_| one.change(random));
        let mut other = one.clone();
        (0..random.below(3)).for_each(|_| other.change(random));

        let spelt = [&one, &other].map(|json| {
            let mut spelt = Spelt { text: String::new(), survives: true };
            json.spell(random, &mut spelt);
            spelt
        });
        let [Spelt { text: a, .. }, Spelt { text: b, .. }] = &spelt;
        // A number beyond all floats is no JSON to weir.
        if [a, b].iter().any(|text| serde_json::from_str::<Value>(text).is_err()) {
            continue;
        }
        let all_survive = spelt.iter().all(|spelt| spelt.survives);
        let equal = one.question(places) == other.question(places) && (all_survive || a == b);
        let Reuse::Allowed(ignored) = reuse(row.endpoints[0], row.path, row.body) else { panic!("cached") };
        assert_eq!(key(a, ignored) == key(b, ignored), equal, "seed {seed}:\n{a}\n{b}");
        same += u32::from(equal);
        without_parts += u32::from(equal && one.question(&[]) != other.question(&[]));
        inexact += u32::from(!all_survive);
        different += u32::from(!equal);
    }
    // Chance has come everywhere.
    assert!(
        same > 100 && without_parts > 5 && inexact > 5 && different > 100,
        "{same} {without_parts} {inexact} {different}"
    );
}
