//! A plain HTTP client that hides nothing.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// What came back, all of it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

/// A client with a pool of its own.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
}

impl Default for Client {
    fn default() -> Self {
        Self { pool: Pool::builder(TokioExecutor::new()).build_http() }
    }
}

impl Client {
    /// A client that speaks HTTP/2 from the first byte.
    pub(crate) fn http2() -> Self {
        Self { pool: Pool::builder(TokioExecutor::new()).http2_only(true).build_http() }
    }

    /// Sends a request and gives back the head of the answer and its body as it comes.
    pub(crate) async fn open(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        self.pool.request(request).await.unwrap_or_else(|error| panic!("{url}: {error:?}"))
    }

    /// Posts JSON and waits for the whole answer.
    pub(crate) async fn post(&self, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        collect(self.open(Method::POST, url, &all, body).await).await
    }

    /// The same with a weir that may be gone before it has answered.
    pub(crate) async fn post_if_there(&self, url: &str, body: &[u8]) -> Option<Answer> {
        let request = Request::post(url).header("content-type", "application/json");
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let (head, body) = self.pool.request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(Answer { status: head.status, headers: head.headers, body })
    }

    pub(crate) async fn get(&self, url: &str) -> Answer {
        collect(self.open(Method::GET, url, &[], b"").await).await
    }
}

/// All of an answer.
pub(crate) async fn collect(answer: Response<Incoming>) -> Answer {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.expect("a complete body").to_bytes();
    Answer { status: head.status, headers: head.headers, body }
}

/// All of an answer that may break off: what came, and whether it ended well.
pub(crate) async fn collect_broken(answer: Response<Incoming>) -> (Vec<u8>, bool) {
    let mut body = answer.into_body();
    let mut came = Vec::new();
    loop {
        match body.frame().await {
            Some(Ok(frame)) => came.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Some(Err(_)) => return (came, false),
            None => return (came, true),
        }
    }
}
