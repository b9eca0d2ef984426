//! Tells the crate which compiler it is built by, for `weir version`.
//!
//! The revision is not looked up here: a build must not depend on a `.git` that may be absent or newer. Whoever builds
//! a release sets `BUILD_REVISION`. (Not `WEIR_…`: those are knobs, and `cargo run` hands such variables on.)

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=RUSTC");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version =
        Command::new(rustc).arg("--version").output().ok().and_then(|output| String::from_utf8(output.stdout).ok());
    println!("cargo:rustc-env=BUILD_RUSTC={}", version.as_deref().map_or("unknown rustc", str::trim));
}
