//! Draw: the board on a screen of 80 × 24 or more. Knows widgets; not where figures come from.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table, Wrap};

use super::board::{Board, By, Link, Sort};
use super::news::{Budget, Call, Gauges};
use super::view::View;
use crate::cli::wording::{count, money, percent, seconds};
use crate::units::PicoUsd;

/// Most budgets shown: those that are used up most.
const BUDGETS: usize = 3;
/// How wide a budget's bar is.
const BAR: u8 = 20;
/// How wide the figures beside the sparklines are, and these.
const FIGURE: u16 = 20;
const SPARKLINE: u16 = 22;

/// What the keys do.
const HELP: [&str; 10] = [
    "q, ctrl-c   quit",
    "p, space    hold the picture; what happens meanwhile is counted",
    "tab         models, agents, users",
    "s           sort by cost, calls, tokens, p95, failed",
    "/           show only names that contain a text; esc shows all again",
    "?           this help",
    "",
    "The figures on top are weir's own, of the last minute. The tables count what was",
    "seen here since this began: not what was lost on the way. p95 is of the latest",
    "256 calls of a row. +? after a cost: some calls cost nobody knows what.",
];

/// How things are emphasised: with colours, or where none are wanted without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) has_colours: bool,
}

impl Look {
    fn colour(self, colour: Color) -> Style {
        if self.has_colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn bad(self) -> Style {
        self.colour(Color::Red)
    }

    fn spent(self) -> Style {
        self.colour(Color::Yellow)
    }
}

const fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

const fn strong() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// Draws what `view` looks at of `board`, which `source` tells.
pub(super) fn draw(frame: &mut Frame<'_>, board: &Board, view: &View, source: &str, look: Look) {
    let board = view.held.as_deref().unwrap_or(board);
    let budgets = board.gauges.as_ref().map_or(&[][..], |gauges| &gauges.budgets);
    let budgets = foremost(budgets);
    let heights = [1, 3, u16::try_from(budgets.len()).unwrap_or_default()].map(Constraint::Length);
    let rest = [Constraint::Fill(1), Constraint::Fill(1), Constraint::Length(1)];
    let [title, figures, bars, table, latest, keys] =
        Layout::vertical(heights.into_iter().chain(rest)).areas(frame.area());

    frame.render_widget(headline(board, source, look), title);
    match (&board.link, &board.gauges) {
        (Link::Away(why), _) => draw_away(frame, why, figures, look),
        (_, Some(gauges)) => draw_figures(frame, board, gauges, figures, look),
        (_, None) => {}
    }
    frame.render_widget(Paragraph::new(budgets.into_iter().map(|it| bar(it, look)).collect::<Vec<_>>()), bars);
    if view.shows_help {
        let lines: Vec<Line<'_>> = HELP.into_iter().map(Line::from).collect();
        let help = Paragraph::new(lines).wrap(Wrap { trim: false }).block(headed(" help ".to_owned()));
        frame.render_widget(help, table.union(latest));
    } else {
        draw_table(frame, board, view, table, look);
        draw_latest(frame, board, view, latest, look);
    }
    frame.render_widget(footer(view, look), keys);
}

fn headline(board: &Board, source: &str, look: Look) -> Line<'static> {
    let (link, style) = match &board.link {
        Link::Connecting => ("connecting", faint()),
        Link::Connected => ("connected", faint()),
        Link::Away(_) => ("away", look.bad()),
    };
    let lost = (board.lost > 0).then(|| Span::styled(format!("  {} calls lost", count(board.lost)), look.bad()));
    let spans = [Span::styled("weir top", strong()), Span::raw(format!("  {source}  ")), Span::styled(link, style)];
    spans.into_iter().chain(lost).collect()
}

fn draw_away(frame: &mut Frame<'_>, why: &str, area: Rect, look: Look) {
    let text = format!("weir cannot be reached; trying again every 2 s. {why}");
    frame.render_widget(Paragraph::new(text).style(look.bad()).wrap(Wrap { trim: true }), area);
}

