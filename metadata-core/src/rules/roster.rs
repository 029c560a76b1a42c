//! Which node and incarnation a seat number stands for, looked up once per command or query.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use dfs_proto::v1;
use dfs_types::Incarnation;

use crate::kv::KvRead;
use crate::rows::nodes::Nodes;
use crate::rows::seats::Seats;
use crate::rows::{self, Kind, RowError, Tail};

/// What a location's seat number stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    pub seat: u32,
    pub node_id: String,
    pub incarnation: Incarnation,
    pub address: String,
    pub domain: String,
    pub state: v1::NodeState,
    /// The incarnation is the node's present one.
    pub current: bool,
    /// Position of the incarnation's registration.
    pub since: u64,
}

impl Holder {
    /// Whether an undoubted copy here counts: towards min_ack, towards the target, for a
    /// deduplication hit. A draining node's copies can be read but are to be replaced.
    pub fn counts(&self) -> bool {
        self.current && matches!(self.state, v1::NodeState::Up | v1::NodeState::Suspect)
    }

    /// Whether copies here are to be replaced though they can be read.
    pub fn leaves(&self) -> bool {
        self.current && self.state == v1::NodeState::Draining
    }

    /// Whether receipts and copies may still add locations here. A node that is down may have given
    /// its receipt before: the copy is noted, and counts again when the node is back.
    pub fn accepts(&self) -> bool {
        self.current && matches!(self.state, v1::NodeState::Up | v1::NodeState::Suspect | v1::NodeState::Down)
    }
}

#[derive(Default)]
pub(crate) struct Roster {
    seats: BTreeMap<u32, Holder>,
}

impl Roster {
    pub fn holder(&mut self, kv: &dyn KvRead, seat: u32) -> Result<&Holder, RowError> {
        match self.seats.entry(seat) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(load(kv, seat)?)),
        }
    }

    /// Forgets what it knows, after a command changed a node.
    pub fn clear(&mut self) {
        self.seats.clear();
    }
}

fn load(kv: &dyn KvRead, seat: u32) -> Result<Holder, RowError> {
    let row = rows::must_get::<Seats>(kv, &seat)?;
    let node = rows::get::<Nodes>(kv, &Tail(row.node_id.clone()))?.unwrap_or_default();
    let incarnation = Incarnation::from_slice(&row.incarnation)
        .map_err(|error| RowError::corrupt(Kind::Seat, error.to_string()))?;
    let current = !row.retired && node.seat == seat;
    let state = if current { node.state() } else { v1::NodeState::Removed };
    Ok(Holder {
        seat,
        node_id: row.node_id,
        incarnation,
        address: node.address,
        domain: node.domain,
        state,
        current,
        since: row.since,
    })
}
