//! Every mistake is named with its fix, and what is right means what was written.

use std::fs;
use std::io::{Seek, Write};

use serde_json::json;

use super::*;
use crate::config::tree::Tree;
use crate::config::written::apply_flag;
use crate::provider::{CredentialSource, PricedAs};
use crate::units::Span;

fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What is wrong with a file, with the file's own name shortened.
fn mistakes(text: &str, variables: &[(&str, &str)], flags: &[Flag]) -> Vec<String> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("the file is written");
    let path = file.path().to_owned();
    let (environment, flags) = (environment(variables), flags.to_vec());
    let sources = Sources { file: Some(path.clone()), environment, flags, ..Sources::default() };
    let shown = match Config::load(&sources) {
        Ok(_) => return Vec::new(),
        Err(mistakes) => mistakes.to_string(),
    };
    let mut lines: Vec<String> =
        shown.lines().map(|line| line.replace(&path.display().to_string(), "weir.yaml")).collect();
    lines.pop();
    lines
}

fn set(path: &str, value: &str) -> Flag {
    Flag { name: "--set", path: path.to_owned(), value: value.to_owned() }
}

#[test]
fn without_a_file_the_known_providers_are_there() {
    let config = Config::load(&Sources::default()).expect("the defaults are right");
    let names: Vec<&str> = config.providers.iter().map(|provider| &*provider.name).collect();
    let mut known: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
    known.sort_unstable();
    assert_eq!(names, known);
    assert_eq!(&*config.default_provider.name, "openai");
    assert_eq!(config.default_provider.prices, PricedAs::Table("openai".into()));
    assert_eq!(config.default_provider.credential, CredentialSource::App);
}

#[test]
fn each_mistake_of_a_value_is_named_with_its_fix() {
    for (text, expected) in [
        (
            "cache:\n  ttl: 1 hour-ish\n",
            "weir.yaml:2: cache.ttl: `1 hour-ish` is not a duration: write a number and a unit, such as 250ms, 30s, 5m or 1h",
        ),
        (
            "cache:\n  ttl: 5\n",
            "weir.yaml:2: cache.ttl: `5` is not a duration: write a number and a unit, such as 250ms, 30s, 5m or 1h",
        ),
        (
            "cache:\n  ttl: 1.5\n",
            "weir.yaml:2: cache.ttl: `1.5` is not a duration: write a number and a unit, such as 250ms, 30s, 5m or 1h",
        ),
        ("cache:\n  ttl: 0s\n", "weir.yaml:2: cache.ttl: must be more than zero: the default is 1h"),
        ("cache: { ttl: 100years }\n", "weir.yaml:1: cache.ttl: is too long: write at most 10 years"),
        ("cache: { max_entrys: 5 }\n", "weir.yaml:1: cache.max_entrys: unknown name: did you mean `max_entries`?"),
        ("prices: { list: x }\n", "weir.yaml:1: prices.list: unknown name: write one of `overlay`"),
        (
            "cache: { max_entries: many }\n",
            "weir.yaml:1: cache.max_entries: `many` is not a whole number: write one such as 100",
        ),
        ("cache: { max_entries: 0 }\n", "weir.yaml:1: cache.max_entries: must be more than zero: the default is 10000"),
        (
            "cache: { max_bytes: 64 apples }\n",
            "weir.yaml:1: cache.max_bytes: `64 apples` is not a size: write a number and a unit, such as 512KiB, 64MiB or 1GiB",
        ),
        (
            "cache: { mode: of }\n",
            "weir.yaml:1: cache.mode: `of` is not one of `all`, `deterministic`, `opt_in`, `off`, `record`, `replay`: did you mean `off`?",
        ),
    ] {
        assert_eq!(mistakes(text, &[], &[]), [expected], "{text}");
    }
}

#[test]
fn each_mistake_of_privacy_is_named_with_its_fix() {
    let privacy = "privacy:
  user_ids: hashed
  capture: redacted
  namespaces: { support: full, team: none }
  patterns:
  - { name: email, regex: x }
  - { name: a b, regex: '(' }
  - { name: staff }
providers: { openai: { capture: full } }
";
    assert_eq!(
        mistakes(privacy, &[], &[]),
        [
            "weir.yaml:1: privacy.user_id_key_file: is missing, and needed with `user_ids: hashed`: name a file that holds what `openssl rand -hex 32` prints",
            "weir.yaml:4: privacy.namespaces.support: keeps more than `privacy.capture`, which is the most that is kept of any call: raise that first",
            "weir.yaml:6: privacy.patterns[0].name: `email` is a kind that weir finds by itself: write another name",
            "weir.yaml:7: privacy.patterns[1].name: `a b` is no name: write up to 64 letters, digits and any of -_.",
            "weir.yaml:7: privacy.patterns[1].regex: is not a regular expression that can be used: unclosed group",
            "weir.yaml:8: privacy.patterns[2].regex: is missing: write what it looks like, such as 'E-[0-9]{6}'",
            "weir.yaml:9: providers.openai.capture: keeps more than `privacy.capture`, which is the most that is kept of any call: raise that first",
        ]
    );
}

