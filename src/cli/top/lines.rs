//! Lines: a call as one line of text, for where there is no screen.

use super::news::Call;

/// The names of the columns, for whoever reads the lines.
pub(super) const COLUMNS: &str = "time provider model outcome cache tokens usd ms agent user";

/// A call: as many words as there are [`COLUMNS`], with one space between them; `-` where there is nothing to say.
pub(super) fn line(call: &Call) -> String {
    let tokens = call.tokens().map(|tokens| tokens.to_string());
    let usd = call.cost_usd.map(|usd| usd.to_string());
    let ms = format!("{:.1}", call.latency_ms);
    let words = [
        word(Some(&call.timestamp)),
        word(Some(&call.provider)),
        word(call.model.as_deref()),
        word(Some(&call.outcome)),
        word(Some(call.reuse.as_deref().unwrap_or(&call.cache))),
        word(tokens.as_deref()),
        word(usd.as_deref()),
        ms,
        word(call.agent_id.as_deref()),
        word(call.user_id.as_deref()),
    ];
    words.join(" ")
}

/// A text as one word, which moves no terminal's cursor: names come from apps and their users.
fn word(text: Option<&str>) -> String {
    let text = text.filter(|text| !text.is_empty()).unwrap_or("-");
    text.chars()
        .map(|one| match one {
            one if one.is_control() => char::REPLACEMENT_CHARACTER,
            one if one.is_whitespace() => '_',
            one => one,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::PicoUsd;

    #[test]
    fn a_call_is_a_line_of_words() {
        let call = Call {
            timestamp: "2026-11-21T12:00:00.000001Z".to_owned(),
            provider: "openai".to_owned(),
            model: Some("gpt 5\u{1b}[2J".to_owned()),
            outcome: "success".to_owned(),
            cache: "miss".to_owned(),
            total_tokens: Some(120),
            cost_usd: Some(PicoUsd::new(25_040_000_000)),
            latency_ms: 812.34,
            user_id: Some("ann\nlee".to_owned()),
            ..Call::default()
        };
        let expected =
            "2026-11-21T12:00:00.000001Z openai gpt_5\u{fffd}[2J success miss 120 0.02504 812.3 - ann\u{fffd}lee";
        assert_eq!(line(&call), expected);
        assert_eq!(line(&Call::default()), "- - - - - - - 0.0 - -");
        for line in [line(&call), line(&Call::default())] {
            assert_eq!(line.split(' ').count(), COLUMNS.split(' ').count());
        }
        let cached = Call { cache: "hit".to_owned(), reuse: Some("similar".to_owned()), total_tokens: Some(9), ..call };
        assert!(line(&cached).contains(" similar 0 "), "{}", line(&cached));
    }
}
