//! Sign: whose signature a request to AWS carries, by Signature Version 4 (SigV4).
//!
//! An SDK signs for the host it calls, and that host is weir: AWS would refuse the signature. Where the operator says
//! so, weir signs anew with an identity of its own; where not, and where AWS is sure to refuse, it says so itself. Does
//! not know where identities come from, nor what a request asks.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use crate::upstream::aws::{NoIdentity, Signer};
use crate::upstream::{BoxError, RequestBody};

/// The service of Bedrock's runtime, in a credential's scope.
const BEDROCK: &str = "bedrock";
/// The service of Bedrock's newer hosts, likewise.
const MANTLE: &str = "bedrock-mantle";
/// The domains of AWS's endpoints, in all its partitions.
const DOMAINS: [&str; 4] = [".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws"];

/// Headers that go no further where weir signs: those of another signature, and keys that are for somebody else.
const LEFT_BEHIND: [HeaderName; 7] = [
    AUTHORIZATION,
    HeaderName::from_static("x-amz-date"),
    SECURITY_TOKEN,
    CONTENT_SHA256,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// Why a request to AWS was not sent: it would have gone without a signature that AWS accepts.
#[derive(Debug, thiserror::Error)]
pub enum Unsigned {
    /// The app signed, and weir may not.
    #[error(
        "the app signed this request with AWS credentials for weir's address, which AWS refuses: set \
         `aws_sign: true` on this provider so that weir signs with its own, or give weir a Bedrock API key (`api_key_file`)"
    )]
    NotConfigured,
    /// weir has no identity to sign with.
    #[error(
        "weir has no AWS credentials to sign with: give it a role (IRSA, EKS Pod Identity, ECS or EC2), a profile, or \
         AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; its log says what it tried"
    )]
    NoIdentity(#[source] NoIdentity),
    /// The body is larger than what weir keeps of one, and so cannot be hashed.
    #[error("the body is too large to be signed: raise `calls.max_request_bytes`")]
    BodyTooLarge,
    /// The app signs every piece of its body, each with the signature before it.
    #[error(
        "the app signs its body piece by piece, which weir cannot do in its place: give weir a Bedrock API key (`api_key_file`)"
    )]
    SignedPieces,
    /// The app signed for one region, the provider is in another.
    #[error(
        "the app signed for the region {app}, but this provider is in {provider}: set AWS_REGION={provider} for the \
         app, configure a provider with a `base_url` in {app}, or decide it for all apps with `aws_region: {provider}`"
    )]
    OtherRegion {
        /// The region in the app's signature.
        app: Box<str>,
        /// The region in the provider's host.
        provider: Box<str>,
    },
    /// Nothing says in which region the provider is.
    #[error("nothing says which AWS region to sign for: set `aws_region` on this provider")]
    NoRegion,
    /// The request has something that cannot be signed.
    #[error("the request cannot be signed")]
    Unfit(#[source] BoxError),
}

/// Makes sure that `request` carries a signature that its host accepts, if it is to carry one: `signer`'s own, where
/// there is a signer. An API key (`Authorization: Bearer`) passes through.
///
/// Dropping the future has no effect.
///
/// # Errors
/// If AWS would be sure to refuse the request.
pub(super) async fn authorise(signer: Option<&Signer>, request: &mut Request<RequestBody>) -> Result<(), Unsigned> {
    let claim = Claim::of(request.headers());
    let host = request.uri().host().unwrap_or_default();
    let Some(signer) = signer else {
        let is_in_vain = matches!(claim, Claim::Signed { .. }) && is_aws(host);
        return if is_in_vain { Err(Unsigned::NotConfigured) } else { Ok(()) };
    };
    if claim == Claim::ApiKey {
        return Ok(());
    }
    if request.headers().get(CONTENT_SHA256).is_some_and(|hash| hash.as_bytes().starts_with(b"STREAMING-")) {
        return Err(Unsigned::SignedPieces);
    }
    if request.body().as_whole().is_none() {
        return Err(Unsigned::BodyTooLarge);
    }
    let scope = scope(&claim, host, signer.region())?;
    let identity = signer.identity().await.map_err(Unsigned::NoIdentity)?;
    for name in LEFT_BEHIND {
        request.headers_mut().remove(name);
    }
    Signer::sign(request, &identity, &scope)
}

