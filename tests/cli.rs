//! The command line: what is printed where, and with which exit code. Runs the real program.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::thread;

/// Runs weir without any `WEIR_…` variable but `variables`.
fn weir(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(arguments).env_clear().envs(variables.iter().copied());
    command.output().expect("the program runs")
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).expect("standard output is text")
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).expect("standard error is text")
}

#[test]
fn wrong_usage_ends_with_two_and_says_what_was_meant() {
    for (arguments, expected) in [
        (&["chek"][..], "'check'"),
        (&["check", "--confg", "x"], "'--config'"),
        (&["check", "--set", "cache.mode"], "cache.mode=off"),
        (&["config"], "default"),
    ] {
        let output = weir(arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_wrong_configuration_ends_with_two_and_lists_every_mistake() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("weir.yaml");
    std::fs::write(&file, "cache:\n  ttl: 1 hour-ish\n").expect("the file is written");
    let file = file.display().to_string();
    for command in ["check", "run"] {
        let output = weir(&[command, "-c", &file, "--set", "cache.mode=never"], &[("WEIR_CACHE__MAX_ENTRYS", "5")]);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(stdout(&output), "");
        assert_eq!(
            stderr(&output),
            format!(
                "{file}:2: cache.ttl: `1 hour-ish` is not a duration: write a number and a unit, such as 250ms, 30s, 5m or 1h\n\
                 WEIR_CACHE__MAX_ENTRYS: cache.max_entrys: unknown name: did you mean WEIR_CACHE__MAX_ENTRIES?\n\
                 --set: cache.mode: `never` is not one of `all`, `off`: write one of them\n\
                 3 mistakes in the configuration\n"
            )
        );
    }
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let output = weir(&["check"], &[("WEIR_CONFIG", "/absent.yaml")]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output),
        "/absent.yaml: the file cannot be read: No such file or directory (os error 2)\n1 mistake in the configuration\n"
    );
}

#[test]
fn check_says_what_the_configuration_means_and_no_secret() {
    let variables = [
        ("WEIR_PROVIDERS__OPENAI__API_KEY_ENV", "OPENAI_API_KEY"),
        ("OPENAI_API_KEY", "sk-live-0123456789"),
        ("WEIR_LOG", "debug"),
    ];
    let output = weir(&["check", "--listen", "127.0.0.1:1", "--set", "cache.ttl=5m"], &variables);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "ok\n\
         listen     127.0.0.1:1\n\
         admin      127.0.0.1:9348\n\
         provider   anthropic  https://api.anthropic.com, the app's own key\n\
         provider   bedrock    https://bedrock-runtime.us-east-1.amazonaws.com, the app's own key\n\
         provider   cohere     https://api.cohere.com, the app's own key\n\
         provider   ollama     http://127.0.0.1:11434, the app's own key\n\
         provider   openai     https://api.openai.com, key from variable OPENAI_API_KEY, also for bare /v1 paths\n\
         cache      all: ttl 5m, at most 10000 entries and 64MiB\n"
    );
}

#[test]
fn the_default_file_and_the_schema_are_printed() {
    let output = weir(&["config", "default"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("\nlisten: 127.0.0.1:9347\n"));

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("weir.yaml");
    std::fs::write(&file, &output.stdout).expect("the file is written");
    assert_eq!(weir(&["check", "-c", &file.display().to_string()], &[]).status.code(), Some(0));

    let output = weir(&["config", "schema"], &[]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(schema["properties"]["cache"]["properties"]["ttl"]["default"], "1h");
}

#[test]
fn version_help_and_completions_are_printed() {
    let version = weir(&["version"], &[]);
    assert!(stdout(&version).starts_with(concat!("weir ", env!("CARGO_PKG_VERSION"), " (")), "{}", stdout(&version));
    assert_eq!(weir(&["--version"], &[]).stdout, version.stdout);

    let output = weir(&["version", "--json"], &[]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));

    let output = weir(&["--help"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("Exit codes: 0 it worked, 1 it failed, 2 wrong usage or configuration."));

    let output = weir(&["completions", "bash"], &[]);
    assert!(stdout(&output).contains("_weir()"));
}

/// Listens on a free port and answers each of `answers` to one caller in turn; then returns what they asked.
fn admin_side(answers: &'static [&'static str]) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound listener has an address").to_string();
    let asked = thread::spawn(move || {
        let answer = |answer: &&str| {
            let (mut caller, _) = listener.accept().expect("a caller");
            let mut request = [0; 256];
            let length = caller.read(&mut request).expect("a request");
            caller.write_all(answer.as_bytes()).expect("the caller listens");
            let request = String::from_utf8_lossy(&request[..length]);
            request.lines().next().unwrap_or_default().to_owned()
        };
        answers.iter().map(answer).collect()
    });
    (address, asked)
}

