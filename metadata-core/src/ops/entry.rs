//! One entry: its commands in order, each in its own overlay, then the marks of the whole.

use dfs_proto::v1;
use dfs_types::{DfsError, ErrorCode, Position, PrincipalId, RequestId};

use super::ctx::{Ctx, Fault};
use crate::apply::{Applied, ApplyError, ENTRY_FORMAT};
use crate::kv::{KvRead, Overlay, Space, WriteSet};
use crate::rows::meta::{AppliedMeta, Field, StateHash};
use crate::rows::requests::{Requests, RequestsByPosition};
use crate::rows::{self, RowError};
use crate::rules::{features, housekeeping};

impl From<RowError> for ApplyError {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Kv(error) => Self::Kv(error),
            corrupt => Self::Corrupt(corrupt.to_string()),
        }
    }
}

pub(crate) fn apply_entry(kv: &dyn KvRead, log_index: u64, entry: &v1::Entry) -> Result<Applied, ApplyError> {
    if entry.format != ENTRY_FORMAT {
        return Err(ApplyError::UnknownFormat { log_index, format: entry.format });
    }
    if entry.commands.len() > Position::MAX_COMMANDS_PER_ENTRY {
        return Err(ApplyError::TooManyCommands { log_index, commands: entry.commands.len() });
    }
    if let Some(place) = entry.commands.iter().position(|command| command.kind.is_none()) {
        return Err(ApplyError::UnknownCommand { log_index, place });
    }
    let applied = rows::get::<AppliedMeta>(kv, &Field)?.unwrap_or_default().position;
    if log_index <= Position(applied).log_index() {
        return Err(ApplyError::OutOfOrder { log_index, applied });
    }

    let mut tx = Overlay::new(kv);
    let mut results = Vec::with_capacity(entry.commands.len());
    let mut position = Position::new(log_index, 0);
    for (place, command) in entry.commands.iter().enumerate() {
        position = Position::new(log_index, place as u16);
        let (writes, result) = run(&tx, position.0, command)?;
        tx.absorb(writes);
        results.push(result);
    }
    // Each request leaves a result, so each takes up to two old ones away.
    housekeeping::forget_results(&mut tx, position.0, 2 * entry.commands.len())?;
    rows::put::<AppliedMeta>(&mut tx, &Field, &v1::AppliedRow { position: position.0 });

    let before = rows::get::<StateHash>(kv, &Field)?.unwrap_or_default();
    let mut writes = tx.into_writes();
    let hash = chain(&before.hash, &writes);
    let row = v1::HashRow { hash: hash.to_vec().into() };
    writes.put(Space::State, rows::key_bytes::<StateHash>(&Field), rows::encode(&row));
    Ok(Applied { writes, results })
}

/// h' = BLAKE3(h, canonical write set).
fn chain(before: &[u8], writes: &WriteSet) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    writes.canonical(|piece| {
        hasher.update(piece);
    });
    *hasher.finalize().as_bytes()
}

/// Runs one command at most once: what it writes, its stored result included, and what to answer.
fn run(
    tx: &Overlay<'_>,
    position: u64,
    command: &v1::Command,
) -> Result<(WriteSet, v1::CommandResult), ApplyError> {
    match attempt(tx, position, command) {
        Ok((writes, mut result)) => {
            if result.position == 0 {
                result.position = position;
            }
            Ok((writes, result))
        }
        Err(Fault::Refused(error)) => Ok((WriteSet::default(), refusal(position, &error))),
        Err(Fault::Fatal(error)) => Err(error.into()),
        Err(Fault::TooNew { level }) => Err(ApplyError::UnknownFeatureLevel { position, level }),
    }
}

fn refusal(position: u64, error: &DfsError) -> v1::CommandResult {
    v1::CommandResult { position, error: Some(error.into()), ..Default::default() }
}

/// Errors of this function are not kept: nothing ran under the request's id.
fn attempt(
    tx: &Overlay<'_>,
    position: u64,
    command: &v1::Command,
) -> Result<(WriteSet, v1::CommandResult), Fault> {
    super::check(command)?;
    let mut ctx = Ctx::new(tx, position, command)?;
    let request = if command.request_id.is_empty() {
        None
    } else {
        let key =
            (PrincipalId::from_slice(&command.principal_id)?, RequestId::from_slice(&command.request_id)?);
        if let Some(row) = ctx.get::<Requests>(&key)? {
            let result = row.result.unwrap_or_default();
            return Ok((WriteSet::default(), v1::CommandResult { replayed: true, ..result }));
        }
        if command.seen_position > position {
            return Err(DfsError::new(ErrorCode::InvalidArgument, "seen_position is in the future").into());
        }
        if housekeeping::out_of_window(command.seen_position, position) {
            let message = "the request is too old to tell whether it ran: it was not run now";
            return Err(DfsError::new(ErrorCode::RequestTooOld, message).into());
        }
        Some(key)
    };

    let kind = command.kind.as_ref().expect("entries with an unknown command stop the member");
    features::permit(tx, kind)?;
    let (mut writes, mut result) = match super::apply_kind(&mut ctx, kind) {
        Ok(result) => (ctx.finish(), result),
        Err(Fault::Refused(error)) => (WriteSet::default(), refusal(position, &error)),
        Err(fatal) => return Err(fatal),
    };
    if result.position == 0 {
        result.position = position;
    }
    if let Some(key) = request {
        let row = v1::RequestRow { position, result: Some(result.clone()) };
        writes.put(Space::State, rows::key_bytes::<Requests>(&key), rows::encode(&row));
        let index = (position, key.0, key.1);
        writes.put(Space::State, rows::key_bytes::<RequestsByPosition>(&index), rows::encode(&()));
    }
    Ok((writes, result))
}
