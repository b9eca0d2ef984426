//! The demo: it runs by itself, ends when it was told to, and its books agree. Runs the real program.

use std::process::{Command, Output};

fn demo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(["demo", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).args(arguments);
    // A proxy that is not there, and a knob that does not exist: the demo depends on neither.
    command.env_clear().envs([("HTTP_PROXY", "http://127.0.0.1:1"), ("WEIR_NO_SUCH", "1")]);
    command.output().expect("the program runs")
}

/// What follows `name` at the beginning of a line.
fn line<'a>(text: &'a str, name: &str) -> &'a str {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
    lines.next().unwrap_or_else(|| panic!("no line begins with {name:?}:\n{text}")).trim()
}

fn amount(text: &str) -> f64 {
    let amount = text.strip_prefix('$').and_then(|text| text.split(' ').next());
    amount.and_then(|amount| amount.parse().ok()).unwrap_or_else(|| panic!("not an amount: {text}"))
}

#[test]
fn it_ends_with_money_spent_money_saved_and_equal_books() {
    let output = demo(&["--duration", "3s"]);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stderr, "", "nothing is logged");
    assert!(!stdout.contains('\x1b'), "no terminal, no colours: {stdout}");

    let (begin, summary) = stdout.split_once("\nweir demo: ").expect("a summary follows");
    for words in ["OPENAI_BASE_URL=http://127.0.0.1:", "ANTHROPIC_BASE_URL=http://127.0.0.1:", "/metrics\n"] {
        assert!(begin.contains(words), "{words}: {begin}");
    }
    for model in ["gpt-5", "gpt-5-mini", "claude-sonnet-5-5", "claude-haiku-5-5", "text-embedding-3-small"] {
        assert!(summary.contains(&format!("\n{model} ")), "{model}: {summary}");
    }
    assert!(amount(line(summary, "spent")) > 0.0, "{summary}");
    assert!(amount(line(summary, "saved")) > 0.0, "{summary}");
    assert!(line(summary, "books equal").contains("every token"), "{summary}");
    assert!(!summary.contains("unpriced"), "{summary}");
}

#[test]
fn what_cannot_be_carried_out_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("it is bound").to_string();
    let output = demo(&["--rate", "0"]);
    assert_eq!(output.status.code(), Some(2));
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = command.args(["demo", "--listen", &taken]).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("cannot listen on {taken}")));
}

#[test]
fn calls_alone_need_a_weir_that_is_there() {
    let nobody = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        free.local_addr().expect("it is bound").to_string()
    };
    let through = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(["demo", "--through", &nobody]).args(more).output().expect("the program runs")
    };
    let output = through(&[]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains(&format!("no weir takes calls at {nobody}: start one by `weir run`")), "{stderr}");
    assert_eq!(through(&["--listen", "127.0.0.1:0"]).status.code(), Some(2), "it runs no weir of its own");
}
