//! Export: empties the queue of spans, a batch at a time, into a collector. A task of its own: that the collector is
//! slow, refuses or is not there costs spans, which are counted, and nothing else.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use opentelemetry::KeyValue;
use opentelemetry_otlp::SpanExporter as OtlpExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::semconv::SCHEMA_URL;
use crate::sinks::traces::plan::{Batch, Plan};
use crate::sinks::traces::queue::Counts;
use crate::sinks::traces::transport;

/// Sends what waits, a batch at a time, until it is told to `stop`; then what is left.
pub(super) async fn run(plan: &Plan, mut waiting: Receiver<SpanData>, counts: &Counts, stop: &CancellationToken) {
    let mut collector = match transport::exporter(plan) {
        Ok(exporter) => exporter,
        Err(error) => {
            tracing::error!(error.message = %error, "no spans are sent: the exporter cannot be made");
            return;
        }
    };
    collector.set_resource(&resource(plan));
    tracing::info!(server.address = %plan.endpoint, "spans are sent to a collector");
    let mut health = Health::default();
    let mut spans = Vec::new();
    while collect(&mut waiting, &mut spans, plan.batch, stop).await {
        let batch = std::mem::take(&mut spans);
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let sent = send(&collector, batch, plan.batch).await;
        let counter = if sent.is_ok() { &counts.exported } else { &counts.export_failed };
        counter.fetch_add(count, Ordering::Relaxed);
        counts.is_failing.store(sent.is_err(), Ordering::Relaxed);
        if sent.is_ok() {
            *counts.last_taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(SystemTime::now());
        }
        health.tell(sent.err().as_deref());
    }
}

async fn send(collector: &OtlpExporter, spans: Vec<SpanData>, batch: Batch) -> Result<(), String> {
    match timeout(batch.timeout, collector.export(spans)).await {
        Ok(sent) => sent.map_err(|error| error.to_string()),
        Err(_elapsed) => Err(format!("no answer within {}", humantime::format_duration(batch.timeout))),
    }
}

/// Waits for the next batch: until it is full, or its first span has waited for as long as it may. Whether there is one:
/// once told to stop, there are only those that wait already.
async fn collect(
    waiting: &mut Receiver<SpanData>,
    spans: &mut Vec<SpanData>,
    batch: Batch,
    stop: &CancellationToken,
) -> bool {
    tokio::select! {
        biased;
        came = waiting.recv_many(spans, batch.max_size) => if came == 0 { return false },
        () = stop.cancelled() => {
            waiting.close();
            return waiting.recv_many(spans, batch.max_size).await > 0;
        }
    }
    let deadline = Instant::now() + batch.delay;
    while spans.len() < batch.max_size && !stop.is_cancelled() {
        let room = batch.max_size - spans.len();
        let more = stop.run_until_cancelled(timeout_at(deadline, waiting.recv_many(spans, room))).await;
        if !matches!(more, Some(Ok(1..))) {
            break;
        }
    }
    true
}

/// Whether the collector takes spans, told once each time that changes.
#[derive(Debug, Default)]
struct Health {
    is_failing: bool,
}

impl Health {
    fn tell(&mut self, failure: Option<&str>) {
        match failure {
            Some(failure) if !self.is_failing => {
                tracing::warn!(error.message = failure, "spans are lost: the collector does not take them");
            }
            None if self.is_failing => tracing::info!("the collector takes spans again"),
            Some(_) | None => {}
        }
        self.is_failing = failure.is_some();
    }
}

/// Who sends the spans.
fn resource(plan: &Plan) -> Resource {
    let attributes = plan.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_schema_url(attributes, SCHEMA_URL)
        .build()
}
