//! The group commit. There is no thread of its own: the first who waits leads, syncs for all who
//! wait by then and answers them; who comes meanwhile waits for the next round. So one caller alone
//! pays one fsync and a hundred share it, and a simulation with one thread needs nothing else.
//!
//! Crash promise: nobody is answered `Ok` before the fsync of every segment his records are in, and
//! the index is written between, so that a row proves a durable record.

use std::collections::BTreeMap;

use super::Core;
use super::state::{Effect, Guard, Pending, Phase, State};
use crate::store::index::IndexBatch;
use crate::store::{ChunkKey, StoreError};
use crate::telemetry;

impl Core {
    /// Waits until the records that `effect` speaks of are durable and it is in the index. Takes over
    /// the hold on `key`, which is let go before this returns.
    pub fn commit<'a>(
        &'a self,
        mut state: Guard<'a>,
        key: ChunkKey,
        segments: Vec<u32>,
        effect: Effect,
    ) -> Result<(), StoreError> {
        let ticket = self.enqueue(&mut state, key, segments, effect);
        self.await_ticket(state, ticket)
    }

    /// Puts records into the next round without waiting.
    pub fn enqueue(&self, state: &mut State, key: ChunkKey, segments: Vec<u32>, effect: Effect) -> u64 {
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        for id in &segments {
            state.segment(*id).unsynced += 1;
        }
        state.pending.push(Pending { ticket, segments, key, effect });
        ticket
    }

    pub fn await_ticket<'a>(&'a self, mut state: Guard<'a>, ticket: u64) -> Result<(), StoreError> {
        loop {
            if let Some(result) = state.results.remove(&ticket) {
                return result;
            }
            state = if state.leading { self.wait(state) } else { self.lead(state) };
        }
    }

    /// One round.
    fn lead<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        state.leading = true;
        let round = std::mem::take(&mut state.pending);
        telemetry::group_committed(round.len());
        let mut files = BTreeMap::new();
        for id in round.iter().flat_map(|pending| &pending.segments) {
            let segment = state.segment(*id);
            let file = segment.file.clone().expect("an unsealed segment's file is open");
            files.insert(*id, (file, segment.next_sequence - 1));
        }
        drop(state);
        let synced: Vec<_> =
            files.into_iter().map(|(id, (file, covers))| (id, covers, file.sync())).collect();

        let mut state = self.lock();
        for (id, covers, result) in synced {
            match result {
                Ok(()) if state.segment(id).phase != Phase::Poisoned => {
                    let segment = state.segment(id);
                    segment.durable_sequence = segment.durable_sequence.max(covers);
                }
                // A write failed meanwhile and the mark beside the file excludes this round.
                Ok(()) => {}
                Err(error) => self.poison(&mut state, id, &error),
            }
        }
        let failed = |id: &u32| state.segments[id].phase == Phase::Poisoned;
        let (lost, good): (Vec<_>, Vec<_>) = round.into_iter().partition(|p| p.segments.iter().any(failed));
        if lost.iter().any(|pending| !pending.segments.iter().all(failed)) {
            // One half of it counts after a restart: nothing may be acknowledged that contradicts it.
            state.break_down("a change over two segments failed in one of them".to_owned());
        }
        self.answer(&mut state, lost, &Err(StoreError::Io("the segment failed before its fsync".to_owned())));

        let mut batch = IndexBatch::default();
        for pending in &good {
            batch.rows.extend(pending.effect.batch.rows.iter().cloned());
        }
        drop(state);
        let written = self.index.write(&batch, false);

        let mut state = self.lock();
        let result = match written {
            Ok(()) => {
                for pending in &good {
                    state.count(&pending.effect);
                }
                Ok(())
            }
            Err(error) => {
                state.break_down(error.to_string());
                Err(match StoreError::from(error) {
                    damaged @ StoreError::IndexDamaged(_) => damaged,
                    error => StoreError::Broken(error.to_string()),
                })
            }
        };
        self.answer(&mut state, good, &result);
        state.leading = false;
        self.changed.notify_all();
        self.seal_quiet(state)
    }

    /// A row is changed without a record: only while the store is being opened, or for what is gone.
    pub fn index_now(&self, batch: &IndexBatch) -> Result<(), StoreError> {
        Ok(self.index.write(batch, false)?)
    }

    /// Tells everybody in `round`, and lets their chunks go.
    pub fn answer(&self, state: &mut State, round: Vec<Pending>, result: &Result<(), StoreError>) {
        for pending in round {
            for id in &pending.segments {
                state.segment(*id).unsynced -= 1;
            }
            state.busy.remove(&pending.key);
            state.results.insert(pending.ticket, result.clone());
        }
        self.changed.notify_all();
    }
}

/// Several changes on their way to one fsync, made by one thread: compaction and recovery.
pub struct Round<'a> {
    core: &'a Core,
    tickets: Vec<u64>,
}

/// Changes that wait for one fsync at most.
const MOST_TICKETS: usize = 64;

impl<'a> Round<'a> {
    pub fn new(core: &'a Core) -> Self {
        Self { core, tickets: Vec::new() }
    }

    /// Holds a chunk. If it is in this very round, the round is made durable first.
    pub fn hold(&mut self, key: &ChunkKey) -> Result<Guard<'a>, StoreError> {
        if self.core.lock().busy.contains(key) {
            self.flush()?;
        }
        self.core.hold(self.core.lock(), key)
    }

    /// Adds a change; the hold on its chunk goes with it.
    pub fn add(&mut self, state: &mut State, key: ChunkKey, mut segments: Vec<u32>, effect: Effect) {
        segments.sort_unstable();
        segments.dedup();
        self.tickets.push(self.core.enqueue(state, key, segments, effect));
    }

    pub fn is_full(&self) -> bool {
        self.tickets.len() >= MOST_TICKETS
    }

    /// Waits until all of it is durable.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        let mut result = Ok(());
        for ticket in std::mem::take(&mut self.tickets) {
            let one = self.core.await_ticket(self.core.lock(), ticket);
            result = result.and(one);
        }
        result
    }
}

impl Drop for Round<'_> {
    /// Whoever gives up in the middle still lets the chunks go that are on their way.
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "changes of an abandoned round failed");
        }
    }
}
