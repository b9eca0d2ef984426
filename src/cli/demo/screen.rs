//! Screen: the figures as they are now, drawn over themselves on a terminal of at least 80 × 24, or as lines where there
//! is no terminal.
//!
//! Knows ANSI's words for moving and erasing; not where figures come from.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::figures::{Agent, Figures, Latency, Model, Money};
use crate::cli::wording::{Paint, agent_name, clock, count, money, percent, seconds};

/// Columns that are drawn on.
const WIDTH: usize = 80;
/// Rows of the tables of models and agents.
const TABLE_ROWS: usize = 6;
/// Errors told apart, on two rows.
const MOST_ERRORS: usize = 4;

/// To another screen, which leaves what was there untouched; no cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// Back: long lines wrap, the cursor is seen, and the screen is the one that was there before.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Begins a frame: shown at once when it ends; from the top, on an empty screen; lines are cut, not wrapped.
const BEGIN: &str = "\x1b[?2026h\x1b[H\x1b[J\x1b[?7l";
/// From here on, long lines wrap, so that they can be copied.
const WRAP: &str = "\x1b[?7h";
/// Ends a frame.
const END: &str = "\x1b[?2026l";

/// Where weir is, for those who want to try it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) app: SocketAddr,
    pub(super) admin: SocketAddr,
    /// The usual addresses that were taken, if any.
    pub(super) taken: Vec<SocketAddr>,
}

impl Place {
    /// What can be typed in another terminal, as it is.
    pub(super) fn commands(&self) -> [String; 5] {
        let Self { app, admin, .. } = self;
        let question = r#""messages":[{"role":"user","content":"Hi"}]"#;
        [
            format!(
                "curl -i http://{app}/openai/v1/chat/completions -H 'Authorization: Bearer x' \
                 -d '{{\"model\":\"gpt-5-mini\",{question}}}'"
            ),
            format!(
                "curl -i http://{app}/anthropic/v1/messages -H 'x-api-key: x' -H 'anthropic-version: 2023-06-01' \
                 -d '{{\"model\":\"claude-haiku-5-5\",\"max_tokens\":99,{question}}}'"
            ),
            format!("export OPENAI_BASE_URL=http://{app}/openai/v1 OPENAI_API_KEY=x"),
            format!("export ANTHROPIC_BASE_URL=http://{app}/anthropic ANTHROPIC_API_KEY=x"),
            format!("curl http://{admin}/metrics"),
        ]
    }

    /// Which of the usual ports were taken, in words.
    pub(super) fn taken(&self) -> Option<String> {
        match self.taken.as_slice() {
            [] => None,
            [one] => Some(format!("port {} is taken: another is used", one.port())),
            [one, other, ..] => Some(format!("ports {}, {} are taken: others used", one.port(), other.port())),
        }
    }
}

/// What is shown at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now<'a> {
    pub(super) figures: &'a Figures,
    pub(super) begun: Instant,
    /// Calls per second, lately.
    pub(super) rate: f64,
}

/// Where the figures are shown.
#[derive(Debug)]
pub(super) enum Display {
    /// A terminal, drawn on again and again. It is as it was before once this is dropped.
    Terminal(Terminal),
    /// A file or a pipe: a line now and then.
    Lines,
}

impl Display {
    /// What standard output is.
    pub(super) fn open(place: &Place) -> io::Result<Self> {
        let mut output = io::stdout();
        let dumb = std::env::var_os("TERM").is_none_or(|name| name == "dumb");
        if output.is_terminal() && !dumb {
            let terminal = Terminal { place: place.clone(), paint: Paint::wanted() };
            write!(output, "{ENTER}")?;
            return Ok(Self::Terminal(terminal));
        }
        writeln!(output, "weir demo: weir, a simulated provider and some traffic; no key, no network")?;
        if let Some(taken) = place.taken() {
            writeln!(output, "{taken}")?;
        }
        writeln!(output, "try it in another terminal, twice: the second answer comes from the cache")?;
        for command in place.commands() {
            writeln!(output, "  {command}")?;
        }
        writeln!(output)?;
        Ok(Self::Lines)
    }

    /// How often there is something to show.
    pub(super) const fn every(&self) -> Duration {
        match self {
            Self::Terminal(_) => Duration::from_millis(500),
            Self::Lines => Duration::from_secs(2),
        }
    }

