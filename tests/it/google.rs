//! Google's APIs through the house: keys in the query, paths without a version, errors in Google's shape.

use http::StatusCode;

use crate::support::fake::{Fake, Script};
use crate::support::weir::Weir;

const GENERATE: &str = "/gemini/v1beta/models/gemini-2.5-flash:generateContent";
const ASK: &[u8] = br#"{"contents":[{"parts":[{"text":"a"}]}]}"#;
const ANSWER: &[u8] = br#"{"candidates":[{"content":{"parts":[{"text":"b"}]},"finishReason":"STOP"}],
    "usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2,"totalTokenCount":5},
    "modelVersion":"gemini-2.5-flash"}"#;

async fn provider() -> Fake {
    Fake::always(Script::json(200, ANSWER)).await
}

#[tokio::test]
async fn a_key_in_the_query_goes_as_it_came_and_keeps_callers_apart() {
    let fake = provider().await;
    let weir = Weir::before(&fake.url()).await;
    for (query, cache) in [
        ("?key=secret-one&prettyPrint=false", "MISS"),
        ("?key=secret-one&prettyPrint=false", "HIT"),
        ("?prettyPrint=false&key=secret-one", "HIT"),
        ("?key=secret-two&prettyPrint=false", "MISS"),
        ("?prettyPrint=false", "MISS"),
        ("?key=secret-one", "MISS"),
    ] {
        let answer = weir.post(&format!("{GENERATE}{query}"), &[], ASK).await;
        assert_eq!((answer.status, answer.header("x-cache")), (StatusCode::OK, cache), "{query}");
        assert_eq!(answer.body, ANSWER);
        if cache == "MISS" {
            let sent = fake.received().pop().unwrap().target;
            assert_eq!(sent, format!("{}{query}", GENERATE.trim_start_matches("/gemini")));
        }
        assert!(!format!("{:?}", answer.headers).contains("secret"));
    }
    assert!(!weir.metrics().await.contains("secret-"));
    weir.stop().await;
}

#[tokio::test]
async fn weirs_own_key_takes_the_place_of_every_one_the_app_sent() {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "own-key\n").unwrap();
    let fake = provider().await;
    let provider = |name: &str| {
        format!("  {name}: {{ base_url: \"{}\", api_key_file: \"{}\" }}\n", fake.url(), key.path().display())
    };
    let weir = Weir::start(&format!("providers:\n{}{}", provider("gemini"), provider("vertex"))).await;
    let sent = [("x-goog-api-key", "app-key"), ("authorization", "Bearer app-key")];
    for (path, target, header, value) in [
        (GENERATE, "/v1beta/models/gemini-2.5-flash:generateContent?alt=json", "x-goog-api-key", "own-key"),
        (
            "/vertex/v1/publishers/google/models/gemini-2.5-flash:generateContent",
            "/v1/publishers/google/models/gemini-2.5-flash:generateContent?alt=json",
            "authorization",
            "Bearer own-key",
        ),
    ] {
        let asked = format!("{path}?key=app-key&alt=json&access_token=app-key");
        assert_eq!(weir.post(&asked, &sent, ASK).await.status, StatusCode::OK);
        let received = fake.received().pop().unwrap();
        assert_eq!((received.target.as_str(), received.header(header)), (target, Some(value)));
        assert!(received.headers.iter().all(|(_, value)| !value.contains("app-key")), "{:?}", received.headers);
    }
    weir.stop().await;
}

#[tokio::test]
async fn a_version_is_put_in_where_there_is_none_and_bare_paths_go_to_the_default_provider() {
    let fake = provider().await;
    let yaml = format!("default_provider: gemini\nproviders: {{ gemini: {{ base_url: \"{}\" }} }}\n", fake.url());
    let weir = Weir::start(&yaml).await;
    for (asked, sent) in [
        ("/gemini/models/m:generateContent", "/v1beta/models/m:generateContent"),
        ("/gemini/v1/models/m:generateContent", "/v1/models/m:generateContent"),
        ("/v1beta/models/m:generateContent", "/v1beta/models/m:generateContent"),
        ("/v1/models/m:generateContent", "/v1/models/m:generateContent"),
    ] {
        weir.post(asked, &[("cache-control", "no-store")], ASK).await;
        assert_eq!(fake.received().pop().unwrap().target, sent, "{asked}");
    }
    assert_eq!(weir.post("/v1alpha/models/m:generateContent", &[], ASK).await.status, StatusCode::NOT_FOUND);
    weir.stop().await;
}

#[tokio::test]
async fn what_fails_here_is_said_in_googles_words_and_without_the_key() {
    let weir = Weir::before("http://127.0.0.1:1").await;
    for path in [GENERATE, "/vertex/v1/publishers/google/models/gemini-2.5-flash:generateContent"] {
        let answer = weir.post(&format!("{path}?key=secret"), &[], ASK).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        let error = &answer.json()["error"];
        assert_eq!((&error["code"], &error["status"]), (&502.into(), &"UNAVAILABLE".into()));
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    weir.stop().await;
}
