//! `weir demo`: weir, a simulated provider and some traffic, to see what weir is for.
//!
//! Everything in one process, on loopback: no key, no network. The apps reach weir over TCP as real ones would, and
//! every figure shown comes from a scrape of weir's own metrics.

mod books;
mod client;
mod figures;
mod prompts;
mod samples;
mod screen;
mod summary;
mod traffic;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as Probe};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::cli::print;
use crate::cli::run::told_to_stop;
use crate::cli::wording::{full_count, per_second};
use crate::config::{Config, Flag, Sources};
use crate::semconv;
use crate::simulator::{self, Simulator};
use crate::units::Span;
use books::Books;
use client::Client;
use figures::Figures;
use samples::Samples;
use screen::{Display, Now, Place};
use summary::Summary;
use traffic::{Made, Pace};

/// The share of calls that fail at the provider, as they do in life.
const MISHAPS: f64 = 0.02;
/// weir's usual addresses: for apps, and for the operator.
const USUAL: [SocketAddr; 2] = [loopback(9347), loopback(9348)];
/// How long weir's books may take to be complete once the last call has ended.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);
/// Over how long a time the calls per second are shown.
const LATELY: Duration = Duration::from_secs(5);

/// What may follow `weir demo`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// End after this time; without it, at Ctrl-C
    #[arg(long, value_name = "DURATION")]
    duration: Option<Span>,
    /// Calls per second
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Decides what is asked, and in which order
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where weir takes calls [default: 127.0.0.1:9347, or any free port if that is taken]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Where weir serves metrics [default: 127.0.0.1:9348, or any free port if that is taken]
    #[arg(long, value_name = "IP:PORT")]
    admin_listen: Option<SocketAddr>,
    /// Only make the calls, through a weir that runs already: its provider has to be `weir simulate`
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = ["listen", "admin_listen"])]
    through: Option<SocketAddr>,
}

impl Arguments {
    const fn pace(&self) -> Pace {
        Pace { rate: self.rate, seed: self.seed }
    }
}

/// Runs it.
///
/// # Errors
/// If it cannot start, or does not end well.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let shown = match arguments.through {
        Some(weir) => runtime.block_on(only_calls(arguments, weir)),
        None => runtime.block_on(demo(arguments)).map(|summary| summary.text()),
    };
    match shown {
        // Whoever reads it has seen enough: `weir demo | head`.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) => {
            Ok(ExitCode::SUCCESS)
        }
        shown => print(&shown?),
    }
}

/// The apps alone. What comes of their calls is for weir's own metrics to tell.
async fn only_calls(arguments: &Arguments, weir: SocketAddr) -> anyhow::Result<String> {
    let end = told_or_after(arguments.duration)?;
    TcpStream::connect(weir)
        .await
        .with_context(|| format!("no weir takes calls at {weir}: start one by `weir run`"))?;
    print(&format!("about {} calls per second go through {weir}, until Ctrl-C or SIGTERM\n", arguments.rate))?;
    let enough = CancellationToken::new();
    let apps = traffic::run(Client::new(), weir, arguments.pace(), enough.clone());
    let (Made { calls, unanswered }, ()) = tokio::join!(apps, async {
        end.await;
        enough.cancel();
    });
    Ok(format!("{} calls, {} of them without an answer\n", full_count(calls), full_count(unanswered)))
}

async fn demo(arguments: &Arguments) -> anyhow::Result<Summary> {
    let end = told_or_after(arguments.duration)?;
    let client = Client::new();
    let house = Box::pin(House::open(arguments, &client)).await?;
    let (enough, begun) = (CancellationToken::new(), Instant::now());
    let apps = traffic::run(client.clone(), house.place.app, arguments.pace(), enough.clone());
    let watched = async {
        let watched = watch(&client, &house.place, begun, end).await;
        enough.cancel();
        let took = begun.elapsed();
        (watched.and_then(|()| print("\nthe last calls end …\n")), took)
    };
    let (_, (watched, took)) = tokio::join!(apps, watched);
    watched?;

    let samples = house.settled(&client).await?;
    let (figures, books) = (Figures::of(&samples), Books::of(&samples, house.simulator.bill().tokens()));
    let place = house.place.clone();
    house.close().await;
    Ok(Summary { figures, books, took, place })
}

