//! Privacy: what an app, its users and its providers let slip is nowhere in what weir writes: not in log lines, spans,
//! metrics or files. And how much of what is ordinary is taken for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rusqlite::Connection;
use serde_json::{Value, json};
use weir::ledger::content::kept;
use weir::record::content::{Capture, Content, Text};
use weir::redact::Redactor;

use crate::support::client::Client;
use crate::support::collector::{Collector, Manner};
use crate::support::fake::{Fake, Received, Script};
use crate::support::process::Process;
use crate::support::{fixtures, until};

const CHAT: &str = "/openai/v1/chat/completions";

/// Something that must not be found, as it is written.
struct Secret {
    kind: String,
    written: String,
    /// The part of it that must not be found.
    part: String,
}

/// All of the corpus.
fn secrets() -> Vec<Secret> {
    let text = fs::read_to_string(fixtures().join("privacy/secrets.txt")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (kind, rest) = line.split_once(' ').unwrap();
            let (written, part) = rest.split_once('|').unwrap_or((rest, rest));
            Secret { kind: kind.to_owned(), written: made_up(written), part: made_up(part) }
        })
        .collect()
}

/// `template` with something that looks like a key in the place of each `{a:48}`.
fn made_up(template: &str) -> String {
    let Some((before, rest)) = template.split_once('{') else { return template.to_owned() };
    let (what, after) = rest.split_once('}').unwrap();
    let (alphabet, length) = what.split_once(':').unwrap();
    let alphabet = match alphabet {
        "a" => "q7Rz2Kx9Lm4Wp8Tb3Vn6Yc5Hd1Jf0Gs",
        "h" => "9f3a7c1e5b2d8046",
        "u" => "Q7RZ2KX4LM5WP3TB",
        other => panic!("no alphabet is called `{other}`"),
    };
    let key: String = alphabet.chars().cycle().take(length.parse().unwrap()).collect();
    format!("{before}{key}{}", made_up(after))
}

/// A private key, which has several lines.
fn private_key() -> String {
    let body = made_up("MII{a:200}");
    format!("-----BEGIN {0}-----\n{body}\n-----END {0}-----", "RSA PRIVATE KEY")
}

/// A provider that lets slip what it was told: in its error, in names, ids and headers.
fn indiscreet(asked: &Received) -> Script {
    let asked: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
    let slip = asked["messages"][0]["content"].as_str().unwrap_or_default();
    if asked["fail"] == true {
        let error =
            json!({"error": {"message": format!("Incorrect API key provided: {slip}"), "type": slip, "code": slip}});
        return Script::json(401, error.to_string().as_bytes());
    }
    let call = json!({"id": slip, "type": "function", "function": {"name": slip, "arguments": slip}});
    let choice = json!({"index": 0, "finish_reason": slip, "message": {"content": slip, "tool_calls": [call]}});
    let answer = json!({"id": slip, "model": slip, "service_tier": slip, "choices": [choice],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}});
    let id = slip.replace('\n', " ");
    Script::whole(200, &[("content-type", "application/json"), ("x-request-id", &id)], answer.to_string().as_bytes())
}

/// Calls that say `slip` wherever an app can say something.
async fn let_slip(app: &str, slip: &str, is_personal: bool) {
    let client = Client::default();
    let value = slip.replace('\n', " ");
    let mut headers = vec![("authorization", "Bearer app")];
    headers.extend(
        ["x-agent-id", "x-loop-type", "x-run-id", "x-cache-namespace", "x-workspace-id", "user-agent"]
            .map(|it| (it, &*value)),
    );
    if !is_personal {
        // Who is called by an address is kept by it, unless the operator wants something else.
        headers.push(("x-user-id", &value));
    }
    let tool = json!({"type": "function", "function": {"name": slip}});
    for fail in [false, true] {
        let body =
            json!({"model": slip, "fail": fail, "tools": [tool], "messages": [{"role": "user", "content": slip}]});
        client.post(&format!("{app}{CHAT}"), &headers, body.to_string().as_bytes()).await;
    }
    let coded = utf8_percent_encode(slip, NON_ALPHANUMERIC);
    for path in [format!("/openai/v1/files/{coded}?key={coded}"), format!("/nobody/{coded}")] {
        client.post(&format!("{app}{path}"), &headers, b"{}").await;
    }
}

