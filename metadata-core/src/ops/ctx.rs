//! What one command sees and may change while it applies.

use std::collections::BTreeMap;

use dfs_proto::v1;
use dfs_types::{DfsError, ErrorCode, Incarnation, PrincipalId};

use crate::kv::{KvError, KvRead, Overlay, WriteSet};
use crate::rights::{self, Caller, Operation};
use crate::rows::meta::{Clock, Counters, Field};
use crate::rows::nodes::Nodes;
use crate::rows::principals::Principals;
use crate::rows::seats::{Seats, SeatsByIncarnation};
use crate::rows::{self, Row, RowError};
use crate::rules::roster::{Holder, Roster};

/// How a command can end without success: it is refused (its own result, nothing written), or the
/// state cannot be read, or a newer build has written it (the member stops).
#[derive(Debug)]
pub(crate) enum Fault {
    Refused(DfsError),
    Fatal(RowError),
    TooNew { level: u32 },
}

impl From<DfsError> for Fault {
    fn from(error: DfsError) -> Self {
        Self::Refused(error)
    }
}

impl From<RowError> for Fault {
    fn from(error: RowError) -> Self {
        Self::Fatal(error)
    }
}

impl From<KvError> for Fault {
    fn from(error: KvError) -> Self {
        Self::Fatal(error.into())
    }
}

pub(crate) type OpResult = Result<v1::CommandResult, Fault>;

/// Shorthand for a refusal.
pub(crate) fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Refused(DfsError::new(code, message)))
}

/// A command at work: its overlay, who asks, and single rows that are read and written often, kept
/// decoded until the command ends.
pub(crate) struct Ctx<'a> {
    tx: Overlay<'a>,
    pub position: u64,
    pub unix_ms: u64,
    pub caller: PrincipalId,
    pub rights: Caller,
    pub clock: v1::ClockRow,
    counters: v1::CountersRow,
    counters_changed: bool,
    seats: BTreeMap<u32, v1::SeatRow>,
    roster: Roster,
    seat_numbers: BTreeMap<Incarnation, Option<u32>>,
    eligible_domains: Option<usize>,
    /// Numbers the rows this command puts into the dropping queue.
    pub dropped: u32,
}

impl<'a> Ctx<'a> {
    /// Refused with `unauthenticated` if the principal is not known.
    pub fn new(base: &'a dyn KvRead, position: u64, command: &v1::Command) -> Result<Self, Fault> {
        let caller = PrincipalId::from_slice(&command.principal_id)?;
        let rights = if caller == PrincipalId::default() {
            Caller::Cluster
        } else {
            match rows::get::<Principals>(base, &caller)? {
                Some(row) => Caller::Principal(row.role()),
                None => {
                    return refuse(
                        ErrorCode::Unauthenticated,
                        "the caller is not a principal of this cluster",
                    );
                }
            }
        };
        Ok(Self {
            position,
            unix_ms: command.unix_ms,
            caller,
            rights,
            clock: rows::get::<Clock>(base, &Field)?.unwrap_or_default(),
            counters: rows::get::<Counters>(base, &Field)?.unwrap_or_default(),
            counters_changed: false,
            seats: BTreeMap::new(),
            roster: Roster::default(),
            seat_numbers: BTreeMap::new(),
            eligible_domains: None,
            dropped: 0,
            tx: Overlay::new(base),
        })
    }

    pub fn require(&self, operation: Operation) -> Result<(), Fault> {
        Ok(rights::require(self.rights, operation)?)
    }

    pub fn is_admin(&self) -> bool {
        self.rights == Caller::Principal(v1::Role::Admin)
    }

    pub fn kv(&self) -> &dyn KvRead {
        &self.tx
    }

    pub fn get<R: Row>(&self, key: &R::Key) -> Result<Option<R::Value>, RowError> {
        rows::get::<R>(&self.tx, key)
    }