/// What of a header tells apps apart where their credential goes no further than weir: of a signature, which is never
/// the same twice, the name of the key it was made with.
#[must_use]
pub fn lasting<'a>(name: &HeaderName, value: &'a HeaderValue) -> Option<&'a [u8]> {
    match value.to_str().ok().filter(|_| *name == AUTHORIZATION).and_then(credential_of) {
        Some(credential) => credential.split('/').next().map(str::as_bytes),
        None => (*name != SECURITY_TOKEN).then(|| value.as_bytes()),
    }
}

/// Whether a request carries a signature for AWS.
#[must_use]
pub fn is_signed(headers: &HeaderMap) -> bool {
    matches!(Claim::of(headers), Claim::Signed { .. })
}

/// Where a signature is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) region: Box<str>,
    pub(super) service: Box<str>,
}

/// What a request says of who sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Claim {
    Nothing,
    ApiKey,
    /// Signed, for this region and service if it says so.
    Signed {
        region: Option<Box<str>>,
        service: Option<Box<str>>,
    },
}

impl Claim {
    fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(AUTHORIZATION) else { return Self::Nothing };
        let value = value.to_str().unwrap_or_default();
        if value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer ")) {
            return Self::ApiKey;
        }
        let Some(credential) = credential_of(value) else { return Self::Nothing };
        // SigV4 has key/date/region/service/aws4_request; SigV4a leaves the region out.
        let mut parts = credential.rsplit('/').skip(1);
        let service = parts.next().map(Box::from);
        let region = parts.next().filter(|_| parts.next().is_some() && parts.next().is_some());
        Self::Signed { region: region.map(Box::from), service }
    }
}

/// The `Credential=…` of a signature, if `authorization` is one.
fn credential_of(authorization: &str) -> Option<&str> {
    let (_, parameters) = authorization.split_once(' ').filter(|(scheme, _)| scheme.starts_with("AWS4-"))?;
    parameters.split(',').find_map(|parameter| parameter.trim().strip_prefix("Credential="))
}

/// For which region and service to sign. The operator's word counts first; an app that asks for another region than
/// the one its call would go to is not served elsewhere in silence.
fn scope(claim: &Claim, host: &str, configured: Option<&str>) -> Result<Scope, Unsigned> {
    let (asked, service) = match claim {
        Claim::Signed { region, service } => (region.as_deref(), service.as_deref()),
        Claim::Nothing | Claim::ApiKey => (None, None),
    };
    let region = match (configured, asked, region_of(host)) {
        (None, Some(app), Some(provider)) if app != provider => {
            return Err(Unsigned::OtherRegion { app: app.into(), provider: provider.into() });
        }
        (configured, asked, of_host) => configured.or(asked).or(of_host).ok_or(Unsigned::NoRegion)?,
    };
    let by_host = if host.split('.').any(|label| label == MANTLE) { MANTLE } else { BEDROCK };
    Ok(Scope { region: region.into(), service: service.unwrap_or(by_host).into() })
}

fn is_aws(host: &str) -> bool {
    DOMAINS.iter().any(|domain| host.ends_with(domain))
}

