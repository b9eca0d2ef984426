//! Call: what an app asks of a model, and who asks. Facts read from one request, before anything is done about it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::record::outcome::RunStatus;

/// One request of the app, as far as weir understood it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The value of the label `provider`: `gen_ai.provider.name`, or the configured name where none is defined.
    pub provider: Arc<str>,
    /// What kind of call it is.
    pub operation: Operation,
    /// The model asked for, as the app spelt it. `None` where the request names none or was not read.
    pub model: Option<Box<str>>,
    /// How the app wants the answer.
    pub delivery: Delivery,
    /// Who asks.
    pub caller: Caller,
}

/// `gen_ai.operation.name`, with weir's own values where the conventions define none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Chat completions, OpenAI Responses, Anthropic Messages.
    Chat,
    /// Legacy completions.
    TextCompletion,
    /// Gemini's `generateContent`.
    GenerateContent,
    /// Vectors for texts.
    Embeddings,
    /// Pictures made or changed.
    ImageGeneration,
    /// Text spoken.
    Speech,
    /// Speech written down, or translated.
    Transcription,
    /// Documents read.
    Ocr,
    /// OpenAI's decisions.
    Decision,
    /// Documents put in order.
    Rerank,
    /// Texts sorted into classes.
    Classification,
    /// Counting without generating; free.
    CountTokens,
    /// A moderation verdict; free.
    Moderation,
    /// Anything else: passed through, counted and timed, not read.
    Other,
}

impl Operation {
    /// Every operation there is.
    pub const ALL: [Self; 14] = [
        Self::Chat,
        Self::TextCompletion,
        Self::GenerateContent,
        Self::Embeddings,
        Self::ImageGeneration,
        Self::Speech,
        Self::Transcription,
        Self::Ocr,
        Self::Decision,
        Self::Rerank,
        Self::Classification,
        Self::CountTokens,
        Self::Moderation,
        Self::Other,
    ];

    /// The value of the labels `operation` and `gen_ai_operation_name`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::TextCompletion => "text_completion",
            Self::GenerateContent => "generate_content",
            Self::Embeddings => "embeddings",
            Self::ImageGeneration => "image_generation",
            Self::Speech => "speech",
            Self::Transcription => "transcription",
            Self::Ocr => "ocr",
            Self::Decision => "decision",
            Self::Rerank => "rerank",
            Self::Classification => "classification",
            Self::CountTokens => "count_tokens",
            Self::Moderation => "moderation",
            Self::Other => "other",
        }
    }

    /// Whether the answer is made anew, so that chance may have a part in it; if not, it follows from the request.
    #[must_use]
    pub const fn generates(self) -> bool {
        !matches!(
            self,
            Self::Embeddings | Self::Ocr | Self::Rerank | Self::Classification | Self::CountTokens | Self::Moderation
        )
    }

    /// Whether the provider bills such a call by its usage. Unbilled calls have no cost to miss.
    #[must_use]
    pub const fn is_billed(self) -> bool {
        !matches!(self, Self::CountTokens | Self::Moderation | Self::Other)
    }
}

/// How an answer travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// In one piece.
    Whole,
    /// Event by event.
    Stream,
}

/// The form an answer has, or is asked for in: which of several that say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// In one piece.
    Whole,
    /// Event by event, in the way of its API.
    Stream,
    /// Event by event, with an event that says what was used, because the app asked for one.
    StreamWithUsage,
    /// Event by event, without the event that says what was used, because the app did not ask for it.
    StreamWithoutUsage,
    /// Event by event, as the elements of one list.
    Array,
}

/// Who asks, and how, by the headers the app sent. Every part is optional; none is ever invented.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// `X-Cache-Namespace`: keeps cached answers apart.
    pub namespace: Option<Box<str>>,
    /// `X-Workspace-ID`.
    pub workspace: Option<Box<str>>,
    /// `X-User-ID`, else the body's own user field.
    pub user: Option<Box<str>>,
    /// `X-Agent-ID`.
    pub agent: Option<Box<str>>,
    /// `X-Loop-Type`.
    pub loop_type: Option<Box<str>>,
    /// `X-Run-ID`.
    pub run: Option<Box<str>>,
    /// `X-Run-Status`: the run ends with this call, like this.
    pub run_ends: Option<RunStatus>,
    /// `X-Stainless-Retry-Count`, above 0: the app's SDK has asked this before, and says so.
    pub is_retry: bool,
    /// `User-Agent`: which program asks, an SDK and its version as a rule.
    pub client: Option<Box<str>>,
}

/// A name for one exchange, unique in this process and unlikely to repeat elsewhere: start time and a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    started: u64,
    number: u64,
}

impl RequestId {
    /// The next id of this process.
    #[must_use]
    pub fn next() -> Self {
        static STARTED: std::sync::LazyLock<u64> = std::sync::LazyLock::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let pid = u64::from(std::process::id());
            u64::try_from(since.as_micros()).unwrap_or_default().rotate_left(16) ^ pid
        });
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        Self { started: *STARTED, number: NUMBER.fetch_add(1, Ordering::Relaxed) }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By hand: it is shown several times for every call.
        let mut text = [b'-'; 33];
        hex(self.started, &mut text[..16]);
        hex(self.number, &mut text[17..]);
        // Of the number, as many digits as it has, and eight at least.
        let zeros = (self.number.leading_zeros() as usize / 4).min(8);
        text.copy_within(17 + zeros.., 17);
        f.pad(std::str::from_utf8(&text[..text.len() - zeros]).expect("digits and a hyphen"))
    }
}

/// Writes `number` in as many hexadecimal digits as there is room for.
fn hex(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number % 16) as usize];
        number /= 16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_has_the_digits_it_needs() {
        for (started, number, shown) in [
            (0, 0, "0000000000000000-00000000"),
            (0xabc, 1, "0000000000000abc-00000001"),
            (u64::MAX, 0xffff_ffff, "ffffffffffffffff-ffffffff"),
            (1 << 63, 0x1_0000_0000, "8000000000000000-100000000"),
            (0x0123_4567_89ab_cdef, u64::MAX, "0123456789abcdef-ffffffffffffffff"),
        ] {
            assert_eq!(RequestId { started, number }.to_string(), shown);
        }
    }

    #[test]
    fn request_ids_differ() {
        assert_ne!(RequestId::next().to_string(), RequestId::next().to_string());
    }
}