/// Everything in the files below `dir`.
fn files(dir: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        all.extend(if path.is_dir() { files(&path) } else { fs::read(path).unwrap() });
    }
    all
}

/// Every call of the ledger as an export has it, once all of them are written.
async fn exported(admin: &str, format: &str, calls: usize) -> Bytes {
    let client = Client::default();
    while client.get(&format!("{admin}/api/v1/usage/overview")).await.json()["total_calls"] != calls {
        tokio::task::yield_now().await;
    }
    let answer = client.get(&format!("{admin}/api/v1/analytics/export?format={format}")).await;
    assert_eq!(answer.status, 200, "{format}");
    answer.body
}

/// The rows of a Parquet file, in words.
fn rows(parquet: Bytes) -> String {
    let reader = SerializedFileReader::new(parquet).unwrap();
    reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect::<Vec<_>>().join("\n")
}

/// What the ledger in `dir` keeps of what was said, unpacked.
fn contents(dir: &Path) -> String {
    let ledger = Connection::open(dir.join("ledger.db")).unwrap();
    let mut question = ledger.prepare("SELECT request FROM contents UNION ALL SELECT response FROM contents").unwrap();
    let packed = question.query_map([], |row| row.get::<_, Option<Vec<u8>>>(0)).unwrap();
    let unpacked = packed.filter_map(Result::unwrap).map(|packed| zstd::decode_all(&*packed).unwrap());
    unpacked.map(|text| String::from_utf8(text).unwrap()).collect::<Vec<_>>().join("\n")
}

