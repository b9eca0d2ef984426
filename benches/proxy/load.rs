//! The load: a fixed number of connections, each sending its next call as soon as the last one is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Failure;

/// Connections at once.
const CONNECTIONS: usize = 16;
/// How long the prompt is, so that the request's body is about 1 KB.
const PROMPT_LEN: usize = 900;

/// Calls of one kind to one address.
#[derive(Clone)]
pub(crate) struct Load {
    to: SocketAddr,
    header: Option<(&'static str, &'static str)>,
    bodies: Bodies,
}

#[derive(Clone)]
enum Bodies {
    /// No two alike.
    Unique(Arc<AtomicU64>),
    /// All alike.
    Repeated,
}

/// What a number of calls took.
pub(crate) struct Sample {
    /// All of them, from the first to the last.
    pub(crate) took: Duration,
    /// Each of them: request sent → last byte of the reply.
    pub(crate) latencies: Vec<Duration>,
}

impl Load {
    /// Calls that no cache can answer.
    pub(crate) fn unique(to: SocketAddr) -> Self {
        Self { to, header: None, bodies: Bodies::Unique(Arc::new(AtomicU64::new(1))) }
    }

    /// The same call again and again.
    pub(crate) fn repeated(to: SocketAddr) -> Self {
        Self { to, header: None, bodies: Bodies::Repeated }
    }

    /// The same, with a header more.
    pub(crate) fn with_header(self, name: &'static str, value: &'static str) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    /// Makes `calls` calls and waits for every answer.
    pub(crate) async fn run(&self, calls: usize) -> Result<Sample, Failure> {
        let begun = Instant::now();
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let load = self.clone();
            connections
                .spawn(async move { load.connection(calls / CONNECTIONS).await.map_err(|error| error.to_string()) });
        }
        let mut latencies = Vec::with_capacity(calls);
        while let Some(connection) = connections.join_next().await {
            latencies.extend(connection??);
        }
        Ok(Sample { took: begun.elapsed(), latencies })
    }

    async fn connection(&self, calls: usize) -> Result<Vec<Duration>, Failure> {
        let stream = TcpStream::connect(self.to).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut latencies = Vec::with_capacity(calls);
        for _ in 0..calls {
            latencies.push(self.call(&mut sender).await?);
        }
        drop(sender);
        connection.await??;
        Ok(latencies)
    }

    async fn call(&self, sender: &mut SendRequest<Full<Bytes>>) -> Result<Duration, Failure> {
        let request = self.request()?;
        let begun = Instant::now();
        sender.ready().await?;
        let reply = sender.send_request(request).await?;
        let status = reply.status();
        let length = reply.into_body().collect().await?.to_bytes().len();
        let took = begun.elapsed();
        if !status.is_success() || length == 0 {
            return Err(format!("{} answered {status} with {length} bytes", self.to).into());
        }
        Ok(took)
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, http::Error> {
        let number = match &self.bodies {
            Bodies::Unique(next) => next.fetch_add(1, Ordering::Relaxed),
            Bodies::Repeated => 0,
        };
        let prompt = "Tell me of rivers. ".repeat(PROMPT_LEN / 19);
        let body = format!(
            r#"{{"model":"gpt-4o-mini","temperature":0,"messages":[{{"role":"system","content":"You are brief."}},{{"role":"user","content":"{number}: {prompt}"}}]}}"#
        );
        let mut request = Request::post("/v1/chat/completions")
            .header(header::HOST, self.to.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, "Bearer sk-bench");
        if let Some((name, value)) = self.header {
            request = request.header(name, HeaderValue::from_static(value));
        }
        request.body(Full::new(Bytes::from(body)))
    }
}
