//! One name's history by contents alone (Gibbons and Korach's zones): whatever versions the cluster
//! answered, could the reads and writes have happened one after the other?
//!
//! Each content is written once. The operations on one content span a zone: from the first end among them to
//! the last start. If the end comes first, the content must have been there all that time (a forward zone), so
//! two of these must not overlap; else all of them may have happened at one moment of the zone (a backward zone),
//! which must lie outside some forward zone. Names that were deleted are left out: being gone is no content of its own.

use std::collections::BTreeMap;

use super::{Moment, NEVER, Op, What};

struct Content {
    written: Option<(Moment, Moment)>,
    first_end: Moment,
    last_start: Moment,
    /// The earliest end of a read.
    first_read: Moment,
    reads: u32,
}

/// Why the history is impossible.
pub fn check(ops: &[Op]) -> Vec<String> {
    if ops.iter().any(|op| matches!(op.what, What::Deleted { .. } | What::MayHaveDeleted)) {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    let mut contents: BTreeMap<Option<u64>, Content> = BTreeMap::new();
    // Before everything, the name was free.
    note(&mut contents, None, 0, 0, true, &mut wrong);
    for op in ops {
        let (value, writes) = match op.what {
            What::Wrote { value, .. } => (Some(value), true),
            What::MayHaveWritten { value } => (Some(value), true),
            What::Read { value, .. } => (Some(value), false),
            What::Absent => (None, false),
            _ => continue,
        };
        let end = if matches!(op.what, What::MayHaveWritten { .. }) { NEVER } else { op.end };
        note(&mut contents, value, op.start, end, writes, &mut wrong);
    }
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    for (value, content) in contents {
        let Some((start, end)) = content.written else {
            wrong.push(format!("content {value:?} was read and nobody wrote it"));
            continue;
        };
        if content.first_read < start {
            wrong.push(format!("content {value:?} was read before it was written"));
        }
        // A write that may not have happened, and that nobody saw, says nothing.
        if end == NEVER && content.reads == 0 {
            continue;
        }
        if content.first_end < content.last_start {
            forward.push((content.first_end, content.last_start, value));
        } else {
            backward.push((content.last_start, content.first_end, value));
        }
    }
    forward.sort_unstable();
    for pair in forward.windows(2) {
        if pair[1].0 < pair[0].1 {
            wrong.push(format!(
                "contents {:?} and {:?} were both there, each before the other",
                pair[0].2, pair[1].2
            ));
        }
    }
    for (low, high, value) in backward {
        let before = forward.partition_point(|(from, _, _)| *from < low);
        if let Some((_, to, over)) = before.checked_sub(1).map(|at| forward[at])
            && high < to
        {
            wrong.push(format!("content {value:?} came and went while {over:?} was there"));
        }
    }
    wrong
}

fn note(
    contents: &mut BTreeMap<Option<u64>, Content>,
    value: Option<u64>,
    start: Moment,
    end: Moment,
    writes: bool,
    wrong: &mut Vec<String>,
) {
    let content = contents.entry(value).or_insert(Content {
        written: None,
        first_end: NEVER,
        last_start: 0,
        first_read: NEVER,
        reads: 0,
    });
    content.first_end = content.first_end.min(end);
    content.last_start = content.last_start.max(start);
    if writes {
        if content.written.replace((start, end)).is_some() {
            wrong
                .push(format!("content {value:?} was written twice: this check needs contents of their own"));
        }
    } else {
        content.reads += 1;
        content.first_read = content.first_read.min(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(start: Moment, end: Moment, what: What) -> Op {
        Op { client: 0, start, end, what }
    }

    fn wrote(start: Moment, end: Moment, value: u64) -> Op {
        op(start, end, What::Wrote { value, version: 0, expected: None })
    }

    fn read(start: Moment, end: Moment, value: u64) -> Op {
        op(start, end, What::Read { value, version: 0 })
    }

    #[test]
    fn possible_histories_pass() {
        assert!(check(&[wrote(1, 10, 1), wrote(3, 9, 2), read(5, 6, 2), read(11, 12, 1)]).is_empty());
        assert!(check(&[op(1, 2, What::Absent), wrote(1, 5, 1), read(6, 7, 1)]).is_empty());
        let maybe = op(2, 3, What::MayHaveWritten { value: 9 });
        assert!(check(&[wrote(0, 1, 1), maybe.clone(), read(4, 5, 1), read(8, 9, 9)]).is_empty());
        assert!(check(&[wrote(0, 1, 1), maybe, read(4, 5, 1)]).is_empty());
    }

    #[test]
    fn impossible_ones_do_not() {
        // Stale: 1 is read after 2 was written after it.
        assert!(!check(&[wrote(1, 2, 1), wrote(3, 4, 2), read(5, 6, 1)]).is_empty());
        // There and back.
        assert!(
            !check(&[wrote(1, 9, 1), wrote(1, 9, 2), read(10, 11, 1), read(12, 13, 2), read(14, 15, 1)])
                .is_empty()
        );
        assert!(!check(&[wrote(1, 2, 1), op(3, 4, What::Absent)]).is_empty());
        assert!(!check(&[read(1, 2, 1)]).is_empty());
        assert!(!check(&[read(1, 2, 1), wrote(3, 4, 1)]).is_empty());
        assert!(!check(&[wrote(1, 2, 1), wrote(3, 4, 1)]).is_empty());
    }

    /// A correct register, its operations long and overlapping, with one stale read planted in it.
    #[test]
    fn one_stale_read_among_many_is_found() {
        let mut ops = Vec::new();
        for n in 1..=20_000u64 {
            let at = n * 10;
            ops.push(wrote(at - 4, at + 4, n));
            ops.push(read(at - 3, at + 30, n));
            ops.push(read(at + 1, at + 5, n));
        }
        assert!(check(&ops).is_empty());
        ops.push(read(100_020, 100_021, 9_999));
        assert!(!check(&ops).is_empty());
    }
}
