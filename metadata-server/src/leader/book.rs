//! What the leader knows of its chunk servers from their heartbeats: memory only, never proposed.
//!
//! Owner: [`NodeBook`], one per server; begun anew with every leadership. Lost with the process, and
//! that is fine: a new leader hears every live node within one heartbeat, judges nobody before it has
//! listened for a whole interval, and until then takes nodes that the state calls up at their word.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use dfs_proto::v1;
use dfs_types::limits::GRANT_LIFETIME_MS;
use dfs_types::{Incarnation, MonotonicMillis, NodeId};
use metadata_core::inventory::too_many_absent;
use metadata_core::rows::ChunkKey;

use super::holders::{Held, Holder, Holders};

/// Reservations are kept in buckets of this length, so that their number is bounded.
const RESERVATION_STEP_MS: u64 = 5_000;

/// Chunks that nodes found damaged and nobody looked at yet; more are forgotten and found again.
const MAX_FAULTS: usize = 4096;

/// When silence counts.
#[derive(Clone, Copy, Debug)]
pub struct LivenessTimes {
    pub suspect_ms: u64,
    pub down_ms: u64,
}

/// What silence says of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Up,
    Suspect,
    Down,
}

/// A node that the state calls up when a leadership begins: the new leader could not hear it yet.
#[derive(Clone, Debug)]
pub struct KnownNode {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub capacity: u64,
    /// Sealed bytes of the chunks it is listed with.
    pub used: u64,
}

/// The last heartbeat of a node, and what plans took of its space since.
#[derive(Clone, Debug)]
pub struct NodeLife {
    pub incarnation: Incarnation,
    /// None: known from the state alone, not heard under this leadership yet.
    pub heard: Option<MonotonicMillis>,
    pub heard_unix_ms: u64,
    pub capacity: u64,
    pub used: u64,
    pub chunks: u64,
    /// Bytes the node is willing to take.
    pub free: u64,
    pub index_rebuilding: bool,
    pub version: String,
    /// Users' streams it was serving at its last heartbeat.
    pub streams: u32,
    /// What the last inventory missed.
    pub absence: Absence,
    reserved: VecDeque<(MonotonicMillis, u64)>,
    /// What plans took and is over now, until the next heartbeat shows what became of it.
    leaving: u64,
}

/// Listed chunks that a node's whole inventory did not show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Absence {
    pub listed: u64,
    pub absent: u64,
    /// So many that none is struck off for being absent before an operator accepted the loss, or the
    /// chunks are back.
    pub held: bool,
    /// How many an operator accepted as lost.
    pub confirmed: u64,
}

impl NodeLife {
    /// Bytes that may still be planned onto the node.
    pub fn plannable(&self, now: MonotonicMillis) -> u64 {
        let reserved = self.reserved.iter().filter(|(until, _)| *until > now).map(|(_, bytes)| bytes);
        self.free.saturating_sub(reserved.fold(self.leaving, |sum, bytes| sum.saturating_add(*bytes)))
    }

    /// Gives back bytes that were set aside until then; what expired meanwhile is not there any more.
    fn release(&mut self, until: MonotonicMillis, bytes: u64) {
        if let Some((_, sum)) = self.reserved.iter_mut().find(|(bucket, _)| *bucket == until) {
            let back = bytes.min(*sum);
            *sum -= back;
            self.leaving = self.leaving.saturating_add(back);
        }
    }
}

#[derive(Default)]
struct Book {
    /// The term of the leadership that the book is of; 0: none yet.
    term: u64,
    leading_since: MonotonicMillis,
    lives: BTreeMap<NodeId, NodeLife>,
    faults: BTreeSet<(NodeId, ChunkKey)>,
    walk_wishes: BTreeSet<NodeId>,
    holders: Holders,
    redundancy: Option<v1::Redundancy>,
}

/// Cheap to clone; all clones are one book.
#[derive(Clone, Default)]
pub struct NodeBook {
    book: Arc<Mutex<Book>>,
}

