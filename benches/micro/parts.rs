//! The parts of a call's way that are functions of their own: what each is given here is what a usual call gives it.
//!
//! They are measured twice: in time, and in instructions.

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use weir::cache::{self, Cache, Lookup, Reusable};
#[cfg(feature = "ledger")]
use weir::ledger::entry::Entry;
use weir::limits::budget;
use weir::limits::matching::Asker;
use weir::limits::rate;
use weir::limits::{Demand, Limits, Money, Spent, Stage};
use weir::price::{self, Prices, Source};
use weir::provider::endpoint::Endpoint;
use weir::provider::reader::Reader;
use weir::record::call::Caller;
use weir::record::usage::Usage;
use weir::sinks::metrics::{Metrics, Settings};
use weir::units::PicoUsd;

use crate::chat;
use crate::junk::{answered, metrics};

/// One part.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// Prepares it, and returns what does it once.
    pub(crate) prepare: fn() -> Box<dyn FnMut()>,
    /// Whether it takes as many instructions each time: not where something tidies up by the clock.
    pub(crate) is_steady: bool,
}

const fn part(name: &'static str, prepare: fn() -> Box<dyn FnMut()>) -> Part {
    Part { name, prepare, is_steady: true }
}

/// All parts, in a call's order.
pub(crate) const PARTS: &[Part] = &[
    part("request understood, 1 KB", || understood(1)),
    part("request understood, 64 KB", || understood(64)),
    part("key, 1 KB", || keyed(1)),
    part("key, 64 KB", || keyed(64)),
    Part { is_steady: false, ..part("look-up that finds", looked_up) },
    part("admission, no rules", || admitted(0)),
    part("admission, a limit and a budget", || admitted(1)),
    part("admission, ten of each", || admitted(10)),
    part("reply read, 1.6 KB", reply_read),
    part("stream read, 100 chunks", stream_read),
    part("price", priced),
    part("metrics of a call", counted),
    #[cfg(feature = "ledger")]
    part("ledger entry", entered),
    part("scrape of a usual app", scraped),
];

/// What each of the chats begins with.
const INSTRUCTION: &str = "Be brief.";

fn understood(kib: usize) -> Box<dyn FnMut()> {
    let text = chat::body(kib, INSTRUCTION);
    Box::new(move || {
        let body = chat::parsed(black_box(&text));
        black_box((Endpoint::ChatCompletions.format().asked)(&chat::request(&body)));
    })
}

fn keyed(kib: usize) -> Box<dyn FnMut()> {
    // It is held for as long as the program runs, so that what is parsed can refer to it.
    let text: &'static str = chat::body(kib, INSTRUCTION).leak();
    let body = chat::parsed(text);
    Box::new(move || {
        black_box(chat::key(black_box(text), &body));
    })
}

fn looked_up() -> Box<dyn FnMut()> {
    const STORED: usize = 1_000;
    let cache = Cache::new(&cache::Settings::default(), Box::new(|_| {}));
    let now = tokio::time::Instant::now();
    let reusable = |number| {
        let key = format!("{number:064x}").parse().expect("64 digits");
        chat::reusable(&cache, key)
    };
    let asked: Vec<Reusable> = (0..STORED).map(reusable).collect();
    for number in 0..STORED {
        cache.store(reusable(number), chat::reply(), now);
    }
    let mut turn = 0;
    Box::new(move || {
        turn = (turn + 7919) % STORED;
        let found = cache.look_up(black_box(&asked[turn]), now);
        assert!(matches!(found, Lookup::Usable(_)), "what was stored is found");
        black_box(found);
    })
}

/// Admission and settlement, by so many limits and as many budgets.
fn admitted(rules: usize) -> Box<dyn FnMut()> {
    const CENT: PicoUsd = PicoUsd::new(PicoUsd::PER_USD / 100);
    let limit = |number| rate::Settings {
        name: format!("limit-{number}"),
        per: if number == 0 { "agent" } else { "" }.parse().expect("parts"),
        requests_per_minute: Some(1 << 40),
        tokens_per_day: Some(1 << 40),
        ..rate::Settings::default()
    };
    let budget = |number| budget::Settings {
        name: format!("budget-{number}"),
        limit_usd: Some(PicoUsd::new(u128::MAX / 2)),
        ..budget::Settings::default()
    };
    let limits: Vec<_> = (0..rules).map(limit).collect();
    let budgets: Vec<_> = (0..rules).map(budget).collect();
    let limits = Limits::new(&limits, &budgets);
    let caller = Caller { agent: Some("planner".into()), user: Some("user-7".into()), ..Caller::default() };
    Box::new(move || {
        if !limits.has_any(Stage::Asking) {
            return;
        }
        let asker = Asker { provider: "openai", model: Some("gpt-5-mini"), caller: &caller, credential: None };
        let demand = Demand { tokens: 1500, money: Money::Expected(CENT) };
        let permit = limits.admit(black_box(&asker), &demand, Stage::Asking, limits.now()).expect("there is room");
        permit.settle(Spent { tokens: Some(1400), usd: Some(CENT) });
    })
}

