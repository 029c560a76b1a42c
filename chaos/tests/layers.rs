//! Holds the crates to their layers: a crate depends only downward, never sideways, and the crates that
//! decide have nothing in them that waits, listens or touches a disk. A new edge is a decision: it is
//! made here first, and ARCHITECTURE.md says why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Crate, layer, and the crates of ours it may name in its manifest (tests included).
const EDGES: &[(&str, u32, &[&str])] = &[
    ("dfs-types", 1, &[]),
    // Between 1 and 2: parts may use its messages.
    ("dfs-proto", 1, &["dfs-types"]),
    ("metadata-core", 2, &["dfs-types", "dfs-proto"]),
    ("chunk-format", 2, &["dfs-types"]),
    ("transport", 2, &["dfs-types"]),
    // Below what sends traces: servers by server-kit, dfsctl by itself.
    ("traces", 1, &["dfs-types"]),
    ("server-kit", 2, &["dfs-types", "traces"]),
    (
        "metadata-server",
        3,
        &["dfs-types", "dfs-proto", "metadata-core", "chunk-format", "transport", "server-kit", "traces"],
    ),
    ("chunk-server", 3, &["dfs-types", "dfs-proto", "chunk-format", "transport", "server-kit"]),
    ("dfs-client", 3, &["dfs-types", "dfs-proto", "chunk-format", "transport", "traces"]),
    // Programs over the SDK, as a user's would be.
    ("dfs-object-store", 4, &["dfs-types", "dfs-client"]),
    // metadata-core and metadata-server: to read a stopped server's own state.
    (
        "chaos",
        5,
        &[
            "dfs-types",
            "dfs-proto",
            "chunk-format",
            "metadata-core",
            "metadata-server",
            "dfs-client",
            "dfs-object-store",
        ],
    ),
];

/// Crates that decide: pure and synchronous.
const PURE: &[&str] = &["dfs-types", "metadata-core", "chunk-format"];

/// What a pure crate must not name in its manifest.
const IMPURE_CRATES: &[&str] = &[
    "tokio",
    "tokio-util",
    "tokio-stream",
    "futures",
    "async-trait",
    "async-stream",
    "rocksdb",
    "openraft",
    "tonic",
    "axum",
    "hyper",
    "rustls",
    "rustix",
    "libc",
    "tracing-subscriber",
    "metrics",
];

/// What the sources of a pure crate must not name, outside tests.
const IMPURE_PATHS: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "SystemTime",
    "Instant",
    "async fn",
    ".await",
];

/// The one file of a pure crate that may name clocks.
const DOORS: &str = "types/src/doors.rs";

/// Names that gather whatever has no better place.
const VAGUE: &[&str] = &["common", "util", "utils", "helpers", "misc", "shared"];

struct Manifest {
    folder: PathBuf,
    name: String,
    dependencies: BTreeSet<String>,
    build_or_test: BTreeSet<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace is there")
}

fn manifests() -> Vec<Manifest> {
    let root = root();
    let workspace: toml::Table = read(&root.join("Cargo.toml"));
    let members = workspace["workspace"]["members"].as_array().expect("the workspace lists its members");
    members
        .iter()
        .map(|member| {
            let folder = root.join(member.as_str().expect("a member is a path"));
            let table: toml::Table = read(&folder.join("Cargo.toml"));
            Manifest {
                name: table["package"]["name"].as_str().expect("a package has a name").to_owned(),
                dependencies: names(&table, &["dependencies"]),
                build_or_test: names(&table, &["dev-dependencies", "build-dependencies"]),
                folder,
            }
        })
        .collect()
}

fn read(path: &Path) -> toml::Table {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Dependencies by the name of their package, those of targets included.
fn names(manifest: &toml::Table, kinds: &[&str]) -> BTreeSet<String> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let per_target = targets.into_iter().flat_map(|all| all.values().filter_map(toml::Value::as_table));
    let mut found = BTreeSet::new();
    for table in std::iter::once(manifest).chain(per_target) {
        for kind in kinds {
            for (name, what) in table.get(*kind).and_then(toml::Value::as_table).into_iter().flatten() {
                let package = what.get("package").and_then(toml::Value::as_str).unwrap_or(name);
                found.insert(package.to_owned());
            }
        }
    }
    found
}

fn allowed() -> BTreeMap<&'static str, (u32, &'static [&'static str])> {
    EDGES.iter().map(|(name, layer, edges)| (*name, (*layer, *edges))).collect()
}

#[test]
fn every_edge_between_our_crates_is_in_the_table() {
    let allowed = allowed();
    let mut wrong = Vec::new();
    for manifest in manifests() {
        let Some((_, edges)) = allowed.get(manifest.name.as_str()) else {
            wrong.push(format!("{} is in no layer: give it a row", manifest.name));
            continue;
        };
        for name in manifest.dependencies.union(&manifest.build_or_test) {
            if allowed.contains_key(name.as_str()) && !edges.contains(&name.as_str()) {
                wrong.push(format!("{} must not depend on {name}", manifest.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_itself_only_goes_downward() {
    let allowed = allowed();
    for (name, (layer, edges)) in &allowed {
        for edge in *edges {
            let (below, _) =
                allowed.get(edge).unwrap_or_else(|| panic!("{name} names no crate of ours: {edge}"));
            let same_layer = [("dfs-proto", "dfs-types"), ("traces", "dfs-types")].contains(&(*name, *edge));
            assert!(below < layer || same_layer, "{name} -> {edge} goes sideways or up");
        }
    }
    let members: BTreeSet<String> = manifests().into_iter().map(|manifest| manifest.name).collect();
    for name in allowed.keys() {
        assert!(members.contains(*name), "{name} has a row and is no member");
    }
}

#[test]
fn crates_that_decide_are_pure() {
    let mut wrong = Vec::new();
    for manifest in manifests().iter().filter(|manifest| PURE.contains(&manifest.name.as_str())) {
        for name in IMPURE_CRATES.iter().filter(|name| manifest.dependencies.contains(**name)) {
            wrong.push(format!("{} depends on {name}", manifest.name));
        }
        for (file, line, text) in lines_outside_tests(&manifest.folder.join("src")) {
            if file.ends_with(DOORS) {
                continue;
            }
            for path in IMPURE_PATHS.iter().filter(|path| text.contains(**path)) {
                wrong.push(format!("{}:{line} names {path}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_crate_or_module_is_called_vaguely() {
    for manifest in manifests() {
        assert!(!VAGUE.contains(&manifest.name.as_str()), "{} says nothing", manifest.name);
        for file in sources(&manifest.folder.join("src")) {
            let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            assert!(!VAGUE.contains(&stem), "{} says nothing", file.display());
        }
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder of sources can be listed").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Lines of code before a file's test module, without comments; files of tests have none.
fn lines_outside_tests(folder: &Path) -> Vec<(PathBuf, usize, String)> {
    let mut lines = Vec::new();
    for file in sources(folder) {
        let is_test = file.components().any(|part| part.as_os_str() == "tests")
            || file.file_stem().is_some_and(|stem| stem == "tests");
        if is_test {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let code = text.lines().enumerate().take_while(|(_, line)| line.trim() != "#[cfg(test)]");
        for (number, line) in code.filter(|(_, line)| !line.trim_start().starts_with("//")) {
            lines.push((file.clone(), number + 1, line.to_owned()));
        }
    }
    lines
}
