//! The command line: what is printed where, and with which exit code. Runs the real program.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
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
                 --set: cache.mode: `never` is not one of `all`, `deterministic`, `opt_in`, `off`, `record`, `replay`: write one of them\n\
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
         provider   anthropic    https://api.anthropic.com, the app's own key\n\
         provider   bedrock      https://bedrock-runtime.us-east-1.amazonaws.com, the app's own key\n\
         provider   cerebras     https://api.cerebras.ai, the app's own key\n\
         provider   cohere       https://api.cohere.com, the app's own key\n\
         provider   deepseek     https://api.deepseek.com, the app's own key\n\
         provider   fireworks    https://api.fireworks.ai/inference, the app's own key\n\
         provider   gemini       https://generativelanguage.googleapis.com, the app's own key\n\
         provider   groq         https://api.groq.com/openai, the app's own key\n\
         provider   huggingface  https://router.huggingface.co, the app's own key\n\
         provider   mistral      https://api.mistral.ai, the app's own key\n\
         provider   moonshot     https://api.moonshot.ai, the app's own key\n\
         provider   ollama       http://127.0.0.1:11434, the app's own key\n\
         provider   openai       https://api.openai.com, key from variable OPENAI_API_KEY, also for bare /v1 paths\n\
         provider   openrouter   https://openrouter.ai/api, the app's own key\n\
         provider   perplexity   https://api.perplexity.ai, the app's own key\n\
         provider   together     https://api.together.ai, the app's own key\n\
         provider   vertex       https://aiplatform.googleapis.com, the app's own key\n\
         provider   xai          https://api.x.ai, the app's own key\n\
         cache      all: ttl 5m, at most 10000 entries and 64MiB\n"
    );
}

#[cfg(feature = "otlp")]
#[test]
fn check_says_where_spans_go_and_which_variables_are_of_no_use() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=sesame"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
    ];
    let output = weir(&["check"], &variables);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = stdout(&output);
    assert!(told.contains("traces     http://collector:4318/v1/traces\n"), "{told}");
    assert!(told.contains("remark     OTEL_TRACES_SAMPLER is ignored: it is not one of always_on"), "{told}");
    assert!(!told.contains("sesame") && !stderr(&output).contains("sesame"));
}

#[test]
fn check_says_what_is_limited_and_for_whom() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("weir.yaml");
    let text = "limits: [{ name: agents, per: agent, match: { model: gpt-5* }, requests_per_minute: 100, concurrent_calls: 4 }]\n\
                budgets: [{ name: app, limit_usd: 2.50, window: day, time_zone: Europe/Berlin, enforce: block }]\n";
    std::fs::write(&file, text).expect("the file is written");
    let output = weir(&["check", "-c", &file.display().to_string()], &[("HOME", "/home/me")]);
    let said = stdout(&output);
    let said: Vec<&str> =
        said.lines().filter(|line| ["limit ", "budget ", "state "].iter().any(|kind| line.starts_with(kind))).collect();
    assert_eq!(
        said,
        [
            "state      /home/me/.local/state/weir",
            "limit      agents: 100 requests in 1m, 4 calls at once; model gpt-5*; for each agent",
            "budget     app: 2.5 USD, day (Europe/Berlin), block",
        ]
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
    for subcommand in ["weir__subcmd__prices__subcmd__show", "weir__subcmd__budget__subcmd__override"] {
        assert!(stdout(&output).contains(subcommand), "subcommands of subcommands too: {subcommand}");
    }
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
fn health_asks_whom_it_is_told_to() {
    let (address, asked) = admin_side(&["HTTP/1.1 200 OK\r\n\r\n"]);
    let place = address.replace("127.0.0.1", "localhost");
    let ready = weir(&["health", "--timeout", "1m", "--at", &place], &[]);
    assert_eq!((ready.status.code(), stdout(&ready)), (Some(0), "ok\n"), "{}", stderr(&ready));
    assert_eq!(asked.join().expect("the admin side ends"), ["GET /readyz HTTP/1.0"]);
    for nowhere in ["weir", ":9348", "weir:http"] {
        assert_eq!(weir(&["health", "--at", nowhere], &[]).status.code(), Some(2), "{nowhere}");
    }
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

/// An overlay in which the provider `house` charges this much for a million tokens of the model `m`.
fn house(usd: &str) -> String {
    format!(
        r#"{{"schema_version":1,"providers":[{{"id":"house","models":[
            {{"id":"m","match":{{"eq":["m"]}},"rates":{{"input_tokens":"{usd}"}}}}],
            "uplifts":[{{"id":"night","if":{{"shift":"night"}},"factor":"0.5"}}]}}]}}"#
    )
}

