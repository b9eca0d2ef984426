//! Family: which environment variables lead the SDKs of a provider to weir. Read from the SDKs themselves, November 2026.
//!
//! Knows names and paths; not which container gets them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The variables of one provider. They are set together or not at all: a container that has one of them has said where its
/// calls go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// OpenAI.
    Openai,
    /// Anthropic.
    Anthropic,
    /// The Gemini API.
    Gemini,
    /// Vertex AI.
    Vertex,
    /// Groq.
    Groq,
    /// Cohere.
    Cohere,
    /// Azure OpenAI; a provider called `azure` has to be configured.
    Azure,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Openai, Self::Anthropic, Self::Gemini, Self::Vertex, Self::Groq, Self::Cohere, Self::Azure];

    /// As it is written; also the name of the provider in weir's configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Vertex => "vertex",
            Self::Groq => "groq",
            Self::Cohere => "cohere",
            Self::Azure => "azure",
        }
    }

    /// The variables. The second of OpenAI's is read by `LangChain`, and by older `LlamaIndex` and `LiteLLM`.
    #[must_use]
    pub fn variables(self) -> &'static [&'static str] {
        match self {
            Self::Openai => &["OPENAI_BASE_URL", "OPENAI_API_BASE"],
            Self::Anthropic => &["ANTHROPIC_BASE_URL"],
            Self::Gemini => &["GOOGLE_GEMINI_BASE_URL"],
            Self::Vertex => &["GOOGLE_VERTEX_BASE_URL"],
            Self::Groq => &["GROQ_BASE_URL"],
            Self::Cohere => &["CO_API_URL"],
            Self::Azure => &["AZURE_OPENAI_ENDPOINT"],
        }
    }

    /// What the variables say where weir listens on `port`. By number: resolvers may try IPv6 first for `localhost`.
    #[must_use]
    pub fn url(self, port: u16) -> String {
        let version = if self == Self::Openai { "/v1" } else { "" };
        format!("http://127.0.0.1:{port}/{}{version}", self.as_str())
    }

    /// The variable that usually holds the key, by which it is called in a Secret too; none where there are no such keys.
    #[must_use]
    pub fn key(self) -> Option<&'static str> {
        match self {
            Self::Openai => Some("OPENAI_API_KEY"),
            Self::Anthropic => Some("ANTHROPIC_API_KEY"),
            Self::Gemini => Some("GEMINI_API_KEY"),
            Self::Vertex => None,
            Self::Groq => Some("GROQ_API_KEY"),
            Self::Cohere => Some("CO_API_KEY"),
            Self::Azure => Some("AZURE_OPENAI_API_KEY"),
        }
    }

    /// The family of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.as_str() == name)
    }
}
