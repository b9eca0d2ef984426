//! Build: compresses what is compiled in as text, and tells the crate which compiler builds it.
//!
//! As they are, the price table would be most of a megabyte of pages that are read once, at start, and the configuration's schema
//! an eighth of one; what describes the operator's API is read by hardly anybody. The revision is not looked up
//! here: a build must not depend on a `.git` that may be absent or newer. Whoever builds a release sets
//! `BUILD_REVISION`. (Not `WEIR_…`: those are knobs, and `cargo run` hands such variables on.)

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use flate2::Compression;
use flate2::read::GzEncoder;

/// Texts, and what each is called when it is compressed.
const TEXTS: [(&str, &str); 3] = [
    ("src/price/prices.json", "prices.json.gz"),
    ("docs/openapi.json", "openapi.json.gz"),
    ("docs/weir.schema.json", "weir.schema.json.gz"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    for (text, compressed) in TEXTS {
        compress(text, compressed)?;
    }
    name_the_compiler();
    Ok(())
}

fn compress(text: &str, compressed: &str) -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={text}");
    let mut bytes = GzEncoder::new(fs::File::open(text)?, Compression::best());
    let mut target = fs::File::create(Path::new(&env::var("OUT_DIR")?).join(compressed))?;
    std::io::copy(&mut bytes, &mut target)?;
    Ok(())
}

fn name_the_compiler() {
    println!("cargo:rerun-if-env-changed=RUSTC");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version =
        Command::new(rustc).arg("--version").output().ok().and_then(|output| String::from_utf8(output.stdout).ok());
    println!("cargo:rustc-env=BUILD_RUSTC={}", version.as_deref().map_or("unknown rustc", str::trim));
}
