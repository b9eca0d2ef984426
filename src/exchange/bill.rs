//! Bill: what a reply's usage costs, by the models it and its request name. Half a bill is none: a reply that broke off
//! reported only a part of what is charged.

use std::time::SystemTime;

use crate::exchange::Destination;
use crate::price::{Answer, Prices, Question};
use crate::provider::{Ending, NamesModel, Said};
use crate::record::ReplyFacts;
use crate::record::call::{Call, Delivery, Operation};
use crate::record::usage::{Counter, Usage};

/// What can be estimated of an operation's usage: only what is text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Estimable {
    /// What goes in and what comes out.
    Both,
    /// What goes in; nothing comes out that is billed.
    Input,
}

impl Estimable {
    /// `None` where neither is text, or nothing is billed.
    pub(super) const fn of(operation: Operation) -> Option<Self> {
        match operation {
            Operation::Chat | Operation::TextCompletion | Operation::GenerateContent => Some(Self::Both),
            Operation::Embeddings => Some(Self::Input),
            _ => None,
        }
    }
}

/// Prices what was used. A reply that broke off reported only a part of its usage: unless the rest is estimated, its
/// cost is unknown, not what that part would cost.
pub(super) fn price(prices: &Prices, to: &Destination, call: &Call, said: &Said, at: SystemTime) -> Answer {
    let [first, next] = models(to, call, said);
    let context = context(&said.facts);
    let question = Question {
        source: &to.prices,
        response_model: first,
        request_model: next,
        usage: said.usage.as_ref().filter(|usage| usage.is_estimated() || !is_half_a_bill(call, said, usage)),
        context: &context,
        at,
    };
    let answer = prices.price(&question);
    match to.provider.model_behind([first, next]) {
        Some(behind) if answer.model.is_none() => prices.price(&Question { request_model: Some(behind), ..question }),
        _ => answer,
    }
}

/// The models that a call names, the more exact one first.
pub(super) fn models<'a>(to: &Destination, call: &'a Call, said: &'a Said) -> [Option<&'a str>; 2] {
    let (asked, answered) = (call.model.as_deref(), said.facts.model.as_deref());
    match to.provider.api.dialect().names_model {
        NamesModel::Reply => [answered, asked],
        NamesModel::Request => [asked, answered],
    }
}

/// What a reply says that sets its price beside the model and the counts.
fn context(facts: &ReplyFacts) -> Vec<(&str, &str)> {
    let tier = facts.service_tier.as_deref();
    let batch = tier.filter(|tier| *tier == "batch");
    [
        ("service_tier", tier),
        ("processing", batch),
        ("speed", facts.speed.as_deref()),
        ("inference_geo", facts.inference_geo.as_deref()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// Whether a reply ended, by breaking off or by an error on the way, before the model had said why it stopped: its
/// counts and its cost, if any, are those of a moment on the way.
pub(super) fn was_cut(said: &Said, delivery: Delivery) -> bool {
    let on_the_way = match said.ending {
        Ending::Unfinished => true,
        Ending::Failed => delivery == Delivery::Stream,
        Ending::Complete | Ending::Declined | Ending::Unknown => false,
    };
    on_the_way && said.facts.finish_reasons.is_empty()
}

/// Whether a usage of `call` lacks what came after it, or all that was generated.
fn is_half_a_bill(call: &Call, said: &Said, usage: &Usage) -> bool {
    let lacks_output = usage.get(Counter::OutputTokens).is_none();
    let generated = said.output.bytes() > 0 && usage.get(Counter::InputTokens).is_some();
    was_cut(said, call.delivery)
        || (lacks_output && said.ending == Ending::Failed)
        || (lacks_output && generated && Estimable::of(call.operation) == Some(Estimable::Both))
}
