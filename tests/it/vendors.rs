//! Vendors: Azure's deployments and paths, what is billed by other measures than tokens, and what costs nothing.

use std::path::PathBuf;

use http::{Method, StatusCode};
use serde_json::Value;

use crate::support::client::collect;
use crate::support::fake::{Fake, Script};
use crate::support::fixtures;
use crate::support::weir::Weir;

const CHAT: &str = "/azure/openai/deployments/prod-chat/chat/completions?api-version=2025-04-01";
const SPEECH: &[u8] = br#"{"model":"tts-1","input":"Guten Tag, Wehr!","voice":"alloy"}"#;

async fn weir(fake: &Fake, more: &str) -> Weir {
    let (url, azure) = (fake.url(), "api: azure_openai");
    let providers =
        format!("providers:\n  azure: {{ {azure}, base_url: \"{url}\"{more} }}\n  openai: {{ base_url: \"{url}\" }}\n");
    Weir::start(&format!("{providers}calls: {{ max_request_bytes: 128KiB }}\n")).await
}

fn reply(name: &str) -> Vec<u8> {
    let path: PathBuf = fixtures().join(name);
    std::fs::read(path).unwrap()
}

#[tokio::test]
async fn a_deployment_is_priced_by_the_model_that_answers() {
    let fake = Fake::always(Script::json(200, &reply("azure/chat.response.json"))).await;
    let weir = weir(&fake, "").await;
    weir.post(CHAT, &[("api-key", "k")], br#"{"messages":[]}"#).await;
    weir.settled().await;
    assert!(weir.metric_sum("weir_cost_usd_total{provider=\"azure.ai.openai\",model=\"gpt-4o\"").await > 0.0);
    assert_eq!(weir.metric_sum("weir_unpriced_requests_total{").await, 0.0);
    weir.stop().await;
}

#[tokio::test]
async fn where_nobody_names_the_model_the_operator_says_what_a_deployment_is() {
    let fake = Fake::always(Script::json(200, &reply("azure/images.response.json"))).await;
    let path = "/azure/openai/deployments/painter/images/generations?api-version=2025-04-01-preview";
    for (models, unpriced) in [("", 1.0), (", models: { painter: gpt-image-2 }", 0.0)] {
        let weir = weir(&fake, models).await;
        weir.post(path, &[], br#"{"prompt":"Titan"}"#).await;
        weir.settled().await;
        assert_eq!(weir.metric_sum("weir_unpriced_requests_total{").await, unpriced, "{models}");
        assert_eq!(weir.metric_sum("weir_cost_usd_total{").await > 0.0, unpriced == 0.0, "{models}");
        weir.stop().await;
    }
}

#[tokio::test]
async fn the_version_of_the_api_keeps_answers_apart() {
    let fake = Fake::always(Script::json(200, &reply("azure/chat.response.json"))).await;
    let weir = weir(&fake, "").await;
    let other = CHAT.replace("2025-04-01", "2024-10-21");
    for (path, expected) in [(CHAT, "MISS"), (CHAT, "HIT"), (other.as_str(), "MISS")] {
        let answer = weir.post(path, &[("api-key", "k")], br#"{"messages":[]}"#).await;
        assert_eq!(answer.headers["x-cache"], expected, "{path}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn weirs_own_errors_have_azures_shape() {
    let weir = Weir::start("providers:\n  azure: { api: azure_openai, base_url: \"http://127.0.0.1:1\" }\n").await;
    let answer = weir.post(CHAT, &[], br#"{"messages":[]}"#).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    let error: Value = serde_json::from_slice(&answer.body).unwrap();
    let members: Vec<_> = error["error"].as_object().unwrap().keys().collect();
    assert_eq!(members, ["code", "message"]);
    weir.stop().await;
}

#[tokio::test]
async fn speech_is_billed_by_the_character_or_not_at_all_but_never_as_free() {
    let sound = Script::whole(200, &[("content-type", "audio/mpeg")], b"ID3\xff\xfb");
    let fake = Fake::always(sound).await;
    let weir = weir(&fake, "").await;
    let answer = weir.post("/openai/v1/audio/speech", &[], SPEECH).await;
    assert_eq!(&answer.body[..], b"ID3\xff\xfb");
    weir.settled().await;
    let (cost, expected) = (weir.metric_sum("weir_cost_usd_total{").await, 16.0 * 15.0 / 1e6);
    assert!((cost - expected).abs() < 1e-12, "{cost}");
    let by_tokens = String::from_utf8_lossy(SPEECH).replace("tts-1", "gpt-4o-mini-tts");
    weir.post("/openai/v1/audio/speech", &[], by_tokens.as_bytes()).await;
    weir.settled().await;
    assert_eq!(weir.metric("weir_unpriced_requests_total{provider=\"openai\",reason=\"no_usage\"}").await, 1.0);
    weir.stop().await;
}

#[tokio::test]
async fn what_costs_nothing_is_not_unpriced_and_what_is_unknown_is() {
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let weir = weir(&fake, "").await;
    for path in ["/v1/files", "/v1/batches", "/v1/uploads/u/parts", "/v1/vector_stores", "/azure/openai/batches"] {
        weir.post(path, &[], b"{}").await;
    }
    weir.settled().await;
    assert_eq!(weir.metric_sum("weir_unpriced_requests_total{").await, 0.0);
    weir.post("/v1/videos", &[], b"{}").await;
    weir.settled().await;
    assert_eq!(weir.metric_sum("weir_unpriced_requests_total{").await, 1.0);
    weir.stop().await;
}

#[tokio::test]
async fn a_form_that_is_too_large_to_keep_still_says_its_model() {
    let fake = Fake::always(Script::json(200, &reply("openai/transcription_duration.response.json"))).await;
    let weir = weir(&fake, "").await;
    let field = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n";
    let file = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
    let form = [field.as_bytes(), file.as_bytes(), &vec![0xff; 300 << 10], b"\r\n--b--\r\n"].concat();
    let headers = [("content-type", "multipart/form-data; boundary=b")];
    let url = weir.url("/openai/v1/audio/transcriptions");
    collect(weir.client.open(Method::POST, &url, &headers, &form).await).await;
    weir.settled().await;
    assert!(fake.received().pop().unwrap().body == form, "every byte arrives");
    let cost = weir.metric_sum("weir_cost_usd_total{provider=\"openai\",model=\"whisper-1\"").await;
    assert!((cost - 9.0 * 0.36 / 3600.0).abs() < 1e-12, "{cost}");
    weir.stop().await;
}
