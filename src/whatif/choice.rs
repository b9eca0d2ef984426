//! Choice: what could have been otherwise, as people name it.

use std::fmt;

use crate::pattern::nearest;
use crate::price::{Prices, Source};

/// What could have been otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All calls to this model.
    Model(Target),
    /// The same models, on another tier.
    Tier(Tier),
    /// The same models, every prompt read from the provider's cache.
    PromptCache,
}

/// A model to have asked instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    provider: Option<Box<str>>,
    model: Box<str>,
}

/// What is cheaper, and slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Answers within a day.
    Batch,
    /// Answers when there is room.
    Flex,
}

impl Tier {
    /// What a reply on it says that sets the price.
    #[must_use]
    pub const fn context(self) -> (&'static str, &'static str) {
        match self {
            Self::Batch => ("processing", "batch"),
            Self::Flex => ("service_tier", "flex"),
        }
    }
}

impl Target {
    /// The model that `text` names: `gpt-5-mini`, of whatever provider each call was sent to, or
    /// `anthropic/claude-haiku-4-5`, with the provider's id in the price table.
    ///
    /// # Errors
    /// If no provider lists it: which one may be meant.
    pub fn named(text: &str, prices: &Prices) -> Result<Self, String> {
        let providers = prices.provider_ids();
        let split = text.split_once('/').filter(|(provider, _)| providers.iter().any(|id| id == provider));
        let target = match split {
            Some((provider, model)) => Self { provider: Some(provider.into()), model: model.into() },
            None => Self { provider: None, model: text.into() },
        };
        let among = match &target.provider {
            Some(provider) => vec![provider.to_string()],
            None => providers,
        };
        let sources: Vec<Source> = among.iter().map(|id| Source::Id(id.as_str().into())).collect();
        if !target.model.is_empty() && sources.iter().any(|source| prices.knows(source, &target.model)) {
            return Ok(target);
        }
        let ids: Vec<String> = sources.iter().flat_map(|source| prices.model_ids(source)).collect();
        let fix = match nearest(&target.model, ids.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "write a model, or its provider and the model: anthropic/claude-haiku-4-5".to_owned(),
        };
        Err(format!("the price table has no model `{text}`: {fix}"))
    }

    /// Whom to have asked; `None` for whomever each call was sent to.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        self.provider.as_deref()
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }
}

impl Choice {
    /// Each of these models, and what else there is to choose.
    ///
    /// # Errors
    /// Every model that no provider lists, and which one may be meant.
    pub fn all(models: &[String], prices: &Prices) -> Result<Vec<Self>, String> {
        let (mut choices, mut problems) = (Vec::new(), Vec::new());
        for model in models {
            match Target::named(model, prices) {
                Ok(target) => choices.push(Self::Model(target)),
                Err(problem) => problems.push(problem),
            }
        }
        choices.extend([Self::Tier(Tier::Batch), Self::Tier(Tier::Flex), Self::PromptCache]);
        if problems.is_empty() { Ok(choices) } else { Err(problems.join("; ")) }
    }

    /// What to know of the figures of this choice.
    #[must_use]
    pub const fn note(&self) -> &'static str {
        match self {
            Self::Model(_) => {
                "as many tokens as were used: another model may take more or fewer of them, and answer otherwise"
            }
            Self::Tier(Tier::Batch) => "answers come within a day: nothing for calls that somebody waits for",
            Self::Tier(Tier::Flex) => "answers come later, and calls are refused where there is no room",
            Self::PromptCache => {
                "the least that prompts of that length can cost, every token of them read from the provider's cache: \
                 a bound, not a forecast"
            }
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(Target { provider: Some(provider), model }) => write!(f, "{provider}/{model}"),
            Self::Model(Target { provider: None, model }) => f.write_str(model),
            Self::Tier(Tier::Batch) => f.write_str("batch"),
            Self::Tier(Tier::Flex) => f.write_str("flex"),
            Self::PromptCache => f.write_str("prompt cache"),
        }
    }
}
