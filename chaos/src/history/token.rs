//! Renames: one file is passed between a few names. It is under exactly one of them at any moment, so
//! every list shows one, and a rename from a name succeeds only while it is there.

use std::collections::BTreeSet;

use super::{Moment, NEVER};

#[derive(Clone, Debug)]
pub struct Rename {
    pub start: Moment,
    /// [`NEVER`]: its outcome is not known.
    pub end: Moment,
    pub from: String,
    pub to: String,
}

/// Where the file was seen: in one list of all its names.
#[derive(Clone, Debug)]
pub struct Sight {
    pub start: Moment,
    pub end: Moment,
    pub names: BTreeSet<String>,
}

/// Why the history is impossible. `first` is the name the file began with.
pub fn check(first: &str, renames: &[Rename], sights: &[Sight]) -> Vec<String> {
    let mut wrong = Vec::new();
    let known: Vec<&Rename> = renames.iter().filter(|rename| rename.end != NEVER).collect();
    // Each name is entered as often as it is left, or once more if the file ends there; the first one
    // is entered before all. Unknown renames may make up for a difference.
    let slack = renames.len() - known.len();
    let names: BTreeSet<&str> =
        renames.iter().flat_map(|r| [r.from.as_str(), r.to.as_str()]).chain([first]).collect();
    let mut off = 0;
    for name in names {
        let entered = known.iter().filter(|r| r.to == name).count() + usize::from(name == first);
        let left = known.iter().filter(|r| r.from == name).count();
        off += left.saturating_sub(entered) + entered.saturating_sub(left);
    }
    if off > 1 + 2 * slack {
        wrong.push(format!("{off} renames more from or to a name than one file can make, {slack} unknown"));
    }
    for sight in sights {
        let [name] = sight.names.iter().collect::<Vec<_>>()[..] else {
            wrong.push(format!(
                "one file was seen under {:?} at {} to {}",
                sight.names, sight.start, sight.end
            ));
            continue;
        };
        // The last rename known to be over before we looked: it left the file elsewhere, and nothing may
        // have moved it since.
        let last = known.iter().filter(|r| r.end < sight.start).max_by_key(|r| r.start);
        let Some(last) = last else { continue };
        let moved = |r: &Rename| r.end > last.start && r.start < sight.end && r.to == *name;
        if last.to != *name && !renames.iter().any(moved) {
            wrong.push(format!("seen at {name} after it was moved to {}: {sight:?}", last.to));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rename(start: Moment, end: Moment, from: &str, to: &str) -> Rename {
        Rename { start, end, from: from.into(), to: to.into() }
    }

    fn sight(start: Moment, end: Moment, names: &[&str]) -> Sight {
        Sight { start, end, names: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn one_file_is_at_one_place() {
        let walk = [rename(1, 2, "a", "b"), rename(3, 4, "b", "c"), rename(5, 6, "c", "a")];
        let sights = [sight(0, 0, &["a"]), sight(2, 3, &["b"]), sight(7, 8, &["a"])];
        assert!(check("a", &walk, &sights).is_empty());
        assert!(!check("a", &walk, &[sight(7, 8, &[])]).is_empty(), "lost");
        assert!(!check("a", &walk, &[sight(7, 8, &["a", "b"])]).is_empty(), "twice");
        assert!(!check("a", &walk, &[sight(7, 8, &["c"])]).is_empty(), "stale");
        // Two renames from one place, and it came back only by one that is not known.
        let twice = [rename(1, 2, "a", "b"), rename(3, 4, "a", "c")];
        assert!(!check("a", &twice, &[]).is_empty());
        let with_unknown = [&twice[..], &[rename(2, NEVER, "b", "a")]].concat();
        assert!(check("a", &with_unknown, &[]).is_empty());
    }
}