fn reply_read() -> Box<dyn FnMut()> {
    let text = "A weir is a low wall across a river. ".repeat(34);
    let reply = serde_json::json!({
        "id": "chatcmpl-bench", "object": "chat.completion", "created": 1_700_000_000, "model": "gpt-4o-mini-2024-07-18",
        "choices": [{
            "index": 0, "finish_reason": "stop", "logprobs": null,
            "message": { "role": "assistant", "content": text, "refusal": null },
        }],
        "usage": {
            "prompt_tokens": 250, "completion_tokens": 312, "total_tokens": 562,
            "prompt_tokens_details": { "cached_tokens": 0 }, "completion_tokens_details": { "reasoning_tokens": 0 },
        },
    });
    read(vec![Bytes::from(reply.to_string())], "application/json")
}

fn stream_read() -> Box<dyn FnMut()> {
    const CHUNK: &str = r#""id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_bench""#;
    let chunk = |rest: &str| Bytes::from(format!("data: {{{CHUNK},{rest}}}\n\n"));
    let delta =
        r#""choices":[{"index":0,"delta":{"content":" weir"},"logprobs":null,"finish_reason":null}],"usage":null"#;
    let mut chunks = vec![chunk(delta); 100];
    chunks.push(chunk(r#""choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null"#));
    chunks.push(chunk(
        r#""choices":[],"usage":{"prompt_tokens":250,"completion_tokens":100,"total_tokens":350,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}"#,
    ));
    chunks.push(Bytes::from_static(b"data: [DONE]\n\n"));
    read(chunks, "text/event-stream")
}

/// A reply of these chunks, from its head to its end.
fn read(chunks: Vec<Bytes>, content_type: &'static str) -> Box<dyn FnMut()> {
    const MAX_BYTES: usize = 8 << 20;
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    Box::new(move || {
        let mut reader = Reader::open(Endpoint::ChatCompletions, StatusCode::OK, &headers, MAX_BYTES);
        for chunk in &chunks {
            reader.push(black_box(chunk), &mut |_, _| {});
        }
        let said = reader.finish();
        assert!(said.usage.is_some(), "the reply says what was used");
        black_box(said);
    })
}

fn priced() -> Box<dyn FnMut()> {
    let prices = Prices::load(&price::Settings::default(), Vec::new()).expect("the table that is built in");
    let source = Source::Id("openai".into());
    let usage = Usage::cache_inside(Some(250), Some(312), &[]);
    Box::new(move || {
        drop(black_box(prices.price(black_box(&price::Question {
            source: &source,
            response_model: Some("gpt-4o-mini-2024-07-18"),
            request_model: Some("gpt-4o-mini"),
            usage: Some(&usage),
            context: &[],
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        }))));
    })
}

/// The metrics of an app that has called a while, by twenty agents.
fn usual() -> Metrics {
    let metrics = metrics(&Settings::default());
    for number in 0..200 {
        let mut record = answered(["gpt-5", "gpt-5-mini", "claude-opus-4"][number % 3]);
        record.call.caller.agent = Some(format!("agent-{}", number % 20).into());
        metrics.opened("openai");
        metrics.closed(&record);
    }
    metrics
}

fn counted() -> Box<dyn FnMut()> {
    let (metrics, record) = (usual(), answered("gpt-5-mini"));
    Box::new(move || {
        metrics.opened("openai");
        metrics.closed(black_box(&record));
    })
}

#[cfg(feature = "ledger")]
fn entered() -> Box<dyn FnMut()> {
    let record = answered("gpt-5-mini");
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    Box::new(move || drop(black_box(Entry::of(black_box(&record), now))))
}

fn scraped() -> Box<dyn FnMut()> {
    let metrics = usual();
    Box::new(move || drop(black_box(metrics.encode(None))))
}
