//! The commit position: where in the replicated log something happened.

use std::fmt;

/// Log index shifted left by 16, plus the place of the command inside its entry.
///
/// Several commands share one entry, so the index alone would give equal numbers to different
/// commits. Versions, epochs and "last position seen" are all positions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    pub const ZERO: Position = Position(0);
    /// Commands one entry may hold, so that a place always fits its 16 bits.
    pub const MAX_COMMANDS_PER_ENTRY: usize = 1 << 16;

    /// The position of command `place` in the entry at `log_index`.
    ///
    /// # Panics
    /// If the index needs more than 48 bits: at a million entries a second, nine years away.
    pub fn new(log_index: u64, place: u16) -> Self {
        assert!(log_index < 1 << 48, "log index {log_index} exceeds 48 bits");
        Self(log_index << 16 | u64::from(place))
    }

    pub fn log_index(self) -> u64 {
        self.0 >> 16
    }

    pub fn place(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.log_index(), self.place())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_by_index_then_place() {
        assert!(Position::new(1, 65535) < Position::new(2, 0));
        assert!(Position::new(2, 0) < Position::new(2, 1));
        assert_eq!((Position::new(9, 3).log_index(), Position::new(9, 3).place()), (9, 3));
    }
}
