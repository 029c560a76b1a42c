//! One name's history by the versions it was answered with: what ended before another began has no
//! higher version, a version has one content, a condition has one winner.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::{Moment, NEVER, Op, What};

/// A change with a version: acknowledged, or seen by somebody.
#[derive(Clone, Copy)]
struct Change {
    /// None: a delete.
    value: Option<u64>,
    start: Moment,
}

/// Why the history is impossible.
pub fn check(ops: &[Op]) -> Vec<String> {
    let mut wrong = Vec::new();
    let changes = changes(ops, &mut wrong);
    let unseen = Unseen::new(ops, &changes);
    conditions(ops, &changes, &unseen, &mut wrong);
    real_time(ops, &changes, &unseen, &mut wrong);
    wrong
}

/// Changes by version. Finds versions with two contents, and reads of what nobody wrote.
fn changes(ops: &[Op], wrong: &mut Vec<String>) -> BTreeMap<u64, Change> {
    let mut changes = BTreeMap::new();
    let mut unknown = BTreeMap::new();
    for op in ops {
        let (version, value) = match op.what {
            What::Wrote { value, version, .. } => (version, Some(value)),
            What::Deleted { version } => (version, None),
            What::MayHaveWritten { value } => {
                unknown.insert(value, op.start);
                continue;
            }
            _ => continue,
        };
        if changes.insert(version, Change { value, start: op.start }).is_some() {
            wrong.push(format!("version {version} was given to two changes, the second {op:?}"));
        }
    }
    let mut versions_of = BTreeMap::new();
    for op in ops {
        let What::Read { value, version } = op.what else { continue };
        match (changes.get(&version), unknown.get(&value)) {
            (Some(change), _) if change.value == Some(value) && change.start <= op.end => {}
            (Some(change), _) if change.value == Some(value) => {
                wrong.push(format!("read before it was written: {op:?}"))
            }
            (Some(_), _) => wrong.push(format!("version {version} has another content in {op:?}")),
            (None, Some(start)) if *start <= op.end => {
                changes.insert(version, Change { value: Some(value), start: *start });
            }
            (None, _) => wrong.push(format!("nobody wrote what was read: {op:?}")),
        }
        if *versions_of.entry(value).or_insert(version) != version {
            wrong.push(format!("one write has two versions: {op:?}"));
        }
    }
    changes
}

/// Changes without an answer that nobody saw: they may be anywhere from their start on, or nowhere.
struct Unseen {
    writes: Vec<Moment>,
    deletes: Vec<Moment>,
}

impl Unseen {
    fn new(ops: &[Op], changes: &BTreeMap<u64, Change>) -> Self {
        let seen: std::collections::BTreeSet<u64> = changes.values().filter_map(|c| c.value).collect();
        let starts = |wanted: &dyn Fn(&What) -> bool| {
            let mut starts: Vec<Moment> =
                ops.iter().filter(|op| wanted(&op.what)).map(|op| op.start).collect();
            starts.sort_unstable();
            starts
        };
        Self {
            writes: starts(&|what| matches!(what, What::MayHaveWritten { value } if !seen.contains(value))),
            deletes: starts(&|what| matches!(what, What::MayHaveDeleted)),
        }
    }

    fn delete_before(&self, moment: Moment) -> bool {
        self.deletes.first().is_some_and(|start| *start <= moment)
    }

    fn any_before(&self, moment: Moment) -> bool {
        self.delete_before(moment) || self.writes.first().is_some_and(|start| *start <= moment)
    }
}

/// A conditional put directly follows the version it named: so each version has one winner at most.
fn conditions(ops: &[Op], changes: &BTreeMap<u64, Change>, unseen: &Unseen, wrong: &mut Vec<String>) {
    for op in ops {
        let What::Wrote { version, expected: Some(expected), .. } = op.what else { continue };
        let before = changes.range(..version).next_back();
        let fits = match (before, expected) {
            (None, 0) => true,
            (Some((_, change)), 0) => change.value.is_none() || unseen.delete_before(op.end),
            (Some((version, _)), expected) if *version == expected => true,
            // It may have named a version that only its writer was told, or would have been.
            (Some((version, _)), expected) => *version < expected && unseen.any_before(op.end),
            (None, _) => unseen.any_before(op.end),
        };
        if !fits {
            let before = before.map(|(version, _)| *version);
            wrong.push(format!("a condition held that was not so (before it: {before:?}): {op:?}"));
        }
    }
}

