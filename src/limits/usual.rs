//! Usual: how much a model generates when nobody said how much it may. Learnt from what it did; a few numbers a model.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Most models remembered; further ones are taken to be like one nobody has seen.
const MOST_MODELS: usize = 256;
/// What a model is taken to generate before it was seen to, in tokens: a long answer rather than a short one.
pub const UNSEEN: u64 = 1024;
/// How much a new answer weighs: one in so many.
const WEIGHT: u64 = 16;
/// Tokens are kept in these parts, so that small differences are not lost.
const PARTS: u64 = 256;

/// What models usually generate.
#[derive(Debug, Default)]
pub struct Usual(Mutex<HashMap<Box<str>, u64>>);

impl Usual {
    /// The tokens that `model` usually generates in an answer.
    #[must_use]
    pub fn output(&self, model: &str) -> u64 {
        let models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        models.get(model).map_or(UNSEEN, |parts| parts.div_ceil(PARTS))
    }

    /// `model` generated so many tokens. The mean of what it did, the last answers above all.
    pub fn learn(&self, model: &str, tokens: u64) {
        let parts = tokens.saturating_mul(PARTS);
        let mut models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mean) = models.get_mut(model) {
            *mean = *mean - *mean / WEIGHT + parts / WEIGHT;
        } else if models.len() < MOST_MODELS {
            models.insert(model.into(), parts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual_is_learnt_and_follows_what_changes() {
        let usual = Usual::default();
        assert_eq!(usual.output("m"), UNSEEN);
        usual.learn("m", 100);
        assert_eq!(usual.output("m"), 100);
        for _ in 0..200 {
            usual.learn("m", 300);
        }
        assert!((295..=300).contains(&usual.output("m")), "{}", usual.output("m"));
        assert_eq!(usual.output("another"), UNSEEN);
    }

    #[test]
    fn only_so_many_models_are_remembered() {
        let usual = Usual::default();
        for number in 0..2 * MOST_MODELS {
            usual.learn(&number.to_string(), 7);
        }
        assert_eq!(usual.output("0"), 7);
        assert_eq!(usual.output(&(2 * MOST_MODELS - 1).to_string()), UNSEEN);
    }
}