#[test]
fn prices_show_says_which_entry_a_model_is_and_why() {
    let at = ["--at", "2026-11-20T02:00:00Z"];
    let show = |words: &[&str]| weir(&[&["prices", "show"], words, &at].concat(), &[]);
    for (words, expected) in [
        (
            &["openai", "GPT-5.4-2026-03-05", "--context", "service_tier=flex", "--context", "region=eu"][..],
            "model      gpt-5.4 of openai\n\
             because    `GPT-5.4-2026-03-05` is \"gpt-5.4-2026-03-05\"\n\
             listed in  the built-in table (genai-prices 0.2.3)\n\
             at         2026-11-20T02:00:00Z\n\
             rates      standard\n\
             variant    service_tier=flex, since 2026-10-12\n\
             uplift     region-eu: every rate for tokens × 1.1 (region=eu), by the additions\n\
             \n\
             input_tokens       1.375 USD for 1000000; above 272000 input tokens 2.75\n\
             output_tokens      8.25 USD for 1000000; above 272000 input tokens 12.375\n\
             cache_read_tokens  0.143 USD for 1000000; above 272000 input tokens 0.275\n\
             web_searches       10 USD for 1000\n\
             storage_searches   2.5 USD for 1000\n",
        ),
        (
            &["azure", "gpt-4.1", "--context", "service_tier=priority"],
            "model      gpt-4.1 of azure\n\
             because    `gpt-4.1` is \"gpt-4.1\"\n\
             listed in  the built-in table (genai-prices 0.2.3)\n\
             fallback   azure has no such model: that of openai counts, without variants\n",
        ),
        (&["deepseek", "deepseek-flash"], "\nrates      those from 01:00 to 04:00 UTC\n"),
        (&["google", "gemma-3-27b-it"], "because    `gemma-3-27b-it` begins with \"gemma-3-\"\n"),
        (&["google", "gemma-3-27b-it"], "\nno charge\n"),
        (&["groq", "whisper-large-v3"], "\nminimum    10 seconds of audio\n"),
    ] {
        let output = show(words);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stdout(&output).contains(expected), "{words:?}:\n{}", stdout(&output));
    }
    let output = show(&["openai", "gpt-5.4", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(shown["rates"][0]["usd"], "2.5");
    assert_eq!(shown["rates"][0]["over"], serde_json::json!([[272_000, "5"]]));
    assert_eq!(shown["file"], "built-in");
}

#[test]
fn a_price_that_is_not_known_ends_with_one_and_names_what_is_near() {
    for (arguments, expected) in [
        (&["prices", "show", "opanai", "gpt-5"][..], "no provider `opanai`: did you mean `openai`?"),
        (
            &["prices", "show", "openai", "gpt-5-minni"],
            "no model `gpt-5-minni` of `openai`: did you mean `gpt-5-mini`?",
        ),
        (&["prices", "show", "anthropic", "a-model-nobody-knows"], "no model `a-model-nobody-knows` of `anthropic`\n"),
        (&["price", "--provider", "openai", "--model", "gpt-99", "--usage", "input_tokens=1"], "no model `gpt-99`"),
    ] {
        let output = weir(arguments, &[]);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
    for (arguments, expected) in [
        (&["price", "--provider", "openai", "--model", "gpt-5"][..], "--usage"),
        (&["price", "--provider", "a", "--model", "b", "--usage", "input_token=1"], "did you mean input_tokens?"),
        (&["price", "--provider", "a", "--model", "b", "--usage", "input_tokens=-1"], "write a whole number"),
        (&["prices", "show", "a", "b", "--at", "noon"], "such as 2026-11-20T12:00:00Z"),
        (&["prices", "show", "a", "b", "--context", "flex"], "such as service_tier=flex"),
        (&["price", "--stdin", "--model", "b"], "--stdin"),
    ] {
        let output = weir(arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn price_answers_what_if_to_the_pico_dollar() {
    let usage = "input_tokens=10000,cache_read_tokens=4096,output_tokens=3000,output_reasoning_tokens=2500";
    let flags = ["price", "--provider", "openai", "--model", "gpt-5", "--usage", usage, "--at", "2026-11-20"];
    let output = weir(&flags, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "gpt-5 of openai, at 2026-11-20T00:00:00Z\n\
         input_tokens       0.00738 USD: 5904 × 1.25 / 1000000\n\
         output_tokens      0.03 USD: 3000 × 10 / 1000000\n\
         cache_read_tokens  0.000512 USD: 4096 × 0.125 / 1000000\n\
         \n\
         by class\n\
         cache_read         0.000512 USD\n\
         input              0.00738 USD\n\
         output             0.005 USD\n\
         reasoning          0.025 USD\n\
         total              0.037892 USD\n"
    );
    let output = weir(&[&flags[..], &["--json"]].concat(), &[]);
    let bill: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!((&bill["usd"], &bill["classes"]["reasoning"]), (&"0.037892".into(), &"0.025".into()));
}

#[test]
fn prices_check_counts_what_is_right_and_lists_what_is_wrong() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("prices.json");
    let file = path.display().to_string();
    std::fs::write(&path, house("2")).expect("a written file");
    let output = weir(&["prices", "check", &file], &[]);
    assert_eq!(stdout(&output), "ok: 1 provider, 1 model, 1 uplift\n", "{}", stderr(&output));
    let output = weir(&["prices", "check", &file, "--json"], &[]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(answer["size"]["models"], 1);

    let set = [("WEIR_PRICES__OVERLAY", file.as_str())];
    let usage = ["price", "--provider", "house", "--model", "m", "--usage", "input_tokens=3", "--json"];
    let output = weir(&[&usage[..], &["--context", "shift=night"]].concat(), &set);
    let bill: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(bill["usd"], "0.000003", "the overlay counts, and its uplift");

    let wrong = r#"{"schema_version":1,"providers":[{"id":"a","models":[
        {"id":"m","match":{"eq":["m"]},"rates":{"input_tokens":"0.0000025","output_tokens":"-1"}},
        {"id":"n","match":{"eq":["n"]},"rates":{"input_tokens":"0.0000025"}},
        {"id":"n","match":{"eq":["o"]},"rates":{}}]}]}"#;
    std::fs::write(&path, wrong).expect("a written file");
    let output = weir(&["prices", "check", &file], &[]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""));
    let listed: Vec<_> = stderr(&output).lines().collect();
    assert_eq!(listed.len(), 4, "{listed:#?}");
    assert!(listed[0].starts_with(&format!("weir: the price overlay {file} has mistakes:")), "{listed:#?}");
    for (line, expected) in listed[1..].iter().zip([
        "  providers[0].models[0].rates.output_tokens: `-1` is not a price",
        "  providers[0].models[1].rates.input_tokens: 0.0000025 US dollars for a million is less than any rate known",
        "  providers[0].models[2].id: `n` is the id of providers[0].models[1] already",
    ]) {
        assert!(line.starts_with(expected), "{line}");
    }
    let output = weir(&["prices", "check", "/absent.json"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("/absent.json: No such file"), "{}", stderr(&output));
}

/// weir at work, and the log lines it writes. Ends with the test.
struct Working {
    process: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Working {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.arg("run").args(arguments).env_clear().stderr(Stdio::piped());
        let mut process = command.spawn().expect("the program runs");
        let log = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        Self { process, log }
    }

    /// The next log line with this message.
    fn told(&mut self, message: &str) -> serde_json::Value {
        let lines = self.log.by_ref().map(|line| line.expect("text"));
        let mut parsed = lines.map(|line| serde_json::from_str::<serde_json::Value>(&line).expect("JSON"));
        parsed.find(|line| line["message"] == message).unwrap_or_else(|| panic!("weir ended without `{message}`"))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_overlay_is_watched_while_weir_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("prices.json");
    // A new file in the place of the old one, as an editor or a configuration map leaves it.
    let write = |text: &str| {
        let fresh = directory.path().join("fresh.json");
        std::fs::write(&fresh, text).expect("a written file");
        std::fs::rename(&fresh, &path).expect("it takes the other's place");
    };
    write(&house("1"));
    let overlay = format!("prices.overlay={}", path.display());
    let local = ["listen=127.0.0.1:0", "admin.listen=127.0.0.1:0", "telemetry.log.format=json", &overlay];
    let mut weir = Working::start(&local.iter().flat_map(|set| ["--set", set]).collect::<Vec<_>>());
    let listening = weir.told("listening");
    let listening = if listening["weir.side"] == "admin" { listening } else { weir.told("listening") };
    let admin = listening["server.address"].as_str().expect("an address").to_owned();
    let table = || {
        let metrics = ask(&admin, "/metrics");
        metrics.lines().filter(|line| line.starts_with("weir_price_table")).map(str::to_owned).collect::<Vec<_>>()
    };
    let built_in = [
        r#"weir_price_table_info{version="0.2.3",source="genai-prices + overlay"} 1"#,
        "weir_price_table_timestamp_seconds 1794268800",
    ];
    assert_eq!(table(), built_in);

    write(&house("0.0000025"));
    let refused = weir.told("the price overlay has changed but cannot be used: keeping the last good prices");
    let mistakes = refused["error.message"].as_str().expect("a text");
    assert!(mistakes.contains("providers[0].models[0].rates.input_tokens: 0.0000025 US dollars"), "{mistakes}");
    assert_eq!(table(), built_in);

    let from = r#""generated_from":{"source":"ours","version":"9","released":"2026-11-20"},"providers""#;
    write(&house("2").replace("\"providers\"", from));
    weir.told("the price overlay has changed and is in force");
    assert_eq!(
        table(),
        [
            r#"weir_price_table_info{version="9",source="ours + overlay"} 1"#,
            "weir_price_table_timestamp_seconds 1795132800"
        ]
    );
    assert!(ask(&admin, "/version").contains(r#""version":"9""#));
}

/// What the admin side answers.
fn ask(address: &str, path: &str) -> String {
    let mut connection = TcpStream::connect(address).expect("it listens");
    write!(connection, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("text");
    answer
}

/// Brings an answer to the cache, past any provider.
fn bring(address: &str, model: &str) {
    let body = format!(r#"{{"provider":"openai","model":"{model}","messages":[],"response":"hello"}}"#);
    let mut connection = TcpStream::connect(address).expect("it listens");
    let length = body.len();
    write!(connection, "POST /api/v1/cache/set HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}").expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("text");
    assert!(answer.starts_with("HTTP/1.0 201 "), "{answer}");
}

#[test]
fn budgets_are_shown_and_changed_and_every_change_is_in_the_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (token, config) = (path("token"), path("weir.yaml"));
    std::fs::write(&token, "open-sesame\n").expect("a written file");
    let yaml = "limits: [{ name: agents, per: agent, requests_per_minute: 60 }]\n\
                budgets: [{ name: app, limit_usd: 2.50, window: total, enforce: block }]\n";
    std::fs::write(&config, yaml).expect("a written file");
    let level = "telemetry.log.level=off,weir::cli=info,weir::limits=info";
    let (token_file, state) = (format!("admin.token_file={token}"), format!("state_dir={}", path("state")));
    let knobs =
        ["listen=127.0.0.1:0", "admin.listen=127.0.0.1:0", "telemetry.log.format=json", level, &token_file, &state];
    let knobs = knobs.iter().flat_map(|set| ["--set", set]);
    let mut running = Working::start(&["-c", &config].into_iter().chain(knobs).collect::<Vec<_>>());
    let listening = running.told("listening");
    let listening = if listening["weir.side"] == "admin" { listening } else { running.told("listening") };
    let address = listening["server.address"].as_str().expect("an address").to_owned();
    let ask = |words: &[&str], variables: &[(&str, &str)]| {
        weir(&[words, &["--admin-listen", &address, "--timeout", "1m"]].concat(), variables)
    };
    let by_variable = [("WEIR_ADMIN_TOKEN", "open-sesame")];
    let row = "app     total   all    0 USD  2.5 USD  0.0 %  for ever  within\n";
    for (words, variables, code, expected) in [
        (&["budget"][..], &[][..], 0, row),
        (&["budget", "--json"], &[], 0, "\"remaining_usd\": \"2.5\""),
        (&["budget", "show", "app"], &[], 0, "\nlimit          2.5 USD, by the configuration\n"),
        (&["budget", "show", "ap"], &[], 1, "404 Not Found: there is no budget `ap`: did you mean `app`?"),
        (&["budget", "show", "a/../b?c"], &[], 1, "404 Not Found: there is no budget `a/../b?c`: there are `app`"),
        (&["limits"], &[], 0, "agents  each agent  60 of 60  requests in 1m  0s           0\n"),
        (&["limits", "--subjects", "101"], &[], 2, "101 is not in 0..=100"),
        (&["budget", "set", "much"], &by_variable, 2, "`much` is no amount of US dollars"),
        (&["budget", "set", "5", "--threshold", "101"], &by_variable, 2, "101 is not in 0..=100"),
        (&["budget", "set", "5"], &[], 1, "401 Unauthorized: this needs a token"),
        (
            &["budget", "set", "1500.25", "--threshold", "80"],
            &by_variable,
            0,
            "monthly: 1500.25 USD a month by an operator's change, told from 80 % on; 0 USD spent, 0.0 %.",
        ),
        (&["budget", "unset"], &by_variable, 0, "monthly has no limit of money: none is configured\n"),
        (&["budget", "override", "app", "--for", "1h"], &by_variable, 2, "--reason <TEXT>"),
        (&["budget", "override", "app", "--reason", "x"], &by_variable, 2, "--for <DURATION>"),
        (&["budget", "override", "app", "--end", "--for", "1h"], &by_variable, 2, "cannot be used with"),
        (
            &["budget", "override", "app", "--for", "32d", "--reason", "x"],
            &by_variable,
            1,
            "422 Unprocessable Entity: #/for is more than 31 days away",
        ),
        (&["budget", "override", "app", "--end"], &by_variable, 1, "budget `app` is not overridden"),
        (
            &["budget", "override", "app", "--for", "1h", "--limit-usd", "10", "--reason", "launch day"],
            &by_variable,
            0,
            "\nstate          calls pass up to 10 USD until 2",
        ),
        (&["budget", "override", "app", "--end"], &by_variable, 0, "\nstate          within\n"),
        (
            &["budget", "override", "app", "--for", "1s", "--reason", "again"],
            &by_variable,
            0,
            "\noverride       again\n",
        ),
    ] {
        let output = ask(words, variables);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}{}", stdout(&output), stderr(&output));
        let told = if code == 0 { stdout(&output) } else { stderr(&output) };
        assert!(told.contains(expected), "{words:?}: {told}");
    }
    assert_budgets_audited(&mut running);
}

/// That the log tells who changed what of a budget, from what to what and why, and when an override is over.
fn assert_budgets_audited(running: &mut Working) {
    let denied = running.told("command denied: no token was shown");
    assert_eq!(denied["weir.audit.action"], "/api/v1/cost/budget");
    let mut changed = |action: &str| {
        let line = running.told("budget changed");
        assert_eq!((&line["target"], &line["weir.audit.action"]), (&"weir::audit".into(), &action.into()));
        assert!(line["client.address"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
        assert_eq!(line["weir.audit.token"], "admin", "a token is told by its name");
        assert!(!line.to_string().contains("sesame"), "{line}");
        let what = line["weir.audit.what"].as_str().expect("a text");
        serde_json::from_str::<serde_json::Value>(what).expect("it is JSON")
    };
    let set = changed("budget.set");
    assert_eq!((&set["budget"], &set["from"]["limit_usd"]), (&"monthly".into(), &serde_json::Value::Null));
    assert_eq!((&set["to"]["limit_usd"], &set["to"]["source"]), (&"1500.25".into(), &"api".into()));
    assert_eq!(changed("budget.unset")["to"], set["from"]);
    let begun = changed("budget.override");
    assert_eq!((&begun["from"], &begun["to"]["reason"]), (&serde_json::Value::Null, &"launch day".into()));
    let ended = changed("budget.override.end");
    assert_eq!((&ended["from"], &ended["to"]), (&begun["to"], &serde_json::Value::Null));
    assert_eq!(changed("budget.override")["to"]["reason"], "again");
    assert_eq!(running.told("an override has ended")["weir.budget"], "app");
}

#[test]
fn the_cache_is_commanded_and_every_change_is_in_the_log() {
    const TOKEN: &str = "open-sesame";
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a written file");
        path.display().to_string()
    };
    let (token, wrong) = (file("token", "open-sesame\n"), file("wrong", "simsim"));
    let token_file = format!("admin.token_file={token}");
    // Quiet, but for what tells the address.
    let level = "telemetry.log.level=off,weir::cli=info";
    let knobs = ["listen=127.0.0.1:0", "admin.listen=127.0.0.1:0", "telemetry.log.format=json", level, &token_file];
    let mut running = Working::start(&knobs.iter().flat_map(|set| ["--set", set]).collect::<Vec<_>>());
    let listening = running.told("listening");
    let listening = if listening["weir.side"] == "admin" { listening } else { running.told("listening") };
    let address = listening["server.address"].as_str().expect("an address").to_owned();
    let cache = |words: &[&str], variables: &[(&str, &str)]| {
        weir(&[&["cache"], words, &["--admin-listen", &address, "--timeout", "1m"]].concat(), variables)
    };
    for model in ["gpt-5", "gpt-5-mini", "o3"] {
        bring(&address, model);
    }

    let stats = cache(&["stats"], &[]);
    assert_eq!(stats.status.code(), Some(0), "{}", stderr(&stats));
    assert!(stdout(&stats).contains("\nhit ratio    no look-up yet\n"), "{}", stdout(&stats));
    assert!(stdout(&stats).contains("\nmemory       3 entries, "), "{}", stdout(&stats));
    let stats = cache(&["stats", "--json"], &[]);
    let json: serde_json::Value = serde_json::from_slice(&stats.stdout).expect("it is JSON");
    assert_eq!(json["backends"]["memory"]["stores"]["stored"], 3);
    let config = cache(&["config"], &[]);
    assert!(stdout(&config).contains("\nttl: 1h\n"), "{}", stdout(&config));

    let by_variable = [("WEIR_ADMIN_TOKEN", TOKEN)];
    let by_configuration = [("WEIR_ADMIN__TOKEN_FILE", &*token)];
    for (words, variables, code, expected) in [
        (&["invalidate", "--model", "gpt-5"][..], &[][..], 1, "401 Unauthorized: this needs a token"),
        (&["clear", "--token-file", &wrong], &by_variable, 1, "401 Unauthorized: the token is not the one"),
        (&["clear", "--token-file", "/absent"], &[], 1, "cannot read the token file /absent"),
        (&["invalidate", "--pattern", "[a", "--key", "b"], &by_variable, 1, "#/pattern `[a` is not a pattern"),
        (&["invalidate", "--pattern", "[a", "--key", "b"], &by_variable, 1, "#/key `b` is not a key"),
        (&["invalidate"], &by_variable, 2, "--older-than"),
        (&["invalidate", "--all", "--model", "m"], &by_variable, 2, "cannot be used with"),
        (&["invalidate", "--older-than", "soon"], &by_variable, 2, "`soon` is not a duration"),
        (&["invalidate", "--older-than", "1h"], &by_variable, 0, "0 entries removed\n"),
        (&["invalidate", "--model", "gpt-5"], &by_variable, 0, "1 entry removed\n"),
        (&["invalidate", "--prefix", "openai/gpt-5-"], &by_configuration, 0, "1 entry removed\n"),
        (&["invalidate", "--all", "--token-file", &token], &[], 0, "1 entry removed\n"),
        (&["clear", "--json"], &by_variable, 0, "\"removed\": 0"),
    ] {
        let output = cache(words, variables);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", stderr(&output));
        let told = if code == 0 { stdout(&output) } else { stderr(&output) };
        assert!(told.contains(expected), "{words:?}: {told}");
    }

    assert_audited(&mut running);
    drop(running);
    let gone = cache(&["stats"], &[]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(
        stderr(&gone).contains(&format!("no answer from http://{address}/api/v1/cache/stats")),
        "{}",
        stderr(&gone)
    );
}

/// That the log tells of these attempts and changes, and of no token.
fn assert_audited(running: &mut Working) {
    let denied = running.told("command denied: no token was shown");
    assert_eq!(denied["weir.audit.action"], "/api/v1/cache/invalidate");
    assert!(denied["client.address"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{denied}");
    running.told("command denied: another token was shown");
    for (action, what, entries) in [
        ("cache.invalidate", r#"{"older_than":"1h"}"#, 0),
        ("cache.invalidate", r#"{"model":"gpt-5"}"#, 1),
        ("cache.invalidate", r#"{"prefix":"openai/gpt-5-"}"#, 1),
        ("cache.clear", "{}", 1),
        ("cache.clear", "{}", 0),
    ] {
        let line = running.told("cache entries removed");
        assert_eq!(
            (&line["weir.audit.action"], &line["weir.audit.what"], &line["weir.audit.entries"]),
            (&action.into(), &what.into(), &entries.into())
        );
        assert_eq!((&line["target"], &line["level"]), (&"weir::audit".into(), &"INFO".into()));
        assert!(!line.to_string().contains("sesame") && !line.to_string().contains("simsim"), "{line}");
    }
}

#[test]
#[cfg(feature = "inject")]
fn an_injector_says_all_that_it_lacks() {
    let output = weir(&["inject", "--set", "inject.port=0x", "--set", "inject.tls.secret=A_b"], &[]);
    assert_eq!(output.status.code(), Some(2));
    for expected in ["inject.port", "inject.tls.secret", "inject.image: is missing", "inject.tls.source", "4 mistakes"]
    {
        assert!(stderr(&output).contains(expected), "{expected}: {}", stderr(&output));
    }
}
