//! Processes of the bench: started on the processor that is theirs, found by the address they announce, measured through
//! `/proc`, killed at the end.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tokio::time::Instant;

use crate::Failure;

/// Names the weir to measure.
const BINARY: &str = "BENCH_WEIR";

/// How long a program may take to start.
const START_WITHIN: Duration = Duration::from_secs(60);

/// Which processors the load (with the upstream) and the proxies run on, as `taskset` takes them.
pub(crate) struct Cores {
    load: Option<String>,
    proxy: Option<String>,
    /// How many there are.
    pub(crate) count: usize,
}

/// How many processors it takes to give a proxy two of them, and load and upstream as many.
pub(crate) const ENOUGH_FOR_TWO: usize = 4;

impl Cores {
    /// The last processor is the proxy's own, and the one before it where there are enough; the others are the load's.
    /// Pins this process to those.
    ///
    /// Where there is one processor, or no `taskset`, nothing is pinned.
    pub(crate) fn found() -> Result<Self, Failure> {
        let all = allowed()?;
        let count = all.len();
        let has_taskset = Command::new("taskset").arg("--version").stdout(Stdio::null()).status().is_ok();
        let for_load = count - if count >= ENOUGH_FOR_TWO { 2 } else { 1 };
        if for_load == 0 || !has_taskset {
            return Ok(Self { load: None, proxy: None, count });
        }
        let load = listed(&all[..for_load]);
        let own = std::process::id().to_string();
        Command::new("taskset").args(["-cp", &load, &own]).stdout(Stdio::null()).status()?;
        Ok(Self { load: Some(load), proxy: Some(listed(&all[count - 1..])), count })
    }

    pub(crate) fn load(&self) -> Option<&str> {
        self.load.as_deref()
    }

    pub(crate) fn proxy(&self) -> Option<&str> {
        self.proxy.as_deref()
    }

    /// Two processors for a proxy: not the load's, where there are enough; else all there are.
    pub(crate) fn two(&self) -> Option<String> {
        let (load, proxy) = (self.load.as_ref()?, self.proxy.as_ref()?);
        if self.count < ENOUGH_FOR_TWO {
            return Some(format!("{load},{proxy}"));
        }
        let last: usize = proxy.parse().ok()?;
        Some(format!("{},{last}", last.checked_sub(1)?))
    }
}

fn listed(cores: &[usize]) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// The processors that this process may run on.
fn allowed() -> Result<Vec<usize>, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let mut cores = Vec::new();
    for part in list.ok_or("no Cpus_allowed_list in /proc")?.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        cores.extend(from.parse::<usize>()?..=to.parse()?);
    }
    Ok(cores)
}

/// weir: what [`BINARY`] names, or as cargo built it for this bench, with what tests add to its dependencies.
pub(crate) fn weir() -> PathBuf {
    std::env::var_os(BINARY).map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_weir")), PathBuf::from)
}

/// A process that is killed when this goes out of scope.
pub(crate) struct Process(Child);

/// A process that serves calls.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

/// What is said to weir beside what every bench says.
#[derive(Clone)]
pub(crate) struct Plan<'a> {
    /// Where its files are: of its own, emptied before.
    pub(crate) folder: PathBuf,
    /// The base URL of the upstream.
    pub(crate) upstream: String,
    pub(crate) workers: usize,
    /// Lines of its configuration.
    pub(crate) also: &'a str,
    /// The processors it may run on.
    pub(crate) cores: Option<&'a str>,
}

