//! Build: compresses the price table before it is compiled in, and tells the crate which compiler builds it.
//!
//! As text the table would be most of a megabyte of pages that are read once, at start. The revision is not looked up
//! here: a build must not depend on a `.git` that may be absent or newer. Whoever builds a release sets
//! `BUILD_REVISION`. (Not `WEIR_…`: those are knobs, and `cargo run` hands such variables on.)

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use flate2::Compression;
use flate2::read::GzEncoder;

const TABLE: &str = "src/price/prices.json";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    compress_prices()?;
    name_the_compiler();
    Ok(())
}

fn compress_prices() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={TABLE}");
    let mut compressed = GzEncoder::new(fs::File::open(TABLE)?, Compression::best());
    let mut target = fs::File::create(Path::new(&env::var("OUT_DIR")?).join("prices.json.gz"))?;
    std::io::copy(&mut compressed, &mut target)?;
    Ok(())
}

fn name_the_compiler() {
    println!("cargo:rerun-if-env-changed=RUSTC");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version =
        Command::new(rustc).arg("--version").output().ok().and_then(|output| String::from_utf8(output.stdout).ok());
    println!("cargo:rustc-env=BUILD_RUSTC={}", version.as_deref().map_or("unknown rustc", str::trim));
}