impl NodeBook {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("the node book is never left half written")
    }

    /// The term of the leadership that the book is of.
    pub fn term(&self) -> u64 {
        self.lock().term
    }

    /// Begins anew: what was heard under an earlier leadership is worth nothing now. `up`: nodes that
    /// count as live until one suspect interval is over, so that a change of leaders is no shortage of
    /// nodes. No effect if the book is of this term, or a later one, already.
    pub fn begin_leading(&self, term: u64, now: MonotonicMillis, up: Vec<KnownNode>) {
        let mut book = self.lock();
        if book.term >= term {
            return;
        }
        let lives = up.into_iter().map(|known| {
            let life = NodeLife {
                capacity: known.capacity,
                used: known.used,
                free: known.capacity.saturating_sub(known.used),
                ..NodeLife::new(known.incarnation)
            };
            (known.node, life)
        });
        *book = Book { term, leading_since: now, lives: lives.collect(), ..Book::default() };
    }

    /// A registration: the only message with the build's version.
    pub fn registered(
        &self,
        node: &NodeId,
        request: &v1::RegisterNodeRequest,
        incarnation: Incarnation,
        now: (MonotonicMillis, u64),
    ) {
        let mut book = self.lock();
        let free = request.capacity.saturating_sub(request.used);
        let life = book.lives.entry(node.clone()).or_insert_with(|| NodeLife::new(incarnation));
        if life.incarnation != incarnation {
            *life = NodeLife::new(incarnation);
        }
        (life.heard, life.heard_unix_ms) = (Some(now.0), now.1);
        (life.capacity, life.used, life.free) = (request.capacity, request.used, free);
        life.version.clone_from(&request.version);
        // What it has after a restart need not be what it had.
        book.walk_wishes.insert(node.clone());
    }

    /// A heartbeat. False if this leader has no registration of that incarnation: the node must
    /// register again, and counts as silent until it did.
    pub fn heard(
        &self,
        node: &NodeId,
        heartbeat: &v1::HeartbeatRequest,
        incarnation: Incarnation,
        now: (MonotonicMillis, u64),
    ) -> bool {
        let mut book = self.lock();
        let registered = |life: &&mut NodeLife| life.incarnation == incarnation && life.heard.is_some();
        let Some(life) = book.lives.get_mut(node).filter(registered) else {
            return false;
        };
        (life.heard, life.heard_unix_ms) = (Some(now.0), now.1);
        (life.capacity, life.used, life.free) = (heartbeat.capacity, heartbeat.used, heartbeat.free);
        life.leaving = 0;
        life.chunks = heartbeat.chunks;
        life.index_rebuilding = heartbeat.index_rebuilding;
        life.streams = heartbeat.streams;
        true
    }

    /// What the leader counted last; heartbeats are answered with it.
    pub fn redundancy(&self) -> Option<v1::Redundancy> {
        self.lock().redundancy
    }

    pub fn counted(&self, redundancy: v1::Redundancy) {
        self.lock().redundancy = Some(redundancy);
    }

    /// The node itself found a chunk missing or damaged.
    pub fn report_fault(&self, node: &NodeId, chunk: ChunkKey) {
        let mut book = self.lock();
        if book.faults.len() < MAX_FAULTS {
            book.faults.insert((node.clone(), chunk));
        }
    }

    /// Takes up to `count` of the faults reported.
    pub fn take_faults(&self, count: usize) -> Vec<(NodeId, ChunkKey)> {
        let mut book = self.lock();
        std::iter::from_fn(|| book.faults.pop_first()).take(count).collect()
    }

    pub fn life(&self, node: &NodeId) -> Option<NodeLife> {
        self.lock().lives.get(node).cloned()
    }

    /// A whole inventory of this incarnation missed `absent` of `listed` chunks: what holds now. None
    /// if the node is another by now.
    pub fn inventoried(
        &self,
        node: &NodeId,
        incarnation: Incarnation,
        listed: u64,
        absent: u64,
    ) -> Option<Absence> {
        let mut book = self.lock();
        let life = book.lives.get_mut(node).filter(|life| life.incarnation == incarnation)?;
        let confirmed = if absent == 0 { 0 } else { life.absence.confirmed };
        let held = too_many_absent(listed, absent, confirmed);
        life.absence = Absence { listed, absent, held, confirmed };
        Some(life.absence)
    }

    /// Whether the node's word that it lacks a chunk is not acted on now.
    pub fn holds_absence(&self, node: &NodeId, incarnation: Incarnation) -> bool {
        let book = self.lock();
        book.lives.get(node).is_some_and(|life| life.incarnation == incarnation && life.absence.held)
    }

    /// An operator accepts the loss of what the last inventory missed. None: nothing is held.
    pub fn confirm_loss(&self, node: &NodeId) -> Option<Absence> {
        let mut book = self.lock();
        let life = book.lives.get_mut(node).filter(|life| life.absence.held)?;
        life.absence.held = false;
        life.absence.confirmed = life.absence.absent;
        let absence = life.absence;
        book.walk_wishes.insert(node.clone());
        Some(absence)
    }

    /// Whether somebody wants the node's inventory looked at now; forgets the wish.
    pub fn take_walk_wish(&self, node: &NodeId) -> bool {
        self.lock().walk_wishes.remove(node)
    }

    pub fn forget(&self, node: &NodeId) {
        let mut book = self.lock();
        book.lives.remove(node);
        book.walk_wishes.remove(node);
    }

    /// Sets `bytes` of the node's free space aside for one grant lifetime, or until whoever it is for, an
    /// upload or a task, is over.
    pub fn reserve(&self, holder: Holder, node: &NodeId, bytes: u64, now: MonotonicMillis) {
        let mut book = self.lock();
        if let Some(life) = book.lives.get_mut(node) {
            while life.reserved.front().is_some_and(|(until, _)| *until <= now) {
                life.reserved.pop_front();
            }
            let until = (now + GRANT_LIFETIME_MS).next_multiple_of(RESERVATION_STEP_MS);
            match life.reserved.back_mut() {
                Some((last, sum)) if *last == until => *sum = sum.saturating_add(bytes),
                _ => life.reserved.push_back((until, bytes)),
            }
            book.holders.note(holder, node, Held { until, bytes }, now);
        }
    }

    /// The upload or task is over, however it ended: what was set aside for it counts until the node's next
    /// heartbeat, and no longer.
    pub fn release(&self, holder: Holder) {
        let mut book = self.lock();
        for (node, held) in book.holders.take(holder) {
            if let Some(life) = book.lives.get_mut(&node) {
                life.release(held.until, held.bytes);
            }
        }
    }

    /// What the silence of a node says now. Silence is counted from the beginning of this
    /// leadership at the earliest.
    pub fn verdict(
        &self,
        node: &NodeId,
        incarnation: Incarnation,
        times: LivenessTimes,
        now: MonotonicMillis,
    ) -> Verdict {
        let book = self.lock();
        let life = book.lives.get(node).filter(|life| life.incarnation == incarnation);
        let heard = life.and_then(|life| life.heard).unwrap_or(0);
        let silent = now.saturating_sub(heard.max(book.leading_since));
        if silent >= times.down_ms {
            Verdict::Down
        } else if silent >= times.suspect_ms {
            Verdict::Suspect
        } else {
            Verdict::Up
        }
    }

    /// Whether this leader has heard this incarnation.
    pub fn was_heard(&self, node: &NodeId, incarnation: Incarnation) -> bool {
        let book = self.lock();
        book.lives.get(node).is_some_and(|life| life.incarnation == incarnation && life.heard.is_some())
    }

    /// Whether the node answers, as far as this leader can tell: heard in time, or up by the state and
    /// not a suspect interval silent since this leadership began.
    pub fn is_alive(
        &self,
        node: &NodeId,
        incarnation: Incarnation,
        times: LivenessTimes,
        now: MonotonicMillis,
    ) -> bool {
        let known = self.lock().lives.get(node).is_some_and(|life| life.incarnation == incarnation);
        known && self.verdict(node, incarnation, times, now) == Verdict::Up
    }
}

