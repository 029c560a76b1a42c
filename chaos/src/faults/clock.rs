//! A wall clock that jumps under one server, while monotonic time goes on: libfaketime.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::needs;

const LIBRARY: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

pub struct WallClock {
    library: PathBuf,
    offset: PathBuf,
}

impl WallClock {
    /// Right, until told otherwise.
    pub fn new(folder: &Path) -> Result<Self> {
        let clock = Self { library: needs::file(LIBRARY, "libfaketime")?, offset: folder.join("clock") };
        clock.jump(0)?;
        Ok(clock)
    }

    /// The environment of a server that is to go by this clock. Its monotonic time is the machine's: a
    /// frozen one is no fault that machines have.
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.offset.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Now, so many seconds from the machine's clock.
    pub fn jump(&self, seconds: i64) -> Result<()> {
        let new = self.offset.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n"))?;
        Ok(std::fs::rename(new, &self.offset)?)
    }
}
