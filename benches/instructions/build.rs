//! Passes the compiler's version to the binary, because counts depend on the compiler.

use std::{env, process::Command};

fn main() {
    let compiler = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(compiler).arg("--version").output().ok();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!("cargo:rustc-env=BUILT_BY={}", version.unwrap_or_else(|| "unknown".to_owned()));
    println!("cargo:rerun-if-changed=build.rs");
}