fn draw_figures(frame: &mut Frame<'_>, board: &Board, gauges: &Gauges, area: Rect, look: Look) {
    let widths = [FIGURE, SPARKLINE, 2].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
    let [left, middle, _, right] = Layout::horizontal(widths).areas(area);
    let minute = &gauges.last_minute;
    let rate = |rate: Option<f64>| rate.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.1}"));
    let usd_per_minute = minute.cost_usd_per_second.map(|usd| usd * 60.0);
    let figure = |name: &str, value: String| Line::from(format!("{name:<9}{value:>9}"));
    let lines = vec![
        figure("calls/s", rate(minute.calls_per_second)),
        figure("per min", usd_per_minute.map_or_else(|| "–".to_owned(), money)).style(look.spent()),
        figure("tokens/s", rate(minute.tokens_per_second)),
    ];
    frame.render_widget(Paragraph::new(lines), left);

    let [calls, spending, process] = Layout::vertical([Constraint::Length(1); 3]).areas(middle);
    let latest = |of: &std::collections::VecDeque<u64>| -> Vec<u64> {
        of.iter().skip(of.len().saturating_sub(SPARKLINE.into())).copied().collect()
    };
    frame.render_widget(Sparkline::default().data(latest(&board.calls)), calls);
    frame.render_widget(Sparkline::default().data(latest(&board.spending)).style(look.spent()), spending);
    let cpu = gauges.process.cpu_cores.map_or_else(|| "–".to_owned(), |cores| format!("{:.0} %", cores * 100.0));
    let memory = gauges.process.resident_memory_bytes;
    let memory = memory.map_or_else(|| "–".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    frame.render_widget(Line::styled(format!("cpu {cpu}  {memory}"), faint()), process);

    let share = |share: Option<f64>| percent(share.map(|share| share * 100.0));
    let failing = minute.error_rate.is_some_and(|rate| rate > 0.0);
    let ms = |ms: Option<f64>| seconds(ms.map(|ms| ms / 1000.0));
    let unpriced =
        (minute.unpriced_calls > 0).then(|| Span::styled(format!("  {} unpriced", minute.unpriced_calls), look.bad()));
    let since = gauges.since_start.cost_usd.map_or_else(|| "–".to_owned(), money);
    let lines = vec![
        Line::from_iter([
            Span::raw(format!("running {}  ", gauges.calls_in_progress)),
            Span::styled(
                format!("errors {}", share(minute.error_rate)),
                if failing { look.bad() } else { Style::new() },
            ),
            Span::raw(format!("  cached {}", share(minute.cache_hit_rate))),
        ]),
        [Span::styled(format!("since start {since}"), look.spent())].into_iter().chain(unpriced).collect(),
        Line::from(format!("p50 {}  p95 {}", ms(minute.latency_p50_ms), ms(minute.latency_p95_ms))),
    ];
    frame.render_widget(Paragraph::new(lines), right);
}

/// The budgets that are used up most, the foremost first.
fn foremost(budgets: &[Budget]) -> Vec<&Budget> {
    let mut foremost: Vec<&Budget> = budgets.iter().collect();
    foremost.sort_by(|one, other| other.used_percentage.total_cmp(&one.used_percentage));
    foremost.truncate(BUDGETS);
    foremost
}

/// One budget: how much of it is used.
fn bar(budget: &Budget, look: Look) -> Line<'static> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between none and all of the bar")]
    let full = ((budget.used_percentage / 100.0).clamp(0.0, 1.0) * f64::from(BAR)) as u8;
    let (full, left) = ("█".repeat(full.into()), "░".repeat((BAR - full).into()));
    let usd = |usd: Option<PicoUsd>| money(usd.unwrap_or_default().to_usd_f64());
    let of = match (budget.limit_usd, budget.limit_tokens) {
        (None, Some(limit)) => format!("{} of {} tokens", count(budget.spent_tokens), count(limit)),
        (limit, _) => format!("{} of {}", usd(budget.spent_usd), usd(limit)),
    };
    let name = match &budget.subject {
        Some(subject) => format!("{} {subject}", budget.name),
        None => budget.name.clone(),
    };
    let style = match &*budget.state {
        "spent" => look.bad(),
        "over_threshold" => look.spent(),
        _ => Style::new(),
    };
    let state = budget.state.replace('_', " ");
    Line::from(vec![
        Span::raw(format!("{name:<16.16} ")),
        Span::styled(format!("{full}{left}"), style),
        Span::raw(format!(" {:>5.1} %  {of}  {state}", budget.used_percentage)),
    ])
}

