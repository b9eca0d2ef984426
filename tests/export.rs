//! `weir export`, `weir report` and `weir what-if` on a ledger's file. Runs the real program, beside one that writes.

#![cfg(feature = "ledger")]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use weir::ledger::entry::Entry;
use weir::ledger::insert::Inserter;
use weir::ledger::open::Place;
use weir::record::usage::Usage;
use weir::units::PicoUsd;

/// 2026-10-05T12:00:00Z.
const AT: i64 = 1_791_201_600_000_000;

/// A ledger that somebody else has open for writing.
struct Ledger {
    dir: TempDir,
    _writes: Connection,
}

impl Ledger {
    fn of(calls: i64) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut writes = Place::in_dir(dir.path()).write().expect("opened");
        let calls: Vec<Entry> = (0..calls).map(call).collect();
        Inserter::default().insert(&mut writes, &calls).expect("written");
        Self { dir, _writes: writes }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a subcommand on it.
    fn weir(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        let (subcommand, rest) = arguments.split_first().expect("a subcommand");
        command.arg(subcommand).arg("--ledger").arg(self.path("ledger.db")).args(rest).env_clear();
        command.current_dir(self.dir.path());
        command
    }

    /// Runs `weir export`, which has to work, and gives what is in `file` afterwards.
    fn export(&self, file: &str, arguments: &[&str]) -> Vec<u8> {
        let output = self.weir(&[&["export", "-o", file], arguments].concat());
        assert!(output.status.success(), "{file} {arguments:?}: {}", said(&output));
        assert!(!self.path(&format!("{file}.part")).exists(), "{file} is whole");
        fs::read(self.path(file)).expect("written")
    }
}

fn call(number: i64) -> Entry {
    Entry {
        ended_at: AT + number * 1_000_003,
        started_at: AT + number * 1_000_003 - 1_000_000,
        request_id: format!("call-{number}").into(),
        trace_id: None,
        workspace_id: Some("shop".into()),
        namespace: None,
        user_id: Some(format!("=user{}", number % 7).into()),
        agent_id: Some(if number % 2 == 0 { "planner" } else { "writer" }.into()),
        loop_type: None,
        run_id: None,
        client: Some("line one\nline two".into()),
        provider: "openai".into(),
        operation: "chat".into(),
        model: Some("gpt-5".into()),
        response_model: None,
        priced_model: Some("gpt-5".into()),
        downgraded_from: None,
        service_tier: None,
        provider_request_id: None,
        streamed: false,
        status: Some(200),
        outcome: "success".into(),
        error_type: None,
        error_message: None,
        cache: "miss".into(),
        reuse: None,
        usage: Some(Usage::cache_inside(Some(1_000), Some(100), &[])),
        // 1,000 × 1.25 and 100 × 10 USD, by the million.
        cost: Some(PicoUsd::new(2_250_000_000)),
        provenance: Some("priced".into()),
        unpriced: None,
        list_cost: None,
        saved: None,
        latency: Duration::from_millis(1_000),
        first_token: None,
        upstream: None,
        bytes_in: 10,
        bytes_out: 1_234,
        prefixes: None,
    }
}

fn said(output: &Output) -> &str {
    str::from_utf8(&output.stderr).expect("text")
}

fn rows(csv: &[u8]) -> Vec<csv::StringRecord> {
    csv::Reader::from_reader(csv).records().collect::<Result<_, _>>().expect("CSV")
}

#[test]
fn a_file_is_what_its_name_says() {
    let ledger = Ledger::of(3_000);
    let csv = ledger.export("calls.csv", &[]);
    assert_eq!(rows(&csv).len(), 3_000);
    let mut unpacked = Vec::new();
    let gzip = ledger.export("calls.csv.gz", &[]);
    flate2::read::GzDecoder::new(&*gzip).read_to_end(&mut unpacked).expect("gzip");
    assert_eq!(unpacked, csv);
    let lines = zstd::decode_all(&*ledger.export("calls.ndjson.zst", &["--agent", "writer"])).expect("zstd");
    let lines = String::from_utf8(lines).expect("text");
    assert_eq!(lines.lines().count(), 1_500);
    assert!(lines.lines().all(|line| line.contains("\"agent_id\":\"writer\"")));
    let array: Vec<serde_json::Value> =
        serde_json::from_slice(&ledger.export("calls", &["--format", "json", "--to", "2026-10-05T12:10:00Z"]))
            .expect("JSON");
    assert_eq!(array.len(), 600);
    if cfg!(feature = "parquet") {
        let parquet = ledger.export("calls.parquet", &[]);
        assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    }
}

