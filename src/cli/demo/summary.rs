//! Summary: what the demo came to, when it is over, and whether the books agree.

use std::fmt::{Result, Write};
use std::time::Duration;

use super::books::Books;
use super::figures::{Agent, Figures, Model, Money};
use super::screen::Place;
use crate::cli::wording::{agent_name, count, full_count, money, per_second, percent, seconds};

/// All there is to say at the end.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) figures: Figures,
    pub(super) books: Books,
    /// How long calls were made.
    pub(super) took: Duration,
    pub(super) place: Place,
}

impl Summary {
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.totals(&mut text)
            .and_then(|()| tables(&self.figures, &mut text))
            .and_then(|()| self.check(&mut text))
            .and_then(|()| self.next(&mut text))
            .expect("text is written to memory");
        text
    }

    fn totals(&self, text: &mut String) -> Result {
        let Figures { calls, money: Money { spent, saved }, tokens: (bought, reused), unpriced, .. } = &self.figures;
        let share = self.figures.money.saved_share().map(|share| 100.0 * share);
        writeln!(
            text,
            "\nweir demo: {} calls, {:.1} a second\n",
            full_count(calls.all),
            per_second(calls.all, self.took)
        )?;
        writeln!(text, "spent      ${spent:.6} for {} tokens", full_count(*bought))?;
        writeln!(
            text,
            "saved      ${saved:.6} for {} tokens: {} of what it would have cost",
            full_count(*reused),
            percent(share)
        )?;
        if *unpriced > 0 {
            writeln!(text, "unpriced   {unpriced} calls, in neither of the two: what they used or cost is not known")?;
        }
        let (hits, looked_up) = (full_count(calls.hits), full_count(calls.looked_up));
        writeln!(text, "hit rate   {}: {hits} of {looked_up}", percent(calls.hit_rate()))?;
        for (name, latency) in [
            ("provider", &self.figures.from_provider),
            ("cache", &self.figures.from_cache),
            ("1st token", &self.figures.first_token),
        ] {
            writeln!(text, "{name:<11}p50 {}, p95 {}", seconds(latency.p50), seconds(latency.p95))?;
        }
        let errors: Vec<_> = self.figures.errors.iter().map(|(code, times)| format!("{code} × {times}")).collect();
        let brackets = if errors.is_empty() { String::new() } else { format!(": {}", errors.join(", ")) };
        writeln!(text, "errors     {}{brackets}", calls.failed)
    }

    /// Two who share no code have counted the same tokens.
    fn check(&self, text: &mut String) -> Result {
        let entries = self.books.entries();
        if self.books.are_equal() {
            let entries: Vec<_> = entries.map(|entry| format!("{} {}", full_count(entry.weir), entry.kind)).collect();
            return writeln!(
                text,
                "\nbooks equal: weir counted every token that the provider charged:\n  {}",
                entries.join(", ")
            );
        }
        writeln!(
            text,
            "\nbooks NOT equal: what weir counted and what the provider charged differ. Calls that break off"
        )?;
        writeln!(
            text,
            "are charged without saying what they used; if there were none, this is a mistake of weir's.\n"
        )?;
        writeln!(text, "{:<22}{:>12}{:>12}", "tokens", "weir", "charged")?;
        for entry in entries {
            writeln!(text, "{:<22}{:>12}{:>12}", entry.kind, full_count(entry.weir), full_count(entry.bill))?;
        }
        Ok(())
    }

    fn next(&self, text: &mut String) -> Result {
        let [.., openai, anthropic, _] = self.place.commands();
        writeln!(text, "\nWhile weir runs, an app needs no more than this to go through it:\n  {openai}\n  {anthropic}")
    }
}

fn tables(figures: &Figures, text: &mut String) -> Result {
    writeln!(text, "\n{:<24}{:>7}{:>7}{:>8}{:>9}{:>9}", "model", "calls", "hits", "errors", "spent", "saved")?;
    for Model { name, calls, money: Money { spent, saved } } in &figures.models {
        let (hits, spent, saved) = (percent(calls.hit_rate()), money(*spent), money(*saved));
        writeln!(text, "{name:<24}{:>7}{hits:>7}{:>8}{spent:>9}{saved:>9}", count(calls.all), count(calls.failed))?;
    }
    writeln!(text, "\n{:<24}{:>7}{:>24}", "agent", "calls", "spent")?;
    for Agent { name, calls, spent } in figures.agents.iter().filter(|agent| agent.calls > 0) {
        writeln!(text, "{:<24}{:>7}{:>24}", agent_name(name), count(*calls), money(*spent))?;
    }
    Ok(())
}
