//! YAML: how deep a text nests, looked at before anybody follows it.
//!
//! Whoever walks a tree of values takes a piece of the stack for each level, and two bytes of YAML are enough for one. Knows
//! neither manifests nor configurations.

use saphyr_parser::{Event, Parser};

/// How deep sections and lists may lie in each other. Nothing that people write comes near.
pub const DEEPEST: usize = 128;

/// The line, counted from 1, on which `text` is deeper than [`DEEPEST`]; `None` if it never is. What is no YAML is told by
/// whoever reads it whole.
#[must_use]
pub fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
            Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            return Some(span.start.line());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_that_of_lists_and_sections_whatever_they_are_written_as() {
        for level in ["[", "- ", "? ", "{a: "] {
            let text = |levels: usize| format!("# a line\n{}x", level.repeat(levels));
            assert_eq!(too_deep(&text(DEEPEST + 1)), Some(2), "{level}");
            assert_eq!(too_deep(&text(DEEPEST)), None, "{level}");
        }
        let wide = "- [a, {b: c}]\n".repeat(1_000);
        assert_eq!(too_deep(&wide), None, "what was closed is no level any more");
        assert_eq!(too_deep("a: b: c"), None, "no YAML");
    }
}
