//! News: what a running weir says of what is going on, as far as it is shown. Knows the events of `GET /api/v1/live`.
//!
//! What a later weir says besides is left alone; what an earlier one does not say is absent.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::frames::Event;
use crate::units::PicoUsd;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum News {
    /// weir answers.
    Connected,
    /// A call is over: the same as it came, and as it is understood.
    Call(Box<str>, Box<Call>),
    /// How weir does.
    Gauges(Box<Gauges>),
    /// So many calls were lost on the way.
    Lost(u64),
    /// weir does not answer, or no longer; in words.
    Away(String),
}

/// A call that is over.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Call {
    pub(super) timestamp: String,
    pub(super) provider: String,
    pub(super) model: Option<String>,
    pub(super) agent_id: Option<String>,
    pub(super) user_id: Option<String>,
    pub(super) outcome: String,
    pub(super) error_type: Option<String>,
    pub(super) cache: String,
    /// Where the answer was there already: then nothing was used.
    pub(super) reuse: Option<String>,
    pub(super) total_tokens: Option<u64>,
    #[serde(deserialize_with = "usd")]
    pub(super) cost_usd: Option<PicoUsd>,
    pub(super) unpriced: Option<String>,
    pub(super) latency_ms: f64,
}

impl Call {
    /// What was used; `None` where it is not known, nothing where the answer was there already.
    pub(super) fn tokens(&self) -> Option<u64> {
        if self.reuse.is_some() { Some(0) } else { self.total_tokens }
    }
}

/// How weir does.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Gauges {
    pub(super) calls_in_progress: u64,
    pub(super) last_second: Second,
    pub(super) last_minute: Minute,
    pub(super) since_start: SinceStart,
    pub(super) process: Process,
    pub(super) budgets: Vec<Budget>,
}

/// The last whole second.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Second {
    pub(super) calls: u64,
    #[serde(deserialize_with = "usd")]
    pub(super) cost_usd: Option<PicoUsd>,
}

/// The last minute.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Minute {
    pub(super) unpriced_calls: u64,
    pub(super) calls_per_second: Option<f64>,
    pub(super) tokens_per_second: Option<f64>,
    pub(super) cost_usd_per_second: Option<f64>,
    pub(super) error_rate: Option<f64>,
    pub(super) cache_hit_rate: Option<f64>,
    pub(super) latency_p50_ms: Option<f64>,
    pub(super) latency_p95_ms: Option<f64>,
}

/// Since weir started.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct SinceStart {
    pub(super) cost_usd: Option<f64>,
}

/// What weir uses of the machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Process {
    pub(super) cpu_cores: Option<f64>,
    pub(super) resident_memory_bytes: Option<u64>,
}

/// How a budget stands.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Budget {
    pub(super) name: String,
    pub(super) subject: Option<String>,
    pub(super) state: String,
    #[serde(deserialize_with = "usd")]
    pub(super) limit_usd: Option<PicoUsd>,
    #[serde(deserialize_with = "usd")]
    pub(super) spent_usd: Option<PicoUsd>,
    pub(super) limit_tokens: Option<u64>,
    pub(super) spent_tokens: u64,
    pub(super) used_percentage: f64,
}

impl News {
    /// What an event says; `None` if it is one that is not known here, or is not understood.
    pub(super) fn of(event: &Event<'_>) -> Option<Self> {
        #[derive(Deserialize)]
        struct Lost {
            calls: u64,
        }
        match event.name {
            "call" => {
                let call = serde_json::from_slice(event.data).ok()?;
                Some(Self::Call(str::from_utf8(event.data).ok()?.into(), Box::new(call)))
            }
            "gauges" => Some(Self::Gauges(Box::new(serde_json::from_slice(event.data).ok()?))),
            "lost" => Some(Self::Lost(serde_json::from_slice::<Lost>(event.data).ok()?.calls)),
            _ => None,
        }
    }
}

/// An amount with every digit that was written.
fn usd<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PicoUsd>, D::Error> {
    let number = Option::<Box<RawValue>>::deserialize(deserializer)?;
    Ok(number.and_then(|number| PicoUsd::of_usd(number.get())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(name: &str, data: &str) -> Option<News> {
        News::of(&Event { name, data: data.as_bytes(), span: 0..0 })
    }

    #[test]
    fn what_is_known_is_read_and_what_is_not_is_left_alone() {
        let data = r#"{"provider":"openai","model":null,"cost_usd":0.000001000001,"latency_ms":1.5,"new":[1]}"#;
        let Some(News::Call(whole, call)) = news("call", data) else { panic!("a call") };
        assert_eq!((&*whole, call.cost_usd, &call.model), (data, Some(PicoUsd::new(1_000_001)), &None));
        assert_eq!(news("lost", r#"{"calls":7}"#), Some(News::Lost(7)));
        let Some(News::Gauges(gauges)) = news("gauges", r#"{"last_minute":{"error_rate":null}}"#) else { panic!() };
        assert_eq!(*gauges, Gauges::default());
        for (name, data) in [("call", "{"), ("call", "7"), ("lost", "{}"), ("weather", "{}"), ("", "")] {
            assert_eq!(news(name, data), None, "{name} {data}");
        }
    }

    #[test]
    fn what_was_there_already_used_nothing_and_what_is_not_known_is_not_nothing() {
        let call = Call { total_tokens: Some(5), reuse: Some("cache".to_owned()), ..Call::default() };
        assert_eq!((call.tokens(), Call::default().tokens()), (Some(0), None));
    }
}
