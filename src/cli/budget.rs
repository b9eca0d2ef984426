//! `weir budget`: how the budgets of a running weir stand, the month's limit, and calls that pass for a while.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::cli::admin::Asking;
use crate::cli::limits::whose;
use crate::cli::table::{columns, plain, show};
use crate::units::{PicoUsd, Span};

const BUDGETS: &str = "/api/v1/budgets";
const MONTHLY: &str = "/api/v1/cost/budget";

/// What was asked: without a subcommand, how all of them stand.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    asking: Asking,
}

/// What may follow `weir budget`.
#[derive(Debug, Subcommand)]
enum Command {
    /// Show one budget, and who has spent most of it
    Show(Show),
    /// Give the budget of all calls for a month another limit, over the configured one
    Set(Set),
    /// Give the budget of all calls for a month the configured limit again
    Unset(Asking),
    /// Let calls pass for a while although a budget is spent, or no longer
    Override(Override),
}

/// Which budget to show.
#[derive(Debug, Args)]
struct Show {
    /// The budget's name
    name: String,
    /// Most subjects shown
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    subjects: u8,
    #[command(flatten)]
    asking: Asking,
}

/// The month's limit.
#[derive(Debug, Args)]
struct Set {
    /// The limit, in US dollars
    usd: PicoUsd,
    /// At how many percent of it to begin to tell; without this, as before
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    threshold: Option<u8>,
    #[command(flatten)]
    asking: Asking,
}

/// For how long, up to how much, and why.
#[derive(Debug, Args)]
struct Override {
    /// The budget's name
    name: String,
    /// How long calls may pass, such as 2h: 31 days at most
    #[arg(long = "for", value_name = "DURATION", required_unless_present_any = ["until", "end"])]
    span: Option<Span>,
    /// Until when calls may pass, such as 2026-11-30T18:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "span")]
    until: Option<String>,
    /// Let calls pass only up to this, in US dollars
    #[arg(long, value_name = "USD")]
    limit_usd: Option<PicoUsd>,
    /// Why: it stands in the audit log
    #[arg(long, value_name = "TEXT", required_unless_present = "end")]
    reason: Option<String>,
    /// End it now
    #[arg(long, conflicts_with_all = ["span", "until", "limit_usd", "reason"])]
    end: bool,
    #[command(flatten)]
    asking: Asking,
}

/// Asks the running weir.
///
/// # Errors
/// If it does not answer, or says no.
pub fn run(Arguments { command, asking }: &Arguments) -> anyhow::Result<ExitCode> {
    match command {
        None => show(asking.json, &asking.admin.get(BUDGETS)?, list),
        Some(Command::Show(Show { name, subjects, asking })) => {
            let answer = asking.admin.get(&format!("{BUDGETS}?subjects={subjects}&name={}", in_url(name)))?;
            show(asking.json, &answer["budgets"][0], details)
        }
        Some(Command::Set(Set { usd, threshold, asking })) => {
            let change = json!({ "monthly_limit_usd": usd, "alert_threshold_percentage": threshold });
            show(asking.json, &asking.admin.put(MONTHLY, &change)?, month)
        }
        Some(Command::Unset(asking)) => show(asking.json, &asking.admin.delete(MONTHLY)?, month),
        Some(Command::Override(wanted)) => overridden(wanted),
    }
}

fn overridden(Override { name, span, until, limit_usd, reason, end, asking }: &Override) -> anyhow::Result<ExitCode> {
    let path = format!("{BUDGETS}/{}/override", in_url(name));
    let answer = if *end {
        asking.admin.delete(&path)?
    } else {
        let span = span.map(|span| span.to_string());
        let wanted = json!({ "for": span, "until": until, "limit_usd": limit_usd, "reason": reason });
        asking.admin.post(&path, &wanted)?
    };
    show(asking.json, &answer, details)
}

