//! Every format, read back by what others read it with, says what the entries say.

use std::io::Read;
use std::time::Duration;

use serde_json::Value as Json;

use super::*;
use crate::export::columns::{Kind, Value};
use crate::record::trace::TraceId;
use crate::record::usage::{Counter, Usage};
use crate::units::PicoUsd;

/// The next of a sequence that looks like chance and is the same each time (Knuth's MMIX constants).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn maybe<T>(&mut self, some: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(3) > 0).then(|| some(self))
    }

    /// A text as bad as names get.
    fn text(&mut self) -> Box<str> {
        const PIECES: [&str; 20] = [
            "=1+1", "+1", "-1", "@x", "\t", "\r", "\n", "'", "\"", ",", ";", "a", "", "ü", "😀", "\u{0}", "null",
            "1.0", "\u{202e}", " ",
        ];
        (0..self.below(4)).map(|_| PIECES[usize::try_from(self.below(20)).expect("small")]).collect()
    }

    fn usage(&mut self) -> Usage {
        let parts: Vec<_> = Counter::ALL.iter().map(|it| (*it, self.maybe(|dice| dice.below(1 << 30)))).collect();
        let usage = Usage::cache_inside(self.maybe(|it| it.below(1 << 20)), self.maybe(|it| it.below(1 << 12)), &parts);
        if self.below(4) == 0 { usage.with_estimates(Some(self.below(100)), None) } else { usage }
    }

    fn usd(&mut self) -> PicoUsd {
        PicoUsd::new(u128::from(self.below(1 << 30)) * u128::from(self.below(1 << 12)))
    }

    fn took(&mut self) -> Duration {
        Duration::from_micros(self.below(1 << 30))
    }
}

fn entries(count: i64, seed: u64) -> Vec<Entry> {
    let dice = &mut Dice(seed);
    let entry = |at: i64| Entry {
        ended_at: 1_790_000_000_000_000 + at * 1_234_567,
        started_at: 1_790_000_000_000_000 + at,
        request_id: dice.text(),
        trace_id: TraceId::new(u128::from(dice.below(3)) << 64),
        workspace_id: dice.maybe(Dice::text),
        namespace: dice.maybe(Dice::text),
        user_id: dice.maybe(Dice::text),
        agent_id: dice.maybe(Dice::text),
        loop_type: dice.maybe(Dice::text),
        run_id: dice.maybe(Dice::text),
        client: dice.maybe(Dice::text),
        provider: dice.text().into(),
        operation: dice.text().into_string().into(),
        model: dice.maybe(Dice::text),
        response_model: dice.maybe(Dice::text),
        priced_model: dice.maybe(Dice::text),
        downgraded_from: dice.maybe(Dice::text),
        service_tier: dice.maybe(Dice::text),
        provider_request_id: dice.maybe(Dice::text),
        streamed: dice.below(2) == 0,
        status: dice.maybe(|_| 200),
        outcome: "success".into(),
        error_type: dice.maybe(|_| "timeout".into()),
        error_message: dice.maybe(Dice::text),
        cache: "miss".into(),
        reuse: dice.maybe(|_| "cache".into()),
        usage: dice.maybe(Dice::usage),
        cost: dice.maybe(Dice::usd),
        provenance: dice.maybe(|_| "priced".into()),
        unpriced: dice.maybe(|_| "no_table".into()),
        list_cost: dice.maybe(Dice::usd),
        saved: dice.maybe(Dice::usd),
        latency: dice.took(),
        first_token: dice.maybe(Dice::took),
        upstream: dice.maybe(Dice::took),
        bytes_in: dice.below(1 << 31),
        bytes_out: dice.below(1 << 31),
    };
    (0..count).map(entry).collect()
}

fn written(format: Format, compression: Compression, entries: &[Entry]) -> Vec<u8> {
    let mut encoder = Encoder::new(Form::new(format, compression).expect("a form"), Vec::new()).expect("begun");
    for entry in entries {
        encoder.write(entry.clone()).expect("written");
    }
    encoder.finish().expect("whole")
}

