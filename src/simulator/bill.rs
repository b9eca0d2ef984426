//! Bill: what the simulator has charged, to the token, and what became of the calls it received.
//!
//! The truth that a measuring proxy is held against. A call that is answered to its end is charged in full; one that
//! breaks off is charged its whole input and the share of its output that had been handed out; one refused with an
//! error status is charged nothing. Knows no wire format.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

/// The most lines a bill has; calls to any further model are charged under [`OTHER`].
const MOST_LINES: usize = 256;
/// The longest name of a model that gets a line of its own, in bytes.
const LONGEST_MODEL: usize = 200;
/// Stands for every model beyond the most a bill has lines for.
pub const OTHER: &str = "other";
/// Stands for the model of a call that did not say one.
pub const NONE: &str = "none";

/// The APIs the simulator speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// The OpenAI API.
    OpenAi,
    /// The Anthropic API.
    Anthropic,
    /// Amazon Bedrock's own API.
    Bedrock,
    /// The Cohere API.
    Cohere,
    /// Ollama's own API.
    Ollama,
    /// The Gemini API, of Google AI Studio and of Vertex AI.
    Gemini,
}

/// Tokens, every kind in the same sense whatever the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// All tokens of the prompt, those read from and written to the prompt cache included.
    pub input: u64,
    /// Of `input`: read from the prompt cache.
    pub cached: u64,
    /// Of `input`: written to the prompt cache for its shorter time: 5 minutes at Anthropic, 30 at OpenAI.
    pub cache_write_short: u64,
    /// Of `input`: written to the prompt cache for its longer time: an hour at Anthropic, twelve at OpenAI.
    pub cache_write_long: u64,
    /// All tokens generated, reasoning included.
    pub output: u64,
    /// Of `output`: reasoning.
    pub reasoning: u64,
    /// Characters spoken, where speech is charged by them.
    pub characters: u64,
    /// Seconds heard, where transcriptions are charged by them.
    pub seconds: u64,
}

impl Tally {
    /// Nothing at all.
    pub const NOTHING: Self = Self {
        input: 0,
        cached: 0,
        cache_write_short: 0,
        cache_write_long: 0,
        output: 0,
        reasoning: 0,
        characters: 0,
        seconds: 0,
    };

    /// What is charged when `served` of `total` tokens had been handed out.
    fn share(self, served: u64, total: u64) -> Self {
        let part = |tokens: u64| (tokens * served.min(total)).checked_div(total).unwrap_or(0);
        Self { output: part(self.output), reasoning: part(self.reasoning), ..self }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.input += other.input;
        self.cached += other.cached;
        self.cache_write_short += other.cache_write_short;
        self.cache_write_long += other.cache_write_long;
        self.output += other.output;
        self.reasoning += other.reasoning;
        self.characters += other.characters;
        self.seconds += other.seconds;
    }
}

/// What one model of one API has been asked and has charged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The API that was called.
    pub api: Api,
    /// The model as the call named it; [`NONE`] if it named none.
    pub model: String,
    /// Calls received, whatever became of them.
    pub requests: u64,
    /// Of `requests`: refused with an error status.
    pub failures: u64,
    /// Of `requests`: not answered to the end, by whoever's doing.
    pub broken_off: u64,
    /// The tokens charged.
    #[serde(flatten)]
    pub tokens: Tally,
}

/// Everything charged so far, a line for each API and model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bill {
    /// Sorted by API and model.
    pub lines: Vec<Line>,
}

impl Bill {
    /// The line of this API and model, if it was ever called.
    #[must_use]
    pub fn line(&self, api: Api, model: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.api == api && line.model == model)
    }

    /// Calls received, over all lines.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.lines.iter().map(|line| line.requests).sum()
    }

    /// Tokens charged, over all lines.
    #[must_use]
    pub fn tokens(&self) -> Tally {
        self.lines.iter().fold(Tally::default(), |mut sum, line| {
            sum += line.tokens;
            sum
        })
    }
}

/// What became of the calls. `received` is always the sum of the other four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// Calls received.
    pub received: u64,
    /// Calls that are being answered now.
    pub open: u64,
    /// Calls answered to the end, with success or with an error.
    pub finished: u64,
    /// Calls whose client went away before the end.
    pub hung_up: u64,
    /// Calls the simulator broke off itself, because it was told to.
    pub broken: u64,
}

/// The bill and the state as they are written. A clone writes in the same books.
#[derive(Clone, Debug)]
pub(super) struct Books {
    lines: Arc<Mutex<BTreeMap<(Api, String), Line>>>,
    state: Arc<watch::Sender<State>>,
}

impl Books {
    pub(super) fn new() -> Self {
        Self { lines: Arc::default(), state: Arc::new(watch::Sender::new(State::default())) }
    }

    pub(super) fn bill(&self) -> Bill {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        Bill { lines: lines.values().cloned().collect() }
    }

    pub(super) fn state(&self) -> State {
        *self.state.borrow()
    }

    pub(super) async fn until(&self, ready: impl FnMut(&State) -> bool) -> State {
        let mut watching = self.state.subscribe();
        let state = watching.wait_for(ready).await.map(|state| *state);
        state.expect("the books hold the sender, so it cannot be gone")
    }