fn draw_table(frame: &mut Frame<'_>, board: &Board, view: &View, area: Rect, look: Look) {
    let rows = board.rows(view.by, view.sort, &view.filter);
    let title = By::ALL.map(|by| if by == view.by { format!("[{}]", by.title()) } else { by.title().to_owned() });
    let heads = Sort::ALL.map(|sort| {
        let mark = if sort == view.sort { "▼" } else { "" };
        right(format!("{mark}{}", sort.title()))
    });
    let heads = Row::new([Cell::from("name")].into_iter().chain(heads)).style(strong());
    let rows = rows.into_iter().map(|row| {
        let mark = if row.unpriced > 0 { "+?" } else { "" };
        let cost = format!("{}{mark}", money(row.spent.to_usd_f64()));
        let took = seconds(row.p95_ms.map(|ms| ms / 1000.0));
        let cells = [cost, count(row.calls), count(row.tokens), took].map(right);
        let failed = right(count(row.failed)).style(if row.failed > 0 { look.bad() } else { Style::new() });
        Row::new([Cell::from(row.name)].into_iter().chain(cells).chain([failed]))
    });
    let widths = [9, 7, 7, 9, 7].map(Constraint::Length);
    let table = Table::new(rows, [Constraint::Fill(1)].into_iter().chain(widths)).header(heads);
    frame.render_widget(table.block(headed(format!(" {} ", title.join(" ")))), area);
}

fn draw_latest(frame: &mut Frame<'_>, board: &Board, view: &View, area: Rect, look: Look) {
    let shown = |call: &&Call| {
        let names = [call.model.as_deref(), call.agent_id.as_deref(), call.user_id.as_deref()];
        view.filter.is_empty() || names.into_iter().flatten().any(|name| name.contains(&view.filter))
    };
    let rows = board.latest.iter().filter(shown).take(area.height.into()).map(|call| {
        let cost = match (call.cost_usd, &call.unpriced) {
            (Some(usd), _) => money(usd.to_usd_f64()),
            (None, Some(_)) => "?".to_owned(),
            (None, None) => "–".to_owned(),
        };
        let tokens = call.tokens().map_or_else(|| "–".to_owned(), count);
        let cells = [cost, tokens, seconds(Some(call.latency_ms / 1000.0))].map(right);
        let words = [
            call.timestamp.get(11..19).unwrap_or("–").to_owned(),
            call.model.clone().unwrap_or_else(|| call.provider.clone()),
            call.error_type.clone().filter(|_| call.has_failed()).unwrap_or_else(|| call.outcome.clone()),
            call.reuse.clone().unwrap_or_else(|| call.cache.clone()),
        ];
        let style = if call.has_failed() { look.bad() } else { Style::new() };
        Row::new(words.map(Cell::from).into_iter().chain(cells)).style(style)
    });
    let widths = [Constraint::Length(8), Constraint::Fill(1)].into_iter();
    let widths = widths.chain([14, 9, 9, 6, 9].map(Constraint::Length));
    frame.render_widget(Table::new(rows, widths).block(headed(" latest calls (UTC) ".to_owned())), area);
}

fn footer(view: &View, look: Look) -> Line<'static> {
    if view.is_typing {
        return Line::from(format!("/{}_   enter: done  esc: all", view.filter));
    }
    let held = view.held.is_some().then(|| Span::styled("HELD  ", look.bad().add_modifier(Modifier::BOLD)));
    let filter = if view.filter.is_empty() { "/ filter".to_owned() } else { format!("/{}", view.filter) };
    let keys = format!("q quit  p hold  tab table  s sort  {filter}  ? help");
    held.into_iter().chain([Span::styled(keys, faint())]).collect()
}

