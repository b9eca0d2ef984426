//! How many instructions each part takes, held against what is committed: unlike time, that hardly differs from run to run,
//! whatever else the machine does.
//!
//! Each part runs under valgrind twice, some times and twice as often: the difference is free of start-up and preparation.
//! What a compiler makes of the code differs from version to version, so counts are kept by version and architecture;
//! without any for the one at hand there is nothing to hold against.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

use crate::parts::PARTS;

/// The committed counts, by compiler and then by part.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/micro/instructions.json");
/// Set to `1`, it has the counts of this compiler written anew, as for other expectations of tests.
const UPDATE: &str = "UPDATE_EXPECT";
/// By how much a count may differ, in percent: hashes are seeded by chance, and so are the lengths of their chains.
const TOLERANCE_PERCENT: f64 = 4.0;
/// What a count may differ by in any case: a few cache lines of bookkeeping.
const TOLERANCE_INSTRUCTIONS: f64 = 40.0;
/// How often a part runs.
const TIMES: u32 = 200;

#[derive(Default, Deserialize, Serialize)]
struct Expected(BTreeMap<String, BTreeMap<String, f64>>);

/// Does one part so many times: what valgrind watches.
pub(crate) fn repeat(name: &str, times: u32) {
    let part = PARTS.iter().find(|part| part.name == name).expect("a part of this name");
    let mut once = (part.prepare)();
    (0..times).for_each(|_| once());
}

/// Counts every part, and says which take more than they should, or less than is written.
#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
pub(crate) fn hold() -> Result<ExitCode, Box<dyn std::error::Error>> {
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("instructions: skipped: valgrind is not installed (Debian: apt-get install valgrind)");
        return Ok(ExitCode::SUCCESS);
    }
    let compiler = compiler()?;
    let mut expected: Expected = serde_json::from_str(&fs::read_to_string(FILE)?)?;
    let is_update = std::env::var_os(UPDATE).is_some_and(|value| value == "1");
    let Some(known) = expected.0.get(&compiler).cloned().or_else(|| is_update.then(BTreeMap::new)) else {
        println!("instructions: skipped: {FILE} has no counts for {compiler}; make them with {UPDATE}=1");
        return Ok(ExitCode::SUCCESS);
    };
    let mut counts = BTreeMap::new();
    let mut is_fault = false;
    for part in PARTS.iter().filter(|part| part.is_steady) {
        let count = count(part.name)?;
        let line = match known.get(part.name) {
            None => {
                is_fault = true;
                "not committed".to_owned()
            }
            Some(known) => {
                let differs = (count - known).abs() > (known * TOLERANCE_PERCENT / 100.0).max(TOLERANCE_INSTRUCTIONS);
                is_fault |= differs;
                let verdict = if !differs {
                    ""
                } else if count > *known {
                    "  MORE"
                } else {
                    "  LESS"
                };
                format!("{:+6.1} % of {known:.0}{verdict}", (count - known) / known.max(1.0) * 100.0)
            }
        };
        println!("{:<36} {count:>10.0}  {line}", part.name);
        counts.insert(part.name.to_owned(), count.round());
    }
    if is_update {
        expected.0.insert(compiler, counts);
        fs::write(FILE, serde_json::to_string_pretty(&expected)? + "\n")?;
    } else if is_fault {
        println!("instructions: not as in {FILE}: mend it, or say why it is right and write it with {UPDATE}=1");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Instructions of a part, done once.
fn count(name: &str) -> Result<f64, Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let once = watched(name, TIMES, dir.path())?;
    let twice = watched(name, 2 * TIMES, dir.path())?;
    Ok((twice - once) / f64::from(TIMES))
}

fn watched(name: &str, times: u32, dir: &Path) -> Result<f64, Box<dyn std::error::Error>> {
    let file = dir.join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--callgrind-out-file={}", file.display())])
        .arg(std::env::current_exe()?)
        .args(["repeat", name, &times.to_string()])
        .output()?;
    if !output.status.success() {
        return Err(format!("valgrind failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = fs::read_to_string(file)?;
    let total = text.lines().find_map(|line| line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: ")));
    Ok(total.ok_or("callgrind wrote no total")?.trim().parse()?)
}

/// The compiler that made this, and for what.
fn compiler() -> Result<String, Box<dyn std::error::Error>> {
    let output = Command::new("rustc").arg("--version").output()?;
    let text = String::from_utf8(output.stdout)?;
    let version = text.split_whitespace().nth(1).ok_or("rustc says no version")?;
    Ok(format!("rustc {version}, {}", std::env::consts::ARCH))
}