#[test]
fn each_mistake_of_a_limit_or_a_budget_is_named_with_its_fix() {
    for (text, expected) in [
        ("limits: [{ requests_per_day: 1 }]", "limits[0].name: is missing: it stands in metrics and in refusals"),
        (
            "limits: [{ name: a, requests_per_day: 1 }, { name: a, requests_per_day: 1 }]",
            "limits[1].name: `a` is the name of an earlier one: write another",
        ),
        (
            "limits: [{ name: a b, requests_per_day: 1 }]",
            "limits[0].name: `a b` is no name: write up to 64 letters, digits and any of -_.",
        ),
        (
            "limits: [{ name: a }]",
            "limits[0]: limits nothing: write one such as `requests_per_minute`, `tokens_per_minute` or `concurrent_calls`",
        ),
        ("limits: [{ name: a, requests_per_day: 0 }]", "limits[0].requests_per_day: must be more than zero"),
        (
            "limits: [{ name: a, per: agents, requests_per_day: 1 }]",
            "limits[0].per: `agents` is nothing that calls are told apart by: write one or more of provider, model, namespace, workspace, user, agent, credential",
        ),
        (
            "limits: [{ name: a, count_hits: true, tokens_per_day: 1 }]",
            "limits[0].count_hits: what the cache answers takes no tokens: limit tokens in a rule of its own, without this",
        ),
        (
            "budgets: [{ name: a, match: { provider: opnai }, limit_usd: 1 }]",
            "budgets[0].match.provider: there is no provider `opnai`: did you mean `openai`?",
        ),
        ("budgets: [{ name: a }]", "budgets[0]: limits nothing: write `limit_usd` or `limit_tokens`"),
        (
            "budgets: [{ name: a, limit_usd: -3 }]",
            "budgets[0].limit_usd: `-3` is not an amount of US dollars such as 0.50",
        ),
        (
            "budgets: [{ name: a, limit_usd: 1, time_zone: Berlin }]",
            "budgets[0].time_zone: `Berlin` is not a time zone: did you mean Europe/Berlin? write a name of the IANA database, such as Europe/Berlin, America/New_York or UTC",
        ),
        (
            "budgets: [{ name: a, limit_usd: 1, enforce: downgrade }]",
            "budgets[0].downgrade_to: is missing, and needed with `enforce: downgrade`: write the cheaper model",
        ),
        (
            "budgets: [{ name: a, limit_usd: 1, downgrade_to: b }]",
            "budgets[0].downgrade_to: has no effect without `enforce: downgrade`: add that, or remove this",
        ),
        (
            "budgets: [{ name: a, limit_usd: 1, stop_streams: true }]",
            "budgets[0].stop_streams: has no effect without `enforce: block`: add that, or remove this",
        ),
        (
            "budgets: [{ name: a, limit_usd: 1, thresholds: [50, 5000] }]",
            "budgets[0].thresholds[1]: 5000 is no percentage that is worth a line: write one from 1 to 1000",
        ),
    ] {
        assert_eq!(mistakes(text, &[], &[]), [format!("weir.yaml:1: {expected}")], "{text}");
    }
    for text in ["budgets: [{ name: a, limit_usd: 0 }]", "budgets: [{ name: a, limit_tokens: 5, window: total }]"] {
        assert_eq!(mistakes(text, &[], &[]), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn each_mistake_of_reading_what_the_fleet_spends_is_named_with_its_fix() {
    let on = r#"prometheus_url: "http://prometheus:9090""#;
    for (rest, expected) in [
        (
            "{ match: job=\"weir\" }",
            "match: has no effect without `fleet_spend.prometheus_url`: add that, or remove this",
        ),
        (
            &*format!("{{ {on} }}"),
            "match: is missing, so that other apps' spending would count: write matchers such as namespace=\"shop\", job=\"weir\"",
        ),
        (
            &format!("{{ {on}, match: \"weir\" }}"),
            "match: `weir` are no label matchers: write matchers such as namespace=\"shop\", job=\"weir\"",
        ),
        (
            "{ prometheus_url: prometheus, match: job=~\".+\" }",
            "prometheus_url: is not an http or https URL: write one such as http://prometheus:9090",
        ),
        (
            "{ prometheus_url: \"http://me:secret@prometheus\", match: job=~\".+\" }",
            "prometheus_url: holds a credential: put it in a file and write `bearer_token_file`",
        ),
        (
            &format!("{{ {on}, match: job=~\".+\", interval: 2h }}"),
            "keep_for: must not be less than `fleet_spend.interval`, which is 2h",
        ),
    ] {
        let text = format!("fleet_spend: {rest}");
        assert_eq!(mistakes(&text, &[], &[]), [format!("weir.yaml:1: fleet_spend.{expected}")], "{text}");
    }
    assert_eq!(mistakes(&format!("fleet_spend: {{ {on}, match: job=~\".+\" }}"), &[], &[]), Vec::<String>::new());
}

#[test]
fn each_mistake_of_sidecars_is_named_with_its_fix() {
    for (text, expected) in [
        ("{ listen: \"127.0.0.1:9348\" }", "listen: 127.0.0.1:9348 is taken by `admin.listen`: write another port"),
        ("{ image: a b }", "image: `a b` is no image: write one such as ghcr.io/weir-dev/weir:0.1.0"),
        (
            "{ image_pull_policy: Sometimes }",
            "image_pull_policy: `Sometimes` is not one of ``, `Always`, `IfNotPresent`, `Never`: write one of them",
        ),
        ("{ mode: nativ }", "mode: `nativ` is not one of `native`, `container`: did you mean `native`?"),
        ("{ port: 0 }", "port: must be more than zero: the default is 9347"),
        ("{ port: 9348 }", "admin_port: 9348 is `inject.port` as well: write another"),
        ("{ providers: [openai, gemini, openai] }", "providers[2]: `openai` is there twice: remove one of them"),
        (
            "{ config_map: My_Map }",
            "config_map: `My_Map` is no name of an object in Kubernetes: write lower-case letters, digits, `-` and `.`, such as weir-injector",
        ),
        (
            "{ env: { a-b: x } }",
            "env.a-b: is no name of a variable: write letters, digits and `_`, such as WEIR_CACHE__MODE",
        ),
        ("{ env: { A: 5 } }", "env.A: `5` reads as a number, not as text: put it in quotes"),
        (
            "{ resources: { cpu_request: lots } }",
            "resources.cpu_request: `lots` is no amount: write one such as 100m, or nothing",
        ),
        (
            "{ resources: { memory_limit: 16Mi } }",
            "resources.memory_request: 32Mi is more than `memory_limit`, 16Mi: write less",
        ),
        ("{ run_as_user: 0 }", "run_as_user: must be more than zero: the default is 65532"),
        ("{ tls: { directory: \"\" } }", "tls.directory: is empty: write the directory of tls.crt and tls.key"),
    ] {
        let text = format!("inject: {text}");
        let shown = mistakes(&text, &[], &[]);
        let shown: Vec<&str> = shown.iter().map(|line| line.split_once(": inject.").expect(line).1).collect();
        assert_eq!(shown, [expected], "{text}");
    }
}

#[test]
fn nothing_may_be_written_where_it_is_not_the_default() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    for (text, expected) in
        [("inject: { run_as_user: null }\n", None), ("inject: {}\n", Some(65532)), ("inject:\n", Some(65532))]
    {
        file.as_file_mut().set_len(0).expect("emptied");
        file.rewind().expect("rewound");
        file.write_all(text.as_bytes()).expect("written");
        let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
        assert_eq!(Config::load(&sources).expect("right").inject.run_as_user, expected, "{text}");
    }
}

#[test]
fn each_mistake_of_traces_is_named_with_its_fix() {
    for (text, expected) in [
        ("endpoint: collector", "endpoint: is not an http or https URL such as http://127.0.0.1:4318"),
        ("protocol: http/json", "protocol: `http/json` is not one of `http/protobuf`, `grpc`: write one of them"),
        ("headers_file: /absent", "headers_file: the file cannot be read: No such file or directory (os error 2)"),
        ("ca_file: /absent", "ca_file: the file cannot be read: No such file or directory (os error 2)"),
        ("sample_ratio: 2", "sample_ratio: `2` is not a share: write a number from 0 to 1, such as 0.95"),
    ] {
        let text = format!("telemetry: {{ traces: {{ {text} }} }}");
        assert_eq!(mistakes(&text, &[], &[]), [format!("weir.yaml:1: telemetry.traces.{expected}")], "{text}");
    }
    let fine = "telemetry: { traces: { endpoint: \"http://c:4318\", sample_ratio: 0 } }";
    assert_eq!(mistakes(fine, &[("OTEL_TRACES_SAMPLER", "nonsense")], &[]), Vec::<String>::new());
}

#[test]
fn each_mistake_of_a_rule_of_the_cache_is_named_with_its_fix() {
    for (text, expected) in [
        (
            "cache:\n  rules:\n    - ttl: 5m\n    - model: gpt-5*\n",
            "weir.yaml:4: cache.rules[1]: sets nothing: write `mode`, `ttl` or `stale_while_revalidate`",
        ),
        (
            "cache:\n  rules:\n    - provider: opnai\n      mode: off\n",
            "weir.yaml:3: cache.rules[0].provider: there is no provider `opnai`: did you mean `openai`?",
        ),
        (
            "cache: { rules: [{ provider: elsewhere, mode: off }] }\n",
            "weir.yaml:1: cache.rules[0].provider: there is no provider `elsewhere`: write the name of one of `providers`",
        ),
        (
            "cache: { rules: [{ model: \"gpt-[5\", mode: off }] }\n",
            "weir.yaml:1: cache.rules[0].model: error parsing glob 'gpt-[5': unclosed character class; missing ']'",
        ),
        ("cache: { rules: [{ ttl: 0s }] }\n", "weir.yaml:1: cache.rules[0].ttl: must be more than zero"),
        (
            "cache: { rules: [{ mode: on }] }\n",
            "weir.yaml:1: cache.rules[0].mode: `on` is not one of `all`, `deterministic`, `opt_in`, `off`, `record`, `replay`: write one of them",
        ),
        ("cache: { rules: [{ ttls: 5m }] }\n", "weir.yaml:1: cache.rules[0].ttls: unknown name: did you mean `ttl`?"),
        (
            "cache: { rules: [off] }\n",
            "weir.yaml:1: cache.rules[0]: a section is expected, not a text: write names below it",
        ),
        (
            "cache: { stale_while_revalidate: 100years }\n",
            "weir.yaml:1: cache.stale_while_revalidate: is too long: write at most 10 years",
        ),
        (
            "cache: { rules: [{ mode: replay }] }\n",
            "weir.yaml:1: cache.rules[0].mode: holds for all calls or for none: write it as `cache.mode`",
        ),
        (
            "cache: { mode: replay }\n",
            "weir.yaml:1: cache.recordings: is missing, and needed with `cache.mode: replay`: write the directory of the recordings, such as tests/recordings",
        ),
    ] {
        assert_eq!(mistakes(text, &[], &[]), [expected], "{text}");
    }
}

#[test]
fn each_mistake_of_shape_or_sense_is_named_with_its_fix() {
    for (text, expected) in [
        ("cache: [all]\n", "weir.yaml:1: cache: a section is expected, not a list: write names below it"),
        (
            "cache:\n  max_bytes: 1MiB\n  max_entry_bytes: 2MiB\n",
            "weir.yaml:3: cache.max_entry_bytes: must not be more than `cache.max_bytes`, which is 1MiB",
        ),
        (
            "listen: localhost:9347\n",
            "weir.yaml:1: listen: `localhost:9347` is not an address: write an IP address and a port, such as 127.0.0.1:9347",
        ),
        (
            "admin: { listen: 127.0.0.1:9347 }\n",
            "weir.yaml:1: admin.listen: 127.0.0.1:9347 is taken by `listen`: write another port",
        ),
        (
            "calls: { response_headers: yes }\n",
            "weir.yaml:1: calls.response_headers: `yes` is neither true nor false: write true or false",
        ),
        (
            "calls: { identity: { user_header: a b } }\n",
            "weir.yaml:1: calls.identity.user_header: `a b` is not a header name: write one such as X-User-ID",
        ),
        (
            "calls: { identity: { user_header: Authorization } }\n",
            "weir.yaml:1: calls.identity.user_header: `Authorization` has another meaning: write one such as X-User-ID",
        ),
        (
            "telemetry: { log: { level: verbose } }\n",
            "weir.yaml:1: telemetry.log.level: `verbose` is not a log filter: write error, warn, info, debug, trace, or a filter such as weir=debug,hyper=warn",
        ),
        (
            "telemetry: { semconv: 1.41 }\n",
            "weir.yaml:1: telemetry.semconv: `1.41` reads as a number, not as text: put it in quotes",
        ),
        (
            "telemetry: { log: { level: 5 } }\n",
            "weir.yaml:1: telemetry.log.level: `5` reads as a number, not as text: put it in quotes",
        ),
        (
            "upstream: { ca_files: /a }\n",
            "weir.yaml:1: upstream.ca_files: a list is expected, not a text: write [a, b]",
        ),
        (
            "upstream:\n  ca_files:\n    - /absent/ca\n",
            "weir.yaml:3: upstream.ca_files[0]: `/absent/ca` cannot be read: No such file or directory (os error 2)",
        ),
        (
            "default_provider: opnai\n",
            "weir.yaml:1: default_provider: there is no provider `opnai`: write one of `anthropic`, `bedrock`, `cerebras`, `cohere`, `deepseek`, `fireworks`, `gemini`, `groq`, `huggingface`, `mistral`, `moonshot`, `ollama`, `openai`, `openrouter`, `perplexity`, `together`, `vertex`, `xai`",
        ),
        ("a: 1\na: 2\n", "weir.yaml:2: column 1: this name is already used in its section: remove one"),
        ("hello\n", "weir.yaml:1: a section is expected, not a text: write names below it"),
    ] {
        assert_eq!(mistakes(text, &[], &[]), [expected], "{text}");
    }
}

#[test]
fn each_mistake_of_the_tokens_of_the_admin_side_is_named_with_its_fix() {
    for (text, expected) in [
        (
            "admin: { tokens: [{ file: /dev/null }] }\n",
            &[
                "weir.yaml:1: admin.tokens[0].file: the file is empty: it must hold the token",
                "weir.yaml:1: admin.tokens[0].name: is missing: it stands in the audit log",
            ][..],
        ),
        (
            "admin: { tokens: [{ name: admin }] }\n",
            &[
                "weir.yaml:1: admin.tokens[0].file: is missing: write the file that holds the token",
                "weir.yaml:1: admin.tokens[0].name: `admin` is the name of an earlier one: write another",
            ],
        ),
        (
            "admin:\n  tokens:\n  - { name: a, file: /proc/version, role: admin, workspace: x }\n  - { name: b, file: /proc/version, user: '' }\n",
            &[
                "weir.yaml:3: admin.tokens[0].workspace: has no meaning with `role: admin`, which changes the whole instance: remove one of the two",
                "weir.yaml:4: admin.tokens[1].user: is empty: write a name, or leave it out for all of them",
            ],
        ),
        (
            "admin: { reader_token_file: /dev/null }\n",
            &["weir.yaml:1: admin.reader_token_file: the file is empty: it must hold the token"],
        ),
        (
            "admin: { require_token: true }\n",
            &[
                "weir.yaml:1: admin.require_token: there is no token: add `admin.token_file`, `admin.reader_token_file` or `admin.tokens`",
            ],
        ),
    ] {
        assert_eq!(mistakes(text, &[], &[]), expected, "{text}");
    }
}

#[test]
fn each_mistake_of_the_shared_store_is_named_with_its_fix_and_no_password() {
    for (text, expected) in [
        (
            "cache: { redis: { secret_file: /dev/null } }\n",
            "weir.yaml:1: cache.redis.url: is missing: write one such as redis://127.0.0.1:6379",
        ),
        (
            "cache: { redis: { url: \"http://user:hidden@h\", secret_file: /dev/null } }\n",
            "weir.yaml:1: cache.redis.url: is no URL of a server: write one such as redis://127.0.0.1:6379",
        ),
        (
            "cache:\n  redis:\n    url: redis://h\n    url_file: /dev/null\n    secret_file: /dev/null\n",
            "weir.yaml:4: cache.redis.url_file: `url` is set as well: remove one of them",
        ),
        (
            "cache: { redis: { url: redis://h } }\n",
            "weir.yaml:1: cache.redis.secret_file: is missing: name a file that holds what `openssl rand -hex 32` prints",
        ),
        (
            "cache:\n  redis: { url: redis://h, secret_file: /dev/null, prefix: 'a*' }\n",
            "weir.yaml:2: cache.redis.prefix: is part of the names of keys: write letters, digits and any of -_.:/",
        ),
    ] {
        assert_eq!(mistakes(text, &[], &[]), [expected], "{text}");
    }
}

#[test]
fn each_mistake_of_loops_is_named_with_its_fix() {
    let repeats = "must be from 2 to 16, the calls that are compared, or 0 for never: the default is 8";
    for (text, expected) in [
        ("loops: { repeats: 1 }\n", format!("weir.yaml:1: loops.repeats: {repeats}")),
        ("loops: { repeats: 17 }\n", format!("weir.yaml:1: loops.repeats: {repeats}")),
        (
            "loops: { max_runs: 0 }\n",
            "weir.yaml:1: loops.max_runs: must be more than zero: the default is 10000".into(),
        ),
        ("loops: { max_calls_per_run: 0 }\n", "weir.yaml:1: loops.max_calls_per_run: must be more than zero".into()),
        ("loops: { max_cost_per_run: 0 }\n", "weir.yaml:1: loops.max_cost_per_run: must be more than zero".into()),
        ("loops: { idle: 0s }\n", "weir.yaml:1: loops.idle: must be more than zero: the default is 5m".into()),
        (
            "loops: { max_cost_per_run: free }\n",
            "weir.yaml:1: loops.max_cost_per_run: `free` is no amount of US dollars: write one such as 0.50".into(),
        ),
        (
            "loops: { on_runaway: stop }\n",
            "weir.yaml:1: loops.on_runaway: `stop` is not one of `alert`, `block`: write one of them".into(),
        ),
        (
            "calls: { identity: { run_status_header: a b } }\n",
            "weir.yaml:1: calls.identity.run_status_header: `a b` is not a header name: write one such as \
                 X-Run-Status"
                .into(),
        ),
    ] {
        assert_eq!(mistakes(text, &[], &[]), [expected], "{text}");
    }
    assert_eq!(mistakes("loops: { repeats: 0, max_cost_per_run: 0.5 }\n", &[], &[]), Vec::<String>::new());
}

#[test]
fn each_mistake_of_a_provider_is_named_with_its_fix() {
    for (text, expected) in [
        (
            "Local: { api: openai, base_url: http://h }",
            "Local: a provider's name is part of a path: write lower-case letters, digits, `-` and `_` only",
        ),
        ("v1: { api: openai, base_url: http://h }", "v1: this name is reserved: choose another"),
        (
            "local: { base_url: http://h }",
            "local.api: is missing: write the API it speaks, such as openai (only `openai`, `anthropic`, `bedrock`, `cohere`, `ollama`, `gemini`, `vertex`, `cerebras`, `deepseek`, `fireworks`, `groq`, `huggingface`, `mistral`, `moonshot`, `openrouter`, `perplexity`, `together`, `xai` are known by name)",
        ),
        (
            "opnai: { api: openai }",
            "opnai.base_url: is missing: did you mean the provider `openai`? Otherwise write where it is, such as http://127.0.0.1:8000",
        ),
        (
            "local: { api: openia, base_url: http://h }",
            "local.api: `openia` is not one of `openai`, `azure_openai`, `anthropic`, `bedrock`, `cohere`, `ollama`, `gemini`, `vertex_ai`: did you mean `openai`?",
        ),
        (
            "openai: { base_url: ftp://h }",
            "openai.base_url: is not an http or https URL: write one such as https://api.openai.com",
        ),
        (
            "openai: { base_url: \"http://:80\" }",
            "openai.base_url: is not a URL: write one such as https://api.openai.com",
        ),
        (
            "openai: { base_url: \"https://h:99999\" }",
            "openai.base_url: is not a URL: write one such as https://api.openai.com",
        ),
        (
            "openai: { base_url: https://u:p@h }",
            "openai.base_url: holds a credential: put it in a file and write `api_key_file`",
        ),
        (
            "openai: { base_url: https://h?a }",
            "openai.base_url: has a query or a fragment: write what precedes the `?` or `#` only",
        ),
        (
            "openai: { base_url: https://h/a#b }",
            "openai.base_url: has a query or a fragment: write what precedes the `?` or `#` only",
        ),
        (
            "openai: { api_key_file: /absent }",
            "openai.api_key_file: the file cannot be read: No such file or directory (os error 2)",
        ),
        ("openai: { api_key_file: /dev/null }", "openai.api_key_file: the file is empty: it must hold the key"),
        (
            "openai: { api_key_env: ABSENT }",
            "openai.api_key_env: the environment variable of this name is not set: set it to the key",
        ),
        (
            "openai: { api_key_env: ABSENT, api_key_file: /absent }",
            "openai.api_key_env: there is an `api_key_file` too: remove one of them",
        ),
        (
            "openai: { prices: \"\" }",
            "openai.prices: is empty: write `free`, an id of the price table, or leave it out",
        ),
    ] {
        let expected = format!("weir.yaml:2: providers.{expected}");
        assert_eq!(mistakes(&format!("providers:\n  {text}\n"), &[], &[]), [expected], "{text}");
    }
}

#[test]
fn each_mistake_of_retries_circuits_and_fallbacks_is_named_with_its_fix() {
    let (fallbacks, eu) = ("providers.openai.fallbacks", "base_url: https://eu");
    for (text, expected) in [
        (
            "providers: { openai: { fallbacks: [{ name: again }] } }".to_owned(),
            vec![format!("{fallbacks}[0]: is the provider itself: write another `base_url`, or another key as `api_key_file`")],
        ),
        (
            "providers: { openai: { fallbacks: [{ base_url: h }] } }".to_owned(),
            vec![format!("{fallbacks}[0].base_url: is not an http or https URL: write one such as https://api.openai.com")],
        ),
        (
            "providers: { openai: { fallbacks: [{ api_key_env: ABSENT }] } }".to_owned(),
            vec![format!("{fallbacks}[0].api_key_env: the environment variable of this name is not set: set it to the key")],
        ),
        (
            format!("providers: {{ openai: {{ fallbacks: [{{ name: groq, {eu} }}, {{ name: a, {eu} }}, {{ name: a, {eu} }}] }} }}"),
            vec![
                format!("{fallbacks}[0].name: `groq` is the name of another upstream: write one of its own"),
                format!("{fallbacks}[2].name: `a` is the name of another upstream: write one of its own"),
            ],
        ),
        (
            "upstream: { retries: { max: 11, base_delay: 9s, on: [] }, breaker: { failure_rate: 0 } }".to_owned(),
            vec![
                "upstream.breaker.failure_rate: must be more than zero: the default is 0.5".to_owned(),
                "upstream.retries.max: is more than helps: write at most 10".to_owned(),
                "upstream.retries.max_delay: must not be less than `base_delay`, which is 9s".to_owned(),
                "upstream.retries.on: is empty, so that nothing is tried again: write `connect` or another word, or `max: 0`"
                    .to_owned(),
            ],
        ),
    ] {
        let found = mistakes(&text, &[], &[]);
        let told = |known: &str| found.iter().any(|mistake| mistake.ends_with(known));
        assert!(expected.len() == found.len() && expected.iter().all(|known| told(known)), "{text}: {found:#?}");
    }
    let text = "providers: { openai: { fallbacks: [{ base_url: https://eu }, { name: far, base_url: https://far }] } }";
    let sources = Sources { environment: environment(&[("WEIR_DEFAULTS", text)]), ..Sources::default() };
    let config = Config::load(&sources).expect("it is right");
    let openai = config.providers.iter().find(|provider| &*provider.name == "openai").expect("it is known");
    let names: Vec<_> = openai.fallbacks.iter().map(|fallback| &*fallback.name).collect();
    assert_eq!(names, ["openai-2", "far"]);
}

#[test]
fn each_mistake_of_signing_is_named_with_its_fix() {
    for (text, expected) in [
        (
            "openai: { aws_sign: true, api_key_env: KEY }",
            "openai.api_key_env: there is `aws_sign: true` too: remove one of them",
        ),
        (
            "openai: { aws_region: eu-west-1 }",
            "openai.aws_region: has no effect without `aws_sign: true`: add that, or remove this",
        ),
        (
            "openai: { aws_sign: true, aws_region: Ireland }",
            "openai.aws_region: `Ireland` is not a region: write one such as eu-west-1",
        ),
        (
            "openai: { aws_sign: true, aws_profile: \"\" }",
            "openai.aws_profile: is empty: write a profile's name, or leave it out",
        ),
    ] {
        let expected = format!("weir.yaml:2: providers.{expected}");
        assert_eq!(mistakes(&format!("providers:\n  {text}\n"), &[], &[]), [expected], "{text}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let text = "listen: here\ncache:\n  mode: sometimes\n  ttl: soon\nprovider: {}\nproviders:\n  local: {}\n";
    let variables = [("WEIR_CACHE_MODE", "off"), ("WEIR_CACHE__MAX_ENTRIES", "many")];
    let found = mistakes(text, &variables, &[set("cache.foo", "1")]);
    let begins: Vec<String> =
        found.iter().map(|line| line.splitn(3, ": ").take(2).collect::<Vec<_>>().join(": ")).collect();
    assert_eq!(
        begins,
        [
            "weir.yaml:1: listen",
            "weir.yaml:3: cache.mode",
            "weir.yaml:4: cache.ttl",
            "weir.yaml:5: provider",
            "weir.yaml:7: providers.local.api",
            "weir.yaml:7: providers.local.base_url",
            "WEIR_CACHE_MODE: cache_mode",
            "WEIR_CACHE__MAX_ENTRIES: cache.max_entries",
            "--set: cache.foo",
        ]
    );
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let text = "cache: { ttl: 1m, max_entries: 1, mode: \"off\" }\n";
    let variables = environment(&[("WEIR_CACHE__TTL", "2m"), ("WEIR_CACHE__MAX_ENTRIES", "2")]);
    let mut tree = Tree::parse(text, "weir.yaml").expect("it is YAML");
    let mut mistakes = Vec::new();
    env::apply(&variables, &mut tree, &mut mistakes);
    apply_flag(&set("cache.ttl", "3m"), &mut tree).expect("the knob exists");
    let cache = tree.file(&mut mistakes).cache;
    assert_eq!(mistakes, []);
    assert_eq!((cache.ttl.to_string().as_str(), cache.max_entries, cache.mode), ("3m", 2, cache::policy::Mode::Off));
}

#[test]
fn the_file_wins_over_the_defaults_that_a_variable_holds() {
    let defaults = "cache: { ttl: 1m, max_entries: 5, rules: [{ ttl: 1m }] }\nproviders: { local: { api: openai, base_url: \"http://h\" } }\n";
    let file = "cache:\n  ttl: 2m\n  rules: []\nproviders: { local: { prices: free }, other: { api: openai, base_url: \"http://o\" } }\n";
    let mut written = tempfile::NamedTempFile::new().expect("a file");
    written.write_all(file.as_bytes()).expect("the file is written");
    let variables = environment(&[("WEIR_DEFAULTS", defaults), ("WEIR_CACHE__MAX_ENTRIES", "7")]);
    let sources = Sources { file: Some(written.path().to_owned()), environment: variables, ..Sources::default() };
    let config = Config::load(&sources).expect("it is right");
    assert_eq!((config.cache.ttl, config.cache.max_entries, config.cache.rules.len()), (Span::from_secs(120), 7, 0));
    let of = |name: &str| config.providers.iter().find(|provider| &*provider.name == name).expect("it is there");
    assert_eq!((of("local").prices.clone(), of("other").base_url.to_string()), (PricedAs::Free, "http://o/".into()));
    for (defaults, file, expected) in [
        ("a: [", "", "WEIR_DEFAULTS:2: column "),
        ("cache:\n  ttl: soon\n", "cache: { max_entries: 1 }\n", "WEIR_DEFAULTS:2: cache.ttl: `soon`"),
        ("cache:\n  ttl: 1m\n", "\ncache: { ttl: soon }\n", "weir.yaml:2: cache.ttl: `soon`"),
        ("providers: { local: { api: openia } }", "", "WEIR_DEFAULTS:1: providers.local.api: `openia`"),
    ] {
        let found = mistakes(file, &[("WEIR_DEFAULTS", defaults)], &[]);
        assert!(found[0].starts_with(expected), "{defaults}: {found:?}");
    }
}

#[test]
fn a_file_that_somebody_else_brings_need_not_be_there_nor_be_of_this_version() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("weir.yaml");
    let sources = |presence| Sources { file: Some(path.clone()), presence, ..Sources::default() };
    let absent = Config::load(&sources(Presence::IfPresent)).expect("the defaults are right");
    assert_eq!((absent.left_out.len(), absent.revision), (0, None));
    assert!(Config::load(&sources(Presence::Required)).is_err(), "a file that has to be there is not");
    for (text, left_out) in [
        ("apiVersion: weir.dev/v1alpha1\n", &[][..]),
        ("apiVersion: weir.dev/v2\n", &["apiVersion: is not `weir.dev/v1alpha1`"]),
        ("future: { deep: [1] }\n", &["future: unknown name: write one of"]),
        ("cache: { ttl: 5m, ttls: 1m }\n", &["cache.ttls: unknown name: did you mean `ttl`?"]),
        (
            "cache: { rules: [{ ttl: 1m, whom: me }] }\nproviders: { openai: { retry: 3 } }\n",
            &["cache.rules[0].whom: unknown name", "providers.openai.retry: unknown name"],
        ),
    ] {
        fs::write(&path, text).expect("the file is written");
        let config = Config::load(&sources(Presence::IfPresent)).unwrap_or_else(|all| panic!("{text}: {all}"));
        let said: Vec<String> = config.left_out.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), left_out.len(), "{text}: {said:?}");
        let is_said = said.iter().zip(left_out).all(|(said, expected)| said.contains(expected));
        assert!(is_said && said.iter().all(|line| line.contains("weir.yaml:")), "{text}: {said:?}");
        let known = Config::load_known(&sources(Presence::IfPresent));
        assert_eq!(known.is_err(), !left_out.is_empty(), "{text}: who checks it is told");
        let is_strict = Config::load(&sources(Presence::Required)).is_err();
        assert_eq!(is_strict, !left_out.is_empty() && !text.starts_with("apiVersion"), "{text}");
    }
    fs::write(&path, "cache: { ttl: soon, ttls: 1m }\n").expect("the file is written");
    let refused = Config::load(&sources(Presence::IfPresent)).expect_err("a wrong value is a mistake");
    assert_eq!(refused.all().len(), 1, "{refused}");
}

#[test]
fn every_kind_of_knob_can_be_a_variable() {
    let variables = environment(&[
        ("WEIR_LISTEN", "127.0.0.1:1"),
        ("weir_calls__response_headers", "false"),
        ("WEIR_CACHE__MAX_BYTES", "1000000000"),
        ("WEIR_CACHE__MODE", ""),
        ("WEIR_TELEMETRY__LOG__LEVEL", "info"),
        ("WEIR_UPSTREAM__CA_FILES", "/a, /b"),
        ("WEIR_PROVIDERS__LOCAL__API", "openai"),
        ("WEIR_PROVIDERS__LOCAL__BASE_URL", "http://127.0.0.1:8000"),
        ("WEIR_PROVIDERS__MY_LOCAL__PRICES", "free"),
        ("WEIR_PROVIDERS__OTHER", "{ api: openai }"),
        ("WEIR_SERVICE_HOST", "10.0.0.1"),
        ("WEIR_CONFIG", "/etc/weir.yaml"),
    ]);
    let mut tree = Tree::parse("providers: { my-local: { api: anthropic } }", "weir.yaml").expect("it is YAML");
    let mut mistakes = Vec::new();
    assert_eq!(env::apply(&variables, &mut tree, &mut mistakes), Vec::<String>::new());
    let file = tree.file(&mut mistakes).to_value();
    assert_eq!(mistakes, []);
    for (pointer, expected) in [
        ("/listen", json!("127.0.0.1:1")),
        ("/calls/response_headers", json!(false)),
        ("/cache/max_bytes", json!("1000000000")),
        ("/cache/mode", json!("all")),
        ("/upstream/ca_files", json!(["/a", "/b"])),
        ("/providers/local/base_url", json!("http://127.0.0.1:8000")),
        ("/providers/my-local/prices", json!("free")),
        ("/providers/other/api", json!("openai")),
    ] {
        assert_eq!(file.pointer(pointer), Some(&expected), "{pointer}");
    }
}

#[test]
fn a_list_may_be_a_yaml_list_in_a_variable() {
    for (text, expected) in [("/a", vec!["/a"]), ("[/a, /b]", vec!["/a", "/b"])] {
        let mut tree = Tree::empty();
        env::apply(&environment(&[("WEIR_UPSTREAM__CA_FILES", text)]), &mut tree, &mut Vec::new());
        let read = tree.file(&mut Vec::new()).upstream.ca_files;
        assert_eq!(read, expected.into_iter().map(PathBuf::from).collect::<Vec<_>>());
    }
    let found = mistakes("", &[("WEIR_UPSTREAM__CA_FILES", "[/a")], &[]);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("WEIR_UPSTREAM__CA_FILES: upstream.ca_files: column "), "{found:?}");
}

