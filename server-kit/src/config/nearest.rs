//! The name that was probably meant by one that does not exist.

use std::collections::BTreeSet;

/// The known name that takes the fewest edits to reach, if that is few enough to be what was meant.
pub fn nearest(key: &str, known: &BTreeSet<String>) -> Option<String> {
    within(key, known, (key.chars().count() / 2).max(2))
}

/// The nearest known name, if it takes at most `bound` edits.
pub fn within(key: &str, known: &BTreeSet<String>, bound: usize) -> Option<String> {
    known
        .iter()
        .map(|name| (edits(key, name), name))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, name)| name.clone())
}

/// Levenshtein distance, one row at a time.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, have) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, want) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(have != *want);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}
