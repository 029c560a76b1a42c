//! What counts as little room, and what is to be done about it: pure.

use dfs_types::limits::{
    CRITICAL_FREE_BYTES, DEFAULT_BALLAST_BYTES, DEFAULT_RESERVE_BYTES, DEFAULT_RESERVE_PERCENT,
    FULL_FREE_BYTES, MAX_BALLAST_DISK_SHARE,
};

use super::volume::Disk;

/// As the operator set them.
#[derive(Clone, Copy, Default, Debug)]
pub struct SpaceSettings {
    /// None: the default, which depends on the disk. 0: nothing is refused.
    pub reserve_bytes: Option<u64>,
    /// None: the default, which depends on the disk. 0: no ballast.
    pub ballast_bytes: Option<u64>,
}

/// The marks of one disk, from the highest to the lowest; all in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marks {
    /// Below it, nothing that grows the state is taken.
    pub reserve: u64,
    /// Below it, the ballast goes.
    pub critical: u64,
    /// Below it, with the ballast gone, no entry is taken at all.
    pub full: u64,
    /// The size of the ballast.
    pub ballast: u64,
}

impl SpaceSettings {
    /// Shares for small disks, so that tests and toys work; fixed sizes for all others.
    pub fn marks(&self, total: u64) -> Marks {
        Marks {
            reserve: self
                .reserve_bytes
                .unwrap_or_else(|| DEFAULT_RESERVE_BYTES.min(total / 100 * DEFAULT_RESERVE_PERCENT)),
            critical: CRITICAL_FREE_BYTES.min(total / 16),
            full: FULL_FREE_BYTES.min(total / 64),
            ballast: self
                .ballast_bytes
                .unwrap_or_else(|| DEFAULT_BALLAST_BYTES.min(total / MAX_BALLAST_DISK_SHARE)),
        }
    }
}

/// What to do with the ballast.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ballast {
    Keep,
    Make(u64),
    Drop,
}

/// `present` is the size of the ballast that is there. It is made only where it leaves more than the
/// reserve and twice the critical mark, so that making it never makes a disk short, nor is it dropped at once.
pub fn ballast(settings: &SpaceSettings, disks: &[Disk], present: u64) -> Ballast {
    let Some(home) = disks.first() else { return Ballast::Keep };
    let wanted = settings.marks(home.total).ballast;
    let critical = disks.iter().any(|disk| disk.free < settings.marks(disk.total).critical);
    if present > 0 && (critical || wanted == 0) {
        return Ballast::Drop;
    }
    let marks = settings.marks(home.total);
    let afterwards = marks.reserve.max(2 * marks.critical);
    // What is there is given back before it is made anew.
    let room = home.free.saturating_add(present);
    if present != wanted && !critical && room >= afterwards.saturating_add(wanted) {
        return Ballast::Make(wanted);
    }
    Ballast::Keep
}

/// The disk that is worst off, with its marks.
pub fn worst(settings: &SpaceSettings, disks: &[Disk]) -> Option<(Disk, Marks)> {
    let all = disks.iter().map(|disk| (*disk, settings.marks(disk.total)));
    all.min_by_key(|(disk, marks)| i128::from(disk.free) - i128::from(marks.reserve))
}

pub fn is_full(settings: &SpaceSettings, disks: &[Disk]) -> bool {
    disks.iter().any(|disk| disk.free < settings.marks(disk.total).full)
}

#[cfg(test)]
mod tests {
    use dfs_types::limits::{GIB, MIB};

    use super::*;

    #[test]
    fn the_marks_are_what_is_set_or_fit_the_disk() {
        let default = SpaceSettings::default();
        let large = default.marks(1000 * GIB);
        assert_eq!((large.reserve, large.ballast), (GIB, 64 * MIB));
        let small = default.marks(256 * MIB);
        assert_eq!(small.ballast, 16 * MIB);
        assert_eq!(default.marks(10 * GIB).reserve, 10 * GIB / 100 * 2);
        for marks in [large, small] {
            assert!(marks.full < marks.critical && marks.full < marks.ballast, "{marks:?}");
        }
        let set = SpaceSettings { reserve_bytes: Some(0), ballast_bytes: Some(5) }.marks(GIB);
        assert_eq!((set.reserve, set.ballast), (0, 5));
    }

    #[test]
    fn the_ballast_goes_when_it_is_critical_and_comes_back_with_room() {
        let set = |ballast| SpaceSettings { reserve_bytes: Some(100 * MIB), ballast_bytes: Some(ballast) };
        let settings = set(64 * MIB);
        let disk = |free| Disk { free: free * MIB, total: 10 * GIB };
        let case = |disks: &[Disk], present: u64| ballast(&settings, disks, present * MIB);
        assert_eq!(case(&[disk(1000)], 0), Ballast::Make(64 * MIB));
        assert_eq!(case(&[disk(1000)], 64), Ballast::Keep);
        // A torn one, or another size was set.
        assert_eq!(case(&[disk(1000)], 3), Ballast::Make(64 * MIB));
        // Below the reserve it stays: what is refused then is enough.
        assert_eq!(case(&[disk(99)], 64), Ballast::Keep);
        assert_eq!(case(&[disk(31)], 64), Ballast::Drop);
        assert_eq!(case(&[disk(31)], 0), Ballast::Keep);
        // It comes back only where it does not eat the reserve.
        assert_eq!(case(&[disk(163)], 0), Ballast::Keep);
        assert_eq!(case(&[disk(164)], 0), Ballast::Make(64 * MIB));
        // Another file system of this server that is full: whatever helps.
        assert_eq!(case(&[disk(1000), disk(1)], 64), Ballast::Drop);
        assert_eq!(case(&[disk(1000), disk(1)], 0), Ballast::Keep);
        assert_eq!(ballast(&set(0), &[disk(1000)], MIB), Ballast::Drop);
        assert_eq!(ballast(&set(0), &[disk(1000)], 0), Ballast::Keep);
    }

    #[test]
    fn the_worst_disk_speaks_for_all() {
        let settings = SpaceSettings { reserve_bytes: Some(MIB), ballast_bytes: None };
        let disks = [Disk { free: 50 * MIB, total: GIB }, Disk { free: 3, total: GIB }];
        assert_eq!(worst(&settings, &disks).unwrap().0, disks[1]);
        assert!(is_full(&settings, &disks) && !is_full(&settings, &disks[..1]));
        assert_eq!(worst(&settings, &[]), None);
    }
}