impl NodeLife {
    fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            heard: None,
            heard_unix_ms: 0,
            capacity: 0,
            used: 0,
            chunks: 0,
            free: 0,
            index_rebuilding: false,
            version: String::new(),
            streams: 0,
            absence: Absence::default(),
            reserved: VecDeque::new(),
            leaving: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: LivenessTimes = LivenessTimes { suspect_ms: 5_000, down_ms: 15_000 };
    const INCARNATION: Incarnation = Incarnation([1; 16]);

    fn book_with(node: &NodeId, now: u64) -> NodeBook {
        let book = NodeBook::default();
        book.begin_leading(1, now, Vec::new());
        let request = v1::RegisterNodeRequest { capacity: 100, used: 40, ..Default::default() };
        book.registered(node, &request, INCARNATION, (now, 0));
        book
    }

    #[test]
    fn silence_becomes_suspicion_becomes_death() {
        let node = NodeId::new("n1").unwrap();
        let book = book_with(&node, 1_000_000);
        let at = |silent: u64| book.verdict(&node, INCARNATION, TIMES, 1_000_000 + silent);
        assert_eq!(
            [at(0), at(4_999), at(5_000), at(14_999), at(15_000)],
            [Verdict::Up, Verdict::Up, Verdict::Suspect, Verdict::Suspect, Verdict::Down]
        );
    }

