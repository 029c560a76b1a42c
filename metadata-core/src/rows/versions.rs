//! Versions of a file, newest first.

use dfs_proto::v1;
use dfs_types::FileId;

use super::Part;
use super::codec::row;

row!(
    /// (file, inverted version).
    Versions: Version, (FileId, Newest) => v1::VersionRow);

/// A number whose byte order is reversed: the highest comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Newest(pub u64);

impl Part for Newest {
    fn write(&self, out: &mut Vec<u8>) {
        (!self.0).write(out);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        u64::read(bytes).map(|inverted| Self(!inverted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;

    #[test]
    fn rows() {
        let row =
            v1::VersionRow { size: 9, chunks: 1, manifest_id: vec![3; 16].into(), ..Default::default() };
        golden::<Versions>(
            (FileId([2; 16]), Newest(65536)),
            row,
            "3202020202020202020202020202020202fffffffffffeffff",
            "01080910011a1003030303030303030303030303030303",
        );
    }

    #[test]
    fn newest_first() {
        let key = |n| crate::rows::key_bytes::<Versions>(&(FileId([0; 16]), Newest(n)));
        assert!(key(2) < key(1));
    }
}
