//! Metrics of the app's own: what is pushed is scraped beside weir's, and can be nothing else.

use serde_json::{Value, json};

use crate::support::client::Answer;
use crate::support::weir::Weir;

const PUSH: &str = "/api/v1/metrics";

async fn push(weir: &Weir, body: &Value) -> Answer {
    weir.command(PUSH, &[], body.to_string().as_bytes()).await
}

/// Where a problem says that something is wrong.
fn pointers(answer: &Answer) -> Vec<String> {
    let problem = answer.json();
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let errors = problem["errors"].as_array().unwrap();
    errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_the_app_pushes_is_scraped() {
    let weir = Weir::start("").await;
    let batch = json!({ "metrics": [
        { "name": "orders", "type": "counter", "value": 2, "labels": { "shop": "eu" }, "help": "Orders" },
        { "name": "queue_length", "type": "gauge", "value": 7 },
        { "name": "checkout", "unit": "s", "type": "histogram", "observe": [0.2, 1.5], "buckets": [0.5, 1, 2] },
        { "name": "search", "type": "summary", "observe": [0.1, 0.3], "quantiles": { "0.5": 0.1, "0.99": 0.3 } },
    ]});
    for _ in 0..2 {
        let answer = push(&weir, &batch).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({ "accepted": 4 })));
    }
    let one = json!({ "name": "orders_total", "type": "counter", "value": 0.5, "labels": { "shop": "eu" } });
    assert_eq!(push(&weir, &one).await.json(), json!({ "accepted": 1 }));
    for (series, value) in [
        (r#"app_orders_total{shop="eu"}"#, 4.5),
        ("app_queue_length", 7.0),
        (r#"app_checkout_seconds_bucket{le="0.5"}"#, 2.0),
        (r#"app_checkout_seconds_bucket{le="2.0"}"#, 4.0),
        ("app_checkout_seconds_sum", 3.4),
        ("app_checkout_seconds_count", 4.0),
        (r#"app_search{quantile="0.99"}"#, 0.3),
        ("app_search_sum", 0.8),
        ("app_search_count", 4.0),
    ] {
        assert_eq!(weir.metric(series).await, value, "{series}");
    }
    let text = weir.metrics().await;
    assert!(text.contains("# HELP app_orders_total Orders.\n# TYPE app_orders_total counter\n"), "{text}");
    weir.stop().await;
}

#[tokio::test]
async fn a_batch_with_a_mistake_changes_nothing_and_every_mistake_is_told() {
    let weir = Weir::start("").await;
    let well = json!({ "name": "orders", "type": "counter", "value": 1 });
    let answer = push(
        &weir,
        &json!({ "metrics": [
            well,
            { "name": "weir requests", "type": "counter", "value": 1 },
            { "name": "orders", "type": "timer", "value": 1, "labels": { "le": "1" } },
        ]}),
    )
    .await;
    assert_eq!(answer.status, 422);
    assert_eq!(pointers(&answer), ["#/metrics/1/name", "#/metrics/2/type", "#/metrics/2/labels/le"]);
    let answer = push(&weir, &json!({ "metrics": [well, { "name": "orders", "type": "gauge", "value": 1 }] })).await;
    assert_eq!((answer.status.as_u16(), pointers(&answer)), (422, vec!["#/metrics/1/type".to_owned()]));
    assert!(!weir.metrics().await.contains("app_"), "nothing of it");

    assert_eq!(push(&weir, &well).await.status, 200);
    let other = json!({ "name": "orders", "type": "counter", "value": 1, "labels": { "shop": "eu" } });
    assert_eq!(pointers(&push(&weir, &other).await), ["#/labels"]);
    for (reason, count) in [("name", 1.0), ("type", 2.0), ("labels", 1.0), ("series_limit", 0.0)] {
        let series = format!(r#"weir_custom_metrics_rejected_total{{reason="{reason}"}}"#);
        assert_eq!(weir.metric(&series).await, count, "{reason}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn what_is_no_push_is_told_apart() {
    let weir = Weir::start("").await;
    for (body, status) in [
        ("{\"metrics\":", 400),
        ("[]", 400),
        ("{\"metrics\":{}}", 422),
        ("{\"metrics\":[],\"more\":1}", 422),
        (&*format!("{{\"help\":\"{}\"}}", "x".repeat(256 << 10)), 413),
    ] {
        let answer = weir.command(PUSH, &[], body.as_bytes()).await;
        assert_eq!(answer.status, status, "{}", &body[..body.len().min(40)]);
    }
    let by_a_page = weir.command(PUSH, &[("origin", "http://page.example")], b"{}").await;
    assert_eq!(by_a_page.status, 403);
    weir.stop().await;
}

#[tokio::test]
async fn no_push_makes_more_series_than_are_allowed_or_a_scrape_that_cannot_be_read() {
    let weir = Weir::start("").await;
    for number in 0..600 {
        let labels = json!({ "user": format!("user \"{number}\"\n# TYPE weir_requests_total gauge") });
        let metric = json!({ "name": "logins", "type": "counter", "value": 1, "labels": labels,
                             "help": "Logins\nweir_requests_total 999" });
        assert_eq!(push(&weir, &metric).await.status, if number < 500 { 200 } else { 422 }, "{number}");
    }
    let text = weir.metrics().await;
    assert_eq!(text.lines().filter(|line| line.starts_with("app_logins_total{")).count(), 500);
    assert!(text.lines().all(|line| line.starts_with(['#', 'a', 'w', 'g', 'p'])), "{text}");
    assert!(!text.contains("\nweir_requests_total 999"));
    assert_eq!(weir.metric(r#"weir_custom_metrics_rejected_total{reason="series_limit"}"#).await, 100.0);
    weir.stop().await;
}

#[tokio::test]
async fn the_operator_may_want_none() {
    let weir = Weir::start("telemetry: { metrics: { custom: { enabled: false } } }").await;
    let answer = push(&weir, &json!({ "name": "orders", "type": "counter", "value": 1 })).await;
    assert_eq!(answer.status, 404);
    assert!(answer.json()["detail"].as_str().unwrap().contains("telemetry.metrics.custom.enabled"));
    weir.stop().await;
}