    pub(super) fn show(&self, now: Now<'_>) -> io::Result<()> {
        let mut output = io::stdout().lock();
        match self {
            Self::Terminal(terminal) => write!(output, "{BEGIN}{}{END}", terminal.frame(now))?,
            Self::Lines => writeln!(output, "{}", line(now))?,
        }
        output.flush()
    }
}

/// A terminal that is drawn on.
#[derive(Debug)]
pub(super) struct Terminal {
    place: Place,
    paint: Paint,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut output = io::stdout();
        // If the terminal is gone, there is nothing to restore.
        let _ = output.write_all(LEAVE.as_bytes()).and_then(|()| output.flush());
    }
}

impl Terminal {
    /// 24 rows of 80 columns, if addresses are as long as they usually are.
    fn frame(&self, now: Now<'_>) -> String {
        let Self { place, paint } = self;
        let figures = now.figures;
        let mut rows = vec![title(now, *paint), headline(now, *paint), bar(figures, *paint), String::new()];
        rows.extend(latency(figures, *paint));
        rows.push(String::new());
        rows.extend(tables(figures, *paint));
        let hint = place.taken().unwrap_or_else(|| "the second answer comes from the cache".to_owned());
        let rule = format!("── try it in another terminal, twice ── {hint} ");
        rows.push(paint.faint(&format!("{rule:─<WIDTH$}")));
        format!("{}\n{WRAP}{}", rows.join("\n"), place.commands().join("\n"))
    }
}

fn title(now: Now<'_>, paint: Paint) -> String {
    let (left, right) = (" weir demo · simulated provider, no key, no network", "Ctrl-C ends ");
    let right = format!("{} · {right}", clock(now.begun));
    paint.bar(&format!("{left}{right:>width$}", width = WIDTH - left.chars().count()))
}

fn headline(now: Now<'_>, paint: Paint) -> String {
    let Figures { money: Money { spent, saved }, calls, .. } = now.figures;
    format!(
        "{} spent   {} saved   {} answered from the cache   {} calls/s",
        paint.spent(&format!("█ {}", money(*spent))),
        paint.saved(&format!("░ {}", money(*saved))),
        paint.strong(&percent(calls.hit_rate())),
        paint.strong(&format!("{:.1}", now.rate)),
    )
}

/// What was spent and what was saved, side by side.
fn bar(figures: &Figures, paint: Paint) -> String {
    let Some(share) = figures.money.saved_share() else { return paint.faint(&"·".repeat(WIDTH)) };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of the bar's length fits"
    )]
    let saved = ((share * WIDTH as f64).round() as usize).min(WIDTH);
    format!("{}{}", paint.spent(&"█".repeat(WIDTH - saved)), paint.saved(&"░".repeat(saved)))
}

fn latency(figures: &Figures, paint: Paint) -> [String; 3] {
    let Figures { from_provider, from_cache, first_token, errors, calls, .. } = figures;
    let columns = [from_provider, from_cache, first_token];
    let row = |name: &str, of: fn(&Latency) -> Option<f64>, errors: &[(String, u64)]| {
        let [provider, cache, token] = columns.map(|latency| seconds(of(latency)));
        let errors: Vec<_> = errors.iter().map(|(code, times)| format!("{code} × {}", count(*times))).collect();
        format!("{name:<9}{provider:>15}{cache:>13}{token:>14}      {}", paint.bad(&errors.join("   ")))
    };
    let head = format!(
        "{:<9}{:>15}{:>13}{:>14}      {} errors",
        "latency",
        "from provider",
        "from cache",
        "first token",
        count(calls.failed)
    );
    let (first, second) = errors[..errors.len().min(MOST_ERRORS)].split_at(errors.len().min(MOST_ERRORS / 2));
    [paint.faint(&head), row("p50", |latency| latency.p50, first), row("p95", |latency| latency.p95, second)]
}