#[test]
fn a_variable_that_holds_a_key_is_no_knob() {
    let text = "providers: { openai: { api_key_env: WEIR_KEY } }\n";
    assert_eq!(mistakes(text, &[("WEIR_KEY", "sk-live")], &[]), Vec::<String>::new());
    assert_eq!(mistakes("", &[("WEIR_KEY", "sk-live")], &[]).len(), 1);
}

#[test]
fn an_empty_file_and_empty_sections_mean_the_defaults() {
    for text in ["", "# nothing\n", "cache:\n", "cache:\n  ttl:\n", "providers:\n  openai:\n", "cache: {}\n"] {
        assert_eq!(mistakes(text, &[], &[]), Vec::<String>::new(), "{text:?}");
    }
    let found = mistakes("cach:\n", &[], &[]);
    assert_eq!(found, ["weir.yaml:1: cach: unknown name: did you mean `cache`?"]);
}

#[test]
fn no_mistake_shows_a_credential() {
    let secret = "sk-live-0123456789";
    for text in [
        format!("providers: {{ openai: {secret} }}"),
        format!("providers: {{ openai: {{ api_key: {secret} }} }}"),
        format!("providers: {{ openai: {{ api: {secret} }} }}"),
        format!("providers: {{ openai: {{ api_key_file: {secret} }} }}"),
        format!("providers: {{ openai: {{ api_key_env: {secret} }} }}"),
        format!("providers: {{ openai: {{ base_url: \"https://{secret}@h\" }} }}"),
        format!("providers: {{ openai: {{ base_url: \"https://h?key={secret}\" }} }}"),
        format!("default_provider: {secret}"),
        format!("cache: {{ ttl: {secret} }}"),
        format!("listen: {secret}"),
    ] {
        let found = mistakes(&text, &[], &[]);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(!found[0].contains("0123456789"), "{found:?}");
    }
    let sources = Sources { environment: environment(&[("OPENAI_API_KEY", secret)]), ..Sources::default() };
    assert!(!format!("{sources:?}").contains(secret));
}

