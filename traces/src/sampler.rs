//! Which traces there are. A trace begins where somebody asks for something: at a command of dfsctl, or
//! at a server when the caller brings no trace of its own. What servers do by themselves (heartbeats,
//! replication, upkeep) begins none, or it would drown the rest. Inside a trace its beginning decides.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, ShouldSample};

/// Share of the traces that begin here, 0 to 1, by the variables every OpenTelemetry program knows.
pub(crate) fn share() -> f64 {
    let named = std::env::var("OTEL_TRACES_SAMPLER").unwrap_or_default();
    let argument = std::env::var("OTEL_TRACES_SAMPLER_ARG").unwrap_or_default();
    share_of(&named, &argument)
}

fn share_of(sampler: &str, argument: &str) -> f64 {
    if sampler.ends_with("always_off") {
        return 0.0;
    }
    if !sampler.ends_with("traceidratio") {
        return 1.0;
    }
    argument.parse().ok().filter(|share| (0.0..=1.0).contains(share)).unwrap_or(1.0)
}

/// See the top of this file.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub share: f64,
}

impl ShouldSample for Asked {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let above = parent.map(|context| context.span().span_context().clone()).filter(|c| c.is_valid());
        let sampler = match (&above, kind) {
            (Some(above), _) if above.is_sampled() => Sampler::AlwaysOn,
            (None, SpanKind::Server | SpanKind::Client) => Sampler::TraceIdRatioBased(self.share),
            _ => Sampler::AlwaysOff,
        };
        sampler.should_sample(parent, trace, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_sdk::trace::SamplingDecision;

    fn begins(kind: SpanKind, share: f64) -> bool {
        let trace = TraceId::from_bytes([0x7f; 16]);
        let answer = Asked { share }.should_sample(None, trace, "x", &kind, &[], &[]);
        answer.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn only_what_was_asked_for_begins_a_trace() {
        assert!(begins(SpanKind::Server, 1.0) && begins(SpanKind::Client, 1.0));
        assert!(!begins(SpanKind::Internal, 1.0));
        assert!(!begins(SpanKind::Server, 0.0));
    }

    #[test]
    fn the_share_is_read_and_nonsense_is_all() {
        assert_eq!(share_of("", "0.5"), 1.0);
        assert_eq!(share_of("traceidratio", "0.25"), 0.25);
        assert_eq!(share_of("parentbased_traceidratio", "0"), 0.0);
        assert_eq!(share_of("parentbased_always_off", ""), 0.0);
        for odd in ["", "7", "-1", "NaN", "x"] {
            assert_eq!(share_of("traceidratio", odd), 1.0, "{odd}");
        }
    }
}