    pub fn must_get<R: Row>(&self, key: &R::Key) -> Result<R::Value, RowError> {
        rows::must_get::<R>(&self.tx, key)
    }

    pub fn put<R: Row>(&mut self, key: &R::Key, value: &R::Value) {
        rows::put::<R>(&mut self.tx, key, value);
    }

    pub fn delete<R: Row>(&mut self, key: &R::Key) {
        rows::delete::<R>(&mut self.tx, key);
    }

    /// The counters, to be changed.
    pub fn count(&mut self) -> &mut v1::CountersRow {
        self.counters_changed = true;
        &mut self.counters
    }

    /// A seat's row, to be changed; written when the command ends.
    pub fn seat(&mut self, seat: u32) -> Result<&mut v1::SeatRow, RowError> {
        if !self.seats.contains_key(&seat) {
            self.seats.insert(seat, self.must_get::<Seats>(&seat)?);
        }
        Ok(self.seats.get_mut(&seat).expect("inserted above"))
    }

    /// Puts a new seat's row.
    pub fn new_seat(&mut self, seat: u32, row: v1::SeatRow) {
        self.put::<Seats>(&seat, &row);
        self.seats.insert(seat, row);
    }

    /// Deletes a seat's row, and what is kept of it here.
    pub fn drop_seat(&mut self, seat: u32) {
        self.seats.remove(&seat);
        self.delete::<Seats>(&seat);
    }

    pub fn holder(&mut self, seat: u32) -> Result<&Holder, RowError> {
        self.roster.holder(&self.tx, seat)
    }

    /// Writes a node's row; what was known of holders is looked up again.
    pub fn put_node(&mut self, row: &v1::NodeRow) {
        self.put::<Nodes>(&rows::Tail(row.node_id.clone()), row);
        self.flush_seats();
        self.roster.clear();
        self.seat_numbers.clear();
        self.eligible_domains = None;
    }

    /// Distinct domains among the nodes on which new copies may be.
    pub fn eligible_domains(&mut self) -> Result<usize, RowError> {
        if let Some(count) = self.eligible_domains {
            return Ok(count);
        }
        let nodes = rows::scan::<Nodes>(&self.tx, &(), None, dfs_types::limits::MAX_NODES)?;
        let domains: std::collections::BTreeSet<String> = nodes
            .into_iter()
            .filter(|(_, node)| node.state() == v1::NodeState::Up)
            .map(|(_, node)| node.domain)
            .collect();
        self.eligible_domains = Some(domains.len());
        Ok(domains.len())
    }

    /// The seat of this incarnation, if it is (or was) one of this node's.
    pub fn seat_of(&mut self, node_id: &str, incarnation: &[u8]) -> Result<Option<u32>, Fault> {
        let incarnation = Incarnation::from_slice(incarnation)?;
        if !self.seat_numbers.contains_key(&incarnation) {
            let found = self.get::<SeatsByIncarnation>(&incarnation)?.map(|row| row.position as u32);
            self.seat_numbers.insert(incarnation, found);
        }
        let found = self.seat_numbers[&incarnation];
        match found {
            Some(seat) if self.holder(seat)?.node_id == node_id => Ok(Some(seat)),
            _ => Ok(None),
        }
    }

    fn flush_seats(&mut self) {
        for (seat, row) in std::mem::take(&mut self.seats) {
            self.put::<Seats>(&seat, &row);
        }
    }

    pub fn forget_results(&mut self, most: usize) -> Result<u64, RowError> {
        let now = self.position;
        crate::rules::housekeeping::forget_results(&mut self.tx, now, most)
    }

    /// Everything the command wrote.
    pub fn finish(mut self) -> WriteSet {
        self.flush_seats();
        if self.counters_changed {
            let counters = std::mem::take(&mut self.counters);
            self.put::<Counters>(&Field, &counters);
        }
        self.tx.into_writes()
    }
}