#[test]
fn a_provider_is_made_whole_with_what_is_known_of_it() {
    let key = tempfile::NamedTempFile::new().expect("a file");
    fs::write(key.path(), "sk-live\n").expect("the file is written");
    let sources = Sources {
        environment: environment(&[
            ("WEIR_PROVIDERS__ANTHROPIC__API_KEY_FILE", &key.path().display().to_string()),
            ("WEIR_PROVIDERS__LOCAL", "{ api: openai, base_url: \"http://[::1]:8000/v1/\", prices: free }"),
            ("WEIR_PROVIDERS__OTHER", "{ api: openai, base_url: https://h, ask_for_usage: false }"),
            ("WEIR_PROVIDERS__OUR-COHERE", "{ api: cohere, base_url: https://c }"),
            ("WEIR_PROVIDERS__TEAM", "{ api: azure_openai, base_url: https://r.openai.azure.com }"),
            ("WEIR_PROVIDERS__GROQ__BASE_URL", "http://h/v2"),
            ("WEIR_DEFAULT_PROVIDER", "local"),
        ]),
        ..Sources::default()
    };
    let config = Config::load(&sources).expect("it is right");
    let of = |name: &str| config.providers.iter().find(|provider| &*provider.name == name).expect("it is there");
    for (name, expected) in [
        ("anthropic", "anthropic https://api.anthropic.com/ /v1 Table(\"anthropic\") asks"),
        ("local", "local http://[::1]:8000/v1  Free asks"),
        ("openai", "openai https://api.openai.com/ /v1 Table(\"openai\") asks"),
        ("other", "other https://h/ /v1 Unknown takes"),
        ("team", "azure.ai.openai https://r.openai.azure.com/  Table(\"azure\") asks"),
        ("groq", "groq http://h/v2  Table(\"groq\") takes"),
        ("mistral", "mistral_ai https://api.mistral.ai/ /v1 Table(\"mistral\") takes"),
        ("fireworks", "fireworks_ai https://api.fireworks.ai/inference /v1 Table(\"fireworks\") takes"),
        ("perplexity", "perplexity https://api.perplexity.ai/  Table(\"perplexity\") takes"),
        ("cohere", "cohere https://api.cohere.com/  Table(\"cohere\") takes"),
        ("ollama", "ollama http://127.0.0.1:11434/ /v1 Free asks"),
        ("our-cohere", "our-cohere https://c/  Unknown takes"),
        ("huggingface", "huggingface https://router.huggingface.co/ /v1 Unknown asks"),
    ] {
        let Provider { label, base_url, version_prefix, prices, ask_for_usage, .. } = &**of(name);
        let asks = if *ask_for_usage { "asks" } else { "takes" };
        assert_eq!(format!("{label} {base_url} {version_prefix} {prices:?} {asks}"), expected);
    }
    assert_eq!(of("anthropic").credential, CredentialSource::File(key.path().to_owned()));
    assert_eq!(&*config.default_provider.name, "local");
}

#[test]
fn the_admin_address_is_known_whatever_else_is_wrong() {
    let wrong = Sources {
        environment: environment(&[("WEIR_CACHE__TTL", "soon"), ("WEIR_ADMIN__LISTEN", "127.0.0.1:1")]),
        ..Sources::default()
    };
    assert_eq!(admin_address(&wrong).expect("it is known").to_string(), "127.0.0.1:1");
    let hidden = Sources { environment: environment(&[("WEIR_ADMIN__LISTEN", "here")]), ..Sources::default() };
    assert!(admin_address(&hidden).is_err());
}