impl Process {
    /// This very program in another role, and the address that it announces.
    pub(crate) fn of_this_program(cores: Option<&str>, arguments: &[&str]) -> Result<Server, Failure> {
        let mut command = on(cores, std::env::current_exe()?);
        let mut process = Self(command.args(arguments).stdout(Stdio::piped()).spawn()?);
        let stdout = process.0.stdout.take().ok_or("standard output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(Server { process, address: line.trim().parse()? })
    }

    /// A program that does not say when it listens.
    pub(crate) fn of(mut command: Command) -> Result<Self, Failure> {
        Ok(Self(command.stdin(Stdio::null()).spawn()?))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Memory the process has resident, in KiB.
    pub(crate) fn resident_kib(&self) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Plan<'_> {
    /// weir in front of the upstream, and the address of its app side and of its operator's side. Returns when it listens.
    /// Its ledger is on disk; its log goes to a file, at the level and with the lines that are its default.
    pub(crate) fn start(&self) -> Result<(Server, SocketAddr), Failure> {
        let log = self.folder.join("weir.log");
        self.prepare("127.0.0.1:0")?;
        let process = self.exec()?;
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(&log)?;
            if let (Some(address), Some(admin)) = (listening(&text, "app"), listening(&text, "admin")) {
                return Ok((Server { process, address }, admin));
            }
            if begun.elapsed() > START_WITHIN {
                return Err(format!("weir did not start; its log says:\n{text}").into());
            }
            sleep(Duration::from_millis(2));
        }
    }

    /// Writes what weir is told, such as that it shall listen on `listen`.
    pub(crate) fn prepare(&self, listen: &str) -> Result<(), Failure> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)?;
        }
        fs::create_dir_all(&self.folder)?;
        let state = self.folder.join("state");
        let text = format!(
            "listen: {listen}\nadmin: {{ listen: 127.0.0.1:0 }}\nstate_dir: {}\nworker_threads: {}\n\
             telemetry: {{ log: {{ format: json }} }}\nproviders: {{ openai: {{ base_url: '{}' }} }}\n{}\n",
            state.display(),
            self.workers,
            self.upstream,
            self.also
        );
        Ok(fs::write(self.folder.join("weir.yaml"), text)?)
    }

    /// The process alone, after [`prepare`](Self::prepare).
    pub(crate) fn exec(&self) -> Result<Process, Failure> {
        let log = File::create(self.folder.join("weir.log"))?;
        let mut command = on(self.cores, weir());
        command.args(["run", "--config"]).arg(self.folder.join("weir.yaml")).stdout(Stdio::null()).stderr(log);
        Process::of(command)
    }
}

/// `program`, to be run on `cores`. `taskset` becomes the program, so that the process is the same.
pub(crate) fn on(cores: Option<&str>, program: impl AsRef<OsStr>) -> Command {
    let Some(cores) = cores else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["-c", cores]).arg(program);
    command
}

/// Tells the parent where this process listens.
#[expect(clippy::print_stdout, reason = "the parent reads it there")]
pub(crate) fn announce(address: SocketAddr) {
    println!("{address}");
}

/// CPU time by thread, in nanoseconds.
pub(crate) struct CpuTimes(HashMap<String, u64>);

impl CpuTimes {
    /// What process `id` has used so far, in user and kernel mode together.
    ///
    /// From `schedstat`, which counts nanoseconds; `stat` counts ticks of ten milliseconds, and the file of a process
    /// speaks of its first thread alone.
    pub(crate) fn of(id: u32) -> Result<Self, Failure> {
        let mut threads = HashMap::new();
        for thread in fs::read_dir(format!("/proc/{id}/task"))? {
            let thread = thread?;
            // A thread that ends while it is looked at is left out.
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let used = text.split_whitespace().next().ok_or("an empty schedstat in /proc")?.parse()?;
            threads.insert(thread.file_name().to_string_lossy().into_owned(), used);
        }
        Ok(Self(threads))
    }

    /// What was used since `earlier`. Threads that have ended in between are not counted for their last stretch.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let used = |(thread, now): (&String, &u64)| now.saturating_sub(earlier.0.get(thread).copied().unwrap_or(0));
        Duration::from_nanos(self.0.iter().map(used).sum())
    }
}

/// Where `side` of weir listens, once its log says so.
fn listening(log: &str, side: &str) -> Option<SocketAddr> {
    log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(|line| {
        let is_it = line["message"] == "listening" && line["weir.side"] == side;
        is_it.then(|| line["server.address"].as_str()?.parse().ok())?
    })
}
