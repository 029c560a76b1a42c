//! A span's place in its trace, between processes: the header `traceparent` of W3C Trace Context on
//! calls, and 25 bytes where there is no header. `tracestate` is not carried.

use http::{HeaderMap, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::export::on;

pub(crate) const HEADER: &str = "traceparent";
/// `00-<32 hex>-<16 hex>-<2 hex>`
const TEXT_BYTES: usize = 55;
const RAW_BYTES: usize = 25;

/// The span another process works for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parent(SpanContext);

impl Parent {
    /// From the headers of a call; `None` also for one that is not in its form.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        if !on() {
            return None;
        }
        Self::parse(headers.get(HEADER)?.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // Later versions may be longer, and begin the same.
        let (fits, version) = (text.len() == TEXT_BYTES, text.get(..3)?);
        let longer = text.len() > TEXT_BYTES && text.as_bytes()[TEXT_BYTES] == b'-';
        if version == "ff-" || !(fits || (longer && version != "00-")) {
            return None;
        }
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower_hex = |part: &str, digits: usize| {
            part.len() == digits && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !(lower_hex(version, 2) && lower_hex(trace, 32) && lower_hex(span, 16) && lower_hex(flags, 2)) {
            return None;
        }
        Self::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            u8::from_str_radix(flags, 16).ok()?,
        )
    }

    /// From what [`Parent::to_bytes`] gave; `None` for anything else, the empty included.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; RAW_BYTES] = bytes.try_into().ok()?;
        let (trace, rest) = bytes.split_first_chunk::<16>()?;
        let (span, flags) = rest.split_first_chunk::<8>()?;
        Self::new(TraceId::from_bytes(*trace), SpanId::from_bytes(*span), flags[0])
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let flags = [self.0.trace_flags().to_u8()];
        [&self.0.trace_id().to_bytes()[..], &self.0.span_id().to_bytes(), &flags].concat()
    }

    fn new(trace: TraceId, span: SpanId, flags: u8) -> Option<Self> {
        let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
        let context = SpanContext::new(trace, span, flags, true, TraceState::default());
        context.is_valid().then_some(Self(context))
    }

    fn text(&self) -> String {
        let context = &self.0;
        format!("00-{:032x}-{:016x}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags())
    }
}

/// The span this task is in, if it is part of a trace that is sent.
pub fn current() -> Option<Parent> {
    if !on() {
        return None;
    }
    of_span(&Span::current())
}

fn of_span(span: &Span) -> Option<Parent> {
    let context = span.context().span().span_context().clone();
    (context.is_valid() && context.is_sampled()).then_some(Parent(context))
}

/// Puts the current span into the headers of a call, as the parent of what is done there.
/// For `tonic`: `inject(request.metadata_mut().as_mut())`.
pub fn inject(headers: &mut HeaderMap) {
    if let Some(parent) = current()
        && let Ok(value) = HeaderValue::from_str(&parent.text())
    {
        headers.insert(HEADER, value);
    }
}

/// Makes a new span, nothing of which was used yet, the child of one in another process.
pub fn adopt(span: &Span, parent: &Parent) {
    // A span that no layer wants has no parent to be given.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent.0.clone()));
}

/// The id of the span's trace as collectors show it, if the trace is sent.
pub fn trace_id(span: &Span) -> Option<String> {
    if !on() {
        return None;
    }
    of_span(span).map(|parent| parent.0.trace_id().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_parent_survives_both_forms() {
        let parent = Parent::parse(GOOD).unwrap();
        assert_eq!(parent.text(), GOOD);
        let raw = parent.to_bytes();
        assert_eq!(raw.len(), RAW_BYTES);
        assert_eq!(Parent::from_bytes(&raw), Some(parent));
        let later = format!("01{}-more", &GOOD[2..]);
        assert_eq!(Parent::parse(&later).unwrap().text(), GOOD);
    }

    #[test]
    fn what_is_not_in_its_form_is_no_parent() {
        let zeros = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let no_span = "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01";
        let long = format!("{GOOD}-more");
        let upper = GOOD.to_uppercase();
        let invalid = format!("ff{}", &GOOD[2..]);
        let sign = GOOD.replace("-01", "-+1");
        for bad in
            ["", "00", "é", &GOOD[..54], zeros, no_span, &long, &upper, &invalid, &sign, &"é".repeat(28)]
        {
            assert_eq!(Parent::parse(bad), None, "{bad}");
        }
        for bad in [&[][..], &[0; RAW_BYTES], &[1; 24], &[1; 26]] {
            assert_eq!(Parent::from_bytes(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn unless_started_there_is_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_static(GOOD));
        assert_eq!(Parent::of(&headers), None);
        let mut outgoing = HeaderMap::new();
        inject(&mut outgoing);
        assert!(outgoing.is_empty() && current().is_none());
    }
}