    /// Opens a call. It is closed when it is dropped, as hung up unless it has been told otherwise.
    pub(super) fn open(&self) -> Call {
        let mut number = 0;
        self.state.send_modify(|state| {
            state.received += 1;
            state.open += 1;
            number = state.received;
        });
        Call { number, books: self.clone(), charge: None, served: 0, total: 0, ending: Ending::HungUp }
    }

    fn write(&self, api: Api, model: &str, change: impl FnOnce(&mut Line)) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lines.contains_key(&(api, model.to_owned()));
        let room = lines.len() < MOST_LINES && model.len() <= LONGEST_MODEL;
        let model = if known || room { model } else { OTHER };
        change(lines.entry((api, model.to_owned())).or_insert_with(|| Line {
            api,
            model: model.to_owned(),
            requests: 0,
            failures: 0,
            broken_off: 0,
            tokens: Tally::default(),
        }));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    HungUp,
    Finished,
    Broken,
}

#[derive(Debug)]
struct Charge {
    api: Api,
    model: String,
    /// `None`: refused, so nothing is charged.
    tokens: Option<Tally>,
}

/// A call that is being answered.
#[derive(Debug)]
pub(super) struct Call {
    /// The first is 1.
    pub(super) number: u64,
    books: Books,
    charge: Option<Charge>,
    served: u64,
    total: u64,
    ending: Ending,
}

impl Call {
    /// Puts the call on the bill. Its tokens are charged when it closes.
    pub(super) fn charge(&mut self, api: Api, model: &str, tokens: Option<Tally>) {
        self.books.write(api, model, |line| {
            line.requests += 1;
            line.failures += u64::from(tokens.is_none());
        });
        self.charge = Some(Charge { api, model: model.to_owned(), tokens });
    }

    /// The answer will be handed out in parts of this much weight in all.
    pub(super) fn weighs(&mut self, total: u64) {
        self.total = total;
    }

    /// A part of this weight has been handed out.
    pub(super) fn served(&mut self, weight: u64) {
        self.served += weight;
    }

    /// The answer has been handed out to its end.
    pub(super) fn finish(&mut self) {
        self.ending = Ending::Finished;
    }

    /// The simulator breaks the call off, as it was told to.
    pub(super) fn break_off(&mut self) {
        self.ending = Ending::Broken;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(Charge { api, model, tokens }) = self.charge.take() {
            let finished = self.ending == Ending::Finished;
            let charged = tokens.map(|tokens| if finished { tokens } else { tokens.share(self.served, self.total) });
            self.books.write(api, &model, |line| {
                line.broken_off += u64::from(!finished);
                line.tokens += charged.unwrap_or_default();
            });
        }
        // The bill first: who waits for the state to say that a call is over must then find it charged.
        self.books.state.send_modify(|state| {
            state.open -= 1;
            match self.ending {
                Ending::HungUp => state.hung_up += 1,
                Ending::Finished => state.finished += 1,
                Ending::Broken => state.broken += 1,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: Tally = Tally { input: 100, cached: 40, output: 20, reasoning: 10, ..Tally::NOTHING };

    #[test]
    fn a_finished_call_is_charged_in_full() {
        let books = Books::new();
        let mut call = books.open();
        call.charge(Api::OpenAi, "gpt", Some(TOKENS));
        call.weighs(10);
        call.served(10);
        call.finish();
        drop(call);
        assert_eq!(books.bill().line(Api::OpenAi, "gpt").map(|line| line.tokens), Some(TOKENS));
        assert_eq!(books.state(), State { received: 1, finished: 1, ..State::default() });
    }

    #[test]
    fn a_call_hung_up_on_is_charged_for_what_it_got() {
        let books = Books::new();
        let mut call = books.open();
        call.charge(Api::Anthropic, "claude", Some(TOKENS));
        call.weighs(10);
        call.served(5);
        assert_eq!(books.state().open, 1);
        drop(call);
        let bill = books.bill();
        let line = bill.line(Api::Anthropic, "claude").expect("it was called");
        assert_eq!(line.tokens, Tally { output: 10, reasoning: 5, ..TOKENS });
        assert_eq!((line.requests, line.failures, line.broken_off), (1, 0, 1));
        assert_eq!(books.state(), State { received: 1, hung_up: 1, ..State::default() });
    }

    #[test]
    fn a_refused_call_is_charged_nothing() {
        let books = Books::new();
        let mut call = books.open();
        call.charge(Api::OpenAi, "gpt", None);
        call.finish();
        drop(call);
        let bill = books.bill();
        assert_eq!(bill.tokens(), Tally::default());
        assert_eq!(bill.line(Api::OpenAi, "gpt").map(|line| (line.requests, line.failures)), Some((1, 1)));
    }

    #[test]
    fn a_bill_has_a_limited_number_of_lines() {
        let books = Books::new();
        for number in 0..MOST_LINES + 10 {
            books.open().charge(Api::OpenAi, &format!("model-{number}"), None);
        }
        let bill = books.bill();
        assert_eq!(bill.lines.len(), MOST_LINES + 1);
        assert_eq!(bill.line(Api::OpenAi, OTHER).map(|line| line.requests), Some(10));
        assert_eq!(bill.requests(), MOST_LINES as u64 + 10);
    }
}