/// An entry of which everything is known.
fn full() -> Entry {
    let parts: Vec<_> = Counter::ALL.iter().map(|it| (*it, Some(7))).collect();
    Entry { usage: Some(Usage::cache_inside(Some(10), Some(5), &parts)), ..entries(1, 1).remove(0) }
}

#[test]
fn columns_are_the_members_of_the_json_object_and_no_others() {
    let object = serde_json::to_value(full()).expect("JSON");
    let members: Vec<&str> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    let columns: Vec<&str> = columns::ALL.iter().map(|column| column.name).collect();
    assert_eq!(columns, members);
}

#[test]
fn docs_export_md_has_every_column() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/export.md");
    let page = std::fs::read_to_string(path).expect("docs/export.md");
    let (begin, end) = ("<!-- columns: begin -->\n", "<!-- columns: end -->");
    let (front, rest) = page.split_once(begin).expect("where the columns begin");
    let (shown, back) = rest.split_once(end).expect("where the columns end");
    let expected = columns::as_markdown();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, format!("{front}{begin}{expected}{end}{back}")).expect("written");
    } else {
        assert_eq!(shown, expected, "UPDATE_EXPECT=1 cargo test --lib export writes it");
    }
}

#[test]
fn csv_read_back_is_what_was_written() {
    let entries = entries(400, 2);
    let text = written(Format::Csv, Compression::None, &entries);
    assert!(text.ends_with(b"\r\n"));
    let mut reader = csv::Reader::from_reader(&*text);
    let heads: Vec<_> = reader.headers().expect("a header row").iter().map(str::to_owned).collect();
    assert_eq!(heads, columns::ALL.iter().map(|column| column.name).collect::<Vec<_>>());
    let rows: Vec<_> = reader.records().collect::<Result<_, _>>().expect("rows");
    assert_eq!(rows.len(), entries.len());
    for (row, entry) in rows.iter().zip(&entries) {
        for (cell, column) in row.iter().zip(columns::ALL.iter()) {
            assert!(is_spelt(cell, &column.of(entry)), "{}: `{cell}`, not {:?}", column.name, column.of(entry));
            assert!(column.kind != Kind::Text || !cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "`{cell}`");
        }
    }
}

/// Whether a cell, read by itself, is the value.
fn is_spelt(cell: &str, value: &Value<'_>) -> bool {
    match value {
        Value::Absent => cell.is_empty(),
        Value::Text(text) => cell.strip_prefix('\'').unwrap_or(cell) == *text,
        Value::Count(count) => cell.parse() == Ok(*count),
        Value::Flag(flag) => cell.parse() == Ok(*flag),
        Value::Time(at) => cell.parse::<jiff::Timestamp>().is_ok_and(|time| time.as_microsecond() == *at),
        Value::Usd(usd) => PicoUsd::of_usd(cell) == Some(*usd),
        // Milliseconds are to microseconds what dollars are to pico-dollars, by nine more places.
        Value::Took(took) => PicoUsd::of_usd(cell).map(PicoUsd::pico) == Some(took.as_micros() * 1_000_000_000),
    }
}

#[test]
fn json_and_its_lines_read_back_are_what_was_written() {
    let entries = entries(300, 3);
    let expected: Vec<Json> = entries.iter().map(|entry| serde_json::to_value(entry).expect("JSON")).collect();
    let array = written(Format::Json, Compression::None, &entries);
    assert_eq!(serde_json::from_slice::<Vec<Json>>(&array).expect("an array"), expected);
    let lines = String::from_utf8(written(Format::Ndjson, Compression::None, &entries)).expect("text");
    let lines: Vec<Json> = lines.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_eq!(lines, expected);
}

#[test]
fn an_export_of_nothing_is_whole() {
    assert_eq!(written(Format::Json, Compression::None, &[]), b"[\n]\n");
    assert_eq!(written(Format::Ndjson, Compression::None, &[]), b"");
    assert_eq!(written(Format::Csv, Compression::None, &[]).iter().filter(|byte| **byte == b'\n').count(), 1);
}

