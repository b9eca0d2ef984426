//! Sampling: whether the spans of a call are kept. As OpenTelemetry's samplers decide, which the trace's own id is the
//! chance of, so that all who are asked the same say the same.

use crate::record::trace::{Context, TraceId};

/// Decides whether the spans of a call are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether whoever began the trace has decided already.
    is_parent_based: bool,
    /// How much of what an id may be is kept: up to 2⁶³.
    threshold: u64,
}

/// The number of all random parts that an id may have.
const ALL: u64 = 1 << 63;

impl Sampler {
    /// Keeps so much of all traces.
    #[must_use]
    pub fn of_ratio(ratio: f64) -> Self {
        Self { is_parent_based: false, threshold: threshold(ratio) }
    }

    /// The same of those that begin here; of others, what those who began them keep.
    #[must_use]
    pub const fn parent_based(self) -> Self {
        Self { is_parent_based: true, ..self }
    }

    /// Whether to keep the spans of a call in this trace, that is a child of `parent`.
    #[must_use]
    pub fn keeps(self, parent: Option<Context>, trace: TraceId) -> bool {
        match parent {
            Some(parent) if self.is_parent_based => parent.is_sampled,
            // Of an id, the last 8 bytes are the random ones (W3C Trace Context, level 1, section 3.2.2.3): of them, 63
            // bits decide, as in OpenTelemetry's SDKs.
            _ => u64::try_from(trace.get() & u128::from(u64::MAX)).is_ok_and(|low| low >> 1 < self.threshold),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to 2⁶³, which a float holds exactly"
)]
fn threshold(ratio: f64) -> u64 {
    (ratio.clamp(0.0, 1.0) * ALL as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::trace::SpanId;

    fn trace(low: u64) -> TraceId {
        TraceId::new(1 << 64 | u128::from(low)).expect("an id")
    }

    fn parent(is_sampled: bool) -> Context {
        Context { trace: trace(1), span: SpanId::new(1).expect("an id"), is_sampled }
    }

    #[test]
    fn a_parent_decides_for_its_children_and_a_ratio_for_the_rest() {
        let (all, none) = (Sampler::of_ratio(1.0), Sampler::of_ratio(0.0));
        for (rule, sampler, parent, expected) in [
            ("AlwaysOn", all, None, true),
            ("AlwaysOn does not ask the parent", all, Some(parent(false)), true),
            ("AlwaysOff", none, None, false),
            ("AlwaysOff does not ask the parent", none, Some(parent(true)), false),
            ("ParentBased, no parent: the root decides", all.parent_based(), None, true),
            ("ParentBased, no parent: the root decides", none.parent_based(), None, false),
            ("ParentBased, remote parent sampled: AlwaysOn", none.parent_based(), Some(parent(true)), true),
            ("ParentBased, remote parent not sampled: AlwaysOff", all.parent_based(), Some(parent(false)), false),
        ] {
            for low in [0, 1, u64::MAX] {
                assert_eq!(sampler.keeps(parent, trace(low)), expected, "{rule}: {low}");
            }
        }
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn a_ratio_keeps_what_the_official_sampler_keeps() {
        use opentelemetry::trace::SpanKind;
        use opentelemetry_sdk::trace::{Sampler as Official, SamplingDecision, ShouldSample};

        let mut state = 7_u64;
        for ratio in [0.0, 0.001, 0.25, 0.5, 0.999, 1.0] {
            let official = Official::TraceIdRatioBased(ratio);
            for _ in 0..2_000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let id = trace(state);
                let theirs = official.should_sample(None, id.get().into(), "chat", &SpanKind::Server, &[], &[]);
                let keeps = theirs.decision == SamplingDecision::RecordAndSample;
                assert_eq!(Sampler::of_ratio(ratio).keeps(None, id), keeps, "{ratio}: {id}");
            }
        }
    }
}
