//! `weir limits`: how the limits of rate of a running weir stand.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::cli::admin::Asking;
use crate::cli::table::{columns, plain, show};

/// How to ask, and how to show the answer.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Most subjects shown of each limit
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    subjects: u8,
    #[command(flatten)]
    asking: Asking,
}

/// Asks the running weir.
///
/// # Errors
/// If it does not answer, or says no.
pub fn run(Arguments { subjects, asking }: &Arguments) -> anyhow::Result<ExitCode> {
    show(asking.json, &asking.admin.get(&format!("/api/v1/limits?subjects={subjects}"))?, limits)
}

/// A row for each rate of each subject, the fullest first.
fn limits(answer: &Value) -> String {
    let none = Vec::new();
    let of = |value: &Value| value.as_array().unwrap_or(&none).clone();
    let mut rows = Vec::new();
    for limit in of(&answer["limits"]) {
        let fullest = of(&limit["fullest"]);
        let each = if fullest.is_empty() { std::slice::from_ref(&limit) } else { &fullest };
        for subject in each {
            let whose = whose(&limit, subject);
            let rates = of(&subject["rates"]);
            rows.extend(rates.iter().map(|rate| {
                let left = format!("{} of {}", rate["remaining"], rate["limit"]);
                [
                    plain(&limit["name"]),
                    whose.clone(),
                    left,
                    unit(rate),
                    free_in(rate),
                    plain(&limit["decisions"]["rejected"]),
                ]
            }));
        }
    }
    if rows.is_empty() {
        return "no limits: `limits` in the configuration has them\n".to_owned();
    }
    columns(["limit", "whose", "left", "what", "all free in", "refused"], &rows)
}

/// Whose standing it is, of a limit or of a budget.
pub(super) fn whose(rule: &Value, subject: &Value) -> String {
    match (&subject["subject"], &rule["per"]) {
        (Value::Null, Value::Null) => "all".to_owned(),
        (Value::Null, per) => format!("each {}", plain(per)),
        (subject, _) => plain(subject),
    }
}

fn unit(rate: &Value) -> String {
    match rate["period_seconds"].as_u64() {
        Some(period) => format!("{} in {}", plain(&rate["unit"]), span(period)),
        None => plain(&rate["unit"]),
    }
}

fn free_in(rate: &Value) -> String {
    rate["reset_seconds"].as_u64().map_or_else(|| "-".to_owned(), span)
}

fn span(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_rate_has_a_row() {
        let rate = |unit: &str, period: Option<u64>, left: u64, reset: Option<u64>| json!({ "unit": unit, "limit": 60, "period_seconds": period, "remaining": left, "reset_seconds": reset });
        let requests = rate("requests", Some(60), 24, Some(36));
        let answer = json!({ "limits": [
            { "name": "agents", "per": "agent", "decisions": { "rejected": 7 }, "subject": "agent=a", "rates": [requests],
              "fullest": [{ "subject": "agent=a", "rates": [requests, rate("concurrent calls", None, 60, None)] }] },
            { "name": "users", "per": "user", "decisions": { "rejected": 0 }, "subject": null, "fullest": [],
              "rates": [rate("tokens", Some(86_400), 60, Some(0))] },
            { "name": "all", "per": null, "decisions": { "rejected": 0 }, "subject": null, "fullest": [],
              "rates": [rate("tokens", Some(3600), 60, Some(0))] },
        ]});
        assert_eq!(
            limits(&answer),
            "limit   whose      left      what              all free in  refused\n\
             agents  agent=a    24 of 60  requests in 1m    36s          7\n\
             agents  agent=a    60 of 60  concurrent calls  -            7\n\
             users   each user  60 of 60  tokens in 1day    0s           0\n\
             all     all        60 of 60  tokens in 1h      0s           0\n"
        );
        assert_eq!(limits(&json!({ "limits": [] })), "no limits: `limits` in the configuration has them\n");
    }
}
