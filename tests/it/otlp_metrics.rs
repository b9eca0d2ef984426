//! Metrics of the app's own in the OpenTelemetry protocol: what its exporters may send, and what they are told.
//! What its SDK really sends is tested with it, in `tests/sdk/test_custom_metrics.py`.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::Method;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use prost::Message;

use crate::support::client::{Answer, collect};
use crate::support::weir::Weir;

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const GZIP: (&str, &str) = ("content-encoding", "gzip");

async fn push(weir: &Weir, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    collect(weir.client.open(Method::POST, &format!("{}/v1/metrics", weir.admin), headers, body).await).await
}

fn exported(answer: &Answer) -> ExportMetricsServiceResponse {
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, PROTOBUF.1));
    ExportMetricsServiceResponse::decode(&*answer.body).unwrap()
}

/// The words of a `google.rpc.Status`.
fn status(answer: &Answer) -> String {
    #[derive(Clone, PartialEq, Message)]
    struct Status {
        #[prost(string, tag = "2")]
        message: String,
    }
    assert_eq!(answer.header("content-type"), PROTOBUF.1);
    Status::decode(&*answer.body).unwrap().message
}

fn request(metrics: Vec<Metric>) -> Vec<u8> {
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

fn point(value: i64) -> NumberDataPoint {
    NumberDataPoint { value: Some(Value::AsInt(value)), ..NumberDataPoint::default() }
}

/// A counter that has grown by `value`.
fn counter(name: &str, value: i64) -> Metric {
    let aggregation_temporality = AggregationTemporality::Delta as i32;
    let sum = Sum { data_points: vec![point(value)], aggregation_temporality, is_monotonic: true };
    Metric { name: name.to_owned(), data: Some(Data::Sum(sum)), ..Metric::default() }
}

fn gauge(name: &str, value: i64) -> Metric {
    let gauge = Gauge { data_points: vec![point(value)] };
    Metric { name: name.to_owned(), data: Some(Data::Gauge(gauge)), ..Metric::default() }
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn what_can_be_taken_is_and_the_rest_is_told() {
    let weir = Weir::start("").await;
    let body = request(vec![counter("shop.orders", 2), gauge("Queue.Length", 7)]);
    for (headers, body) in [(&[PROTOBUF][..], body.clone()), (&[PROTOBUF, GZIP], gzipped(&body))] {
        assert_eq!(exported(&push(&weir, headers, &body).await).partial_success, None);
    }
    let body = request(vec![counter("shop.orders", 1), gauge("shop.orders", 1), counter("2.0", 1)]);
    let refused = exported(&push(&weir, &[PROTOBUF], &body).await).partial_success.unwrap();
    assert_eq!(refused.rejected_data_points, 2);
    for said in ["`shop.orders` is a counter", "`2.0` is no name"] {
        assert!(refused.error_message.contains(said), "{}", refused.error_message);
    }
    for (series, value) in [
        ("app_shop_orders_total", 5.0),
        ("app_queue_length", 7.0),
        (r#"weir_custom_metrics_rejected_total{reason="type"}"#, 1.0),
        (r#"weir_custom_metrics_rejected_total{reason="name"}"#, 1.0),
    ] {
        assert_eq!(weir.metric(series).await, value, "{series}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn what_is_no_push_is_told_as_the_protocol_wants_it() {
    let weir = Weir::start("").await;
    let well = request(vec![counter("orders", 1)]);
    let large = vec![0; 513 << 10];
    for (rule, headers, body, expected, says) in [
        ("garbage", vec![PROTOBUF], &b"\xff\xff"[..], 400, "ExportMetricsServiceRequest"),
        ("no gzip", vec![PROTOBUF, GZIP], &*well, 400, "content coding"),
        ("another coding", vec![PROTOBUF, ("content-encoding", "zstd")], &*well, 415, "gzip"),
        ("too large", vec![PROTOBUF], &*large, 413, "524288 bytes"),
        ("too large when it is expanded", vec![PROTOBUF, GZIP], &*gzipped(&large), 400, "expands"),
        ("a page in a browser", vec![PROTOBUF, ("origin", "http://page.example")], &*well, 403, "same machine"),
    ] {
        let answer = push(&weir, &headers, body).await;
        assert_eq!(answer.status, expected, "{rule}");
        assert!(status(&answer).contains(says), "{rule}: {}", status(&answer));
    }
    let json = push(&weir, &[("content-type", "application/json")], b"{}").await;
    assert_eq!((json.status.as_u16(), json.header("content-type")), (415, "application/problem+json"));
    assert!(json.json()["detail"].as_str().unwrap().contains("http/protobuf"));
    assert!(!weir.metrics().await.contains("app_"));
    weir.stop().await;
}

#[tokio::test]
async fn the_operator_may_want_none() {
    let weir = Weir::start("telemetry: { metrics: { custom: { enabled: false } } }").await;
    let answer = push(&weir, &[PROTOBUF], &request(vec![counter("orders", 1)])).await;
    assert_eq!(answer.status, 404);
    assert!(status(&answer).contains("telemetry.metrics.custom.enabled"));
    weir.stop().await;
}
