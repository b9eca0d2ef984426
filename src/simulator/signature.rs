//! Signature: whether AWS would accept who signs a request (Signature Version 4).
//!
//! Knows one pair of keys, AWS's own example, and takes any API key. Reckons signatures itself, by AWS's description
//! ("Create a signed AWS API request"), so that it can find fault with whoever signs.

use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, Method, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::reply::Problem;

/// The access key id the simulator knows.
pub const ACCESS_KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
/// The secret that belongs to it.
pub const SECRET_ACCESS_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// The session token it may come with, as temporary credentials do.
pub const SESSION_TOKEN: &str = "simulated-session-token";

/// How far a signature's time may be off.
const SKEW: Duration = Duration::from_secs(300);
/// What stands for itself in a canonical request (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// SHA-256 works on blocks of so many bytes.
const BLOCK: usize = 64;

/// What a signature covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

/// Lets in whoever has an API key or has signed as AWS wants it.
pub(super) fn admit(request: Signed<'_>, now: SystemTime) -> Result<(), Problem> {
    let authorization = text(request.headers, AUTHORIZATION.as_str());
    if authorization.strip_prefix("Bearer ").is_some_and(|key| !key.trim().is_empty()) {
        return Ok(());
    }
    let Some(parameters) = authorization.strip_prefix("AWS4-HMAC-SHA256 ") else {
        return refused("MissingAuthenticationTokenException", "Missing Authentication Token");
    };
    let parameter = |name| parameters.split(',').find_map(|one| one.trim().strip_prefix(name)?.strip_prefix('='));
    let (Some(credential), Some(names), Some(signature)) =
        (parameter("Credential"), parameter("SignedHeaders"), parameter("Signature"))
    else {
        return refused("IncompleteSignatureException", "Authorization header requires 'Credential' parameter.");
    };
    let [key, date, region, service, "aws4_request"] = *credential.split('/').collect::<Vec<_>>() else {
        return refused("IncompleteSignatureException", "Credential must have exactly 5 slash-delimited elements.");
    };
    let token = text(request.headers, "x-amz-security-token");
    if key != ACCESS_KEY_ID || !["", SESSION_TOKEN].contains(&token) {
        return refused("UnrecognizedClientException", "The security token included in the request is invalid.");
    }
    if !["bedrock", "bedrock-mantle"].contains(&service) {
        return refused("InvalidSignatureException", "Credential should be scoped to correct service: 'bedrock'. ");
    }
    let at = text(request.headers, "x-amz-date");
    if !at.starts_with(date) || time(at).is_none_or(|time| off(time, now) > SKEW) {
        return refused("InvalidSignatureException", "Signature expired or not yet current: check the clock.");
    }
    if let Some(missing) = unsigned(request.headers, names) {
        let message = format!("'{missing}' must be a 'SignedHeader' in the AWS Authorization.");
        return refused("InvalidSignatureException", &message);
    }
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let digest = hex(&Sha256::digest(canonical(request, names)));
    let to_sign = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{digest}");
    let steps = [date, region, service, "aws4_request", to_sign.as_str()];
    let secret = format!("AWS4{SECRET_ACCESS_KEY}").into_bytes();
    let expected = steps.into_iter().fold(secret, |key, step| hmac(&key, step.as_bytes()));
    if hex(&expected) == signature {
        return Ok(());
    }
    refused(
        "InvalidSignatureException",
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
         Key and signing method. Consult the service documentation for details.",
    )
}

fn refused(kind: &'static str, message: &str) -> Result<(), Problem> {
    Err(Problem::Forbidden { kind, message: message.to_owned() })
}

/// The request as both sides must spell it.
fn canonical(request: Signed<'_>, names: &str) -> String {
    let path: Vec<String> =
        request.uri.path().split('/').map(|segment| utf8_percent_encode(segment, RESERVED).to_string()).collect();
    let headers: Vec<_> = names.split(';').map(|name| format!("{name}:{}", value(request, name))).collect();
    let headers = headers.join("\n");
    let body = hex(&Sha256::digest(request.body));
    format!("{}\n{}\n{}\n{headers}\n\n{names}\n{body}", request.method, path.join("/"), query(request.uri))
}

fn query(uri: &Uri) -> String {
    let spell = |text: &str| utf8_percent_encode(&percent_decode_str(text).decode_utf8_lossy(), RESERVED).to_string();
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<_> = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    pairs.sort_unstable();
    let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| format!("{}={}", spell(name), spell(value))).collect();
    pairs.join("&")
}

/// The values of a header, as one, with single spaces. HTTP/2 has the host in the target.
fn value(request: Signed<'_>, name: &str) -> String {
    let values = request.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let values: Vec<_> = values.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    match request.uri.authority().filter(|_| name == HOST && values.is_empty()) {
        Some(host) => host.to_string(),
        None => values.join(","),
    }
}