#[test]
fn health_is_the_answer_of_the_admin_side() {
    let (address, asked) =
        admin_side(&["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 503 Service Unavailable\r\n\r\n"]);
    // A mistake elsewhere in the configuration does not make a running weir unwell.
    let variables = [("WEIR_ADMIN__LISTEN", address.as_str()), ("WEIR_CACHE__TTL", "soon")];

    let ready = weir(&["health", "--timeout", "1m"], &variables);
    assert_eq!((ready.status.code(), stdout(&ready)), (Some(0), "ok\n"), "{}", stderr(&ready));
    assert_eq!(weir(&["health", "--live", "--timeout", "1m"], &variables).status.code(), Some(0));
    let draining = weir(&["health", "--timeout", "1m"], &variables);
    assert_eq!(draining.status.code(), Some(1));
    assert_eq!(stderr(&draining), format!("weir: http://{address}/readyz says 503 Service Unavailable\n"));

    let asked = asked.join().expect("the admin side ends");
    assert_eq!(asked, ["GET /readyz HTTP/1.0", "GET /livez HTTP/1.0", "GET /readyz HTTP/1.0"]);
}

#[test]
fn health_fails_in_time_when_nobody_answers() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("a bound listener has an address").to_string();
    let output = weir(&["health", "--timeout", "10ms", "--admin-listen", &address], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("within 10ms"), "{}", stderr(&output));
    drop(silent);
    let output = weir(&["health", "--timeout", "1m", "--admin-listen", &address], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no answer from"), "{}", stderr(&output));
}

#[test]
fn health_needs_to_know_where_to_ask() {
    assert_eq!(weir(&["health", "--admin-listen", "here"], &[]).status.code(), Some(2));
    assert_eq!(weir(&["health", "--admin-listen", "127.0.0.1:0"], &[]).status.code(), Some(1));
}

#[test]
fn a_port_in_use_is_named_with_the_knob_that_sets_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    for (knob, other) in [("listen", "admin.listen"), ("admin.listen", "listen")] {
        let set = [format!("{knob}={address}"), format!("{other}=127.0.0.1:0")];
        let output = weir(&["run", "--set", &set[0], "--set", &set[1]], &[]);
        assert_eq!(output.status.code(), Some(1));
        let message = stderr(&output).lines().last().unwrap_or_default().to_owned();
        let expected = format!("weir: cannot listen on {address}: set `{knob}` to a free address");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn what_a_configuration_names_must_be_usable() {
    let directory = tempfile::tempdir().expect("a directory");
    let overlay = directory.path().join("prices.json");
    std::fs::write(&overlay, r#"{"schema_version":1,"currency":"EUR","providers":[]}"#).expect("a written file");
    let overlay = format!("prices.overlay={}", overlay.display());
    for (set, expected) in [
        ("providers.openai.prices=nobody", "providers.openai.prices: the price table has no provider `nobody`"),
        ("prices.overlay=/absent.json", "prices.overlay: cannot read the price overlay /absent.json"),
        (overlay.as_str(), "currency"),
    ] {
        for command in ["check", "run"] {
            let output = weir(&[command, "--set", set], &[]);
            assert_eq!(output.status.code(), Some(2), "{command} {set}");
            assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        }
    }
}

#[test]
fn the_overlay_of_the_manual_is_a_good_one() {
    let manual = include_str!("../docs/prices.md");
    let (_, rest) = manual.split_once("```json\n").expect("the manual shows an overlay");
    let (overlay, _) = rest.split_once("```").expect("it ends");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("prices.json");
    std::fs::write(&path, overlay).expect("a written file");
    let set = format!("prices.overlay={}", path.display());
    let output = weir(&["check", "--set", &set, "--set", "providers.openai.prices=house"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}
