//! What the sources include at compile time must be in the context that images are built from.
//!
//! The list of exclusions once named all documents, while the programs carry one (`dfsctl explain`) and the REST
//! interface another: an image could be built from programs that were there already, never from the sources.

use std::path::{Component, Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("invariant: the crate is in the workspace")
        .to_owned()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "bin" {
            rust_files(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// The path without `.` and `..`, relative to the root.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain.strip_prefix(root()).unwrap_or(&plain).to_owned()
}

/// Every file that some source includes, with the source.
fn included() -> Vec<(PathBuf, PathBuf)> {
    let (mut sources, mut all) = (Vec::new(), Vec::new());
    rust_files(&root(), &mut sources);
    for source in sources {
        let text = std::fs::read_to_string(&source).unwrap();
        for word in ["include_str!(\"", "include_bytes!(\"", "include!(\""] {
            for (at, _) in text.match_indices(word) {
                let Some((name, _)) = text[at + word.len()..].split_once('"') else { continue };
                let file = source.parent().unwrap().join(name);
                if file.is_file() {
                    all.push((plain(&file), plain(&source)));
                }
            }
        }
    }
    all
}

/// Whether a line of `.dockerignore` takes the file out. The list keeps to plain names and `**/*.ending`.
fn excludes(line: &str, file: &Path) -> bool {
    assert!(!line.starts_with('!'), "{line}: exceptions are not understood here");
    match line.strip_prefix("**/*") {
        Some(ending) => file.to_str().unwrap().ends_with(ending),
        None => {
            assert!(!line.contains(['*', '?', '[']), "{line}: this pattern is not understood here");
            file.starts_with(line)
        }
    }
}

#[test]
fn images_are_built_from_all_that_the_sources_include() {
    assert!(excludes("**/*.md", Path::new("a/b.md")) && excludes("docs", Path::new("docs/a")));
    assert!(!excludes("docs", Path::new("documents/a")));
    let list = std::fs::read_to_string(root().join(".dockerignore")).unwrap();
    let lines: Vec<&str> =
        list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let included = included();
    assert!(included.iter().any(|(file, _)| file == Path::new("docs/troubleshooting.md")), "{included:?}");
    for (file, source) in included {
        for line in &lines {
            let (file, source) = (file.display(), source.display());
            assert!(
                !excludes(line, file.to_string().as_ref()),
                "{source} includes {file}, which {line:?} leaves out"
            );
        }
    }
}
