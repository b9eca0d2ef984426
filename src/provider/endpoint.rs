//! Endpoint: what kind of request a path is, in one table for all APIs: how each kind reads, what it counts as, and
//! whether its path has a version.
//!
//! A kind is how it is read, not who offers it: where its paths are is the affair of each API.

use crate::provider::forms::Forms;
use crate::provider::{Format, anthropic, bedrock, cohere, gemini, llamacpp, ollama, openai, tgi, vertex};
use crate::record::call::Operation;

/// Whether a path begins with its API's version prefix.
enum Path {
    /// It does, so that weir can put one in that an app left out.
    Versioned,
    /// It does not: what a local server offers natively has no version, Cohere's paths have one of two, and AWS's and
    /// Vertex AI's begin with something else.
    Unversioned,
}

macro_rules! endpoints {
    ($($(#[doc = $doc:literal])+ $name:ident = $format:path, $operation:ident, $path:ident;)+) => {
        /// What kind of request a path is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Endpoint {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Endpoint {
            /// Every kind there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// How its requests and replies read.
            #[must_use]
            pub const fn format(self) -> &'static Format {
                match self {
                    $(Self::$name => &$format,)+
                }
            }

            /// The operation such a request counts as.
            #[must_use]
            pub const fn operation(self) -> Operation {
                match self {
                    $(Self::$name => Operation::$operation,)+
                }
            }

            /// Whether its path begins with its API's version prefix, so that weir can put one in that an app left out.
            #[must_use]
            pub const fn is_versioned(self) -> bool {
                match self {
                    $(Self::$name => matches!(Path::$path, Path::Versioned),)+
                }
            }
        }
    };
}

endpoints! {
    /// `POST /chat/completions`.
    ChatCompletions = openai::FORMAT, Chat, Versioned;
    /// `POST /responses`.
    Responses = openai::FORMAT, Chat, Versioned;
    /// `POST /responses/compact`: billed like a response, never streamed, never stored.
    ResponsesCompact = openai::FORMAT, Chat, Versioned;
    /// `POST /completions`.
    Completions = openai::FORMAT, TextCompletion, Versioned;
    /// `POST /embeddings`.
    Embeddings = openai::FORMAT, Embeddings, Versioned;
    /// `POST /moderations`.
    Moderations = openai::FORMAT, Moderation, Versioned;
    /// `POST /images/generations`, `/images/edits`, `/images/variations`.
    Images = openai::FORMAT, ImageGeneration, Versioned;
    /// `POST /audio/speech`.
    Speech = openai::FORMAT, Speech, Versioned;
    /// `POST /audio/transcriptions`, `/audio/translations`.
    Transcription = openai::FORMAT, Transcription, Versioned;
    /// OpenAI's `POST /decisions`.
    Decisions = openai::FORMAT, Decision, Versioned;
    /// Mistral's `POST /ocr`.
    Ocr = openai::FORMAT, Ocr, Versioned;
    /// OpenAI's `POST /responses/input_tokens`: counts without generating.
    CountInput = openai::FORMAT, CountTokens, Versioned;
    /// Anthropic's `POST /messages`.
    Messages = anthropic::FORMAT, Chat, Versioned;
    /// Anthropic's `POST /messages/count_tokens`: counts without generating.
    CountMessages = anthropic::FORMAT, CountTokens, Versioned;
    /// Bedrock's `POST /model/{id}/converse` and `/converse-stream`.
    Converse = bedrock::FORMAT, Chat, Unversioned;
    /// Bedrock's `POST /model/{id}/invoke` and `/invoke-with-response-stream`.
    InvokeModel = bedrock::FORMAT, Chat, Unversioned;
    /// Bedrock's `POST /model/{id}/count-tokens`: counts without generating.
    CountConverse = bedrock::FORMAT, CountTokens, Unversioned;
    /// Cohere's `POST /v2/chat`.
    CohereChat = cohere::FORMAT, Chat, Unversioned;
    /// Cohere's `POST /v1/chat`.
    CohereChatV1 = cohere::FORMAT, Chat, Unversioned;
    /// Cohere's `POST /v1/generate`.
    CohereGenerate = cohere::FORMAT, TextCompletion, Unversioned;
    /// Cohere's `POST /v2/embed` and `/v1/embed`.
    CohereEmbed = cohere::FORMAT, Embeddings, Unversioned;
    /// Cohere's `POST /v2/rerank` and `/v1/rerank`.
    CohereRerank = cohere::FORMAT, Rerank, Unversioned;
    /// Cohere's `POST /v1/classify`.
    CohereClassify = cohere::FORMAT, Classification, Unversioned;
    /// Cohere's `POST /v1/tokenize`: counts without generating.
    CohereTokenize = cohere::FORMAT, CountTokens, Unversioned;
    /// Ollama's `POST /api/chat`.
    OllamaChat = ollama::FORMAT, Chat, Unversioned;
    /// Ollama's `POST /api/generate`.
    OllamaGenerate = ollama::FORMAT, TextCompletion, Unversioned;
    /// Ollama's `POST /api/embed` and the older `/api/embeddings`.
    OllamaEmbed = ollama::FORMAT, Embeddings, Unversioned;
    /// Text Generation Inference's `POST /generate`.
    TgiGenerate = tgi::FORMAT, TextCompletion, Unversioned;
    /// Text Generation Inference's `POST /generate_stream`: always streamed.
    TgiGenerateStream = tgi::FORMAT, TextCompletion, Unversioned;
    /// llama.cpp's `POST /completion`.
    LlamaCppCompletion = llamacpp::FORMAT, TextCompletion, Unversioned;
    /// The same as [`Self::Messages`] at a publisher of Anthropic's models, who names the model in the path.
    PublishedMessages = vertex::MESSAGES, Chat, Unversioned;
    /// Gemini's `:generateContent`.
    GenerateContent = gemini::FORMAT, GenerateContent, Versioned;
    /// Gemini's `:streamGenerateContent`: as server-sent events, or as the objects of one JSON array.
    StreamGenerateContent = gemini::FORMAT, GenerateContent, Versioned;
    /// Gemini's `:countTokens`: counts without generating.
    CountContent = gemini::FORMAT, CountTokens, Versioned;
    /// Gemini's `:embedContent` and `:batchEmbedContents`.
    EmbedContent = gemini::FORMAT, Embeddings, Versioned;
    /// Vertex AI's `:predict` of a model that embeds.
    PredictEmbeddings = gemini::FORMAT, Embeddings, Unversioned;
    /// Gemini's `POST /interactions`.
    Interactions = gemini::FORMAT, GenerateContent, Versioned;
    /// Files, batches, models and the like: passed through, not read, and free.
    Free = openai::FORMAT, Other, Unversioned;
    /// Anything else: passed through, not read.
    Other = openai::FORMAT, Other, Unversioned;
}

impl Endpoint {
    /// Whether its requests and replies are read at all.
    #[must_use]
    pub const fn is_read(self) -> bool {
        !matches!(self, Self::Free | Self::Other)
    }

    /// The forms that its answers may have, where they can be turned into each other.
    #[must_use]
    pub fn forms(self) -> Option<&'static Forms> {
        (self.format().forms)(self)
    }
}
