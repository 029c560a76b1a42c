//! Tests of consensus as a whole: openraft's conformance suite, a data directory through crashes
//! and losses, and real groups of members over TLS.

mod cluster;
mod conformance;
mod directory;
mod group;
mod install;
mod toy;
