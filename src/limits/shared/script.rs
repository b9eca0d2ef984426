//! Script: what the server does for replicas in one step, how that is asked for, and how its answers are read. The texts
//! are in files of their own, and say what they mean.

use std::fmt::Write;
use std::sync::LazyLock;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::store::client::Commands;
use crate::store::{Answer, Store, Unavailable};

/// Which replicas there are.
pub(super) static PRESENCE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("presence.lua")));
/// What each of them holds.
pub(super) static LEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lease.lua")));
/// How far rates are filled.
pub(super) static RATE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("rate.lua")));

/// A program that the server runs, alone while it runs.
#[derive(Debug)]
pub(super) struct Script {
    text: &'static str,
    /// What the server calls it once it has seen it.
    digest: String,
}

/// A script to be run, on these keys and with these arguments.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) script: &'static Script,
    pub(super) keys: Vec<String>,
    pub(super) arguments: Vec<String>,
}

impl Script {
    fn new(text: &'static str) -> Self {
        let mut name = String::with_capacity(40);
        for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref() {
            let _ = write!(name, "{byte:02x}");
        }
        Self { text, digest: name }
    }
}

impl Run {
    fn add_to(&self, commands: &mut Commands, name: &str, script: &str) {
        let keys = self.keys.len().to_string();
        let mut arguments: Vec<&[u8]> = vec![script.as_bytes(), keys.as_bytes()];
        arguments.extend(self.keys.iter().chain(&self.arguments).map(String::as_bytes));
        commands.add(name, &arguments);
    }
}

/// Runs scripts, all in one round trip; in a second one those that the server has not seen yet.
pub(super) async fn run(store: &Store, runs: &[Run]) -> Result<Vec<Answer>, Unavailable> {
    let mut commands = Commands::default();
    for run in runs {
        run.add_to(&mut commands, "EVALSHA", &run.script.digest);
    }
    let mut answers = store.run_patiently(&commands).await?;
    let is_unseen = |answer: &Answer| matches!(answer, Answer::Refused(code) if &**code == "NOSCRIPT");
    let unseen: Vec<usize> =
        answers.iter().enumerate().filter(|(_, it)| is_unseen(it)).map(|(place, _)| place).collect();
    if !unseen.is_empty() {
        let mut commands = Commands::default();
        for run in unseen.iter().map(|&place| &runs[place]) {
            run.add_to(&mut commands, "EVAL", run.script.text);
        }
        for (place, answer) in unseen.into_iter().zip(store.run_patiently(&commands).await?) {
            answers[place] = answer;
        }
    }
    Ok(answers)
}

/// What the server says of itself and of who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Present {
    /// Its time, in milliseconds since 1970.
    pub(super) now_ms: u64,
    /// For how long replicas have told it all the time, in milliseconds.
    pub(super) told_for_ms: u64,
    /// How many replicas were there within the last seconds.
    pub(super) replicas: u64,
}

/// What the server says to a statement of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::limits) struct Answered {
    /// Whether what it grants may be used; if not, it only tells what others have used and hold.
    pub(in crate::limits) is_believed: bool,
    /// Whether there was room for what waited.
    pub(in crate::limits) fits: bool,
    /// Of money, and of tokens or places.
    pub(in crate::limits) parts: [AnsweredPart; 2],
}

/// The same of one part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::limits) struct AnsweredPart {
    /// What may be held from now on.
    pub(in crate::limits) may: u64,
    /// What all have used up.
    pub(in crate::limits) all: u128,
    /// What others hold.
    pub(in crate::limits) others: u64,
}

/// What the server says of rates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::limits) struct Taken {
    /// Whether there was room for what waited.
    pub(in crate::limits) fits: bool,
    /// Of each rate what was taken, and how far it is filled.
    pub(in crate::limits) rates: Vec<(u64, u64)>,
}

impl Present {
    pub(super) fn read(answer: &Answer) -> Option<Self> {
        let [now_ms, told_for_ms, replicas] = numbers(answer)?.try_into().ok()?;
        Some(Self { now_ms: small(now_ms)?, told_for_ms: small(told_for_ms)?, replicas: small(replicas)? })
    }
}

impl Answered {
    pub(super) fn read(answer: &Answer, is_believed: bool) -> Option<Self> {
        let [fits, numbers @ ..]: [u128; 7] = numbers(answer)?.try_into().ok()?;
        let part = |at: usize| {
            Some(AnsweredPart { may: small(numbers[at])?, all: numbers[at + 1], others: small(numbers[at + 2])? })
        };
        Some(Self { is_believed, fits: fits == 1, parts: [part(0)?, part(3)?] })
    }
}

impl Taken {
    pub(super) fn read(answer: &Answer, rates: usize) -> Option<Self> {
        let numbers = numbers(answer)?;
        let (fits, numbers) = numbers.split_first()?;
        let rate = |pair: &[u128]| Some((small(pair[0])?, small(pair[1])?));
        let read: Vec<_> = numbers.chunks_exact(2).map(rate).collect::<Option<_>>()?;
        (read.len() == rates).then_some(Self { fits: *fits == 1, rates: read })
    }
}

fn small(number: u128) -> Option<u64> {
    number.try_into().ok()
}

/// A list of numbers, as such or as text.
fn numbers(answer: &Answer) -> Option<Vec<u128>> {
    let Answer::List(items) = answer else { return None };
    let number = |item: &Answer| match item {
        Answer::Number(number) => u128::try_from(*number).ok(),
        Answer::Bytes(text) => str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    };
    items.iter().map(number).collect()
}
