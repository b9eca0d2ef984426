//! Feed: reads what a running weir says of what is going on, and comes back when it was away. Knows HTTP and server-sent
//! events; not what is done with the news.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::news::News;
use crate::frames::sse::Decoder;

/// When to come back.
const COME_BACK_AFTER: Duration = Duration::from_secs(2);
/// How long nothing may be heard: there are gauges every second.
const SILENCE: Duration = Duration::from_secs(15);
/// The largest event read, in bytes. weir's own are a few kilobytes.
const LARGEST_EVENT: usize = 1 << 20;
/// The largest error read, in bytes.
const LARGEST_ERROR: usize = 1 << 16;

/// Why a stream is over.
enum Over {
    /// Nobody wants more.
    Enough,
    /// weir will say the same again.
    Refused(anyhow::Error),
    /// It may come back.
    Away(String),
}

/// Asks with what `ask` makes, and tells `tell` what comes, until it has enough.
///
/// # Errors
/// If weir does not want to answer such a request, or there is none to make.
pub(super) async fn follow(
    ask: impl Fn() -> anyhow::Result<Request<Full<Bytes>>>,
    mut tell: impl FnMut(News) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    loop {
        let why = match read(ask()?, &mut tell).await {
            Over::Enough => return Ok(()),
            Over::Refused(error) => return Err(error),
            Over::Away(why) => why,
        };
        if tell(News::Away(why)).is_break() {
            return Ok(());
        }
        sleep(COME_BACK_AFTER).await;
    }
}

async fn read(request: Request<Full<Bytes>>, tell: &mut impl FnMut(News) -> ControlFlow<()>) -> Over {
    let url = request.uri().to_string();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let answer = match timeout(SILENCE, client.request(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            return Over::Away(format!("{:#}", anyhow::Error::new(error).context(format!("no answer from {url}"))));
        }
        Err(_) => return Over::Away(format!("no answer from {url} within {} s", SILENCE.as_secs())),
    };
    let (head, mut body) = answer.into_parts();
    if !head.status.is_success() {
        let said = timeout(SILENCE, Limited::new(body, LARGEST_ERROR).collect()).await;
        let said = said.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let said = serde_json::from_slice::<Value>(&said).unwrap_or_default();
        let detail = said["detail"].as_str().unwrap_or("is this weir's admin side, and new enough?");
        let told = format!("{url} says {}: {detail}", head.status);
        return if head.status.is_client_error() { Over::Refused(anyhow::Error::msg(told)) } else { Over::Away(told) };
    }
    if tell(News::Connected).is_break() {
        return Over::Enough;
    }
    let mut decoder = Decoder::new(LARGEST_EVENT);
    loop {
        let frame = match timeout(SILENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return Over::Away("weir has stopped".to_owned()),
            Ok(Some(Err(error))) => return Over::Away(format!("the connection broke: {error}")),
            Err(_) => return Over::Away(format!("nothing was heard for {} s", SILENCE.as_secs())),
        };
        let Ok(data) = frame.into_data() else { continue };
        let mut news = Vec::new();
        decoder.push(&data, &mut |event| news.extend(News::of(&event)));
        if news.into_iter().try_for_each(&mut *tell).is_break() {
            return Over::Enough;
        }
    }
}