/// Whether `part` is in `text`: as it is, as JSON writes it, or as a path does.
fn says(text: &str, part: &str) -> bool {
    let as_json = json!(part).to_string();
    let as_path = utf8_percent_encode(part, NON_ALPHANUMERIC).to_string();
    // What is long may be cut, and is as bad in part.
    let beginning: String = part.chars().take(if part.len() > 40 { 30 } else { 40 }).collect();
    [part, as_json.trim_matches('"'), &as_path, &beginning].iter().any(|form| text.contains(form))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_slips_is_in_logs_spans_metrics_exports_or_files() {
    let (fake, collector) = (Fake::start(indiscreet).await, Collector::http(Manner::Takes).await);
    let dir = tempfile::tempdir().unwrap();
    let state_dir = format!("state_dir={}", dir.path().display());
    let endpoint = format!("telemetry.traces.endpoint=http://{}", collector.address);
    let more = [
        "telemetry.metrics.consumers=plain",
        "telemetry.metrics.cache_namespaces=true",
        "privacy.capture=redacted",
        &state_dir,
        &endpoint,
    ];
    let more: Vec<&str> = more.into_iter().flat_map(|knob| ["--set", knob]).collect();
    let weir = Process::start(&fake.url(), &more, &[("OTEL_BSP_SCHEDULE_DELAY", "1")]).await;

    // What is ordinary is told: whoever looks for the rest looks at the right places.
    let_slip(&weir.app, "planner-7", true).await;
    let (mut all, key) = (secrets(), private_key());
    all.push(Secret { kind: "private_key".to_owned(), written: key.clone(), part: key });
    for Secret { kind, written, .. } in &all {
        let is_personal = ["email", "card", "ssn", "iban", "phone", "ip"].contains(&kind.as_str());
        let_slip(&weir.app, written, is_personal).await;
    }
    let_slip(&weir.app, "planner-8", true).await;
    let calls = 4 * (all.len() + 2);
    until("every call has its line", || weir.told("call ").len() >= calls).await;
    let spans = || String::from_utf8_lossy(&collector.bytes()).into_owned();
    until("the last spans have come", || spans().contains("planner-8")).await;

    let answer = Client::default().get(&format!("{}/metrics", weir.admin)).await;
    let metrics = String::from_utf8(answer.body.to_vec()).unwrap();
    let lines: Vec<String> = weir.told("").iter().map(ToString::to_string).collect();
    let [csv, lines_of_json, parquet] = [
        exported(&weir.admin, "csv", calls).await,
        exported(&weir.admin, "ndjson", calls).await,
        exported(&weir.admin, "parquet", calls).await,
    ];
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    weir.stop().await;
    let written = [
        ("log", lines.join("\n")),
        ("spans", spans()),
        ("metrics", metrics.clone()),
        ("export as CSV", text(csv)),
        ("export as lines of JSON", text(lines_of_json)),
        ("export as Parquet", rows(parquet)),
        ("contents that are kept redacted", contents(dir.path())),
    ];
    for (place, text) in &written {
        assert!(text.contains("planner-7"), "the {place} tell what is ordinary");
    }
    let files = String::from_utf8_lossy(&files(dir.path())).into_owned();
    for (place, text) in written.iter().map(|(place, text)| (*place, text)).chain([("files", &files)]) {
        for Secret { kind, part, .. } in &all {
            assert!(!says(text, part), "{part} ({kind}) is in the {place}");
        }
    }
    let kinds: BTreeSet<&str> = all.iter().map(|secret| &*secret.kind).collect();
    for kind in kinds {
        let series = format!("weir_redactions_total{{kind=\"{kind}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
        assert!(line.is_some_and(|count| count != "0"), "{kind} is counted: {line:?}");
    }
}

#[test]
fn nothing_that_is_said_is_kept_but_what_the_operator_wants() {
    let redactor = Redactor::new(&[]).unwrap();
    let text = |text: &str| Some(Text::beginning(text.as_bytes(), text.len() as u64, text.len()));
    for Secret { kind, written, part } in secrets() {
        let asked = json!({"messages": [{"content": format!("this is {written}\nand more")}], "tools": [{written.as_str(): 1}]});
        for (capture, is_there) in
            [(Capture::None, None), (Capture::Redacted, Some(false)), (Capture::Full, Some(true))]
        {
            let (request, response) = (text(&asked.to_string()), text(&format!("you said: {written}")));
            let kept = kept(&Content { capture, request, response }, &redactor);
            for kept in [kept.request, kept.response] {
                let found = kept.map(|kept| says(&String::from_utf8(kept).unwrap(), &part));
                assert_eq!(found, is_there, "{part} ({kind}), {capture:?}");
            }
        }
    }
}

#[test]
fn of_what_is_ordinary_this_is_redacted_and_nothing_else() {
    let redactor = Redactor::new(&[]).unwrap();
    let text = fs::read_to_string(fixtures().join("privacy/ordinary.txt")).unwrap();
    let changed = text.lines().map(|line| (line, redactor.redact(line))).filter(|(line, kept)| line != kept);
    let changed: Vec<String> = changed.map(|(line, kept)| difference(line, &kept)).collect();

    assert_eq!(
        changed,
        [
            "git@github.com -> [redacted:email]",
            "020-2026-1234 -> [redacted:phone]",
            "authentication2 -> [redacted:token]",
            "192.168.0.1 is the router, 8.8.8.8 is a resolver, and 2.5.4.3 -> \
             [redacted:ip] is the router, [redacted:ip] is a resolver, and [redacted:ip]",
        ]
    );
    // The same list, for people.
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/privacy.md")).unwrap();
    for taken in ["git@github.com", "020-2026-1234", "authentication2", "2.5.4.3"] {
        assert!(page.contains(taken), "docs/privacy.md names {taken}");
    }
}

/// What of a line became what: between what both begin and end with, at the borders of words.
fn difference(line: &str, kept: &str) -> String {
    let same = line.bytes().zip(kept.bytes()).take_while(|(one, other)| one == other).count();
    let from = line[..same].rfind(' ').map_or(0, |space| space + 1);
    let (line, kept) = (&line[from..], &kept[from..]);
    let same = line.bytes().rev().zip(kept.bytes().rev()).take_while(|(one, other)| one == other).count();
    format!("{} -> {}", &line[..line.len() - same], &kept[..kept.len() - same])
}