/// Models on the left, agents on the right; always as many rows.
fn tables(figures: &Figures, paint: Paint) -> Vec<String> {
    let head = format!(
        "{:<22}{:>6}{:>5}{:>4}{:>8}{:>8}  {:<11}{:>6}{:>8}",
        "model", "calls", "hits", "err", "spent", "saved", "agent", "calls", "spent"
    );
    let mut rows = vec![paint.faint(&head)];
    for row in 0..TABLE_ROWS {
        let model = figures.models.get(row).map_or_else(|| " ".repeat(53), |model| of_model(model, paint));
        let agent = figures.agents.get(row).map_or_else(String::new, |agent| of_agent(agent, paint));
        rows.push(format!("{model}  {agent}"));
    }
    rows
}

fn of_model(model: &Model, paint: Paint) -> String {
    let Model { name, calls, money: amounts } = model;
    let (spent, saved) = (money(amounts.spent), money(amounts.saved));
    let failed = format!("{:>4}", count(calls.failed));
    format!(
        "{name:<22.22}{:>6}{:>5}{}{}{}",
        count(calls.all),
        percent(calls.hit_rate()).replace(' ', ""),
        if calls.failed > 0 { paint.bad(&failed) } else { paint.faint(&failed) },
        paint.spent(&format!("{spent:>8}")),
        paint.saved(&format!("{saved:>8}")),
    )
}

fn of_agent(agent: &Agent, paint: Paint) -> String {
    let spent = money(agent.spent);
    format!("{:<11.11}{:>6}{}", agent_name(&agent.name), count(agent.calls), paint.spent(&format!("{spent:>8}")))
}

/// Everything that matters in one line.
fn line(now: Now<'_>) -> String {
    let Figures { money: amounts, calls, from_provider, from_cache, first_token, .. } = now.figures;
    let mut line = format!(
        "{:>5}  spent {}  saved {}  hits {}  {:.1} calls/s",
        clock(now.begun),
        money(amounts.spent),
        money(amounts.saved),
        percent(calls.hit_rate()),
        now.rate
    );
    for (name, latency) in [("provider", from_provider), ("cache", from_cache), ("first token", first_token)] {
        write!(line, "  {name} {} / {}", seconds(latency.p50), seconds(latency.p95))
            .expect("text is written to memory");
    }
    write!(line, "  errors {}", calls.failed).expect("text is written to memory");
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::figures::Calls;

    fn figures() -> Figures {
        let calls = Calls { all: 123_456, hits: 80_000, looked_up: 120_000, failed: 4321 };
        let money = Money { spent: 412.345, saved: 1234.5 };
        let latency = Latency { p50: Some(0.6123), p95: Some(12.34) };
        let model = Model { name: "a-model-with-quite-a-long-name".to_owned(), calls, money };
        let agent = Agent { name: "an-agent-with-a-long-name".to_owned(), calls: 123_456, spent: 412.3 };
        Figures {
            calls,
            money,
            from_provider: latency,
            from_cache: latency,
            first_token: latency,
            errors: ["429", "500", "503", "529", "404"].map(|code| (code.to_owned(), 999)).into(),
            models: vec![model; 9],
            agents: vec![agent; 9],
            ..Figures::default()
        }
    }

    fn frame(figures: &Figures) -> String {
        let [app, admin] = [54_321, 54_322].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let taken = vec![SocketAddr::from(([127, 0, 0, 1], 9347)), SocketAddr::from(([127, 0, 0, 1], 9348))];
        let terminal = Terminal { place: Place { app, admin, taken }, paint: Paint::default() };
        let frame = terminal.frame(Now { figures, begun: Instant::now(), rate: 1000.0 });
        assert_eq!(frame.matches('\x1b').count(), 1, "no colours, but the word to wrap");
        frame
    }

    #[test]
    fn a_frame_fits_on_a_small_terminal() {
        for figures in [Figures::default(), figures()] {
            let frame = frame(&figures);
            let (drawn, commands) = frame.split_once(WRAP).expect("commands wrap");
            for row in drawn.lines() {
                assert!(row.chars().count() <= WIDTH, "{row}");
            }
            let wrapped: usize = commands.lines().map(|line| line.len().div_ceil(WIDTH)).sum();
            assert!(drawn.lines().count() + wrapped <= 24, "{frame}");
        }
    }

    #[test]
    fn a_line_says_what_matters() {
        let line = line(Now { figures: &figures(), begun: Instant::now(), rate: 20.0 });
        for part in
            ["spent $412.35", "saved $1234", "hits 67 %", "20.0 calls/s", "cache 612 ms / 12.34 s", "errors 4321"]
        {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
}
