//! Rules: how limits and budgets stand, written at the scrape. Of a rule that holds subjects apart it is the foremost
//! one's standing that is shown; who that is, is no label.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::limits::Limits;
use crate::limits::budget::{Allowance, Amount};
use crate::limits::rate::Decision;
use crate::limits::standing::{BudgetNow, RateNow};
use crate::semconv;
use crate::sinks::now::{whole, write};
use crate::units::PicoUsd;

/// Writes every family of theirs.
pub(super) fn write_all(encoder: &mut DescriptorEncoder<'_>, limits: &Limits) -> fmt::Result {
    let budgets = limits.budgets_now();
    write_money(encoder, &budgets)?;
    write_tokens(encoder, &budgets)?;
    write_windows(encoder, &budgets)?;
    write_rates(encoder, &limits.rates_now())
}

/// The labels `budget`, `window` and `scope`.
fn labels(budget: &BudgetNow) -> [&str; 3] {
    [&budget.name, budget.window.as_str(), budget.scope.as_str()]
}

/// The labels `budget` and `window`.
fn of_window(budget: &BudgetNow) -> [&str; 2] {
    [&budget.name, budget.window.as_str()]
}

fn write_money(encoder: &mut DescriptorEncoder<'_>, budgets: &[BudgetNow]) -> fmt::Result {
    let each = |amount: fn(PicoUsd, &BudgetNow) -> PicoUsd| {
        budgets
            .iter()
            .filter_map(move |budget| Some((budget, amount(budget.terms.allowance.usd?, budget).to_usd_f64())))
    };
    let gauge = |(budget, usd)| (labels(budget), ConstGauge::new(usd));
    write(encoder, &semconv::BUDGET_LIMIT_USD, each(|limit, _| limit).map(gauge))?;
    write(encoder, &semconv::BUDGET_SPENT_USD, each(|_, budget| budget.foremost.spent.usd).map(gauge))?;
    write(encoder, &semconv::BUDGET_REMAINING_USD, each(|_, budget| left(budget).usd).map(gauge))?;
    let reserved = each(|_, budget| budget.foremost.reserved.usd);
    let reserved = reserved.map(|(budget, usd)| (of_window(budget), ConstGauge::new(usd)));
    write(encoder, &semconv::BUDGET_RESERVED_USD, reserved)?;
    let charged = each(|_, budget| budget.charged.usd);
    let charged = charged.map(|(budget, usd)| ([&*budget.name], ConstCounter::new(usd)));
    write(encoder, &semconv::BUDGET_CHARGED_USD, charged)
}

fn write_tokens(encoder: &mut DescriptorEncoder<'_>, budgets: &[BudgetNow]) -> fmt::Result {
    let each = |amount: fn(u64, &BudgetNow) -> u64| {
        budgets.iter().filter_map(move |budget| Some((budget, amount(budget.terms.allowance.tokens?, budget))))
    };
    let gauge = |(budget, tokens)| (labels(budget), ConstGauge::new(tokens));
    write(encoder, &semconv::BUDGET_LIMIT_TOKENS, each(|limit, _| limit).map(gauge))?;
    write(encoder, &semconv::BUDGET_SPENT_TOKENS, each(|_, budget| budget.foremost.spent.tokens).map(gauge))?;
    write(encoder, &semconv::BUDGET_REMAINING_TOKENS, each(|_, budget| left(budget).tokens).map(gauge))?;
    let charged = each(|_, budget| budget.charged.tokens);
    let charged = charged.map(|(budget, tokens)| ([&*budget.name], ConstCounter::new(tokens)));
    write(encoder, &semconv::BUDGET_CHARGED_TOKENS, charged)
}

/// What is left to the foremost subject.
fn left(budget: &BudgetNow) -> Amount {
    let Allowance { usd, tokens } = budget.terms.allowance;
    let limit = Amount { usd: usd.unwrap_or_default(), tokens: tokens.unwrap_or_default() };
    limit.minus(budget.foremost.spent)
}

fn write_windows(encoder: &mut DescriptorEncoder<'_>, budgets: &[BudgetNow]) -> fmt::Result {
    let starts = budgets.iter().map(|it| (of_window(it), ConstGauge::new(it.period.start.seconds())));
    write(encoder, &semconv::BUDGET_WINDOW_START, starts)?;
    let ends = budgets.iter().filter_map(|it| Some((of_window(it), ConstGauge::new(it.period.end?.seconds()))));
    write(encoder, &semconv::BUDGET_WINDOW_END, ends)?;
    let each = |count: fn(&BudgetNow) -> u64| {
        budgets.iter().map(move |budget| ([&*budget.name], ConstCounter::new(count(budget))))
    };
    write(encoder, &semconv::BUDGET_BLOCKED, each(|it| it.blocked))?;
    write(encoder, &semconv::BUDGET_DOWNGRADED, each(|it| it.downgraded))?;
    write(encoder, &semconv::BUDGET_STOPPED, each(|it| it.stopped))?;
    let subjects = budgets.iter().map(|it| ([&*it.name], ConstGauge::new(whole(it.subjects))));
    write(encoder, &semconv::BUDGET_SUBJECTS, subjects)
}

fn write_rates(encoder: &mut DescriptorEncoder<'_>, rates: &[RateNow]) -> fmt::Result {
    let decisions = rates.iter().flat_map(|rate| {
        let count = |(decision, count): (Decision, u64)| ([&*rate.name, decision.as_str()], ConstCounter::new(count));
        rate.decisions.map(count)
    });
    write(encoder, &semconv::RATELIMIT_REQUESTS, decisions)?;
    let used = rates.iter().map(|rate| ([&*rate.name], ConstGauge::new(rate.fullest.used())));
    write(encoder, &semconv::RATELIMIT_UTILIZATION, used)?;
    let subjects = rates.iter().map(|rate| ([&*rate.name], ConstGauge::new(whole(rate.subjects))));
    write(encoder, &semconv::RATELIMIT_SUBJECTS, subjects)
}
