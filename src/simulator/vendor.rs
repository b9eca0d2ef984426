//! Vendor: the habits of those who offer OpenAI's API as their own: where their usage stands, what they count beside,
//! and what they say they charge.
//!
//! A habit is taken on by calling a path below the vendor's name. Knows that wire format and nothing of time or faults.

use serde_json::{Value, json};

use super::bill::Tally;
use super::reply::{Event, Part};

/// Whose habits a reply has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Vendor {
    /// `OpenAI`'s own, and those of vendors that have no others.
    #[default]
    Plain,
    Azure,
    DeepSeek,
    Fireworks,
    Groq,
    Mistral,
    OpenRouter,
    Perplexity,
    Xai,
}

/// Each vendor, by the first part of its paths, and what its own paths have before the API's.
pub(super) const VENDORS: &[(&str, Vendor, &str)] = &[
    ("azure", Vendor::Azure, "/openai"),
    ("cerebras", Vendor::Plain, ""),
    ("deepseek", Vendor::DeepSeek, ""),
    ("fireworks", Vendor::Fireworks, "/inference"),
    ("groq", Vendor::Groq, "/openai"),
    ("huggingface", Vendor::Plain, ""),
    ("mistral", Vendor::Mistral, ""),
    ("moonshot", Vendor::Plain, ""),
    ("openrouter", Vendor::OpenRouter, "/api"),
    ("perplexity", Vendor::Perplexity, ""),
    ("together", Vendor::Plain, ""),
    ("xai", Vendor::Xai, ""),
];

impl Vendor {
    /// A usage object as this vendor words it. Vendors that say what they charge take a millionth of a dollar a token.
    pub(super) fn usage(self, mut usage: Value, tokens: Tally) -> Value {
        let micros = tokens.input + tokens.output;
        let dollars = || -> Value {
            let amount = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
            serde_json::from_str(&amount).expect("digits and a point are a number")
        };
        match self {
            Self::DeepSeek => {
                usage["prompt_cache_hit_tokens"] = tokens.cached.into();
                usage["prompt_cache_miss_tokens"] = (tokens.input - tokens.cached).into();
            }
            Self::Groq => usage["queue_time"] = json!(0.25),
            Self::OpenRouter => {
                usage["cost"] = dollars();
                usage["is_byok"] = false.into();
            }
            Self::Perplexity => usage["cost"] = json!({"total_cost": dollars()}),
            Self::Xai => {
                usage["completion_tokens"] = (tokens.output - tokens.reasoning).into();
                usage["cost_in_usd_ticks"] = (micros * 10_000).into();
            }
            Self::Plain | Self::Azure | Self::Fireworks | Self::Mistral => {}
        }
        usage
    }

    /// What a stream begins with before its own first chunk.
    pub(super) fn opening(self) -> Option<Event> {
        let comment = |text: &'static [u8]| Event { part: Part::Frame, bytes: text.into() };
        match self {
            Self::Azure => {
                let results = json!([{"prompt_index": 0, "content_filter_results": {}}]);
                let chunk = json!({"id": "", "object": "", "created": 0, "model": "", "choices": [],
                    "prompt_filter_results": results});
                Some(Event::plain(Part::Frame, &chunk))
            }
            Self::DeepSeek => Some(comment(b": keep-alive\n\n")),
            Self::OpenRouter => Some(comment(b": OPENROUTER PROCESSING\n\n")),
            _ => None,
        }
    }

    /// Puts into a chunk what the vendor says there unasked: on the last one, with the finish reason, or on each.
    pub(super) fn dress(self, chunk: &mut Value, is_last: bool, usage: &Value) {
        match self {
            Self::Groq if is_last => chunk["x_groq"] = json!({"id": "req_simulator", "usage": usage}),
            Self::DeepSeek | Self::Fireworks | Self::Mistral | Self::OpenRouter if is_last => {
                chunk["usage"] = usage.clone();
            }
            Self::Perplexity => chunk["usage"] = usage.clone(),
            _ => {}
        }
    }

    /// What comes before a whole reply.
    pub(super) const fn lead(self) -> &'static str {
        // A busy server keeps the connection with blank lines.
        if matches!(self, Self::DeepSeek) { "\n\n" } else { "" }
    }
}
