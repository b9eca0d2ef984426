//! Fuzz: every target of `fuzz/` on stable, on every run: what was kept of earlier finds, the seeds, and for a fixed time
//! what chance makes of them. `make fuzz` looks further, guided by coverage.
//!
//! No input makes a target panic, hold much more than it was given, or take long.

#[path = "fixture/random.rs"]
mod random;
#[expect(unreachable_pub, reason = "cargo-fuzz takes it for a crate of its own")]
#[path = "../fuzz/lib.rs"]
mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use allocation_counter::measure;
use tokio::time::Instant;

use crate::random::Random;
use crate::targets::{TARGETS, Target};

/// How long chance has for each target.
const FOR_CHANCE: Duration = Duration::from_millis(1000);
/// Most inputs that chance makes of each: the same ones every time, so that a machine that is faster than another has no
/// finds of its own.
const MOST_CHANCES: usize = 1000;
/// The largest input that chance makes.
const MOST_BYTES: usize = 16 << 10;
/// What a target may hold at once, whatever it is given: seeds have up to 100 KiB, and a few are read several times.
const MOST_HELD: u64 = 64 << 20;
/// What one input may take, in a build without optimisation beside whatever else the machine does.
const LONGEST: Duration = Duration::from_secs(20);

/// Inputs of one target.
type Corpus = Vec<Vec<u8>>;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folders below `at` that are named like targets, and the inputs in them.
fn corpora(at: &Path) -> BTreeMap<String, Corpus> {
    let folders = fs::read_dir(at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
    let folders = folders.map(|folder| folder.expect("a folder").path()).filter(|path| path.is_dir());
    let inputs = |folder: &Path| {
        let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
        let mut files: Vec<PathBuf> = files.collect();
        files.sort();
        files.iter().map(|file| fs::read(file).expect("an input")).collect()
    };
    let name = |folder: &Path| folder.file_name().expect("a name").to_str().expect("text").to_owned();
    folders.map(|folder| (name(&folder), inputs(&folder))).collect()
}

/// The seeds, made as `make fuzz` makes them.
fn seeds() -> BTreeMap<String, Corpus> {
    let at = tempfile::tempdir().expect("a directory");
    let script = repository().join("scripts/fuzz_seeds.py");
    let made = Command::new("python3").arg(script).arg(at.path()).status();
    assert!(made.expect("python3 is installed").success(), "scripts/fuzz_seeds.py makes seeds");
    corpora(at.path())
}

/// Gives `target` an input, and checks what has to hold of any.
fn give(name: &str, target: Target, input: &[u8]) {
    let began = Instant::now();
    let mut panicked = false;
    let held = measure(|| panicked = catch_unwind(AssertUnwindSafe(|| target(input))).is_err());
    let took = began.elapsed();
    let is_fine = !panicked && held.bytes_max <= MOST_HELD && took <= LONGEST;
    if !is_fine {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
        fs::write(&kept, input).expect("the input can be kept");
        panic!("{name}: panicked: {panicked}, held {}, took {took:?}: {}", held.bytes_max, kept.display());
    }
}

/// Does this for every target, on as many threads as the machine has for it.
fn each_target(run: impl Fn(&'static str, Target) + Sync) {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, |threads| threads.get().min(8));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&(name, target)) = TARGETS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if catch_unwind(AssertUnwindSafe(|| run(name, target))).is_err() {
                        failed.lock().expect("nobody panics in it").push(name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics in it");
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn every_target_has_seeds() {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert!(names.is_sorted_by(|one, next| one < next), "targets stand in their order, each once");
    let seeds = seeds();
    for name in &names {
        assert!(seeds.get(*name).is_some_and(|seeds| !seeds.is_empty()), "scripts/fuzz_seeds.py has a seed for {name}");
    }
    assert!(seeds.keys().all(|name| names.contains(&&**name)), "every seed is for a target");
}

#[test]
fn what_was_kept_breaks_nothing_any_more() {
    let kept = corpora(&repository().join("fuzz/corpus-kept"));
    assert!(kept.keys().all(|name| TARGETS.iter().any(|(known, _)| known == name)), "every input is for a target");
    let bytes: usize = kept.values().flatten().map(Vec::len).sum();
    assert!(bytes < 1 << 20, "what is kept stays small: {bytes}");
    each_target(|name, target| kept.get(name).into_iter().flatten().for_each(|input| give(name, target, input)));
}

#[test]
fn neither_seeds_nor_what_chance_makes_of_them_break_anything() {
    let (kept, seeds) = (corpora(&repository().join("fuzz/corpus-kept")), seeds());
    each_target(|name, target| {
        let corpus: Corpus = [&kept, &seeds].iter().filter_map(|all| all.get(name)).flatten().cloned().collect();
        for input in &corpus {
            give(name, target, input);
        }
        let mut random = Random(name.bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into())));
        let began = Instant::now();
        let has_time = |_: &usize| began.elapsed() < FOR_CHANCE;
        for _ in (0..MOST_CHANCES).take_while(has_time) {
            let input = mutated(&mut random, &corpus);
            give(name, target, &input);
        }
    });
}

/// One of the inputs, changed in one to four places.
fn mutated(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    input.truncate(MOST_BYTES);
    for _ in 0..=random.below(4) {
        change(random, &mut input, corpus);
    }
    input.truncate(MOST_BYTES);
    input
}

fn change(random: &mut Random, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    /// What parsers tend to trip over.
    const ODD: [&[u8]; 20] = [
        b"\0",
        b"\xff\xfe",
        b"\r\n\r\n",
        b"\n",
        b"\"",
        b"\\",
        b"\\ud800",
        b"{\"a\":",
        b"[[[[[[[[",
        b"]",
        b"}",
        b"18446744073709551616",
        b"-9223372036854775808",
        b"1e999",
        b"-0",
        b"/../",
        b"%2e%2e/",
        b"\xf0\x9f\x98\x80",
        b": ",
        b"null",
    ];
    let at = random.below(input.len() + 1);
    let end = (at + random.below(64)).min(input.len());
    match random.below(8) {
        0 => input.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << random.below(8)),
        1 => input.get_mut(at).into_iter().for_each(|byte| *byte = random.next().to_le_bytes()[0]),
        2 => drop(input.drain(at..end)),
        3 => {
            let again = input[at..end].to_vec();
            drop(input.splice(at..at, again));
        }
        4 | 5 => drop(input.splice(at..at, ODD[random.below(ODD.len())].iter().copied())),
        6 => {
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len() + 1);
            let to = (from + random.below(256)).min(other.len());
            drop(input.splice(at..end, other[from..to].iter().copied()));
        }
        _ => input.truncate(at),
    }
}
