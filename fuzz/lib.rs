//! What is fuzzed: one function for each parser of foreign bytes. It panics where something does not hold that always has
//! to.
//!
//! cargo-fuzz looks for such bytes with a nightly compiler (`any.rs`, `make fuzz`); `tests/fuzz.rs` gives the very
//! same functions what was kept of that, the seeds, and what chance makes of them, on every `make test`.

pub mod admin;
pub mod bodies;
pub mod files;
pub mod frames;
pub mod heads;
pub mod kept;
pub mod readers;

/// One target: gets any bytes, and returns.
pub type Target = fn(&[u8]);

/// Every target, by its name and that of the folder of its inputs.
pub const TARGETS: &[(&str, Target)] = &[
    ("admin_query", admin::query),
    ("array", frames::array),
    ("bodies", bodies::request),
    ("coding", frames::coding),
    ("config", files::config),
    ("custom_metrics", admin::custom_metrics),
    ("envelope", kept::envelope),
    ("eventstream", frames::eventstream),
    ("export_resume", files::export_resume),
    ("form", bodies::form),
    ("key", bodies::key),
    ("labels", heads::labels),
    ("lines", frames::lines),
    ("manifest", files::manifest),
    ("otlp_metrics", admin::otlp_metrics),
    ("price_overlay", files::price_overlay),
    ("prometheus_reply", kept::prometheus_reply),
    ("read_anthropic", readers::anthropic),
    ("read_bedrock_converse", readers::bedrock_converse),
    ("read_bedrock_invoke", readers::bedrock_invoke),
    ("read_cohere", readers::cohere),
    ("read_gemini", readers::gemini),
    ("read_llamacpp", readers::llamacpp),
    ("read_ollama", readers::ollama),
    ("read_openai_chat", readers::openai_chat),
    ("read_openai_media", readers::openai_media),
    ("read_openai_plain", readers::openai_plain),
    ("read_openai_responses", readers::openai_responses),
    ("read_session", readers::session),
    ("read_tgi", readers::tgi),
    ("recording", files::recording),
    ("redact", bodies::redact),
    ("render", readers::render),
    ("reply_head", heads::reply),
    ("request_head", heads::request),
    ("review", files::review),
    ("route", heads::route),
    ("sse", frames::sse),
    ("state", kept::state),
    ("stop", readers::stop),
    ("substitute", bodies::substitute),
    ("traceparent", heads::traceparent),
    ("warm_lines", files::warm_lines),
    ("websocket", frames::websocket),
];

/// Cuts `data` into pieces: each is as long as its first byte says.
pub fn pieces(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first()?;
        let (piece, left) = rest.split_at(rest.len().min(usize::from(*length)));
        data = left;
        Some(piece)
    })
}

/// The first line, and the rest.
fn two_parts(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    (&data[..end], data.get(end + 1..).unwrap_or_default())
}

/// `data` as a file that is there for as long as `read` looks at it.
fn as_file<T>(name: &str, data: &[u8], read: impl FnOnce(&std::path::Path) -> T) -> T {
    use std::sync::atomic::{AtomicU64, Ordering};
    /// Threads of one process do not share a file.
    static FILES: AtomicU64 = AtomicU64::new(0);
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("weir-fuzz-{}-{number}-{name}", std::process::id()));
    std::fs::write(&path, data).expect("the file can be written");
    let found = read(&path);
    std::fs::remove_file(&path).expect("the file can be removed");
    found
}
