//! Processes of the bench: started, found by the address they announce, measured through `/proc`, killed at the end.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tokio::time::Instant;

use crate::Failure;

/// weir, as cargo built it for this bench.
pub(crate) const WEIR: &str = env!("CARGO_BIN_EXE_weir");

/// `/proc/<pid>/stat` counts in ticks of a hundredth of a second on every Linux: `USER_HZ` is part of its interface.
const TICKS_PER_SECOND: u32 = 100;
/// How long weir may take to start.
const START_WITHIN: Duration = Duration::from_secs(10);

/// A process that is killed when this goes out of scope.
pub(crate) struct Process(Child);

impl Process {
    /// This very program in another role, and the address that it announces.
    pub(crate) fn of_this_program(arguments: &[&str]) -> Result<(Self, SocketAddr), Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = Self(command.args(arguments).stdout(Stdio::piped()).spawn()?);
        let stdout = process.0.stdout.take().ok_or("standard output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        Ok((process, line.trim().parse()?))
    }

    /// weir in front of `upstream`, and the address of its app side. Returns when it listens; its log goes to a file.
    pub(crate) fn weir(folder: &Path, upstream: SocketAddr) -> Result<(Self, SocketAddr), Failure> {
        let (config, log) = (folder.join("weir.yaml"), folder.join("weir.log"));
        fs::write(
            &config,
            format!(
                "listen: 127.0.0.1:0\nadmin: {{ listen: 127.0.0.1:0 }}\ntelemetry: {{ log: {{ format: json }} }}\n\
                 providers: {{ openai: {{ base_url: 'http://{upstream}' }} }}\n"
            ),
        )?;
        let mut command = Command::new(WEIR);
        command.args(["run", "--config"]).arg(&config).stdout(Stdio::null()).stderr(File::create(&log)?);
        let process = Self(command.spawn()?);
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(&log)?;
            if let (Some(app), Some(_)) = (listening(&text, "app"), listening(&text, "admin")) {
                return Ok((process, app));
            }
            if begun.elapsed() > START_WITHIN {
                return Err(format!("weir did not start; its log says:\n{text}").into());
            }
            sleep(Duration::from_micros(200));
        }
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

/// Tells the parent where this process listens.
#[expect(clippy::print_stdout, reason = "the parent reads it there")]
pub(crate) fn announce(address: SocketAddr) {
    println!("{address}");
}

/// CPU time that process `id` has used so far, in user and kernel mode together.
pub(crate) fn cpu_time(id: u32) -> Result<Duration, Failure> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // proc(5): the second field is the name in parentheses, which may contain spaces; utime and stime are fields 14 and 15.
    let (_, after_name) = stat.rsplit_once(')').ok_or("no name in /proc/<pid>/stat")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = fields[11].parse::<u32>()? + fields[12].parse::<u32>()?;
    Ok(Duration::from_secs(ticks.into()) / TICKS_PER_SECOND)
}

/// Where `side` of weir listens, once its log says so.
fn listening(log: &str, side: &str) -> Option<SocketAddr> {
    log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(|line| {
        let is_it = line["message"] == "listening" && line["weir.side"] == side;
        is_it.then(|| line["server.address"].as_str()?.parse().ok())?
    })
}
