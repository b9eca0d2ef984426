//! The operator's side in front of somebody who should not be there: tokens are not guessed, and whatever is asked is
//! answered by a problem that says what is wrong with it.

use http::{Method, StatusCode};

use crate::support::client::collect;
use crate::support::raw::{has_sane_metrics, say, status};
use crate::support::weir::{TOKEN, Weir};

const CLEAR: &str = "/api/v1/cache/clear";

#[tokio::test]
async fn who_guesses_tokens_is_not_heard_after_ten_and_reads_what_everybody_may_read() {
    let weir = Weir::operated("http://127.0.0.1:9", "").await;
    let shown = |token: &str| format!("Bearer {token}");
    for guess in 0..10 {
        let answer = weir.command(CLEAR, &[("authorization", &shown(&format!("sesame{guess}")))], b"{}").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{guess}: {:?}", answer.body);
    }
    for token in ["sesame11", TOKEN] {
        let answer = weir.command(CLEAR, &[("authorization", &shown(token))], b"{}").await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "not even the right one: {:?}", answer.body);
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=6).contains(&wait), "{wait}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    for path in ["/metrics", "/livez", "/api/v1/cache/stats"] {
        let url = format!("{}{path}", weir.admin);
        let answer = weir.client.open(Method::GET, &url, &[("authorization", &shown("sesame12"))], b"").await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
    has_sane_metrics(&weir).await;
    weir.stop().await;
}

#[tokio::test]
async fn who_guesses_at_what_a_token_narrows_sees_no_more_for_it() {
    let files = tempfile::tempdir().unwrap();
    let team = files.path().join("team-a");
    std::fs::write(&team, "mine").unwrap();
    let tokens = format!(", tokens: [{{ name: team-a, file: {}, workspace: a }}]", team.display());
    let weir = Weir::operated_with("http://127.0.0.1:9", &tokens, "").await;
    // A bound token may not see what is of the whole instance: that it may not would tell that it is one.
    let read = async |shown: &str| {
        let url = format!("{}/api/v1/cache/stats", weir.admin);
        collect(weir.client.open(Method::GET, &url, &[("authorization", shown)], b"").await).await
    };
    assert_eq!(read("Bearer mine").await.status, StatusCode::FORBIDDEN);
    for guess in 0..10 {
        assert_eq!(read(&format!("Bearer guess{guess}")).await.status, StatusCode::OK, "what needs none");
    }
    for shown in ["Bearer mine", "Bearer guess10"] {
        let answer = read(shown).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{shown}: {:?}", answer.body);
        assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|wait| (1..=6).contains(&wait)));
    }
    let answer = weir.command(CLEAR, &[("authorization", &format!("Bearer {TOKEN}"))], b"{}").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "nor is the other one guessed by that way");
    let url = format!("{}/api/v1/cache/stats", weir.admin);
    assert_eq!(weir.client.open(Method::GET, &url, &[], b"").await.status(), StatusCode::OK, "who shows none reads on");
    has_sane_metrics(&weir).await;
    weir.stop().await;
}

#[tokio::test]
async fn tokens_that_nobody_had_to_show_count_for_nothing() {
    let weir = Weir::operated("http://127.0.0.1:9", "").await;
    for _ in 0..30 {
        let url = format!("{}/api/v1/cache/stats", weir.admin);
        let answer = weir.client.open(Method::GET, &url, &[("authorization", "Bearer of-the-provider")], b"").await;
        assert_eq!(answer.status(), StatusCode::OK, "programs on this machine read without one");
    }
    let answer = weir.command(CLEAR, &[("authorization", &format!("Bearer {TOKEN}"))], b"{}").await;
    assert_ne!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{:?}", answer.body);
    weir.stop().await;
}

#[tokio::test]
async fn whatever_is_asked_is_answered_by_a_problem() {
    let weir = Weir::operated("http://127.0.0.1:9", "").await;
    let long = "a".repeat(20_000);
    for path in [
        "/api/v1/../../etc/passwd",
        "/api/v1/cache/%2e%2e/%2e%2e/metrics",
        "/api/v1/%ff",
        "/api/v1/logs/%00",
        "/api/v1/analytics/usage?range=-1h",
        "/api/v1/analytics/usage?range=99999999999999999999d&%ff=%fe&from=0000-00-00",
        "/api/v1/analytics/usage?granularity=%27%3B%20DROP%20TABLE%20calls%3B--",
        "/api/v1/usage?user_id=%27%20OR%20%271%27=%271&cursor=AAAA",
        &format!("/api/v1/limits?name={long}"),
        "/api/v1/nothing",
    ] {
        let answer = collect(weir.client.open(Method::GET, &format!("{}{path}", weir.admin), &[], b"").await).await;
        assert!(answer.status.is_client_error(), "{path}: {} {:?}", answer.status, answer.body);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
        assert!(answer.json()["detail"].is_string() && answer.body.len() < 64 << 10, "{path}");
    }
    let (deep, giant) = ("[".repeat(100_000), format!("{{\"a\":\"{}\"}}", "a".repeat(16 << 20)));
    let bearer = format!("Bearer {TOKEN}");
    for path in [CLEAR, "/api/v1/cache/get", "/api/v1/cache/set", "/api/v1/metrics", "/api/v1/cache/invalidate"] {
        for body in [b"\xff\xfe".as_slice(), b"{\"a\":", b"{\"a\":1,\"a\":2}", b"[]", deep.as_bytes(), giant.as_bytes()]
        {
            let url = format!("{}{path}", weir.admin);
            let answer = weir.client.post_if_there(&url, body).await;
            // Whoever sends more than is read may be cut off before it has the answer.
            let Some(answer) = answer else {
                assert!(body.len() > 1 << 20, "{path}: no answer");
                continue;
            };
            assert!(
                answer.status.is_client_error(),
                "{path} {:?}: {} {:?}",
                &body[..body.len().min(20)],
                answer.status,
                answer.body
            );
        }
        let headers =
            [("authorization", bearer.as_str()), ("content-encoding", "gzip"), ("content-type", "application/json")];
        let answer = weir.command(path, &headers, b"\x1f\x8b\x08").await;
        assert!(answer.status.is_client_error(), "{path}: {:?}", answer.body);
    }
    let half = br#"{"name":"a\ud800","type":"counter","value":1e999}"#;
    let answer = weir.command("/api/v1/metrics", &[], half).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{:?}", answer.body);
    for request in [
        "GET /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        "GET /metrics HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, x\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nhost : x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = say(&weir.admin, request.as_bytes()).await;
        assert!([0, 400].contains(&status(&answer)), "{request}: {}", String::from_utf8_lossy(&answer));
    }
    has_sane_metrics(&weir).await;
    weir.stop().await;
}
