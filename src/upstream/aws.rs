//! AWS: an identity at AWS, and signatures made with it.
//!
//! Identities come from the places every AWS SDK looks in: environment, profiles, web identity, containers, instance
//! metadata. They are loaded and renewed beside the calls, which only wait when there is none yet.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::Region;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::upstream::connect::{Connector, Open};
use crate::upstream::sign::{Scope, Unsigned};
use crate::upstream::trust::{Offer, Speaks, Trust};
use crate::upstream::{BoxError, Proxy, RequestBody, Settings};

/// How long a call waits for an identity when there is none. SDKs give up on a connection after a minute at the
/// earliest; the operator's log should have the cause before that.
const CALL_WAITS: Duration = Duration::from_secs(5);
/// How long it may take to load an identity: instance metadata is asked last, and tries several times.
const LOAD_WITHIN: Duration = Duration::from_secs(30);
/// How long to rest after a failure, and at least between two loads.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long an identity that never expires is trusted: the file it is from may be edited.
const RELOAD_AFTER: Duration = Duration::from_secs(60);
/// How long any answer may take on the way to an identity, where the chain sets no limit itself.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The largest answer on the way to an identity; real ones have a few kilobytes.
const ANSWER_MAX_BYTES: usize = 1 << 20;

/// There is no identity to sign with.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoIdentity {
    /// None of the places has one, or the place that should have could not be asked.
    #[error("no AWS credentials: {0}")]
    Failed(Arc<str>),
    /// The first load, or a renewal, is still going on.
    #[error("AWS credentials were not there within {}", humantime::format_duration(CALL_WAITS))]
    TooSlow,
}

/// weir was built without what it takes to sign. Never happens in this build.
#[derive(Debug, thiserror::Error)]
#[error("this weir was built without the feature `aws`")]
pub struct Absent;

/// Signs requests to AWS. A clone shares the identity.
#[derive(Clone, Debug)]
pub struct Signer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    profile: Option<String>,
    region: Option<String>,
    http: Http,
    known: watch::Sender<Known>,
}

#[derive(Clone, Debug)]
enum Known {
    NotYet,
    Identity(Identity),
    Nothing(Arc<str>),
}

impl Known {
    /// Whether a call can go on with it, or must be told why not.
    fn is_final(&self, now: SystemTime) -> bool {
        match self {
            Self::NotYet => false,
            Self::Identity(identity) => identity.expiration().is_none_or(|end| end > now),
            Self::Nothing(_) => true,
        }
    }
}