#[test]
fn an_export_that_broke_off_is_gone_on_with() {
    let ledger = Ledger::of(200);
    for file in ["calls.csv", "calls.ndjson"] {
        let whole = ledger.export(file, &[]);
        fs::remove_file(ledger.path(file)).expect("removed");
        for cut in [0, 10, whole.len() / 3, whole.len() / 2, whole.len() - 1, whole.len()] {
            fs::write(ledger.path(&format!("{file}.part")), &whole[..cut]).expect("written");
            assert!(ledger.export(file, &["--resume"]) == whole, "{file} cut at {cut} of {}", whole.len());
        }
        assert!(ledger.export(file, &["--resume"]) == whole, "{file}: nothing was begun");
    }
}

#[test]
fn whoever_has_read_enough_is_no_failure() {
    let ledger = Ledger::of(5_000);
    let mut export =
        ledger.command(&["export"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut head = [0; 9];
    export.stdout.take().expect("piped").read_exact(&mut head).expect("a beginning");
    assert_eq!(&head, b"timestamp");
    let output = export.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), said(&output)), (Some(0), ""));
}

#[test]
fn what_cannot_be_done_names_what_can() {
    let ledger = Ledger::of(3);
    for (arguments, says) in [
        (&["export", "-o", "calls.xls"][..], "write one of csv, json, ndjson, parquet"),
        (&["export", "--format", "cvs"], "did you mean csv?"),
        (&["export", "-o", "calls.parquet.gz"], "leave out the compression"),
        (&["export", "-o", "calls.json", "--resume"], "only csv and ndjson"),
        (&["export", "--resume"], "--output"),
        (&["export", "--range", "soon"], "such as 250ms"),
        (&["export", "-o", "nowhere/calls.csv"], "cannot write nowhere/calls.csv.part"),
        (&["report", "--month", "october"], "such as 2026-10"),
        (&["report", "--format", "pdf"], "markdown"),
        (&["what-if", "--model", "gpt-5-mni"], "did you mean `gpt-5-mini`?"),
    ] {
        let output = ledger.weir(arguments);
        assert!(!output.status.success() && said(&output).contains(says), "{arguments:?}: {}", said(&output));
    }
    fs::remove_file(ledger.path("ledger.db")).expect("removed");
    let output = ledger.weir(&["export"]);
    assert!(said(&output).contains("`ledger.db` in weir's `state_dir`"), "{}", said(&output));
    assert!(!Path::new(&ledger.path("ledger.db")).exists(), "who asks makes nothing");
}

#[test]
fn a_report_adds_up_and_what_if_compares() {
    let ledger = Ledger::of(1_000);
    let output = ledger.weir(&["report", "--month", "2026-10", "--budget", "10"]);
    let page = str::from_utf8(&output.stdout).expect("text");
    assert!(page.contains("- spent: 2.25 USD\n"), "{page}{}", said(&output));
    assert!(page.contains("|2026-10-05|1000|1100000|2.25|0|0|0|\n"), "{page}");
    assert!(page.contains("- budget: 10 USD, 7.75 USD are left\n"), "{page}");
    let output = ledger.weir(&["what-if", "--model", "gpt-5-mini"]);
    let page = str::from_utf8(&output.stdout).expect("text");
    let row = page.lines().find(|line| line.starts_with("gpt-5-mini")).unwrap_or_default();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells, ["gpt-5-mini", "1000", "2.25", "0.45", "-1.8"], "{page}{}", said(&output));
}
