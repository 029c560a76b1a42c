//! Tests of consensus as a whole.