impl Signer {
    /// A signer with the identity of `profile`, or the one the environment has. `region` is to be signed for, whatever
    /// an app or a host says. Without [`Signer::keep`] it has no identity.
    ///
    /// # Errors
    /// Never, in this build.
    pub fn new(
        profile: Option<&str>,
        region: Option<&str>,
        settings: &Settings,
        trust: &Trust,
    ) -> Result<Self, Absent> {
        let shared = Shared {
            profile: profile.map(str::to_owned),
            region: region.map(str::to_owned),
            http: Http::new(settings, trust),
            known: watch::Sender::new(Known::NotYet),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Loads the identity, and renews it in good time, again and again. Runs until it is dropped.
    pub async fn keep(self) {
        let mut complained = false;
        loop {
            let loaded = self.load().await;
            let rest = match loaded {
                Ok(identity) => {
                    complained = false;
                    let rest = trusted_for(&identity, SystemTime::now());
                    self.shared.known.send_replace(Known::Identity(identity));
                    rest
                }
                Err(why) => {
                    if !complained {
                        tracing::warn!(error.message = %why, "no AWS credentials; trying again and again");
                    }
                    complained = true;
                    self.shared.known.send_if_modified(|known| {
                        let is_good = matches!(known, Known::Identity(_)) && known.is_final(SystemTime::now());
                        if !is_good {
                            *known = Known::Nothing(why);
                        }
                        !is_good
                    });
                    RETRY_AFTER
                }
            };
            sleep(rest).await;
        }
    }

    /// The region the operator wants signed for.
    pub(super) fn region(&self) -> Option<&str> {
        self.shared.region.as_deref()
    }

    /// The identity of now. Waits only if there is none yet, or if it has expired and is being renewed.
    pub(super) async fn identity(&self) -> Result<Identity, NoIdentity> {
        let mut known = self.shared.known.subscribe();
        let found = timeout(CALL_WAITS, known.wait_for(|known| known.is_final(SystemTime::now()))).await;
        match found.map(|found| found.map(|known| known.clone())) {
            Ok(Ok(Known::Identity(identity))) => Ok(identity),
            Ok(Ok(Known::Nothing(why))) => Err(NoIdentity::Failed(why)),
            Ok(Ok(Known::NotYet) | Err(_)) | Err(_) => Err(NoIdentity::TooSlow),
        }
    }

    /// Puts a signature on `request`: over its method, path and query, its host, its type, every header of AWS's own,
    /// and its body.
    pub(super) fn sign(request: &mut Request<RequestBody>, identity: &Identity, scope: &Scope) -> Result<(), Unsigned> {
        let made = signature(request, identity, scope, SystemTime::now())?;
        request.headers_mut().extend(made);
        Ok(())
    }

    async fn load(&self) -> Result<Identity, Arc<str>> {
        // Made anew each time: a chain remembers the files it has read.
        let mut chain = DefaultCredentialsChain::builder()
            .configure(ProviderConfig::without_region().with_http_client(self.shared.http.clone()));
        if let Some(region) = &self.shared.region {
            chain = chain.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.shared.profile {
            chain = chain.profile_name(profile);
        }
        let load = async { chain.build().await.provide_credentials().await };
        match timeout(LOAD_WITHIN, load).await {
            Ok(Ok(credentials)) => Ok(credentials.into()),
            Ok(Err(error)) => Err(told(&error).into()),
            Err(_) => Err("whoever should give them does not answer".into()),
        }
    }
}

/// How long to go on with an identity before the next is loaded: three quarters of the time it has left.
fn trusted_for(identity: &Identity, now: SystemTime) -> Duration {
    let Some(end) = identity.expiration() else { return RELOAD_AFTER };
    let left = end.duration_since(now).unwrap_or_default();
    (left / 4 * 3).max(RETRY_AFTER)
}

/// The error and its causes, for the operator. AWS's crates redact their secrets.
fn told(error: &CredentialsError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(reason) = cause {
        text.push_str(": ");
        text.push_str(&reason.to_string());
        cause = reason.source();
    }
    text
}

/// The headers that sign `request`, which has its whole body, at this time.
fn signature(
    request: &Request<RequestBody>,
    identity: &Identity,
    scope: &Scope,
    now: SystemTime,
) -> Result<Vec<(HeaderName, HeaderValue)>, Unsigned> {
    let body = request.body().as_whole().ok_or(Unsigned::BodyTooLarge)?;
    let unfit = |error: BoxError| Unsigned::Unfit(error);
    // Headers that a proxy may change stay out of it; those of AWS's own have to be in it.
    let signed = |name: &HeaderName| *name == CONTENT_TYPE || name.as_str().starts_with("x-amz");
    let headers = request.headers().iter().filter(|(name, _)| signed(name));
    let headers = headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let signable =
        SignableRequest::new(request.method().as_str(), request.uri().to_string(), headers, SignableBody::Bytes(body))
            .map_err(|error| unfit(error.into()))?;
    let parameters = v4::SigningParams::builder()
        .identity(identity)
        .region(&scope.region)
        .name(&scope.service)
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| unfit(error.into()))?
        .into();
    let made = aws_sigv4::http_request::sign(signable, &parameters).map_err(|error| unfit(error.into()))?;
    let header = |(name, value): (&str, &str)| {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| unfit(error.into()))?;
        let mut value = HeaderValue::from_str(value).map_err(|error| unfit(error.into()))?;
        value.set_sensitive(true);
        Ok((name, value))
    };
    made.output().headers().map(header).collect()
}

/// How the chain asks: STS over weir's own TLS and proxy, the machine's own services (always plain HTTP, always near)
/// without a proxy.
#[derive(Clone)]
struct Http {
    far: Client<Connector, Full<Bytes>>,
    near: Client<Connector, Full<Bytes>>,
    limit: Duration,
}

impl Http {
    fn new(settings: &Settings, trust: &Trust) -> Self {
        let client = |proxy| {
            let deadline = settings.connect_timeout.get();
            let tls = Offer::new(trust, Speaks::Any);
            let connector = Connector::new(tls, proxy, deadline, Arc::new(|_| ()), Open::default());
            Client::builder(TokioExecutor::new()).build(connector)
        };
        let proxy = matches!(settings.proxy, Proxy::Environment).then(|| Arc::new(Matcher::from_env()));
        Self { far: client(proxy), near: client(None), limit: ANSWER_WITHIN }
    }

