//! Lists: a list shows every name that was put before it began and not deleted, and no name that was
//! deleted before it began or put by nobody.

use std::collections::{BTreeMap, BTreeSet};

use super::{Moment, NEVER};

/// The life of one name: it is put once and deleted at most once.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// The put; an end of [`NEVER`]: its outcome is not known.
    pub put: (Moment, Moment),
    pub deleted: Option<(Moment, Moment)>,
}

#[derive(Clone, Debug)]
pub struct List {
    pub start: Moment,
    pub end: Moment,
    pub names: BTreeSet<String>,
}

/// Why the lists are impossible.
pub fn check(lives: &BTreeMap<String, Life>, lists: &[List]) -> Vec<String> {
    let mut wrong = Vec::new();
    for list in lists {
        let about = || format!("in the list of {} to {}", list.start, list.end);
        for name in &list.names {
            match lives.get(name) {
                None => wrong.push(format!("{name}, put by nobody, is {}", about())),
                Some(life) if life.put.0 > list.end => wrong.push(format!("{name} is too early {}", about())),
                Some(Life { deleted: Some((_, end)), .. }) if *end != NEVER && *end < list.start => {
                    wrong.push(format!("{name} was deleted and is {}", about()));
                }
                Some(_) => {}
            }
        }
        for (name, life) in lives {
            let there = life.put.1 != NEVER && life.put.1 < list.start;
            let stays = life.deleted.is_none_or(|(start, _)| start > list.end);
            if there && stays && !list.names.contains(name) {
                wrong.push(format!("{name} is missing {}", about()));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(start: Moment, end: Moment, names: &[&str]) -> List {
        List { start, end, names: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn what_a_list_must_and_must_not_show() {
        let life = |put, deleted| Life { put, deleted };
        let lives = BTreeMap::from([
            ("a".to_owned(), life((0, 1), None)),
            ("b".to_owned(), life((0, 1), Some((10, 12)))),
            ("c".to_owned(), life((5, NEVER), None)),
            ("d".to_owned(), life((0, 1), Some((4, NEVER)))),
        ]);
        let found = |list: List| check(&lives, &[list]).len();
        assert_eq!(found(list(2, 3, &["a", "b", "d"])), 0);
        assert_eq!(found(list(2, 3, &["a", "b"])), 1, "d is not deleted yet");
        assert_eq!(found(list(6, 7, &["a", "b"])), 0, "c and d are not known");
        assert_eq!(found(list(6, 7, &["a", "b", "c", "d"])), 0);
        assert_eq!(found(list(11, 20, &["a"])), 0);
        assert_eq!(found(list(13, 20, &["a", "b"])), 1, "b is deleted");
        assert_eq!(found(list(13, 20, &[])), 1, "a is missing");
        assert_eq!(found(list(2, 3, &["a", "b", "c", "d", "x"])), 2, "c is too early, x is nobody's");
    }
}
