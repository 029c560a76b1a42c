//! What to do about each error code: the text of docs/troubleshooting.md, carried in the programs, so
//! that a server and `dfsctl` can show the entry that their errors name.

use crate::error::ErrorCode;

/// The whole document, Markdown.
pub const GUIDE: &str = include_str!("../../docs/troubleshooting.md");

/// The entry of a code: from its heading on, up to the next one.
pub fn entry(code: ErrorCode) -> &'static str {
    section(code.as_str()).unwrap_or_default()
}

fn section(word: &str) -> Option<&'static str> {
    let mut rest = GUIDE;
    while let Some(at) = rest.find("\n## ") {
        let start = &rest[at + 1..];
        let end = start[3..].find("\n## ").map_or(start.len(), |next| next + 4);
        let (heading, _) = start.split_once('\n')?;
        if heading[3..].trim() == word {
            return Some(&start[..end]);
        }
        rest = &start[end - 1..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document and the list of codes are held to each other, both ways, and its figures to the code.
    #[test]
    fn every_code_has_an_entry_and_every_entry_a_code() {
        for code in ErrorCode::ALL {
            let entry = section(code.as_str()).unwrap_or_else(|| panic!("{code} has no entry"));
            assert!(entry.starts_with(&format!("## {code}\n")), "{entry}");
            let facts = format!("HTTP {}", code.http_status());
            assert!(entry.contains(&facts), "{code}: no {facts:?} in {entry}");
            let facts = format!("dfsctl exit {}. ", code.exit_code());
            assert!(entry.contains(&facts), "{code}: no {facts:?} in {entry}");
            assert!(entry.contains("\n- "), "{code}: nothing to do");
            assert_eq!(entry.matches("\n## ").count(), 0, "{code}: more than one entry in {entry}");
        }
        let headings: Vec<_> = GUIDE.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        let codes: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(headings, codes, "in the order of the list");
    }
}
