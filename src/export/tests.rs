//! Every format, read back by what others read it with, says what the entries say.

use std::io::{Cursor, Read};
use std::time::Duration;

use serde_json::Value as Json;

use super::*;
use crate::export::columns::{Kind, Value};
use crate::export::paper::Paper;
use crate::export::resume::Kept;
use crate::export::statement::{Month, Statement};
use crate::export::stream::{Broken, Selection};
use crate::ledger::filter::Filter;
use crate::ledger::insert::Inserter;
use crate::ledger::open::Place;
use crate::ledger::reader::Reader;
use crate::ledger::window::Window;
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
        prefixes: None,
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
    assert_eq!(written(Format::Csv, Compression::None, &[]).split(|byte| *byte == b'\n').count(), 2, "a header");
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
            // In milliseconds, with every microsecond.
            Duration::from_secs_f64(read / 1000.0).abs_diff(*took) < Duration::from_nanos(500)
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
    for entry in &second {
        encoder.write(entry.clone()).expect("written");
    }
    let joined = encoder.finish().expect("whole");
    assert_eq!(joined, written(Format::Csv, Compression::None, &[first, second].concat()));
}

/// A ledger that has these calls, and who asks it. It is gone with the connection.
fn ledger(entries: &[Entry]) -> (rusqlite::Connection, Reader) {
    let place = Place::memory();
    let mut writes = place.write().expect("opened");
    Inserter::default().insert(&mut writes, entries).expect("written");
    let reader = Reader::new(Duration::from_secs(60));
    reader.open(vec![place.read().expect("opened")]);
    (writes, reader)
}

fn all() -> Selection {
    Selection { window: Window::ALL, filter: Filter::default() }
}

#[test]
fn what_the_ledger_has_comes_out_in_order_and_once() {
    let entries = entries(2_500, 8);
    let (_ledger, reader) = ledger(&entries);
    let form = Form::new(Format::Ndjson, Compression::None).expect("a form");
    let mut told = 0;
    let (written, out) = stream::stream(&reader, &all(), (form, Vec::new()), |_| told += 1).expect("an export");
    assert_eq!(out, self::written(Format::Ndjson, Compression::None, &entries));
    assert_eq!((written.rows, written.last), (2_500, Some(entries[2_499].ended_at)));
    assert_eq!(told, 2_500);
    let half = Selection { window: Window { from: entries[1_250].ended_at, to: i64::MAX }, ..all() };
    let (_, out) = stream::stream(&reader, &half, (form, Vec::new()), |_| {}).expect("an export");
    assert_eq!(out, self::written(Format::Ndjson, Compression::None, &entries[1_250..]));
    let estimate = stream::estimate(&reader, &half, form).expect("an estimate");
    assert_eq!(estimate.rows, 1_250);
    let (bytes, size) = (estimate.bytes.expect("rows"), u64::try_from(out.len()).expect("small"));
    assert!(bytes.abs_diff(size) < size / 5, "{bytes} is about {size}");
    let nobody = Selection { filter: Filter { agent: Some("nobody".into()), ..Filter::default() }, ..all() };
    let estimate = stream::estimate(&reader, &nobody, form).expect("an estimate");
    assert_eq!((estimate.rows, estimate.bytes), (0, None));
}

#[test]
fn whoever_goes_away_ends_the_reading() {
    #[derive(Debug)]
    struct Gone(usize);
    impl Write for Gone {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_ledger, reader) = ledger(&entries(2_000, 9));
    for format in [Format::Csv, Format::Json, Format::Ndjson] {
        let form = Form::new(format, Compression::None).expect("a form");
        let mut rows = 0;
        let error = stream::stream(&reader, &all(), (form, Gone(100_000)), |_| rows += 1).expect_err("nobody reads");
        let Broken::Unwritten(error) = error else { panic!("{error:?}") };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{format:?}");
        assert!(rows < 400, "{format:?}: {rows} rows for nobody");
    }
}

#[test]
fn an_export_cut_anywhere_and_gone_on_with_is_the_whole() {
    let entries = entries(5, 10);
    let (_ledger, reader) = ledger(&entries);
    for format in [Format::Csv, Format::Ndjson] {
        let form = Form::new(format, Compression::None).expect("a form");
        let whole = written(format, Compression::None, &entries);
        let mut gone_on_with = 0;
        for cut in 0..=whole.len() {
            let mut part = whole[..cut].to_vec();
            let kept = resume::kept(format, &mut Cursor::new(&part)).expect("readable");
            let (mut selection, mut rest) = (all(), form);
            if let Some(Kept { bytes, after }) = kept {
                gone_on_with += 1;
                selection.window.from = after + 1;
                rest = form.following().expect("resumable");
                part.truncate(usize::try_from(bytes).expect("small"));
            } else {
                part.clear();
            }
            let (_, joined) = stream::stream(&reader, &selection, (rest, part), |_| {}).expect("an export");
            assert_eq!(joined, whole, "{format:?}, cut at {cut} of {}", whole.len());
        }
        assert!(gone_on_with > whole.len() / 3, "{format:?}: {gone_on_with} of {}", whole.len());
    }
    let other = b"a,b\r\n1,2\r\n3,4\r\n";
    assert_eq!(resume::kept(Format::Csv, &mut Cursor::new(other)).expect("readable"), None, "no export of weir's");
    assert_eq!(resume::kept(Format::Ndjson, &mut Cursor::new(other)).expect("readable"), None);
}

