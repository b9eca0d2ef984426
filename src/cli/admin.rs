//! Admin: how a subcommand finds the operator's side of the weir that runs here, and asks it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::timeout;

use crate::cli::SourceArguments;
use crate::config::{self, Sources};
use crate::listener::reachable;
use crate::secret::Secret;
use crate::units::Span;

/// The largest answer read, in bytes. weir's own are a few kilobytes.
const LARGEST_ANSWER: usize = 1 << 20;
/// The variable that may hold the token.
const TOKEN_VARIABLE: &str = "WEIR_ADMIN_TOKEN";

/// How to ask.
#[derive(Debug, Args)]
pub struct AdminArguments {
    /// A file that holds the token [default: what `WEIR_ADMIN_TOKEN` holds, else the file that `admin.token_file` names]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How long the answer may take
    #[arg(long, value_name = "DURATION", default_value_t = Span::from_secs(10))]
    timeout: Span,
    /// Where the configuration comes from: it says where the admin side listens.
    #[command(flatten)]
    sources: SourceArguments,
}

/// How to ask, and how to show the answer.
#[derive(Debug, Args)]
pub struct Asking {
    /// Print the answer as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) admin: AdminArguments,
}

impl AdminArguments {
    /// Reads `path`.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(&Method::GET, path, Bytes::new())
    }

    /// Posts a command.
    pub(super) fn post(&self, path: &str, command: &Value) -> anyhow::Result<Value> {
        self.ask(&Method::POST, path, command.to_string().into())
    }

    /// Puts something in place of what is there.
    pub(super) fn put(&self, path: &str, what: &Value) -> anyhow::Result<Value> {
        self.ask(&Method::PUT, path, what.to_string().into())
    }

    /// Takes something away.
    pub(super) fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(&Method::DELETE, path, Bytes::new())
    }

    /// Writes what is at `path` to `out` as it comes: as long as something does, it may take as long as it takes.
    #[cfg(feature = "ledger")]
    pub(super) fn download(&self, path: &str, out: &mut impl std::io::Write) -> anyhow::Result<()> {
        let request = self.request(&Method::GET, path, Bytes::new())?;
        let url = request.uri().to_string();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let late = || format!("no answer from {url} within {}", self.timeout);
            let answer =
                timeout(self.timeout.get(), Client::builder(TokioExecutor::new()).build_http().request(request));
            let answer = answer.await.with_context(late)?.with_context(|| format!("no answer from {url}"))?;
            let (head, mut body) = answer.into_parts();
            if !head.status.is_success() {
                let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(anyhow::Error::from_boxed)?;
                return Err(refused(&url, head.status, &serde_json::from_slice(&body.to_bytes()).unwrap_or_default()));
            }
            while let Some(frame) = timeout(self.timeout.get(), body.frame()).await.with_context(late)? {
                let frame = frame.with_context(|| format!("the answer of {url} broke off"))?;
                if let Ok(piece) = frame.into_data() {
                    out.write_all(&piece)?;
                }
            }
            Ok(())
        })
    }

    fn ask(&self, method: &Method, path: &str, body: Bytes) -> anyhow::Result<Value> {
        let request = self.request(method, path, body)?;
        let url = request.uri().to_string();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(async { timeout(self.timeout.get(), send(request)).await });
        let (status, body) = answer
            .with_context(|| format!("no answer from {url} within {}", self.timeout))?
            .with_context(|| format!("no answer from {url}"))?;
        let json = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        if status.is_success() && !json.is_null() { Ok(json) } else { Err(refused(&url, status, &json)) }
    }

    /// A request to the weir that is configured here, with the token if there is one.
    pub(super) fn request(&self, method: &Method, path: &str, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        let sources = self.sources.sources();
        let base = format!("http://{}", address(&sources)?);
        let token = match self.token(&sources) {
            // Whoever only reads on the same machine needs none.
            Err(_) if *method == Method::GET && self.token_file.is_none() => None,
            token => token?,
        };
        request(method, &format!("{base}{path}"), body, token)
    }

    /// A request that reads from a weir elsewhere, at `base`. It gets a token only if one was given: the one that the
    /// configuration names is for the weir that is configured here.
    pub(super) fn request_to(&self, base: &str, path: &str) -> anyhow::Result<Request<Full<Bytes>>> {
        let token = self.given_token(&self.sources.sources())?;
        request(&Method::GET, &format!("{}{path}", base.trim_end_matches('/')), Bytes::new(), token)
    }

    fn token(&self, sources: &Sources) -> anyhow::Result<Option<Secret>> {
        match (self.given_token(sources)?, config::admin_token_file(sources)) {
            (None, Some(file)) => read_token(&file).map(Some),
            (given, _) => Ok(given),
        }
    }

    /// The token of an argument or of the environment.
    fn given_token(&self, sources: &Sources) -> anyhow::Result<Option<Secret>> {
        let variable = sources.environment.get(TOKEN_VARIABLE).filter(|token| !token.is_empty());
        match &self.token_file {
            Some(file) => read_token(file).map(Some),
            None => Ok(variable.map(|token| Secret::new(token.as_str()))),
        }
    }
}

fn request(method: &Method, url: &str, body: Bytes, token: Option<Secret>) -> anyhow::Result<Request<Full<Bytes>>> {
    let mut request = Request::builder().method(method).uri(url).body(Full::new(body))?;
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {}", token.expose().trim()));
        let mut value = value.context("the token has characters that no header can carry")?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(request)
}

fn read_token(file: &Path) -> anyhow::Result<Secret> {
    let token = std::fs::read_to_string(file);
    Ok(Secret::new(token.with_context(|| format!("cannot read the token file {}", file.display()))?))
}

/// Where the admin side is reached from here.
///
/// # Errors
/// If the configuration does not say.
pub(super) fn address(sources: &Sources) -> anyhow::Result<SocketAddr> {
    let address = reachable(config::admin_address(sources)?);
    if address.port() == 0 {
        bail!("`admin.listen` has port 0: which port it became is not known here");
    }
    Ok(address)
}

/// What an answer says that is none.
fn refused(url: &str, status: StatusCode, problem: &Value) -> anyhow::Error {
    match problem["detail"].as_str() {
        Some(detail) => anyhow!("{url} says {status}: {detail}"),
        None => anyhow!("{url} says {status}: is this weir's admin side?"),
    }
}

async fn send(request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
    let answer = Client::builder(TokioExecutor::new()).build_http().request(request).await?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(anyhow::Error::from_boxed)?;
    Ok((head.status, body.to_bytes()))
}
