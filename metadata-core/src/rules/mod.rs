//! Shared rules.