/// The region an AWS host names: the label before the domain, as in `bedrock-runtime.eu-west-1.amazonaws.com` and in
/// `vpce-1-2.bedrock-runtime.eu-west-1.vpce.amazonaws.com`.
#[must_use]
pub fn region_of(host: &str) -> Option<&str> {
    let before = DOMAINS.iter().find_map(|domain| host.strip_suffix(domain))?;
    let before = before.strip_suffix(".vpce").unwrap_or(before);
    let (_, label) = before.rsplit_once('.')?;
    let is_region = label.contains('-') && label.ends_with(|last: char| last.is_ascii_digit());
    is_region.then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=AKIDAPP/20261121/us-east-1/bedrock/aws4_request, \
                          SignedHeaders=host;x-amz-date, Signature=00ff";

    fn claim(authorization: &'static str) -> Claim {
        Claim::of(&HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(authorization))]))
    }

    fn signed(region: Option<&str>, service: Option<&str>) -> Claim {
        Claim::Signed { region: region.map(Box::from), service: service.map(Box::from) }
    }

    #[test]
    fn a_request_says_who_sends_it() {
        for (authorization, expected) in [
            (SIGNED, signed(Some("us-east-1"), Some("bedrock"))),
            (
                "AWS4-HMAC-SHA256 Credential=A/20261121/eu-west-1/bedrock-mantle/aws4_request,SignedHeaders=host,Signature=0",
                signed(Some("eu-west-1"), Some("bedrock-mantle")),
            ),
            // SigV4a names no region.
            (
                "AWS4-ECDSA-P256-SHA256 Credential=A/20261121/bedrock/aws4_request, Signature=0",
                signed(None, Some("bedrock")),
            ),
            ("AWS4-HMAC-SHA256 Credential=A, Signature=0", signed(None, None)),
            ("Bearer ABSK", Claim::ApiKey),
            ("bearer ABSK", Claim::ApiKey),
            ("Basic eDp5", Claim::Nothing),
            ("AWS4-HMAC-SHA256", Claim::Nothing),
            ("", Claim::Nothing),
        ] {
            assert_eq!(claim(authorization), expected, "{authorization}");
        }
        assert_eq!(Claim::of(&HeaderMap::new()), Claim::Nothing);
    }

    #[test]
    fn a_host_names_its_region() {
        for (host, expected) in [
            ("bedrock-runtime.us-east-1.amazonaws.com", Some("us-east-1")),
            ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
            ("bedrock-runtime.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("bedrock-runtime.eusc-de-east-1.amazonaws.eu", Some("eusc-de-east-1")),
            ("bedrock-mantle.eu-west-1.api.aws", Some("eu-west-1")),
            ("vpce-0ab-1cd.bedrock-runtime.ap-south-1.vpce.amazonaws.com", Some("ap-south-1")),
            ("sts.amazonaws.com", None),
            ("127.0.0.1", None),
            ("bedrock-runtime.us-east-1.example.com", None),
        ] {
            assert_eq!(region_of(host), expected, "{host}");
        }
    }

    #[test]
    fn the_scope_is_the_operators_then_the_apps_then_the_hosts() {
        let (us, own) = ("bedrock-runtime.us-east-1.amazonaws.com", "bedrock.internal");
        let eu_app = signed(Some("eu-west-1"), Some("bedrock"));
        let us_app = signed(Some("us-east-1"), Some("bedrock-mantle"));
        for (claim, host, configured, region, service) in [
            (&Claim::Nothing, us, None, "us-east-1", "bedrock"),
            (&Claim::Nothing, "bedrock-mantle.eu-west-1.api.aws", None, "eu-west-1", "bedrock-mantle"),
            (&us_app, us, None, "us-east-1", "bedrock-mantle"),
            (&eu_app, own, None, "eu-west-1", "bedrock"),
            (&eu_app, us, Some("us-east-1"), "us-east-1", "bedrock"),
            (&eu_app, own, Some("us-east-1"), "us-east-1", "bedrock"),
            (&signed(None, None), us, None, "us-east-1", "bedrock"),
        ] {
            let found = scope(claim, host, configured).expect("a scope");
            assert_eq!((&*found.region, &*found.service), (region, service), "{claim:?} {host} {configured:?}");
        }
        assert!(matches!(scope(&Claim::Nothing, own, None), Err(Unsigned::NoRegion)));
        let elsewhere = scope(&eu_app, us, None).expect_err("another region").to_string();
        assert!(elsewhere.contains("eu-west-1") && elsewhere.contains("us-east-1"), "{elsewhere}");
    }

    #[test]
    fn callers_are_told_apart_by_what_lasts_of_their_signatures() {
        let value = HeaderValue::from_static(SIGNED);
        assert_eq!(lasting(&AUTHORIZATION, &value), Some(&b"AKIDAPP"[..]));
        assert_eq!(lasting(&SECURITY_TOKEN, &value), None);
        let bearer = HeaderValue::from_static("Bearer ABSK");
        assert_eq!(lasting(&AUTHORIZATION, &bearer), Some(&b"Bearer ABSK"[..]));
        assert_eq!(lasting(&HeaderName::from_static("x-api-key"), &value), Some(SIGNED.as_bytes()));
    }

    #[tokio::test]
    async fn without_a_signer_only_what_aws_is_sure_to_refuse_is_refused() {
        for (host, authorization, sent) in [
            ("bedrock-runtime.us-east-1.amazonaws.com", SIGNED, false),
            ("bedrock-runtime.us-east-1.amazonaws.com", "Bearer ABSK", true),
            ("127.0.0.1:4566", SIGNED, true),
            ("api.openai.com", SIGNED, true),
        ] {
            let request =
                Request::post(format!("https://{host}/model/m/converse")).header(AUTHORIZATION, authorization);
            let mut request = request.body(RequestBody::whole("{}".into())).expect("a request");
            let authorised = authorise(None, &mut request).await;
            assert_eq!(authorised.is_ok(), sent, "{host} {authorization}");
            assert_eq!(request.headers()[AUTHORIZATION], authorization, "left as it was");
        }
    }
}
