//! Tells the program which compiler builds it, for `gossipmonger_build_info`.

use std::{env, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = Command::new(rustc).arg("--version").output().ok();
    let told = told.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    // "rustc 1.90.0 (1159e78c4 2025-09-14)"
    let version = told.split_whitespace().nth(1).unwrap_or("unknown");
    println!("cargo::rustc-env=BUILT_BY_RUSTC={version}");
}