/// Shows how things are until `end`.
async fn watch(client: &Client, place: &Place, begun: Instant, end: impl Future<Output = ()>) -> anyhow::Result<()> {
    let display = Display::open(place)?;
    let (mut end, mut ticks, mut meter) = (pin!(end), interval(display.every()), Meter::default());
    loop {
        tokio::select! {
            () = &mut end => return Ok(()),
            _ = ticks.tick() => {
                let figures = Figures::of(&scrape(client, place).await?);
                let rate = meter.per_second(figures.calls.all);
                display.show(Now { figures: &figures, begun, rate })?;
            }
        }
    }
}

/// What Prometheus would see.
async fn scrape(client: &Client, place: &Place) -> anyhow::Result<Samples> {
    Ok(Samples::read(&client.page(place.admin, "/metrics").await?))
}

/// Resolves when weir is told to stop, and after this time if there is one.
fn told_or_after(duration: Option<Span>) -> anyhow::Result<impl Future<Output = ()>> {
    let told = told_to_stop().context("cannot listen for signals")?;
    Ok(async move {
        tokio::select! {
            () = told => {}
            () = after(duration) => {}
        }
    })
}

/// Resolves after this time; never if there is none.
async fn after(duration: Option<Span>) {
    match duration {
        Some(duration) => sleep(duration.get()).await,
        None => std::future::pending().await,
    }
}

/// How fast a counter has grown lately.
#[derive(Default)]
struct Meter(VecDeque<(Instant, u64)>);

impl Meter {
    fn per_second(&mut self, count: u64) -> f64 {
        let now = Instant::now();
        while self.0.front().is_some_and(|(then, _)| now - *then > LATELY) {
            self.0.pop_front();
        }
        self.0.push_back((now, count));
        let (then, before) = self.0[0];
        per_second(count - before, now - then)
    }
}

/// The simulator and weir, running.
struct House {
    simulator: Simulator,
    place: Place,
    closing: CancellationToken,
    tasks: JoinSet<()>,
}

impl House {
    async fn open(arguments: &Arguments, client: &Client) -> anyhow::Result<Self> {
        let simulator = Simulator::new(simulator::pace::Pace::lifelike()).with_mishaps(MISHAPS);
        let provider = TcpListener::bind(loopback(0)).await.context("no free port on 127.0.0.1")?;
        let provider_address = provider.local_addr()?;
        let wanted = [arguments.listen, arguments.admin_listen];
        let taken: Vec<_> =
            (0..2).filter(|side| wanted[*side].is_none()).map(|side| USUAL[side]).filter(is_taken).collect();
        let free = |usual| if taken.contains(&usual) { loopback(0) } else { usual };
        let [listen, admin] = [0, 1].map(|side| wanted[side].unwrap_or_else(|| free(USUAL[side])));
        let app = App::bind(config(listen, admin, provider_address)?).await?;
        let place = Place { app: app.app_address()?, admin: app.admin_address()?, taken };

        let (closing, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(simulator::run(provider, simulator.clone(), closing.clone().cancelled_owned()));
        tasks.spawn(app.run(closing.clone().cancelled_owned()));
        client.warm_up(provider_address).await?;
        Ok(Self { simulator, place, closing, tasks })
    }

    /// The last scrape, of books that are complete: no call is open any more, here or at the provider.
    async fn settled(&self, client: &Client) -> anyhow::Result<Samples> {
        let settled = async {
            self.simulator.until(|state| state.open == 0).await;
            loop {
                let samples = scrape(client, &self.place).await?;
                if samples.count(semconv::REQUESTS_IN_FLIGHT.name, &[]) == 0 {
                    return Ok(samples);
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        match timeout(SETTLED_WITHIN, settled).await {
            Ok(settled) => settled,
            // Somebody's own call goes on: then this is what is known.
            Err(_) => scrape(client, &self.place).await,
        }
    }

    async fn close(mut self) {
        self.closing.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// weir as it comes, before a provider that is both OpenAI and Anthropic. What the user has configured does not count,
/// so that the demo is the same everywhere.
fn config(listen: SocketAddr, admin: SocketAddr, provider: SocketAddr) -> anyhow::Result<Config> {
    let flags = [
        ("listen", listen.to_string()),
        ("admin.listen", admin.to_string()),
        ("providers.openai.base_url", format!("http://{provider}")),
        ("providers.anthropic.base_url", format!("http://{provider}")),
        ("upstream.proxy", "none".to_owned()),
        ("ledger.mode", "memory".to_owned()),
    ];
    let flags = flags.map(|(path, value)| Flag { name: "weir demo", path: path.to_owned(), value }).into();
    Ok(Config::load(&Sources { flags, ..Sources::default() })?)
}

fn is_taken(address: &SocketAddr) -> bool {
    Probe::bind(address).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
