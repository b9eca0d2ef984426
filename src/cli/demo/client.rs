//! Client: how the demo's apps, and its operator, reach weir: over TCP, through a plain pool, as anyone would.
//!
//! Knows addresses and headers; not what is asked, and not what the answers say.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::prompts::{Api, Ask};
use crate::simulator::faults;

/// The key that the apps send: the simulator takes any.
const KEY: &str = "demo";
/// Most connections that are kept for the next call.
const MOST_IDLE: usize = 64;
/// The longest page that is read: far more than a demo's metrics, which are about 100 KiB.
const LONGEST_PAGE: usize = 4 << 20;

/// A pool of connections. A clone shares it.
#[derive(Clone, Debug)]
pub(super) struct Client(Pool<HttpConnector, Full<Bytes>>);

impl Client {
    pub(super) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(Pool::builder(TokioExecutor::new()).pool_max_idle_per_host(MOST_IDLE).build(connector))
    }

    /// Makes the call and takes the whole answer, piece by piece as it comes. Whether there was one at all; how it ends is
    /// for weir to count.
    pub(super) async fn call(&self, weir: SocketAddr, ask: Ask) -> bool {
        let request = Request::post(format!("http://{weir}{}", ask.path))
            .header(CONTENT_TYPE, "application/json")
            .header("x-agent-id", ask.agent);
        let request = match ask.api {
            Api::OpenAi => request.header(AUTHORIZATION, format!("Bearer {KEY}")),
            Api::Anthropic => request.header("x-api-key", KEY).header("anthropic-version", "2023-06-01"),
        };
        let request = match ask.script {
            Some(script) => request.header(faults::HEADER, script),
            None => request,
        };
        let request = request.body(Full::from(ask.body)).expect("an address, fixed paths and fixed headers");
        let Ok(answer) = self.0.request(request).await else { return false };
        let mut body = answer.into_body();
        while let Some(Ok(_)) = body.frame().await {}
        true
    }

    /// Has the simulator count some tokens, which is free: it loads its tokenizer for that, and the first calls need not
    /// wait for it.
    pub(super) async fn warm_up(&self, simulator: SocketAddr) -> anyhow::Result<()> {
        let request = Request::post(format!("http://{simulator}/v1/messages/count_tokens"))
            .header("x-api-key", KEY)
            .header("anthropic-version", "2023-06-01")
            .body(Full::from(r#"{"model":"claude","messages":[{"role":"user","content":"Hi"}]}"#))?;
        self.0.request(request).await.context("no answer from the simulator")?;
        Ok(())
    }

    /// The text of a page of the operator's side.
    pub(super) async fn page(&self, admin: SocketAddr, path: &str) -> anyhow::Result<String> {
        let url: Uri = format!("http://{admin}{path}").parse().context("not a URL")?;
        let answer = self.0.get(url.clone()).await.with_context(|| format!("no answer from {url}"))?;
        ensure!(answer.status().is_success(), "{url} says {}", answer.status());
        let body = Limited::new(answer.into_body(), LONGEST_PAGE).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error)).with_context(|| format!("{url} broke off"))?;
        String::from_utf8(body.to_bytes().into()).with_context(|| format!("{url} is not text"))
    }
}
