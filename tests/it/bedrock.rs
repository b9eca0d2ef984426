//! Bedrock through the whole house: paths that name models reach AWS as the app spelt them, binary streams pass
//! untouched, and what AWS's SDKs look for in an error is there.

use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::support::fake::{Fake, Received, Script};
use crate::support::fixtures;
use crate::support::weir::Weir;

const STREAM: &str = "/bedrock/model/us.amazon.nova-lite-v1%3A0/converse-stream";
const ASK: &[u8] = br#"{"messages":[{"role":"user","content":[{"text":"Name the largest moon of Saturn."}]}]}"#;
const STREAM_TYPE: (&str, &str) = ("content-type", "application/vnd.amazon.eventstream");

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join("bedrock").join(name)).unwrap()
}

fn x_cache(headers: &HeaderMap) -> &str {
    headers["x-cache"].to_str().unwrap()
}

#[tokio::test]
async fn a_model_in_the_path_is_forwarded_as_it_was_spelt_and_priced_as_it_is_meant() {
    let fake = Fake::start(|_: &Received| Script::json(200, &fixture("converse_cached.response.json"))).await;
    let weir = Weir::before(&fake.url()).await;
    let mut expected = 0.0;
    for (model, cost) in [
        // Opus 5.5 in a region: 504 × 4.4 + 100 × 5.5 + 23 × 8.8 + 2000 × 0.22 + 97 × 22 µUSD; a tenth less worldwide.
        ("us.anthropic.claude-opus-5-5", 0.005_544),
        ("global.anthropic.claude-opus-5-5", 0.005_04),
        (
            "arn%3Aaws%3Abedrock%3Aus-east-1%3A111122223333%3Ainference-profile%2Fus.anthropic.claude-opus-5-5",
            0.005_544,
        ),
    ] {
        let answer = weir.post(&format!("/bedrock/model/{model}/converse"), &[], ASK).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(fake.received().last().unwrap().target, format!("/model/{model}/converse"));
        weir.settled().await;
        expected += cost;
        let charged = weir.metric_sum("weir_cost_usd_total{").await;
        assert!((charged - expected).abs() < 1e-9, "{model}: {charged} instead of {expected}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn a_binary_stream_passes_untouched_wherever_it_is_cut_and_may_be_stored() {
    let stream = fixture("converse_stream.eventstream");
    let script = stream.clone();
    let fake = Fake::start(move |asked: &Received| {
        let (head, tail) = script.split_at(asked.header("x-cut").unwrap().parse().unwrap());
        Script::chunked(&[STREAM_TYPE], &[head, tail])
    })
    .await;
    let weir = Weir::before(&fake.url()).await;
    for at in (1..stream.len()).step_by(97) {
        let headers = [("cache-control", "no-store"), ("x-cut", &*at.to_string())];
        let answer = weir.post(STREAM, &headers, ASK).await;
        assert!(answer.body == stream, "cut at {at}");
    }
    for expected in ["MISS", "HIT"] {
        let answer = weir.post(STREAM, &[("x-cut", "9")], ASK).await;
        assert!(answer.body == stream);
        assert_eq!(answer.header(STREAM_TYPE.0), STREAM_TYPE.1);
        assert_eq!(x_cache(&answer.headers), expected);
    }
    weir.stop().await;
}

#[tokio::test]
async fn a_guardrail_has_answers_of_its_own() {
    let fake = Fake::start(|_: &Received| Script::json(200, &fixture("invoke_llama.response.json"))).await;
    let weir = Weir::before(&fake.url()).await;
    for (guardrail, expected) in [("g1", "MISS"), ("g1", "HIT"), ("g2", "MISS")] {
        let headers = [("x-amzn-bedrock-guardrailidentifier", guardrail)];
        let path = "/bedrock/model/meta.llama3-8b-instruct-v1%3A0/invoke";
        let answer = weir.post(path, &headers, br#"{"prompt":"hi"}"#).await;
        assert_eq!(x_cache(&answer.headers), expected, "{guardrail}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_between_two_messages_is_not_stored() {
    let stream = fixture("converse_stream.eventstream");
    // The first two messages only: the stream breaks off between two.
    let second = u32::from_be_bytes(stream[..4].try_into().unwrap()) as usize;
    let end = second + u32::from_be_bytes(stream[second..second + 4].try_into().unwrap()) as usize;
    let fake = Fake::start(move |_: &Received| Script::chunked(&[STREAM_TYPE], &[&stream[..end]])).await;
    let weir = Weir::before(&fake.url()).await;
    for _ in 0..2 {
        let answer = weir.post(STREAM, &[], ASK).await;
        assert_eq!((answer.body.len(), x_cache(&answer.headers)), (end, "MISS"));
    }
    weir.stop().await;
}

#[tokio::test]
async fn an_error_of_weirs_own_is_one_that_awss_sdks_understand() {
    let weir = Weir::before("http://no-such-host.invalid").await;
    let answer = weir.client.open(Method::POST, &weir.url(STREAM), &[], ASK).await;
    let answer = crate::support::client::collect(answer).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.header("x-amzn-errortype"), "InternalServerException");
    let body: Value = answer.json();
    assert!(body["message"].as_str().unwrap().contains("provider `bedrock`"), "{body}");
    weir.stop().await;
}