#[test]
fn the_name_of_a_file_says_what_it_is() {
    for (name, format, compression) in [
        ("calls.csv", Some(Format::Csv), None),
        ("calls.ndjson.zst", Some(Format::Ndjson), Some(Compression::Zstd)),
        ("a.b.json.gz", Some(Format::Json), Some(Compression::Gzip)),
        ("calls.parquet", Some(Format::Parquet), None),
        ("calls.gz", None, Some(Compression::Gzip)),
        ("calls", None, None),
        ("csv", None, None),
    ] {
        assert_eq!(Form::of_name(name), (format, compression), "{name}");
    }
}

/// Calls of October 2026 and of the day before and after it.
fn october() -> Vec<Entry> {
    const DAY: i64 = 86_400_000_000;
    // 2026-09-30T00:00:00Z.
    const FIRST: i64 = 1_790_726_400_000_000;
    let mut entries = entries(33 * 40, 11);
    for (number, entry) in (0..).zip(&mut entries) {
        entry.ended_at = FIRST + number / 40 * DAY + number % 40 * 2_000_000_000;
        entry.user_id = entry.user_id.take().map(|_| format!("<b>user {}</b>", number % 30).into());
        entry.model = entry.model.take().map(|_| format!("=model|{}", number % 70).into());
    }
    entries
}

#[test]
fn a_statement_comes_to_what_the_rows_come_to() {
    let entries = october();
    let month: Month = "2026-10".parse().expect("a month");
    let (_ledger, reader) = ledger(&entries);
    let statement = Statement::of(&reader, month, &Filter::default(), i64::MAX).expect("a statement");
    let window = month.window();
    let rows: Vec<_> = entries.iter().filter(|it| window.from <= it.ended_at && it.ended_at < window.to).collect();
    assert_eq!(rows.len(), 31 * 40, "no more than the month");
    let sum = |of: fn(&Entry) -> Option<PicoUsd>| -> PicoUsd { rows.iter().filter_map(|it| of(it)).sum() };
    assert_eq!(statement.total.calls, 31 * 40);
    assert_eq!(statement.total.cost, sum(|it| it.cost));
    assert_eq!(statement.total.saved, sum(|it| it.saved));
    assert!(statement.adds_up(), "every table, though only {} models are shown", statement.tables[1].rows.len());
    assert_eq!(statement.tables[1].rows.len(), 51);
    let days = &statement.tables[4].rows;
    assert_eq!((days.len(), &*days[0].0, &*days[30].0), (31, "2026-10-01", "2026-10-31"));
    assert_eq!(statement.users, 30);
    let user = &statement.tables[5].rows[0];
    let of_user = rows.iter().filter(|it| it.user_id.as_deref() == Some(&*user.0)).filter_map(|it| it.cost).sum();
    assert_eq!(user.1.cost, of_user);
    let begun = Statement::of(&reader, month, &Filter::default(), window.from + 1).expect("a statement");
    assert_eq!(begun.total.calls, 1);
    assert!(begun.notes().iter().any(|note| note.contains("not of the whole month")), "{:?}", begun.notes());
}

#[test]
fn a_statement_on_paper_says_the_same_and_runs_nothing() {
    let (_ledger, reader) = ledger(&october());
    let month: Month = "2026-10".parse().expect("a month");
    let statement = Statement::of(&reader, month, &Filter::default(), i64::MAX).expect("a statement");
    let statement = statement.beside(Some(PicoUsd::new(1)));
    let cost = statement.total.cost.to_string();
    for paper in Paper::ALL {
        let page = paper.write(&statement);
        assert!(page.contains(&cost), "{paper:?}: {page}");
        assert!(paper == Paper::Csv || paper == Paper::Json || !page.contains("<b>"), "{paper:?}");
    }
    let markdown = Paper::Markdown.write(&statement);
    assert!(markdown.contains("|=model\\|1|"), "a pipe in a name is no end of a cell: {markdown}");
    assert!(markdown.contains("USD more was spent"));
    let html = Paper::Html.write(&statement);
    assert!(html.contains("&lt;b&gt;user 1&lt;/b&gt;") && !html.contains("http"), "it needs nothing else");
    let sheet = Paper::Csv.write(&statement);
    let mut reader = csv::Reader::from_reader(sheet.as_bytes());
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().expect("CSV");
    assert!(rows.iter().all(|row| !row[1].starts_with('=')), "no formula");
    let by_day: PicoUsd = rows.iter().filter(|row| &row[0] == "day").filter_map(|row| PicoUsd::of_usd(&row[4])).sum();
    assert_eq!(by_day, statement.total.cost);
    let json = Paper::Json.write(&statement);
    assert!(json.contains(&format!("\"cost_usd\": {cost},")), "every digit: {json}");
}

#[test]
fn months_are_read_and_their_ends_known() {
    for (text, from, to) in [
        ("2026-10", "2026-10-01T00:00:00.000000Z", "2026-11-01T00:00:00.000000Z"),
        ("2027-12", "2027-12-01T00:00:00.000000Z", "2028-01-01T00:00:00.000000Z"),
        ("2028-02", "2028-02-01T00:00:00.000000Z", "2028-03-01T00:00:00.000000Z"),
    ] {
        let month: Month = text.parse().expect("a month");
        let Window { from: begins, to: ends } = month.window();
        assert_eq!((sheet::time(begins), sheet::time(ends)), (from.to_owned(), to.to_owned()));
        assert_eq!((month.to_string(), Month::of(ends - 1), Month::of(begins)), (text.to_owned(), month, month));
    }
    for text in ["2026-13", "2026-1", "26-10", "2026-10-01", "october", "", "1969-12"] {
        let error = text.parse::<Month>().expect_err(text);
        assert!(error.contains("such as 2026-10"), "{error}");
    }
}
