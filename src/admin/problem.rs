//! Problem: what is wrong with a request to the operator's side, as RFC 9457 says it.

use std::fmt;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// What is wrong with one part of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Fault {
    /// Which part.
    #[serde(flatten)]
    pub(super) place: Place,
    /// What is wrong, and what mends it.
    pub(super) detail: String,
}

/// A part of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Place {
    /// A member of its body, as a JSON pointer (RFC 6901): `#/older_than`. `#` is the body itself.
    Pointer(String),
    /// What stands behind this name after the URL's `?`.
    Parameter(String),
    /// The header of this name.
    Header(String),
}

impl Fault {
    /// A fault of the member `name`.
    pub(super) fn of(name: &str, detail: impl Into<String>) -> Self {
        // RFC 6901, section 3: the two characters that mean something in a pointer are spelt otherwise.
        let pointer = format!("#/{}", shown(name).replace('~', "~0").replace('/', "~1"));
        Self { place: Place::Pointer(pointer), detail: detail.into() }
    }

    /// The same fault, of a member of the member `parent`, which is a pointer without its `#/`.
    pub(super) fn under(self, parent: &str) -> Self {
        match self.place {
            Place::Pointer(pointer) => Self { place: Place::Pointer(format!("#/{parent}{}", &pointer[1..])), ..self },
            Place::Parameter(_) | Place::Header(_) => self,
        }
    }

    /// A fault of the body as a whole.
    pub(super) fn of_all(detail: impl Into<String>) -> Self {
        Self { place: Place::Pointer("#".to_owned()), detail: detail.into() }
    }

    /// A fault of the parameter `name`.
    pub(super) fn of_parameter(name: &str, detail: impl Into<String>) -> Self {
        Self { place: Place::Parameter(shown(name)), detail: detail.into() }
    }

    /// A fault of the header `name`.
    #[cfg_attr(not(any(test, feature = "ledger")), expect(dead_code, reason = "only questions about calls need it"))]
    pub(super) fn of_header(name: &str, detail: impl Into<String>) -> Self {
        Self { place: Place::Header(name.to_owned()), detail: detail.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Pointer(pointer) => write!(f, "{pointer} {}", self.detail),
            Place::Parameter(name) => write!(f, "`{name}` {}", self.detail),
            Place::Header(name) => write!(f, "{name} {}", self.detail),
        }
    }
}

/// Why a request is not done. Its type is `about:blank`: the status says it all.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    faults: Vec<Fault>,
    challenge: Option<&'static str>,
    retry_after: Option<Duration>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), faults: Vec::new(), challenge: None, retry_after: None }
    }

    /// What it comes to, for those who want it told in another form.
    #[cfg(feature = "otlp")]
    pub(super) fn into_parts(self) -> (StatusCode, String) {
        (self.status, self.detail)
    }

    /// A request without the right credential; `challenge` says which one that is (RFC 9110, section 11.6.1).
    pub(super) fn unauthorized(challenge: &'static str, detail: &str) -> Self {
        Self { challenge: Some(challenge), ..Self::new(StatusCode::UNAUTHORIZED, detail) }
    }

    /// A body that cannot be used, with every fault in it, in the manner of RFC 9457, section 3.
    pub(super) fn of_faults(faults: Vec<Fault>) -> Self {
        Self::told(StatusCode::UNPROCESSABLE_ENTITY, faults)
    }

    /// A URL or a header that cannot be used, in the same manner.
    pub(super) fn of_parameters(faults: Vec<Fault>) -> Self {
        Self::told(StatusCode::BAD_REQUEST, faults)
    }

    fn told(status: StatusCode, faults: Vec<Fault>) -> Self {
        let each: Vec<String> = faults.iter().map(Fault::to_string).collect();
        Self { faults, ..Self::new(status, each.join("; ")) }
    }

    /// A request of somebody who has asked too often, and in how long another one is looked at.
    pub(super) fn too_many(retry_after: Duration, detail: &str) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    /// What cannot be had now, and in how long it may be asked for again.
    pub(super) fn later(retry_after: Duration, detail: impl Into<String>) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// What it says.
    #[cfg(test)]
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The status it has.
    #[cfg(all(test, feature = "ledger"))]
    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }
}

/// A problem as RFC 9457 writes it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Written<'a> {
    /// `about:blank`: the status says it all.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: Option<&'static str>,
    /// The status.
    status: u16,
    /// What is wrong, and what mends it.
    detail: &'a str,
    /// Every fault that was found, where there may be several.
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [Fault],
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_string(&Written {
            kind: "about:blank",
            title: self.status.canonical_reason(),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.faults,
        });
        let body = body.expect("problems are plain data");
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, content_type, body).into_response();
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = self.retry_after.map(|after| after.as_secs().max(1)) {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// A value as a message shows it: cut, where it is long.
pub(super) fn shown_value(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{}`", shown(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => format!("`{other}`"),
    }
}

/// A text as a message shows it.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_fault_says_where_it_is() {
        for (fault, expected) in [
            (Fault::of("a", "x"), json!({ "pointer": "#/a", "detail": "x" })),
            (Fault::of_parameter("range", "x"), json!({ "parameter": "range", "detail": "x" })),
            (Fault::of_header("X-Workspace-ID", "x"), json!({ "header": "X-Workspace-ID", "detail": "x" })),
        ] {
            assert_eq!(json!(fault), expected);
        }
    }

    #[test]
    fn members_are_pointed_at_and_long_values_are_cut() {
        for (fault, pointer) in [
            (Fault::of("older_than", ""), "#/older_than"),
            (Fault::of("a/b~c", ""), "#/a~1b~0c"),
            (Fault::of("a", "").under("metrics/3"), "#/metrics/3/a"),
            (Fault::of_all("").under("metrics/3"), "#/metrics/3"),
        ] {
            assert_eq!(fault.place, Place::Pointer(pointer.to_owned()));
        }
        assert_eq!(shown_value(&json!("x".repeat(81))), format!("`{}…`", "x".repeat(80)));
        assert_eq!(shown_value(&json!(5)), "`5`");
        assert_eq!(shown_value(&json!(null)), "`null`");
        assert_eq!(shown_value(&json!(["a"])), "a list");
    }
}