    #[test]
    fn a_new_leader_judges_nobody_before_one_interval() {
        let node = NodeId::new("n1").unwrap();
        let book = NodeBook::default();
        book.begin_leading(1, 1_000_000, Vec::new());
        assert_eq!(book.verdict(&node, INCARNATION, TIMES, 1_014_999), Verdict::Suspect);
        assert_eq!(book.verdict(&node, INCARNATION, TIMES, 1_015_000), Verdict::Down);
        assert!(!book.is_alive(&node, INCARNATION, TIMES, 1_000_001));
    }

    #[test]
    fn what_the_state_calls_up_is_live_until_it_could_have_been_heard() {
        let node = NodeId::new("n1").unwrap();
        let book = NodeBook::default();
        let up = || vec![KnownNode { node: node.clone(), incarnation: INCARNATION, capacity: 100, used: 40 }];
        book.begin_leading(3, 1_000_000, up());
        let alive = |at: u64| book.is_alive(&node, INCARNATION, TIMES, 1_000_000 + at);
        assert!(alive(0) && alive(4_999) && !alive(5_000));
        assert!(!book.is_alive(&node, Incarnation([2; 16]), TIMES, 1_000_000));
        book.reserve([7; 16], &node, 50, 1_000_000);
        assert_eq!(book.life(&node).unwrap().plannable(1_000_001), 10);
        // It is not heard: it must register with this leader.
        assert!(!book.was_heard(&node, INCARNATION));
        let heartbeat = v1::HeartbeatRequest { capacity: 100, free: 60, ..Default::default() };
        assert!(!book.heard(&node, &heartbeat, INCARNATION, (1_000_100, 0)));
        book.registered(&node, &v1::RegisterNodeRequest::default(), INCARNATION, (1_004_000, 0));
        assert!(book.heard(&node, &heartbeat, INCARNATION, (1_004_000, 0)));
        assert!(book.was_heard(&node, INCARNATION) && alive(8_999) && !alive(9_000));
        // The same leadership does not begin twice, another one anew.
        book.begin_leading(3, 1_008_000, up());
        assert!(book.was_heard(&node, INCARNATION));
        book.begin_leading(4, 1_009_500, up());
        assert!(!book.was_heard(&node, INCARNATION) && alive(9_500));
    }

