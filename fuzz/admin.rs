//! What the operator's side is asked, and what apps push to it.

use weir::admin::query::Parameters;
use weir::sinks::custom::{Custom, Settings};

/// Questions: whatever they say, they are read or their faults are told; windows and steps are bounded, and cursors are
/// what weir gave out.
#[cfg(feature = "ledger")]
pub fn query(data: &[u8]) {
    use weir::admin::analytics::asked;
    const NOW: i64 = 1_800_000_000_000_000;
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parameters = Parameters::of(text);
    let window = asked::window(&mut parameters, "range", NOW);
    let step = asked::step(&mut parameters, window);
    let cursor = asked::cursor(&mut parameters, "logs");
    let fits = parameters.end().is_ok();
    if let Some(window) = window {
        assert!(window.from < window.to, "a window goes forward");
        assert!(!fits || step.points_in(window) <= 10_000, "a series has an end");
    }
    if let Some(last) = cursor {
        let written = asked::cursor_after("logs", last);
        assert!(
            text.contains(&*written) || text.contains('%') || text.contains('+'),
            "a cursor is one that was given out"
        );
    }
}

/// Without a ledger there is nothing to ask it.
#[cfg(not(feature = "ledger"))]
pub fn query(data: &[u8]) {
    let _ = Parameters::of(&String::from_utf8_lossy(data)).end();
}

/// Metrics of the app's own, as JSON: whatever is pushed, what Prometheus reads is an exposition.
pub fn custom_metrics(data: &[u8]) {
    let custom = Custom::new(Settings::default());
    let _ = weir::admin::custom::put(&custom, data);
    exposes(custom);
}

/// The same in OpenTelemetry's form.
#[cfg(feature = "otlp")]
pub fn otlp_metrics(data: &[u8]) {
    let custom = Custom::new(Settings::default());
    let _ = weir::admin::otlp::put(&custom, data);
    exposes(custom);
}

/// Without OpenTelemetry there is only JSON.
#[cfg(not(feature = "otlp"))]
pub fn otlp_metrics(_: &[u8]) {}

/// Every line is a comment, or a series and a number; quotes are closed, and no name breaks out of them.
fn exposes(custom: Custom) {
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register_collector(Box::new(custom));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("what was taken can be written");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        assert!(value.parse::<f64>().is_ok(), "{line:?}");
        let name = series.split('{').next().unwrap_or_default();
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':'), "{line:?}");
        let escaped = series.replace("\\\\", "").replace("\\\"", "");
        assert!(escaped.matches('"').count() % 2 == 0, "{line:?}");
    }
    assert!(text.ends_with("# EOF\n"));
}
