//! Ledger: which calls a subcommand asks for, and where it finds them: with the running weir, or in the ledger's file.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::cli::admin::AdminArguments;
use crate::cli::prices::time;
use crate::export::sheet;
use crate::export::stream::Selection;
use crate::ledger::entry::micros;
use crate::ledger::filter::Filter;
use crate::ledger::open::Place;
use crate::ledger::reader::Reader;
use crate::ledger::window::Window;
use crate::units::Span;

/// Most time for one question to a file: nobody else waits.
const QUESTION: Duration = Duration::from_secs(60);

/// How long back all is that there is: as long as a running weir is asked about.
const LONGEST: Duration = Duration::from_hours(3 * 365 * 24);

/// Where the calls are.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// Read this ledger instead of asking the running weir; also while one writes it
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// How to ask the running weir.
    #[command(flatten)]
    pub(super) admin: AdminArguments,
}

impl Source {
    /// The ledger's file, opened for questions; `None` if the running weir is to be asked.
    pub(super) fn file(&self) -> anyhow::Result<Option<Reader>> {
        self.ledger.as_deref().map(open).transpose()
    }
}

fn open(path: &Path) -> anyhow::Result<Reader> {
    let place = Place::File(path.to_owned());
    let says = || format!("cannot read the ledger {}: it is `ledger.db` in weir's `state_dir`", path.display());
    if !path.is_file() {
        bail!("there is no ledger {}: it is `ledger.db` in weir's `state_dir`", path.display());
    }
    let connection = place.read().with_context(says)?;
    let reader = Reader::new(QUESTION);
    reader.open(vec![connection]);
    reader.span().with_context(says)?;
    Ok(reader)
}

/// Which calls.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// The last so long, such as 24h, 7d or 30d [default: all that there are]
    #[arg(long, value_name = "DURATION", conflicts_with_all = ["from", "to"])]
    range: Option<Span>,
    /// Calls that were over from then on, such as 2026-10-01 or 2026-10-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<SystemTime>,
    /// Calls that were over before then
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<SystemTime>,
    /// Calls of this workspace
    #[arg(long, value_name = "ID")]
    workspace: Option<String>,
    /// Calls of this namespace
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Calls of this agent
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Calls for this user
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Calls to this provider
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
}

impl Asked {
    /// The calls that are asked for, of this model where one is named, until `now` at most.
    pub(super) fn selection(&self, model: Option<&str>, now: SystemTime) -> Selection {
        let boxed = |text: &Option<String>| text.as_deref().map(Into::into);
        let back = self.range.map_or(LONGEST, Span::get);
        let from = self.from.or_else(|| now.checked_sub(back)).map_or(0, micros);
        let filter = Filter {
            workspace: boxed(&self.workspace),
            namespace: boxed(&self.namespace),
            agent: boxed(&self.agent),
            user: boxed(&self.user),
            provider: boxed(&self.provider),
            model: model.map(Into::into),
            ..Filter::default()
        };
        Selection { window: Window { from, to: micros(self.to.unwrap_or(now)) }, filter }
    }
}

/// The selection as a running weir is asked for it: what follows the `?` of a URL.
pub(super) fn query(selection: &Selection) -> String {
    let Selection { window, filter } = selection;
    let mut pairs = vec![("from", sheet::time(window.from)), ("to", sheet::time(window.to))];
    let filters = [
        ("workspace_id", &filter.workspace),
        ("namespace", &filter.namespace),
        ("agent_id", &filter.agent),
        ("user_id", &filter.user),
        ("provider", &filter.provider),
        ("model", &filter.model),
        ("error_type", &filter.error_type),
        ("run_id", &filter.run),
    ];
    pairs.extend(filters.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?.to_owned()))));
    spelt(&pairs)
}

/// Names and values as a URL has them.
pub(super) fn spelt(pairs: &[(&str, String)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
    pairs.collect::<Vec<_>>().join("&")
}