    async fn ask(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
        let request = request.map(|body| Full::new(Bytes::copy_from_slice(body.bytes().unwrap_or_default())));
        let is_far = request.uri().scheme() == Some(&http::uri::Scheme::HTTPS);
        let client = if is_far { &self.far } else { &self.near };
        let exchange = async {
            let answer = client.request(request).await.map_err(|error| ConnectorError::io(error.into()))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await.map_err(ConnectorError::io)?.to_bytes();
            let answer = http::Response::from_parts(head, SdkBody::from(body));
            HttpResponse::try_from(answer).map_err(|error| ConnectorError::user(error.into()))
        };
        let too_slow = |error: tokio::time::error::Elapsed| ConnectorError::timeout(error.into());
        timeout(self.limit, exchange).await.map_err(too_slow).and_then(|answer| answer)
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl HttpConnector for Http {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().ask(request))
    }
}

impl HttpClient for Http {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let limits = [settings.connect_timeout(), settings.read_timeout()];
        let limit = limits.into_iter().flatten().reduce(|sum, part| sum + part).unwrap_or(ANSWER_WITHIN);
        SharedHttpConnector::new(Self { limit, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use aws_credential_types::Credentials;
    use http::header::AUTHORIZATION;

    use super::*;

    /// AWS's own example of a key pair.
    const KEY: (&str, &str) = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    /// 2026-11-21T10:00:00Z.
    const AT: u64 = 1_795_255_200;

    fn identity(token: Option<&str>, expires: Option<SystemTime>) -> Identity {
        Credentials::new(KEY.0, KEY.1, token.map(str::to_owned), expires, "test").into()
    }

    fn signer() -> Signer {
        let settings = Settings::default();
        let trust = Trust::load(&settings).expect("the system's authorities");
        Signer::new(None, None, &settings, &trust).expect("a signer")
    }

    /// Made by botocore 1.44.5: `SigV4Auth(credentials, "bedrock", "us-east-1").add_auth(request)`.
    #[test]
    fn signatures_are_those_of_botocore() {
        for (path, token, expected) in [
            (
                "/model/anthropic.claude-opus-4-v1%3A0/converse",
                None,
                "edde57a3b7102a85e88e663cd470b7fd0ce7e8deb629b1386078d8e7d8e957bb",
            ),
            (
                "/model/anthropic.claude-opus-4-v1:0/converse",
                Some("TOKEN"),
                "9217f38b57f6f2af471dbc1dddd4b25af8581f6e96469def6ac6ebd5ce6dd806",
            ),
            (
                "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A111122223333%3Ainference-profile%2Fus.x/invoke?b=2&a=1",
                Some("TOKEN"),
                "3124c14a78f24395348e90a2b27a58b3251ede09f3b1cccfc461ab630bbcc6e4",
            ),
        ] {
            let url = format!("https://bedrock-runtime.us-east-1.amazonaws.com{path}");
            let mut request = Request::post(&url)
                .header("content-type", "application/json")
                .header("x-amzn-bedrock-trace", "ENABLED")
                .header("accept-encoding", "identity")
                .body(RequestBody::whole(r#"{"messages":[]}"#.into()))
                .expect("a request");
            let scope = Scope { region: "us-east-1".into(), service: "bedrock".into() };
            let now = UNIX_EPOCH + Duration::from_secs(AT);
            let headers = signature(&request, &identity(token, None), &scope, now).expect("a signature");
            request.headers_mut().extend(headers);
            let made = request.headers()[AUTHORIZATION].to_str().expect("text");
            assert!(made.ends_with(&format!("Signature={expected}")), "{path}: {made}");
            assert_eq!(request.headers()["x-amz-date"], "20261121T100000Z");
            assert_eq!(request.headers().get("x-amz-security-token").is_some(), token.is_some());
            assert_eq!(request.uri().to_string(), url, "goes up as the app wrote it");
        }
    }

    #[test]
    fn a_signature_is_not_shown() {
        let request = Request::post("https://h/").body(RequestBody::whole(Bytes::new())).expect("a request");
        let scope = Scope { region: "us-east-1".into(), service: "bedrock".into() };
        let identity = identity(Some("TOKEN"), None);
        let shown = format!("{:?}{identity:?}", signature(&request, &identity, &scope, SystemTime::now()));
        assert!(!shown.contains("TOKEN") && !shown.contains(KEY.1) && !shown.contains("Signature="), "{shown}");
    }

    #[test]
    fn an_identity_is_renewed_in_good_time() {
        let now = SystemTime::now();
        for (left, rest) in [
            (Some(3600), Duration::from_secs(2700)),
            (Some(4), RETRY_AFTER),
            (Some(0), RETRY_AFTER),
            (None, RELOAD_AFTER),
        ] {
            let identity = identity(None, left.map(|left| now + Duration::from_secs(left)));
            assert_eq!(trusted_for(&identity, now), rest, "{left:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_an_identity_and_is_told_why_there_is_none() {
        let signer = signer();
        assert!(matches!(signer.identity().await, Err(NoIdentity::TooSlow)), "nobody keeps one");

        let known = &signer.shared.known;
        known.send_replace(Known::Nothing("no role".into()));
        let why = signer.identity().await.expect_err("none").to_string();
        assert_eq!(why, "no AWS credentials: no role");

        let expired = identity(None, Some(UNIX_EPOCH));
        known.send_replace(Known::Identity(expired));
        let (waited, ()) = tokio::join!(signer.identity(), async {
            sleep(Duration::from_secs(1)).await;
            known.send_replace(Known::Identity(identity(None, None)));
        });
        assert!(waited.expect("the renewed one").expiration().is_none());
    }
}
