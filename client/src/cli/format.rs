//! Values as people read them.

use std::time::Duration;

use dfs_types::ids::hex;

/// `2026-11-21T10:20:30Z`; a dash for 0.
pub(crate) fn time(unix_ms: u64) -> String {
    if unix_ms == 0 {
        return "-".to_owned();
    }
    let seconds = unix_ms / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// The proleptic Gregorian date of a day since 1970, counted in years that begin in March so that the
/// leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let from_era = days + 719_468;
    let (era, of_era) = (from_era / 146_097, from_era % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// A 16-byte id as a UUID; any other length as hex.
pub(crate) fn id(bytes: &[u8]) -> String {
    match uuid::Uuid::from_slice(bytes) {
        Ok(id) => id.hyphenated().to_string(),
        Err(_) => hex(bytes),
    }
}

/// `4.00 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// `37%`; a dash of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.0}%", part as f64 / whole as f64 * 100.0) }
}

/// `123.4 MB/s`, decimal as disks and networks are sold.
pub(crate) fn rate(bytes: u64, time: Duration) -> String {
    format!("{:.1} MB/s", megabytes_per_second(bytes, time))
}

pub(crate) fn megabytes_per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64().max(1e-9)
}

/// `24h`, `7d`, `90m`, `30s`, `500ms`, or a count of seconds; in milliseconds.
pub(crate) fn parse_keep(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "" | "s" => 1000,
        "ms" => 1,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("write a number with ms, s, m, h or d, such as 24h".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "write a number with a unit, such as 24h".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "that is too long".to_owned())
}

/// A byte count with an optional K, M, G or T (powers of 1,024).
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let trimmed = text.trim_end_matches("iB").trim_end_matches('B');
    let (number, factor) = match trimmed.as_bytes().last() {
        Some(b'K' | b'k') => (&trimmed[..trimmed.len() - 1], 1 << 10),
        Some(b'M' | b'm') => (&trimmed[..trimmed.len() - 1], 1 << 20),
        Some(b'G' | b'g') => (&trimmed[..trimmed.len() - 1], 1 << 30),
        Some(b'T' | b't') => (&trimmed[..trimmed.len() - 1], 1u64 << 40),
        _ => (trimmed, 1),
    };
    let number: u64 = number.parse().map_err(|_| "write a size such as 4096, 64K, 256M or 1G".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "that is too large".to_owned())
}

/// A name for a terminal: control characters could move its cursor.
pub(crate) fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(time(1), "1970-01-01T00:00:00Z");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(time(1_795_256_430_123), "2026-11-21T10:20:30Z");
    }

    #[test]
    fn lengths_of_time_and_bytes() {
        assert_eq!(parse_keep("24h"), Ok(86_400_000));
        assert_eq!(parse_keep("0"), Ok(0));
        assert!(parse_keep("1w").is_err() && parse_keep("h").is_err());
        assert_eq!(parse_size("64K"), Ok(65_536));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert!(parse_size("x").is_err() && parse_size("99999999999T").is_err());
    }
}
