//! Touch, delete and quarantine: one 128-byte record each, made durable by the group commit.

use chunk_format::record::{RecordKind, RecordPlace};
use dfs_types::Position;

use super::Core;
use super::room::Mark;
use super::state::{Effect, State};
use crate::store::index::rows::{self, ChunkRow, TombstoneRow, add_ghost};
use crate::store::{Change, Changed, ChunkKey, StoreError};

/// What a change comes to.
enum Step {
    Already(Changed),
    Commit(u32, Effect),
}

impl Core {
    pub fn change(&self, key: &ChunkKey, change: Change) -> Result<Changed, StoreError> {
        let mut state = self.hold(self.lock(), key)?;
        match self.step(&mut state, key, change) {
            Ok(Step::Commit(segment, effect)) => {
                self.commit(state, *key, vec![segment], effect).map(|()| Changed::Done)
            }
            Ok(Step::Already(changed)) => {
                self.let_go(&mut state, key);
                Ok(changed)
            }
            Err(error) => {
                self.let_go(&mut state, key);
                Err(error)
            }
        }
    }

    fn step(&self, state: &mut State, key: &ChunkKey, change: Change) -> Result<Step, StoreError> {
        let Some(row) = rows::chunk_row(self.index.as_ref(), key)? else {
            return Ok(Step::Already(Changed::Absent));
        };
        let (segment, effect) = match change {
            Change::Touch(_) if row.quarantined => return Ok(Step::Already(Changed::Absent)),
            // What the index shows is durable, so nothing needs to be written.
            Change::Touch(epoch) if row.epoch >= epoch => return Ok(Step::Already(Changed::Done)),
            Change::Touch(epoch) => {
                let (segment, _, effect) = touched(self, state, key, &row, epoch)?;
                (segment, effect)
            }
            Change::DeleteBelow(position) if row.epoch >= position => {
                return Ok(Step::Already(Changed::Kept(row.epoch)));
            }
            Change::DeleteBelow(position) => deleted(self, state, key, &row, position)?,
            Change::Quarantine if row.quarantined => return Ok(Step::Already(Changed::Done)),
            Change::Quarantine => quarantined(self, state, key, &row)?,
        };
        Ok(Step::Commit(segment, effect))
    }
}

/// Appends a touch record; gives its segment and the row it makes.
pub fn touched(
    core: &Core,
    state: &mut State,
    key: &ChunkKey,
    row: &ChunkRow,
    epoch: Position,
) -> Result<(u32, ChunkRow, Effect), StoreError> {
    let place = core.append_mark(state, key, Mark { kind: RecordKind::Touch, epoch, target: row.place })?;
    let new = ChunkRow { epoch, touch_segment: place.segment, ..row.clone() };
    let effect = replaced(key, row, &new);
    Ok((place.segment, new, effect))
}

fn quarantined(
    core: &Core,
    state: &mut State,
    key: &ChunkKey,
    row: &ChunkRow,
) -> Result<(u32, Effect), StoreError> {
    let mark = Mark { kind: RecordKind::Quarantine, epoch: row.epoch, target: row.place };
    let place = core.append_mark(state, key, mark)?;
    let new = ChunkRow { quarantined: true, quarantine_segment: place.segment, ..row.clone() };
    Ok((place.segment, replaced(key, row, &new)))
}

fn deleted(
    core: &Core,
    state: &mut State,
    key: &ChunkKey,
    row: &ChunkRow,
    position: Position,
) -> Result<(u32, Effect), StoreError> {
    let mark = Mark { kind: RecordKind::Delete, epoch: position, target: RecordPlace::default() };
    let place = core.append_mark(state, key, mark)?;
    let mut effect = Effect::default();
    let mut ghosts = row.ghosts.clone();
    let mut generation = row.generation;
    add_ghost(&mut ghosts, row.place.segment);
    if let Some(old) = rows::tombstone_row(core.index.as_ref(), key)? {
        if state.any_exists(&old.ghosts, 0) {
            effect.remove_tombstone(&old);
        }
        generation = generation.max(old.generation);
        add_ghost(&mut ghosts, old.place.segment);
        old.ghosts.iter().for_each(|segment| add_ghost(&mut ghosts, *segment));
    }
    ghosts.retain(|segment| state.segments.contains_key(segment));
    let tombstone = TombstoneRow { position, place, generation, ghosts };
    effect.add_tombstone(&tombstone);
    effect.remove_row(row);
    effect.batch.remove(rows::chunk_row_key(key));
    effect.batch.put(rows::tombstone_row_key(key), tombstone.encode());
    Ok((place.segment, effect))
}

/// The effect of one row taking the place of another.
pub fn replaced(key: &ChunkKey, old: &ChunkRow, new: &ChunkRow) -> Effect {
    let mut effect = Effect::default();
    effect.remove_row(old);
    effect.add_row(new);
    effect.batch.put(rows::chunk_row_key(key), new.encode());
    effect
}