/// A part of the screen, below a line with its name.
fn headed(title: String) -> Block<'static> {
    Block::new().borders(Borders::TOP).border_style(faint()).title(title)
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::{env, fs};

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Buffer;
    use serde_json::json;

    use super::*;
    use crate::cli::top::news::News;

    const PLAIN: Look = Look { has_colours: false };

    /// A board as it may be after a while.
    fn board() -> Board {
        let mut board = Board::default();
        board.take(News::Connected);
        for second in 0..30_u64 {
            let gauges = json!({
                "calls_in_progress": 4,
                "last_second": { "calls": second % 9, "cost_usd": second % 5 },
                "last_minute": {
                    "unpriced_calls": 2, "calls_per_second": 4.5, "tokens_per_second": 812.25,
                    "cost_usd_per_second": 0.000_412, "error_rate": 0.021, "cache_hit_rate": null,
                    "latency_p50_ms": 412.0, "latency_p95_ms": 2310.5,
                },
                "since_start": { "cost_usd": 12.3456 },
                "process": { "cpu_cores": 0.034, "resident_memory_bytes": 44_040_192 },
                "budgets": [
                    { "name": "app", "state": "within", "limit_usd": 100, "spent_usd": 12.3456, "used_percentage": 12.34 },
                    { "name": "users", "subject": "user=ann", "state": "spent", "limit_tokens": 5000,
                      "spent_tokens": 12_345, "used_percentage": 246.9 },
                ],
            });
            board.take(News::Gauges(serde_json::from_value(gauges).expect("gauges")));
        }
        let calls = [
            ("gpt-5-mini", "success", "miss", json!(0.0025), json!(1200), 812.0),
            ("claude-haiku-5-5", "success", "hit", json!(0), json!(950), 3.25),
            ("a-model-of-our-own-with-a-name-that-is-too-long", "success", "miss", json!(null), json!(80), 95.0),
            ("gpt-5-mini", "timeout", "miss", json!(0.1), json!(null), 30_000.0),
        ];
        for (number, (model, outcome, cache, cost, tokens, ms)) in calls.into_iter().enumerate() {
            let call = json!({
                "timestamp": format!("2026-11-21T12:00:0{number}.000000Z"), "provider": "openai", "model": model,
                "outcome": outcome, "error_type": (outcome == "timeout").then_some("timeout"), "cache": cache,
                "reuse": (cache == "hit").then_some("cache"), "unpriced": cost.is_null().then_some("unknown_model"),
                "cost_usd": cost, "total_tokens": tokens, "latency_ms": ms, "agent_id": "planner\u{1b}[2J",
            });
            board.take(News::Call("".into(), serde_json::from_value(call).expect("a call")));
        }
        board.take(News::Lost(3));
        board
    }

    fn drawn(board: &Board, view: &View, look: Look, (width, height): (u16, u16)) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
        let drawn = terminal.draw(|frame| draw(frame, board, view, "http://127.0.0.1:9348", look)).expect("a picture");
        drawn.buffer.clone()
    }

    fn text(buffer: &Buffer) -> String {
        let rows = buffer.content.chunks(buffer.area.width.into());
        let row = |cells: &[ratatui::buffer::Cell]| {
            let text: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
            format!("{}\n", text.trim_end())
        };
        rows.map(row).collect()
    }

    #[test]
    fn screens_are_as_they_were_looked_at() {
        let (full, help) = (board(), View { shows_help: true, ..View::default() });
        let agents = View { by: By::Agent, sort: Sort::Slowest, filter: "plan".to_owned(), ..View::default() };
        let typing =
            View { filter: "gpt".to_owned(), is_typing: true, held: Some(Box::new(board())), ..View::default() };
        let mut away = board();
        away.take(News::Away("no answer from http://127.0.0.1:9348/api/v1/live: Connection refused".to_owned()));
        for (name, board, view) in [
            ("models", &full, View::default()),
            ("agents", &full, agents),
            ("typing", &Board::default(), typing),
            ("help", &full, help),
            ("away", &away, View::default()),
            ("empty", &Board::default(), View::default()),
        ] {
            let shown = text(&drawn(board, &view, PLAIN, (80, 24)));
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/top/screens").join(format!("{name}.txt"));
            if env::var_os("UPDATE_EXPECT").is_some() {
                fs::write(&path, &shown).expect("a written file");
            }
            let expected = fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(shown, expected, "{name}: UPDATE_EXPECT=1 writes {}", path.display());
        }
    }

    #[test]
    fn colours_are_there_only_where_they_are_wanted() {
        let coloured = |look| {
            let buffer = drawn(&board(), &View::default(), look, (80, 24));
            buffer.content.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
        };
        assert!(coloured(Look { has_colours: true }) && !coloured(PLAIN));
    }

    #[test]
    fn no_size_of_a_terminal_makes_it_panic() {
        for size in [(1, 1), (20, 3), (80, 10), (300, 100)] {
            drawn(&board(), &View::default(), PLAIN, size);
        }
    }
}
