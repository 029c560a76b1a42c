//! Rules that several operations share.

pub(crate) mod roster;
