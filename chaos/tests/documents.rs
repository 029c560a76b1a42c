//! Holds ARCHITECTURE.md to the sources: every file, folder, function and test it names is there. Whoever moves
//! or renames one mends the document in the same change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const ENDINGS: &[&str] = &[".rs", ".proto", ".toml", ".sh", ".py", ".md", ".yml", ".c"];
/// Folders of a server's data directory, and what is made by a build.
const NOT_IN_THE_TREE: &[&str] = &["damaged/"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace is there")
}

/// Path below the root -> text, of every text file that is no product of a build; folders end in a slash.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("a folder of the checkout can be listed").path();
            let name = path.strip_prefix(root).expect("below the root").display().to_string();
            if name.starts_with('.') || name == "target" || name == "bin" {
                continue;
            }
            if path.is_dir() {
                found.insert(format!("{name}/"), String::new());
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                found.insert(name, text);
            }
        }
    }
    found
}

/// What stands in backticks outside of code blocks, with its line.
fn quoted(document: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut line = 1;
    for (number, part) in document.split('`').enumerate() {
        if number % 2 == 1 {
            found.push((line, part.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
        line += part.matches('\n').count();
    }
    found
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn has_word(text: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(part_of_word) && !text[at + word.len()..].starts_with(part_of_word)
    })
}

/// Why a quotation is wrong, if it names something that is not there.
fn missing(tree: &BTreeMap<String, String>, sources: &str, quotation: &str) -> Option<String> {
    let (path, inside) = match quotation.split_once("::") {
        Some((path, name)) if ENDINGS.iter().any(|ending| path.ends_with(ending)) => (path, Some(name)),
        _ => (quotation, None),
    };
    let is_path = path.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    let is_file = is_path && ENDINGS.iter().any(|ending| path.ends_with(ending) && path.len() > ending.len());
    if is_file || (is_path && path.ends_with('/')) {
        // `NAME.rs` stands for a file that the reader is about to write.
        let stem = path.rsplit('/').next().unwrap_or_default().split('.').next().unwrap_or_default();
        if NOT_IN_THE_TREE.contains(&path)
            || (stem.len() > 1
                && stem.chars().all(|c| c.is_ascii_uppercase())
                && is_file
                && path.ends_with(".rs"))
        {
            return None;
        }
        let below = format!("/{path}");
        let mut named = tree.iter().filter(|(name, _)| *name == path || name.ends_with(&below)).peekable();
        if named.peek().is_none() {
            return Some("there is no such file or folder".to_owned());
        }
        let name = inside.filter(|name| is_word(name))?;
        return (!named.any(|(_, text)| has_word(text, name))).then(|| format!("it has no {name}"));
    }
    let words: Vec<&str> = quotation.split("::").collect();
    // A single word may be anything; several underscores make it the name of a test.
    let is_name = words.iter().all(|word| is_word(word));
    if is_name && (words.len() > 1 || quotation.matches('_').count() > 2) {
        let lost = words.iter().find(|word| !has_word(sources, word))?;
        return Some(format!("no source has {lost}"));
    }
    None
}

#[test]
fn what_the_architecture_names_is_there() {
    let root = root();
    let tree = tree(&root);
    let sources: String = tree
        .iter()
        .filter(|(name, _)| name.ends_with(".rs") || name.ends_with(".proto"))
        .map(|(_, text)| text.as_str())
        .collect();
    let document = &tree["ARCHITECTURE.md"];
    assert!(!document.contains("```"), "quotations are told from code by single backticks");
    let quoted = quoted(document);
    let wrong: Vec<String> = quoted
        .iter()
        .filter_map(|(line, text)| {
            Some(format!("line {line}: `{text}`: {}", missing(&tree, &sources, text)?))
        })
        .collect();
    assert!(quoted.len() > 100, "only {} quotations were found", quoted.len());
    assert!(wrong.is_empty(), "ARCHITECTURE.md names what is not there:\n{}", wrong.join("\n"));
}

/// The pictures of docs/architecture.md are of kinds that a reader's program draws, and calls in them exist.
#[test]
fn calls_in_pictures_are_calls() {
    let tree = tree(&root());
    let protos: String =
        tree.iter().filter(|(name, _)| name.ends_with(".proto")).map(|(_, text)| text.as_str()).collect();
    let pictures: Vec<&str> = tree["docs/architecture.md"].split("```mermaid\n").skip(1).collect();
    assert!(pictures.len() >= 8, "{} pictures", pictures.len());
    let mut calls = 0;
    for picture in pictures {
        let (picture, _) = picture.split_once("```").expect("a picture ends");
        assert!(picture.starts_with("flowchart ") || picture.starts_with("sequenceDiagram\n"), "{picture}");
        for message in picture.lines().filter_map(|line| line.split_once("->>")) {
            let mut parts = message.1.split(": ").skip(1);
            if let (Some(call), Some(_)) = (parts.next(), parts.next()) {
                assert!(protos.contains(&format!("  rpc {call}(")), "there is no call {call}");
                calls += 1;
            }
        }
    }
    assert!(calls >= 8, "only {calls} calls were found");
}

/// Documents lead only to files that are there.
#[test]
fn links_between_documents_lead_somewhere() {
    let root = root();
    let mut links = 0;
    // Below src/ are parts of documents that are made elsewhere.
    let whole = |name: &str| name.ends_with(".md") && !name.contains("/src/");
    for (name, text) in tree(&root).iter().filter(|(name, _)| whole(name)) {
        let folder = root.join(name).parent().expect("a file is in a folder").to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let path = link.split('#').next().unwrap_or_default();
            if path.is_empty() || link.contains("://") {
                continue;
            }
            assert!(folder.join(path).exists(), "{name} leads to {link}");
            links += 1;
        }
    }
    assert!(links > 40, "only {links} links were found");
}

/// The check itself: what is there passes, and each kind of what is not is found.
#[test]
fn wrong_names_are_found() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let tree = BTreeMap::from([
        file("a/src/put.rs", "fn send() {} struct Put;"),
        file("a/src/", ""),
        file("a/src/input.rs", ""),
    ]);
    let sources = "fn send() {} struct Put; fn what_is_there_is_found() {}";
    for right in [
        "put.rs",
        "src/put.rs::send",
        "a/src/",
        "Put::send",
        "what_is_there_is_found",
        "make test",
        "ops/NAME.rs",
    ] {
        assert_eq!(missing(&tree, sources, right), None, "{right}");
    }
    for wrong in ["get.rs", "ut.rs", "put.rs::sen", "b/src/", "Put::receive", "what_is_gone_is_told"] {
        assert!(missing(&tree, sources, wrong).is_some(), "{wrong}");
    }
}