    #[test]
    fn another_incarnation_is_not_the_node_we_heard() {
        let node = NodeId::new("n1").unwrap();
        let book = book_with(&node, 0);
        let heartbeat = v1::HeartbeatRequest::default();
        assert!(book.heard(&node, &heartbeat, INCARNATION, (1, 1)));
        assert!(!book.heard(&node, &heartbeat, Incarnation([2; 16]), (2, 2)));
        assert_eq!(book.verdict(&node, Incarnation([2; 16]), TIMES, 15_000), Verdict::Down);
    }

    #[test]
    fn a_loss_is_held_until_it_is_accepted_or_over() {
        let node = NodeId::new("n1").unwrap();
        let book = book_with(&node, 0);
        let walk = |listed, absent| book.inventoried(&node, INCARNATION, listed, absent).unwrap().held;
        let holds = || book.holds_absence(&node, INCARNATION);
        assert!(!walk(1000, 9) && !holds());
        assert_eq!(book.confirm_loss(&node), None, "nothing is held");
        assert!(walk(1000, 300) && holds());
        assert!(!book.holds_absence(&node, Incarnation([2; 16])));
        // The chunks came back.
        assert!(!walk(1000, 0) && !holds());
        // Accepted: what was seen may go, more may not.
        assert!(walk(1000, 300));
        assert!(book.take_walk_wish(&node), "it registered");
        assert_eq!(book.confirm_loss(&node).map(|absence| absence.absent), Some(300));
        assert!(!holds() && book.take_walk_wish(&node) && !book.take_walk_wish(&node));
        assert!(!walk(1000, 300) && !walk(800, 100) && walk(800, 301));
        // Once all are struck off the acceptance is used up.
        assert!(!walk(700, 0) && walk(700, 100));
        // Another data directory begins anew.
        let other = Incarnation([2; 16]);
        book.registered(&node, &v1::RegisterNodeRequest::default(), other, (1, 0));
        assert!(!book.holds_absence(&node, other));
        assert_eq!(book.inventoried(&node, INCARNATION, 9, 9), None);
    }

    #[test]
    fn reservations_shrink_free_space_and_expire() {
        let node = NodeId::new("n1").unwrap();
        let book = book_with(&node, 0);
        book.reserve([7; 16], &node, 50, 0);
        assert_eq!(book.life(&node).unwrap().plannable(1), 10);
        book.reserve([7; 16], &node, 50, 1);
        assert_eq!(book.life(&node).unwrap().plannable(2), 0);
        assert_eq!(book.life(&node).unwrap().plannable(GRANT_LIFETIME_MS + RESERVATION_STEP_MS), 60);
        for step in 0..10_000 {
            book.reserve([7; 16], &node, 1, step * 100);
        }
        assert!(book.life(&node).unwrap().reserved.len() <= 14);
    }

    /// Failed puts on a cluster that was nearly full kept everybody out for a minute after room was made.
    #[test]
    fn what_is_over_gives_its_room_back_at_the_next_heartbeat() {
        let node = NodeId::new("n1").unwrap();
        let book = book_with(&node, 0);
        book.reserve([1; 16], &node, 20, 0);
        book.reserve([1; 16], &node, 10, RESERVATION_STEP_MS);
        book.reserve([2; 16], &node, 5, 1);
        let plannable = |now| book.life(&node).unwrap().plannable(now);
        assert_eq!(plannable(RESERVATION_STEP_MS), 25);
        book.release([1; 16]);
        book.release([1; 16]);
        book.release([3; 16]);
        assert_eq!(plannable(RESERVATION_STEP_MS), 25, "what it wrote is in no heartbeat yet");
        let heartbeat = v1::HeartbeatRequest { capacity: 100, free: 60, ..Default::default() };
        assert!(book.heard(&node, &heartbeat, INCARNATION, (6_000, 0)));
        assert_eq!(plannable(6_000), 55);
        // Released after it expired: not twice.
        let late = GRANT_LIFETIME_MS + 2 * RESERVATION_STEP_MS;
        book.reserve([4; 16], &node, 1, late);
        book.release([2; 16]);
        assert_eq!(plannable(late), 59);
    }
}