/// A header that has to be signed and is not.
fn unsigned<'a>(headers: &'a HeaderMap, names: &str) -> Option<&'a str> {
    let required = headers.keys().map(http::HeaderName::as_str).filter(|name| name.starts_with("x-amz-"));
    required.chain([HOST.as_str()]).find(|required| !names.split(';').any(|name| name == *required))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The time that `20261121T100000Z` stands for.
fn time(basic: &str) -> Option<SystemTime> {
    let part = |from: usize, to: usize| basic.get(from..to);
    let (date, clock) = ([part(0, 4)?, part(4, 6)?, part(6, 8)?], [part(9, 11)?, part(11, 13)?, part(13, 15)?]);
    humantime::parse_rfc3339(&format!("{}T{}Z", date.join("-"), clock.join(":"))).ok()
}

fn off(time: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(time).unwrap_or_else(|before| before.duration())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(digit.into(), 16));
        }
        text
    })
}

/// HMAC-SHA256 (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new_with_prefix(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new_with_prefix(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const PATH: &str = "/model/anthropic.claude-opus-4-v1%3A0/converse";
    /// Made by botocore 1.44.5 with the keys above, at 2026-11-21T10:00:00Z.
    const SIGNATURE: &str = "edde57a3b7102a85e88e663cd470b7fd0ce7e8deb629b1386078d8e7d8e957bb";

    /// How a good request is changed before it comes.
    struct Change {
        name: &'static str,
        to: String,
    }

    fn judged(path: &str, body: &str, at: &str, change: Option<&Change>) -> Result<(), Problem> {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={ACCESS_KEY_ID}/20261121/us-east-1/bedrock/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date;x-amzn-bedrock-trace, Signature={SIGNATURE}"
        );
        let mut request = Request::post(path)
            .header("host", "bedrock-runtime.us-east-1.amazonaws.com")
            .header("content-type", "application/json")
            .header("x-amz-date", "20261121T100000Z")
            .header("x-amzn-bedrock-trace", "ENABLED")
            .header("user-agent", "any")
            .header("authorization", authorization)
            .body(())
            .expect("a request");
        if let Some(Change { name, to }) = change {
            request.headers_mut().insert(*name, to.parse().expect("a header value"));
        }
        let (head, ()) = request.into_parts();
        let signed = Signed { method: &head.method, uri: &head.uri, headers: &head.headers, body: body.as_bytes() };
        admit(signed, time(at).expect("a time"))
    }

    fn kind(judged: &Result<(), Problem>) -> &'static str {
        match judged {
            Ok(()) => "",
            Err(Problem::Forbidden { kind, .. }) => kind,
            Err(_) => "another problem",
        }
    }

    #[test]
    fn what_botocore_signs_is_let_in_and_nothing_else_is() {
        let (body, now) = (r#"{"messages":[]}"#, "20261121T100100Z");
        assert_eq!(kind(&judged(PATH, body, now, None)), "");
        assert_eq!(kind(&judged(&PATH.replace("%3A", ":"), body, now, None)), "InvalidSignatureException");
        assert_eq!(kind(&judged(PATH, "{}", now, None)), "InvalidSignatureException");
        assert_eq!(kind(&judged(PATH, body, "20261121T100600Z", None)), "InvalidSignatureException");
        let credential =
            |credential: &str| format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0");
        for (name, to, expected) in [
            ("host", "127.0.0.1:9347".to_owned(), "InvalidSignatureException"),
            ("x-amzn-bedrock-trace", "DISABLED".to_owned(), "InvalidSignatureException"),
            ("user-agent", "other".to_owned(), ""),
            ("x-amz-new", "unsigned".to_owned(), "InvalidSignatureException"),
            ("x-amz-security-token", "stranger".to_owned(), "UnrecognizedClientException"),
            (
                "authorization",
                credential("AKID/20261121/us-east-1/bedrock/aws4_request"),
                "UnrecognizedClientException",
            ),
            ("authorization", credential("AKID"), "IncompleteSignatureException"),
            ("authorization", "AWS4-HMAC-SHA256 Signature=0".to_owned(), "IncompleteSignatureException"),
            ("authorization", "Basic eDp5".to_owned(), "MissingAuthenticationTokenException"),
            ("authorization", "Bearer ABSK".to_owned(), ""),
            ("authorization", "Bearer ".to_owned(), "MissingAuthenticationTokenException"),
        ] {
            let shown = format!("{name}: {to}");
            assert_eq!(kind(&judged(PATH, body, now, Some(&Change { name, to }))), expected, "{shown}");
        }
    }

    #[test]
    fn hmac_is_that_of_the_rfc() {
        // RFC 4231, test cases 2 and 6.
        let short = hex(&hmac(b"Jefe", b"what do ya want for nothing?"));
        assert_eq!(short, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let long = hex(&hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First"));
        assert_eq!(long, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }
}
