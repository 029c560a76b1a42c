//! The index in memory, for simulated disks. A crash keeps a prefix of what was not made durable.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Index, IndexBatch, IndexError, IndexRow};

/// A handle; clones share the rows.
#[derive(Clone, Default)]
pub struct MemoryIndex {
    rows: Arc<Mutex<Rows>>,
}

#[derive(Default)]
struct Rows {
    now: BTreeMap<Vec<u8>, Vec<u8>>,
    durable: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Batches since the last durable one.
    recent: Vec<IndexBatch>,
}

impl MemoryIndex {
    /// What is left after a power loss that kept the first `kept` of the batches at risk.
    pub fn crash(&self, kept: usize) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = std::mem::take(&mut rows.recent);
        for batch in recent.into_iter().take(kept) {
            apply(&mut rows.durable, &batch);
        }
        rows.now = rows.durable.clone();
    }

    /// Batches that a power loss may take.
    pub fn at_risk(&self) -> usize {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).recent.len()
    }
}

fn apply(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, batch: &IndexBatch) {
    for (key, value) in &batch.rows {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

impl Index for MemoryIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.rows.lock().unwrap_or_else(PoisonError::into_inner).now.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<IndexRow>, IndexError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let range = rows.now.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        Ok(range.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&self, batch: &IndexBatch, durable: bool) -> Result<(), IndexError> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        apply(&mut rows.now, batch);
        rows.recent.push(batch.clone());
        if durable {
            let recent = std::mem::take(&mut rows.recent);
            for batch in &recent {
                apply(&mut rows.durable, batch);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves() {
        super::super::suite::behaves_as_an_ordered_map(&MemoryIndex::default());
    }

    #[test]
    fn a_crash_keeps_a_prefix() {
        let index = MemoryIndex::default();
        for (key, durable) in [(1u8, true), (2, false), (3, false)] {
            let mut batch = IndexBatch::default();
            batch.put(vec![key], vec![key]);
            index.write(&batch, durable).unwrap();
        }
        assert_eq!(index.at_risk(), 2);
        index.crash(1);
        assert_eq!(index.scan(&[0], &[9], 9).unwrap().len(), 2);
    }
}
