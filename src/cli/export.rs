//! `weir export`: the calls that the ledger has, as CSV, JSON, lines of JSON or Parquet; from the running weir, or from
//! the ledger's file.
//!
//! A file is whole or not there: rows are written to `<file>.part`, which becomes the file in the end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::ledger::{Asked, Source, query, spelt};
use crate::export::resume::{self, Kept};
use crate::export::stream::{self, Selection};
use crate::export::{Compression, Form, Format, sheet};
use crate::ledger::entry::Micros;
use crate::ledger::reader::Reader;

/// What may follow `weir export`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// `csv`, `json`, `ndjson` or `parquet` [default: by the extension of the file, else csv]
    #[arg(long)]
    format: Option<Format>,
    /// `none`, `gzip` or `zstd` [default: by the extension of the file, else none]
    #[arg(long)]
    compress: Option<Compression>,
    /// Go on with what an earlier export of the same calls left in `FILE.part`; csv and ndjson, not compressed
    #[arg(long, requires = "output")]
    resume: bool,
    /// Calls for this model
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Calls that did not end well for this reason: a status such as 429, or a word such as timeout
    #[arg(long, value_name = "REASON")]
    error_type: Option<String>,
    /// Calls of this run of an agent loop
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    source: Source,
}

/// Writes the export.
///
/// # Errors
/// If the ledger cannot be read, or the file not be written; then the file is as it was.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let form = form(arguments)?;
    let mut selection = arguments.asked.selection(arguments.model.as_deref(), SystemTime::now());
    selection.filter.error_type = arguments.error_type.as_deref().map(Into::into);
    selection.filter.run = arguments.run.as_deref().map(Into::into);
    let wanted = Wanted { selection, form, after: None };
    let origin = match arguments.source.file()? {
        Some(reader) => Origin::File(reader),
        None => Origin::Running(&arguments.source),
    };
    match &arguments.output {
        Some(path) => to_file(&origin, wanted, (path, arguments.resume)),
        None => match origin.write(wanted, io::stdout()) {
            // Whoever reads it has seen enough: `weir export | head`.
            Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
            written => written.map(|()| ExitCode::SUCCESS),
        },
    }
}

/// What is to be written.
struct Wanted {
    selection: Selection,
    form: Form,
    /// Only what comes after this call: the rest is there already.
    after: Option<Micros>,
}

/// Where the calls come from.
enum Origin<'a> {
    File(Reader),
    Running(&'a Source),
}

impl Origin<'_> {
    /// Writes the whole of it to `out`.
    fn write(&self, wanted: Wanted, out: impl Write + Send) -> anyhow::Result<()> {
        let Wanted { mut selection, mut form, after } = wanted;
        let mut out = BufWriter::new(out);
        let bar = match self {
            Self::File(reader) => {
                if let Some(after) = after {
                    selection.window.from = selection.window.from.max(after.saturating_add(1));
                    form = form.following().map_err(|problem| anyhow!(problem))?;
                }
                let rows = stream::estimate(reader, &selection, Form::default())?.rows;
                let bar = ProgressBar::new(rows).with_style(style("{bar:40} {pos}/{len} calls {per_sec} {eta}"));
                stream::stream(reader, &selection, (form, &mut out), |written| bar.set_position(written.rows))?;
                bar
            }
            Self::Running(source) => {
                let bar = ProgressBar::no_length().with_style(style("{spinner} {bytes} {bytes_per_sec}"));
                let mut pairs = vec![
                    ("format", form.format().as_str().to_owned()),
                    ("compression", form.compression().as_str().to_owned()),
                ];
                pairs.extend(after.map(|after| ("after", sheet::time(after))));
                let path = format!("/api/v1/analytics/export?{}&{}", query(&selection), spelt(&pairs));
                source.admin.download(&path, &mut bar.wrap_write(&mut out))?;
                bar
            }
        };
        bar.finish_and_clear();
        Ok(out.flush()?)
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a fixed template")
}

/// Writes to a file beside `path`, which takes its place once it is whole.
fn to_file(origin: &Origin<'_>, mut wanted: Wanted, (path, resume): (&Path, bool)) -> anyhow::Result<ExitCode> {
    let (form, part) = (wanted.form, PathBuf::from(format!("{}.part", path.display())));
    let kept = if resume { kept(&part, form)? } else { None };
    wanted.after = kept.map(|kept| kept.after);
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&part).and_then(|mut file| {
        file.set_len(kept.map_or(0, |kept| kept.bytes))?;
        file.seek(SeekFrom::End(0)).map(|_| file)
    });
    let file = opened.with_context(|| format!("cannot write {}", part.display()))?;
    let written = origin.write(wanted, &file).and_then(|()| Ok(file.sync_all()?));
    written.with_context(|| gone_on_with(&part, form))?;
    fs::rename(&part, path).with_context(|| format!("cannot put {} in its place", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn gone_on_with(part: &Path, form: Form) -> String {
    let part = part.display();
    if form.is_resumable() {
        format!("the export broke off: {part} has what there is, and the same command with --resume goes on")
    } else {
        format!("the export broke off: {part} is not whole, and the same command begins anew")
    }
}

/// What an earlier export has left.
fn kept(part: &Path, form: Form) -> anyhow::Result<Option<Kept>> {
    if !form.is_resumable() {
        bail!("--resume: only csv and ndjson that are not compressed can be gone on with: leave it out to begin anew");
    }
    match File::open(part) {
        Ok(mut file) => Ok(resume::kept(form.format(), &mut file)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", part.display())),
    }
}

/// What is asked for, or what the name of the file says.
fn form(arguments: &Arguments) -> anyhow::Result<Form> {
    let name = arguments.output.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let (by_name, packed_by_name) = name.as_deref().map_or((None, None), Form::of_name);
    let format = match arguments.format.or(by_name) {
        Some(format) => format,
        None if arguments.output.is_none() => Format::default(),
        None => bail!("--format: the name of the file does not say: write one of csv, json, ndjson, parquet"),
    };
    let compression = arguments.compress.or(packed_by_name).unwrap_or_default();
    Form::new(format, compression).map_err(|problem| anyhow!("--compress: {problem}"))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == ErrorKind::BrokenPipe)
    })
}