fn in_url(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// A row for each.
fn list(answer: &Value) -> String {
    let budgets = answer["budgets"].as_array().map(Vec::as_slice).unwrap_or_default();
    if budgets.is_empty() {
        return "no budgets: `weir budget set 1500` makes one for the month, `budgets` in the configuration has others\n"
            .to_owned();
    }
    let row = |budget: &Value| {
        let whose = match budget["subjects"].as_u64() {
            Some(count) if count > 1 => format!("{}, first of {count}", whose(budget, budget)),
            _ => whose(budget, budget),
        };
        [
            plain(&budget["name"]),
            plain(&budget["window"]),
            whose,
            amount(budget, budget, "spent"),
            amount(budget, budget, "limit"),
            percent(&budget["used_percentage"]),
            until(&budget["period"]),
            state(budget),
        ]
    };
    let rows: Vec<_> = budgets.iter().map(row).collect();
    columns(["budget", "window", "whose", "spent", "of", "used", "until", "state"], &rows)
}

/// All there is to say of one.
fn details(budget: &Value) -> String {
    let period = format!(
        "{} from {} to {}",
        plain(&budget["window"]),
        plain(&budget["period"]["start"]),
        until(&budget["period"])
    );
    let mut rows = vec![
        ("budget", plain(&budget["name"])),
        ("state", state(budget)),
        ("window", format!("{period}, {}", plain(&budget["time_zone"]))),
        ("counted since", plain(&budget["counted_since"])),
        ("limit", format!("{}, by {}", amount(budget, budget, "limit"), source(&budget["source"]))),
        (
            "spent",
            format!(
                "{}, {}, by {}",
                amount(budget, budget, "spent"),
                percent(&budget["used_percentage"]),
                whose(budget, budget)
            ),
        ),
        ("reserved", amount(budget, budget, "reserved")),
        ("thresholds", format!("{} %", list_of(&budget["thresholds"]))),
        ("enforce", plain(&budget["enforce"])),
        ("blocked", format!("{} calls", budget["blocked_calls"])),
    ];
    if let Some(because) = budget["override"]["reason"].as_str() {
        rows.push(("override", plain(&because.into())));
    }
    let rows: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<14} {value}\n")).collect();
    let text = rows.concat();
    let foremost = budget["foremost"].as_array().map(Vec::as_slice).unwrap_or_default();
    if foremost.is_empty() {
        return text;
    }
    // What it allows is the same for each.
    let row = |subject: &Value| {
        let spent = amount(subject, budget, "spent");
        [whose(budget, subject), spent, amount(subject, budget, "reserved"), percent(&subject["used_percentage"])]
    };
    let rows: Vec<_> = foremost.iter().map(row).collect();
    format!("{text}\n{}", columns(["whose", "spent", "reserved", "used"], &rows))
}

/// The month's limit, after a change.
fn month(month: &Value) -> String {
    if month["monthly_limit_usd"].is_null() {
        return format!("{} has no limit of money: none is configured\n", plain(&month["name"]));
    }
    let told = match &month["alert_threshold_percentage"] {
        Value::Null => String::new(),
        threshold => format!(", told from {threshold} % on"),
    };
    format!(
        "{}: {} USD a month by {}{told}; {} USD spent, {}. On this instance, `enforce: {}`\n",
        plain(&month["name"]),
        month["monthly_limit_usd"],
        source(&month["source"]),
        month["current_spend_usd"],
        percent(&month["used_percentage"]),
        plain(&month["enforce"]),
    )
}

fn source(source: &Value) -> &'static str {
    if source == "api" { "an operator's change" } else { "the configuration" }
}

/// Of what the budget is about: money, tokens, or both.
fn amount(subject: &Value, budget: &Value, what: &str) -> String {
    let about = |unit: &str| !budget[format!("limit_{unit}")].is_null();
    let usd = about("usd").then(|| format!("{} USD", plain(&subject[format!("{what}_usd")])));
    let tokens = about("tokens").then(|| format!("{} tokens", subject[format!("{what}_tokens")]));
    usd.into_iter().chain(tokens).collect::<Vec<_>>().join(", ")
}

fn until(period: &Value) -> String {
    period["end"].as_str().map_or_else(|| "for ever".to_owned(), str::to_owned)
}

fn percent(percent: &Value) -> String {
    percent.as_f64().map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1} %"))
}

fn list_of(values: &Value) -> String {
    let values = values.as_array().map(Vec::as_slice).unwrap_or_default();
    values.iter().map(plain).collect::<Vec<_>>().join(", ")
}

