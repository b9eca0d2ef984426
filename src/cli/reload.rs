//! `weir reload`: has a running weir read its configuration again, and says what came of it.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::admin::Asking;
use crate::cli::table::{plain, show};

/// Asks the running weir.
///
/// # Errors
/// If it does not answer, or refuses the configuration: with every mistake in it.
pub fn run(Asking { json, admin }: &Asking) -> anyhow::Result<ExitCode> {
    show(*json, &admin.post("/api/v1/reload", &json!({}))?, reloaded)
}

fn reloaded(answer: &Value) -> String {
    let mut text = String::new();
    for (what, name) in [("changed", "changed"), ("needs a restart", "need_restart"), ("left out", "left_out")] {
        for knob in answer[name].as_array().into_iter().flatten() {
            writeln!(text, "{what:<16} {}", plain(knob)).expect("a string takes everything");
        }
    }
    if text.is_empty() { "nothing has changed\n".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_knob_has_a_line() {
        let answer =
            json!({ "changed": ["cache.ttl"], "need_restart": ["listen", "ledger.mode"], "left_out": ["f:1: x"] });
        assert_eq!(
            reloaded(&answer),
            "changed          cache.ttl\n\
             needs a restart  listen\n\
             needs a restart  ledger.mode\n\
             left out         f:1: x\n"
        );
        let nothing = json!({ "changed": [], "need_restart": [], "left_out": [] });
        assert_eq!(reloaded(&nothing), "nothing has changed\n");
    }
}