/// Walks through the operations as they began. `floor` is the highest version that any operation which
/// had ended by then knew of.
fn real_time(ops: &[Op], changes: &BTreeMap<u64, Change>, unseen: &Unseen, wrong: &mut Vec<String>) {
    let mut by_start: Vec<&Op> = ops.iter().collect();
    by_start.sort_by_key(|op| (op.start, op.end));
    let mut under_way: BinaryHeap<Reverse<(Moment, u64)>> = BinaryHeap::new();
    let mut floor = 0;
    for op in by_start {
        while let Some(Reverse((end, version))) = under_way.peek()
            && *end < op.start
        {
            floor = floor.max(*version);
            under_way.pop();
        }
        // The first change behind the floor that may have happened by the end of this operation.
        let next = |wanted: &dyn Fn(&Change) -> bool| {
            let later = changes.range(floor + 1..);
            let mut later = later.filter(|(_, change)| wanted(change) && change.start <= op.end);
            later.next().map(|(version, _)| *version)
        };
        let there = changes.get(&floor).is_some_and(|change| change.value.is_some());
        let knows = match op.what {
            What::Wrote { version, .. } | What::Deleted { version } => {
                if version <= floor {
                    wrong
                        .push(format!("a change went behind version {floor}, known before it began: {op:?}"));
                }
                version
            }
            What::Read { version, .. } => {
                if version < floor {
                    wrong.push(format!("stale: version {floor} was known before it began: {op:?}"));
                }
                version
            }
            What::Absent if there => match next(&|change| change.value.is_none()) {
                Some(deleted) if !unseen.delete_before(op.end) => deleted,
                Some(_) => floor,
                None if unseen.delete_before(op.end) => floor,
                None => {
                    wrong.push(format!("lost: version {floor} was known and nobody deleted it: {op:?}"));
                    floor
                }
            },
            What::Mismatch { expected } => {
                if expected == floor && there && next(&|_| true).is_none() && !unseen.any_before(op.end) {
                    wrong.push(format!("refused though version {floor} was the current one: {op:?}"));
                }
                floor
            }
            What::Absent | What::MayHaveWritten { .. } | What::MayHaveDeleted => continue,
        };
        if op.end != NEVER {
            under_way.push(Reverse((op.end, knows)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(start: Moment, end: Moment, what: What) -> Op {
        Op { client: 0, start, end, what }
    }

    fn wrote(start: Moment, end: Moment, version: u64) -> Op {
        op(start, end, What::Wrote { value: version * 10, version, expected: None })
    }

    fn cas(start: Moment, end: Moment, version: u64, expected: u64) -> Op {
        op(start, end, What::Wrote { value: version * 10, version, expected: Some(expected) })
    }

    fn read(start: Moment, end: Moment, version: u64) -> Op {
        op(start, end, What::Read { value: version * 10, version })
    }

    fn deleted(start: Moment, end: Moment, version: u64) -> Op {
        op(start, end, What::Deleted { version })
    }

    fn maybe(start: Moment, version: u64) -> Op {
        op(start, NEVER, What::MayHaveWritten { value: version * 10 })
    }

    fn absent(start: Moment, end: Moment) -> Op {
        op(start, end, What::Absent)
    }

    #[track_caller]
    fn good(ops: &[Op]) {
        assert_eq!(check(ops), Vec::<String>::new());
    }

    #[track_caller]
    fn bad(ops: &[Op], why: &str) {
        let found = check(ops);
        assert!(found.iter().any(|found| found.contains(why)), "{found:?}");
    }

    #[test]
    fn concurrent_operations_may_go_either_way() {
        good(&[wrote(0, 10, 5), wrote(3, 9, 4), read(1, 4, 4), read(5, 6, 5), read(11, 12, 5)]);
        good(&[absent(0, 1), wrote(1, 5, 5), absent(2, 3), read(2, 4, 5)]);
    }

    #[test]
    fn a_stale_read_is_found() {
        bad(&[wrote(0, 1, 1), wrote(2, 3, 2), read(4, 5, 1)], "stale");
        // Known through another reader alone.
        bad(&[wrote(0, 1, 1), wrote(2, 90, 2), read(3, 4, 2), read(5, 6, 1)], "stale");
    }

    #[test]
    fn a_lost_write_is_found() {
        bad(&[wrote(0, 1, 1), absent(2, 3)], "lost");
        bad(&[wrote(0, 1, 1), deleted(2, 3, 2), wrote(4, 5, 3), absent(6, 7)], "lost");
        good(&[wrote(0, 1, 1), deleted(2, 3, 2), absent(4, 5), wrote(6, 7, 3), read(8, 9, 3)]);
        good(&[wrote(0, 1, 1), op(2, NEVER, What::MayHaveDeleted), absent(90, 91)]);
        // Seen gone, by whatever was deleted after it was written: the write must not come back.
        bad(&[wrote(0, 1, 1), deleted(0, 9, 4), absent(2, 3), read(4, 5, 1)], "stale");
    }

    #[test]
    fn versions_are_unique_and_have_one_content() {
        bad(&[wrote(0, 1, 1), wrote(2, 3, 1)], "two changes");
        let other = op(4, 5, What::Read { value: 11, version: 1 });
        bad(&[wrote(0, 1, 1), other], "another content");
        bad(&[wrote(0, 1, 1), op(2, 3, What::Read { value: 70, version: 7 })], "nobody wrote");
        bad(&[read(0, 1, 1), wrote(2, 3, 1)], "read before");
        bad(&[maybe(0, 5), read(1, 2, 5), op(3, 4, What::Read { value: 50, version: 6 })], "two versions");
        bad(&[wrote(0, 1, 7), wrote(2, 3, 6)], "went behind");
    }

    #[test]
    fn an_unknown_write_may_be_seen_late_but_not_unseen_again() {
        good(&[wrote(0, 1, 1), maybe(2, 5), read(3, 4, 1), read(5, 6, 5)]);
        bad(&[wrote(0, 1, 1), maybe(2, 5), read(3, 4, 5), read(5, 6, 1)], "stale");
        bad(&[read(0, 1, 5), maybe(2, 5)], "nobody wrote");
    }

    #[test]
    fn a_condition_has_one_winner() {
        good(&[wrote(0, 1, 1), cas(2, 5, 2, 1), cas(2, 5, 3, 2)]);
        bad(&[wrote(0, 1, 1), cas(2, 5, 2, 1), cas(2, 5, 3, 1)], "a condition held");
        bad(&[cas(0, 3, 1, 0), cas(0, 3, 2, 0)], "a condition held");
        good(&[cas(0, 3, 1, 0), deleted(4, 5, 2), cas(6, 7, 3, 0)]);
    }

    #[test]
    fn a_refusal_needs_a_reason() {
        let refused = |start, end| op(start, end, What::Mismatch { expected: 1 });
        bad(&[wrote(0, 1, 1), refused(2, 3)], "refused though");
        good(&[wrote(0, 1, 1), wrote(2, 3, 2), refused(2, 3)]);
        good(&[wrote(0, 1, 1), maybe(2, 9), refused(3, 4)]);
    }

    #[test]
    fn a_long_history_is_quick() {
        let ops: Vec<Op> =
            (1..100_000).map(|n| if n % 3 == 0 { read(n, n, n - 1) } else { wrote(n, n, n) }).collect();
        let start = std::time::Instant::now();
        good(&ops);
        assert!(start.elapsed().as_secs() < 20);
    }
}
