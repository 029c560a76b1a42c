//! Test content that needs no copy to be checked: a stream of pseudo-random bytes from a seed.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

const STEP: usize = 1 << 20;

/// The stream that belongs to (seed, label): the same bytes on every machine.
pub fn stream(seed: u64, label: &str) -> blake3::OutputReader {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_be_bytes());
    hasher.update(label.as_bytes());
    hasher.finalize_xof()
}

/// The first `length` bytes of the stream.
pub fn bytes(seed: u64, label: &str, length: usize) -> Vec<u8> {
    let mut content = vec![0; length];
    stream(seed, label).fill(&mut content);
    content
}

/// A number below `bound` that belongs to (seed, label).
pub fn number(seed: u64, label: &str, bound: u64) -> u64 {
    let mut raw = [0u8; 8];
    stream(seed, label).fill(&mut raw);
    u64::from_be_bytes(raw) % bound.max(1)
}

/// Writes `length` bytes of the stream to a new file.
pub fn write_file(path: &Path, seed: u64, label: &str, length: u64) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut source = stream(seed, label);
    let mut buffer = vec![0; STEP];
    let mut left = length;
    while left > 0 {
        let take = left.min(STEP as u64) as usize;
        source.fill(&mut buffer[..take]);
        file.write_all(&buffer[..take])?;
        left -= take as u64;
    }
    Ok(())
}

/// Checks that a file holds exactly the first `length` bytes of the stream.
pub fn check_file(path: &Path, seed: u64, label: &str, length: u64) -> Result<()> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    check_reader(file, seed, label, length).with_context(|| path.display().to_string())
}

/// Checks that a reader gives exactly the first `length` bytes of the stream.
pub fn check_reader(mut reader: impl Read, seed: u64, label: &str, length: u64) -> Result<()> {
    let mut source = stream(seed, label);
    let (mut wanted, mut got) = (vec![0; STEP], vec![0; STEP]);
    let mut offset = 0u64;
    while offset < length {
        let take = (length - offset).min(STEP as u64) as usize;
        source.fill(&mut wanted[..take]);
        reader.read_exact(&mut got[..take]).with_context(|| format!("short content at byte {offset}"))?;
        ensure!(wanted[..take] == got[..take], "wrong bytes in the MiB at byte {offset}");
        offset += take as u64;
    }
    ensure!(reader.read(&mut got)? == 0, "content goes on behind byte {length}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_short_or_long_content_is_found() {
        let good = bytes(7, "a", 3_000_000);
        assert!(check_reader(&good[..], 7, "a", 3_000_000).is_ok());
        assert!(check_reader(&good[..], 7, "b", 3_000_000).is_err());
        assert!(check_reader(&good[..2_999_999], 7, "a", 3_000_000).is_err());
        assert!(check_reader(&good[..], 7, "a", 2_999_999).is_err());
        let mut flipped = good.clone();
        flipped[2_500_000] ^= 1;
        assert!(check_reader(&flipped[..], 7, "a", 3_000_000).is_err());
    }
}
