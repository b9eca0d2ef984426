//! Problem: what is wrong with a request to the operator's side, as RFC 9457 says it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

/// What is wrong with one member of a request's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Fault {
    /// The member, as a JSON pointer (RFC 6901): `#/older_than`. `#` is the body itself.
    pub(super) pointer: String,
    /// What is wrong, and what mends it.
    pub(super) detail: String,
}

impl Fault {
    /// A fault of the member `name`.
    pub(super) fn of(name: &str, detail: impl Into<String>) -> Self {
        // RFC 6901, section 3: the two characters that mean something in a pointer are spelt otherwise.
        Self { pointer: format!("#/{}", shown(name).replace('~', "~0").replace('/', "~1")), detail: detail.into() }
    }

    /// The same fault, of a member of the member `parent`, which is a pointer without its `#/`.
    pub(super) fn under(self, parent: &str) -> Self {
        Self { pointer: format!("#/{parent}{}", &self.pointer[1..]), ..self }
    }

    /// A fault of the body as a whole.
    pub(super) fn of_all(detail: impl Into<String>) -> Self {
        Self { pointer: "#".to_owned(), detail: detail.into() }
    }
}

/// Why a request is not done. Its type is `about:blank`: the status says it all.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    faults: Vec<Fault>,
    challenge: Option<&'static str>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), faults: Vec::new(), challenge: None }
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
        let each: Vec<String> = faults.iter().map(|Fault { pointer, detail }| format!("{pointer} {detail}")).collect();
        Self { faults, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, each.join("; ")) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if !self.faults.is_empty() {
            body["errors"] = json!(self.faults);
        }
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, content_type, body.to_string()).into_response();
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
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
    use super::*;

    #[test]
    fn members_are_pointed_at_and_long_values_are_cut() {
        assert_eq!(Fault::of("older_than", "").pointer, "#/older_than");
        assert_eq!(Fault::of("a/b~c", "").pointer, "#/a~1b~0c");
        assert_eq!(Fault::of("a", "").under("metrics/3").pointer, "#/metrics/3/a");
        assert_eq!(Fault::of_all("").under("metrics/3").pointer, "#/metrics/3");
        assert_eq!(shown_value(&json!("x".repeat(81))), format!("`{}…`", "x".repeat(80)));
        assert_eq!(shown_value(&json!(5)), "`5`");
        assert_eq!(shown_value(&json!(null)), "`null`");
        assert_eq!(shown_value(&json!(["a"])), "a list");
    }
}