#[test]
fn what_is_compressed_is_the_same() {
    let entries = entries(200, 4);
    for format in [Format::Csv, Format::Json, Format::Ndjson] {
        let plain = written(format, Compression::None, &entries);
        let mut text = Vec::new();
        let gzip = written(format, Compression::Gzip, &entries);
        flate2::read::GzDecoder::new(&*gzip).read_to_end(&mut text).expect("gzip");
        assert_eq!(text, plain);
        assert_eq!(zstd::decode_all(&*written(format, Compression::Zstd, &entries)).expect("zstd"), plain);
    }
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_read_back_is_what_was_written() {
    use parquet::file::reader::{FileReader, SerializedFileReader};

    let entries = entries(500, 5);
    let mut columnar = Columnar::new(Vec::new(), 200).expect("begun");
    for entry in &entries {
        columnar.write(entry.clone()).expect("written");
    }
    let bytes = bytes::Bytes::from(columnar.finish().expect("whole"));
    let reader = SerializedFileReader::new(bytes).expect("a Parquet file");
    assert_eq!(reader.metadata().num_row_groups(), 3, "two are full, and one was begun");
    let rows: Vec<_> = reader.get_row_iter(None).expect("rows").collect::<Result<_, _>>().expect("rows");
    assert_eq!(rows.len(), entries.len());
    for (row, entry) in rows.iter().zip(&entries) {
        for ((name, field), column) in row.get_column_iter().zip(columns::ALL.iter()) {
            assert_eq!(name, column.name);
            assert!(is_field(field, &column.of(entry)), "{name}: {field:?}, not {:?}", column.of(entry));
        }
    }
}

#[cfg(feature = "parquet")]
fn is_field(field: &parquet::record::Field, value: &Value<'_>) -> bool {
    use parquet::record::Field;

    match (field, value) {
        (Field::Null, Value::Absent) => true,
        (Field::Str(read), Value::Text(text)) => read == text,
        (Field::Long(read), Value::Count(count)) => u64::try_from(*read) == Ok(*count),
        (Field::Bool(read), Value::Flag(flag)) => read == flag,
        (Field::TimestampMicros(read), Value::Time(at)) => read == at,
        (Field::Double(read), Value::Took(took)) => {
            (read * 1000.0).round() == took.as_secs_f64().mul_add(1e6, 0.0).round()
        }
        (Field::Decimal(read), Value::Usd(usd)) => {
            let bytes: [u8; 16] = read.data().try_into().expect("a number of 128 bits");
            (read.precision(), read.scale()) == (38, 12) && u128::from_be_bytes(bytes) == usd.pico()
        }
        _ => false,
    }
}

#[test]
fn what_cannot_be_is_refused_with_what_mends_it() {
    for (mistake, says) in [
        (Form::new(Format::Parquet, Compression::Gzip).expect_err("compressed twice"), "leave out"),
        (
            Form::new(Format::Json, Compression::None).expect("a form").following().expect_err("an array"),
            "csv and ndjson",
        ),
    ] {
        assert!(mistake.contains(says), "{mistake}");
    }
    assert_eq!("cvs".parse::<Format>(), Err("`cvs` is no format: did you mean csv?".to_owned()));
    let error = "x".repeat(9).parse::<Compression>().expect_err("none");
    assert!(error.ends_with("write one of none, gzip, zstd"), "{error}");
}

#[test]
fn what_follows_has_no_header_row() {
    let (first, second) = (entries(5, 6), entries(5, 7));
    let form = Form::new(Format::Csv, Compression::None).expect("a form").following().expect("resumable");
    let mut encoder = Encoder::new(form, written(Format::Csv, Compression::None, &first)).expect("begun");
    second.iter().for_each(|entry| encoder.write(entry.clone()).expect("written"));
    let joined = encoder.finish().expect("whole");
    assert_eq!(joined, written(Format::Csv, Compression::None, &[first, second].concat()));
}
