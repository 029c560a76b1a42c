//! Tells the crate which compiler and profile build it. The commit comes from elsewhere: see `src/build.rs`.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=RUSTC");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let printed = Command::new(rustc).arg("--version").output().ok();
    let printed = printed.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    // `rustc 1.95.0 (hash date)`: the number is enough.
    let version = printed.split_whitespace().nth(1).unwrap_or("unknown");
    println!("cargo:rustc-env=DFS_RUSTC_VERSION={version}");
    let profile = std::env::var("PROFILE").unwrap_or_else(|_| "unknown".to_owned());
    println!("cargo:rustc-env=DFS_BUILD_PROFILE={profile}");
}
