//! What happens to the bytes of each link now. A link is directed: from one process to another, by name;
//! whoever is no server of the cluster is [`OUTSIDE`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// Clients, whichever process they are in.
pub const OUTSIDE: &str = "client";

/// From, to.
pub type LinkName = (String, String);

/// What one fault does to one link.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// Nothing passes. What was on its way waits, as TCP would send it again until it gets through.
    pub cut: bool,
    /// Each byte arrives so much later.
    pub delay: Duration,
    /// In about one of so many bytes one bit is turned.
    pub flip: Option<u64>,
}

impl Trouble {
    fn and(self, other: Self) -> Self {
        Self {
            cut: self.cut || other.cut,
            delay: self.delay + other.delay,
            flip: [self.flip, other.flip].into_iter().flatten().min(),
        }
    }
}

#[derive(Default)]
struct Inner {
    /// By the number of the fault.
    faults: BTreeMap<u64, BTreeMap<LinkName, Trouble>>,
    /// How often the connections of a link were reset.
    resets: BTreeMap<LinkName, u64>,
    last: u64,
    /// Whoever called anybody.
    callers: BTreeSet<String>,
    /// Bytes left until the next bit is turned, and how many were.
    until_flip: u64,
    flipped: u64,
    random: u64,
}

/// The faults of now, shared by all proxies. Cheap to clone.
#[derive(Clone)]
pub struct Rules {
    inner: Arc<Mutex<Inner>>,
    changed: watch::Sender<()>,
}

impl Rules {
    pub fn new(seed: u64) -> Self {
        let inner = Inner { random: seed | 1, ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)), changed: watch::Sender::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a fault and gives its number.
    pub fn add(&self, links: impl IntoIterator<Item = LinkName>, trouble: Trouble) -> u64 {
        let mut inner = self.lock();
        inner.last += 1;
        let number = inner.last;
        inner.faults.insert(number, links.into_iter().map(|link| (link, trouble)).collect());
        drop(inner);
        self.changed.send_replace(());
        number
    }

    pub fn remove(&self, number: u64) {
        self.lock().faults.remove(&number);
        self.changed.send_replace(());
    }

    /// All faults on a link together.
    pub fn on(&self, link: &LinkName) -> Trouble {
        let inner = self.lock();
        inner.faults.values().filter_map(|fault| fault.get(link)).fold(Trouble::default(), |a, b| a.and(*b))
    }

    /// Waits until something passes the link.
    pub async fn passable(&self, link: &LinkName) {
        let mut changed = self.changed.subscribe();
        while self.on(link).cut {
            // The sender is in self, so this ends only by a change.
            let _ = changed.changed().await;
        }
    }

    /// Resets every connection on the links.
    pub fn reset(&self, links: impl IntoIterator<Item = LinkName>) {
        let mut inner = self.lock();
        for link in links {
            *inner.resets.entry(link).or_default() += 1;
        }
        drop(inner);
        self.changed.send_replace(());
    }

    /// Waits until the link's connections are reset.
    pub async fn until_reset(&self, link: &LinkName) {
        let mut changed = self.changed.subscribe();
        let count = || self.lock().resets.get(link).copied().unwrap_or(0);
        let before = count();
        while count() == before {
            let _ = changed.changed().await;
        }
    }

    /// Turns bits in bytes that pass, about one bit in `mean` bytes.
    pub fn flip(&self, bytes: &mut [u8], mean: u64) {
        let mut inner = self.lock();
        let mut at = 0u64;
        loop {
            if inner.until_flip == 0 {
                // xorshift: the same seed turns bits at the same distances.
                let mut x = inner.random;
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                inner.random = x;
                inner.until_flip = 1 + x % (2 * mean.max(1));
            }
            let left = bytes.len() as u64 - at;
            if inner.until_flip > left {
                inner.until_flip -= left;
                return;
            }
            at += inner.until_flip;
            inner.until_flip = 0;
            inner.flipped += 1;
            bytes[at as usize - 1] ^= 1 << (inner.flipped % 8);
        }
    }

    pub fn called(&self, caller: &str) {
        let mut inner = self.lock();
        if !inner.callers.contains(caller) {
            inner.callers.insert(caller.to_owned());
        }
    }

    /// Whoever called anybody so far.
    pub fn callers(&self) -> BTreeSet<String> {
        self.lock().callers.clone()
    }

    /// Bits turned so far.
    pub fn flipped(&self) -> u64 {
        self.lock().flipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(from: &str, to: &str) -> LinkName {
        (from.to_owned(), to.to_owned())
    }

    #[test]
    fn faults_add_up_and_go_one_by_one() {
        let rules = Rules::new(1);
        let slow = Trouble { delay: Duration::from_millis(20), ..Trouble::default() };
        let first = rules.add([link("a", "b")], Trouble { cut: true, ..Trouble::default() });
        let second = rules.add([link("a", "b"), link("b", "a")], slow);
        assert_eq!(rules.on(&link("a", "b")), Trouble { cut: true, ..slow });
        assert_eq!(rules.on(&link("b", "a")), slow);
        rules.remove(first);
        assert_eq!(rules.on(&link("a", "b")), slow);
        rules.remove(second);
        assert_eq!(rules.on(&link("b", "a")), Trouble::default());
    }

    #[test]
    fn bits_are_turned_about_as_often_as_asked() {
        let rules = Rules::new(7);
        let mut bytes = vec![0u8; 1 << 20];
        for part in bytes.chunks_mut(1000) {
            rules.flip(part, 4096);
        }
        let turned = bytes.iter().filter(|byte| **byte != 0).count() as u64;
        assert_eq!(turned, rules.flipped());
        assert!((128..512).contains(&turned), "{turned}");
    }
}