/// What it means for the next call.
fn state(budget: &Value) -> String {
    match (budget["state"].as_str().unwrap_or_default(), budget["enforce"].as_str().unwrap_or_default()) {
        ("overridden", _) => {
            let Value::Object(held) = &budget["override"] else { return "overridden".to_owned() };
            let up_to = held["limit_usd"].as_str().map(|usd| format!(" up to {usd} USD")).unwrap_or_default();
            format!("calls pass{up_to} until {}", plain(&held["until"]))
        }
        ("spent", "block") => "spent: calls are refused".to_owned(),
        ("spent", "downgrade") => format!("spent: calls go to {}", plain(&budget["downgrade_to"])),
        ("over_threshold", _) => "over a threshold".to_owned(),
        (other, _) => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(more: Value) -> Value {
        let mut budget = json!({
            "name": "app", "per": null, "window": "month", "time_zone": "UTC",
            "period": { "start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z" },
            "counted_since": "2026-11-01T00:00:00Z", "limit_usd": "1000", "limit_tokens": null, "source": "config",
            "thresholds": [50, 100], "enforce": "block", "downgrade_to": null, "override": null, "state": "within",
            "blocked_calls": 0, "subjects": 1, "subject": null, "spent_usd": "12.5", "spent_tokens": 700,
            "reserved_usd": "0", "reserved_tokens": 0, "used_percentage": 1.25, "foremost": [],
        });
        let Value::Object(more) = more else { return budget };
        budget.as_object_mut().expect("members").extend(more);
        budget
    }

    #[test]
    fn every_budget_has_a_row() {
        let users = json!({
            "name": "users", "per": "user", "window": "total", "period": { "start": "1970-01-01T00:00:00Z", "end": null },
            "limit_tokens": 500, "subjects": 3, "subject": "user=ann", "state": "spent", "used_percentage": 140.0,
        });
        let answer = json!({ "budgets": [budget(Value::Null), budget(users)] });
        assert_eq!(
            list(&answer),
            "budget  window  whose                 spent                 of                    used     until                 state\n\
             app     month   all                   12.5 USD              1000 USD              1.2 %    2026-12-01T00:00:00Z  within\n\
             users   total   user=ann, first of 3  12.5 USD, 700 tokens  1000 USD, 500 tokens  140.0 %  for ever              spent: calls are refused\n"
        );
        assert!(list(&json!({ "budgets": [] })).starts_with("no budgets: "));
    }

    #[test]
    fn one_is_shown_with_those_who_spend_most() {
        let ann = json!({ "subject": "user=ann", "spent_usd": "12.5", "reserved_usd": "0.1", "used_percentage": 1.25 });
        let held = json!({ "until": "2026-11-30T00:00:00Z", "limit_usd": "1500", "reason": "launch" });
        let shown = details(&budget(json!({
            "per": "user", "subject": "user=ann", "foremost": [ann], "override": held, "state": "overridden",
        })));
        assert_eq!(
            shown,
            "budget         app\n\
             state          calls pass up to 1500 USD until 2026-11-30T00:00:00Z\n\
             window         month from 2026-11-01T00:00:00Z to 2026-12-01T00:00:00Z, UTC\n\
             counted since  2026-11-01T00:00:00Z\n\
             limit          1000 USD, by the configuration\n\
             spent          12.5 USD, 1.2 %, by user=ann\n\
             reserved       0 USD\n\
             thresholds     50, 100 %\n\
             enforce        block\n\
             blocked        0 calls\n\
             override       launch\n\
             \n\
             whose     spent     reserved  used\n\
             user=ann  12.5 USD  0.1 USD   1.2 %\n"
        );
    }

    #[test]
    fn what_the_next_call_meets_is_said() {
        let held = |limit: Value| json!({ "until": "2026-11-30T00:00:00Z", "limit_usd": limit, "reason": "launch" });
        for (more, expected) in [
            (json!({ "state": "within" }), "within"),
            (json!({ "state": "over_threshold" }), "over a threshold"),
            (json!({ "state": "spent", "enforce": "alert" }), "spent"),
            (json!({ "state": "spent", "enforce": "downgrade", "downgrade_to": "small" }), "spent: calls go to small"),
            (json!({ "state": "overridden", "override": held(Value::Null) }), "calls pass until 2026-11-30T00:00:00Z"),
            (
                json!({ "state": "overridden", "override": held("9.5".into()) }),
                "calls pass up to 9.5 USD until 2026-11-30T00:00:00Z",
            ),
        ] {
            assert_eq!(state(&budget(more)), expected);
        }
    }

    #[test]
    fn a_change_of_the_month_is_said() {
        let mut changed = json!({
            "name": "monthly", "monthly_limit_usd": 1500, "alert_threshold_percentage": 80, "current_spend_usd": 12.5,
            "used_percentage": 0.83, "enforce": "alert", "source": "api",
        });
        assert_eq!(
            month(&changed),
            "monthly: 1500 USD a month by an operator's change, told from 80 % on; 12.5 USD spent, 0.8 %. On this \
             instance, `enforce: alert`\n"
        );
        changed["monthly_limit_usd"] = Value::Null;
        assert_eq!(month(&changed), "monthly has no limit of money: none is configured\n");
    }
}
