//! Build: compresses the price table before it is compiled in. As text it would be most of a megabyte of pages that
//! are read once, at start.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use flate2::Compression;
use flate2::read::GzEncoder;

const TABLE: &str = "src/price/prices.json";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={TABLE}");
    let mut compressed = GzEncoder::new(fs::File::open(TABLE)?, Compression::best());
    let mut target = fs::File::create(Path::new(&env::var("OUT_DIR")?).join("prices.json.gz"))?;
    std::io::copy(&mut compressed, &mut target)?;
    Ok(())
}
