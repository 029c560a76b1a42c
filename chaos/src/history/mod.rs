//! What concurrent clients did and saw, and whether one file store could have answered so.
//!
//! An operation has a start and an end; a correct store does it at one moment between. A change whose answer never
//! came is kept as one that may take effect at any moment from its start on: leaving it out would give
//! false alarms, taking it for done would hide loss.
//!
//! Three checks, each in O(n log n):
//! - [`versions`] goes by the versions (commit positions) that the cluster answers with;
//! - [`zones`] does not trust those: it goes by contents alone, which are unique;
//! - [`sets`] is for lists.
//!
//! What is not checked here: operations on two names. Renames have a model of their own in [`token`].

pub mod sets;
pub mod token;
pub mod versions;
pub mod zones;

use std::collections::BTreeMap;

/// Microseconds since the history began.
pub type Moment = u64;

/// An end that never came.
pub const NEVER: Moment = Moment::MAX;

/// One operation on one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub client: u32,
    pub start: Moment,
    pub end: Moment,
    pub what: What,
}

/// What was done or seen. Contents are numbers, each written once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A put that was acknowledged; `expected` is its if_version.
    Wrote {
        value: u64,
        version: u64,
        expected: Option<u64>,
    },
    /// A put whose outcome is not known.
    MayHaveWritten {
        value: u64,
    },
    Deleted {
        version: u64,
    },
    MayHaveDeleted,
    Read {
        value: u64,
        version: u64,
    },
    Absent,
    /// A put with this if_version was refused: the version was another.
    Mismatch {
        expected: u64,
    },
}

/// What each name's clients did.
pub type History = BTreeMap<String, Vec<Op>>;

/// Every way in which the histories are impossible, in words; empty if there is none.
pub fn check(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, ops) in history {
        let found = versions::check(ops).into_iter().chain(zones::check(ops));
        wrong.extend(found.map(|why| format!("{name}: {why}")));
    }
    wrong
}
