//! weir as an operator starts it: a process of its own, that can be killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use serde_json::Value;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");

/// A weir that runs until it is killed, or dropped.
pub(crate) struct Process {
    child: Child,
    /// Where the app's calls come in.
    pub(crate) app: String,
    /// Where the operator looks.
    pub(crate) admin: String,
    log: Arc<Mutex<Vec<Value>>>,
    reader: mpsc::Sender<Reader>,
}

/// What becomes of whoever reads the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// It reads nothing more.
    Sleeps,
    /// It is gone.
    Leaves,
}

impl Process {
    /// `weir run` in front of a provider, with more arguments, and with these environment variables and no others.
    pub(crate) async fn start(provider: &str, more: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::run(Command::new(WEIR), provider, more, environment).await
    }

    /// The same, in a control group.
    pub(crate) async fn start_in(group: &Path, provider: &str, more: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut shell = Command::new("/bin/sh");
        let tasks = group.join("cgroup.procs");
        shell.args(["-c", r#"echo $$ > "$0" && exec "$@""#]).arg(tasks).arg(WEIR);
        Self::run(shell, provider, more, environment).await
    }

    /// The same, to which a file that is too large is an error, not a signal that ends it.
    pub(crate) async fn start_ready_for_limits(provider: &str, more: &[&str]) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#, WEIR]);
        Self::run(shell, provider, more, &[]).await
    }

    /// The same, with so many descriptors at most.
    pub(crate) async fn start_with_descriptors(most: &str, provider: &str, more: &[&str]) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", r#"ulimit -n "$0" && exec "$@""#, most, WEIR]);
        Self::run(shell, provider, more, &[]).await
    }

    async fn run(mut weir: Command, provider: &str, more: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = weir
            .args(["run", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--set", &format!("providers.openai.base_url={provider}"), "--set", "telemetry.log.format=json"])
            .args(more)
            .env_clear()
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::<Mutex<Vec<Value>>>::default();
        let (lines, written) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        let (left, leaves) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                written.lock().unwrap().push(line);
                match leaves.try_recv() {
                    Err(mpsc::TryRecvError::Empty) => {}
                    // Nobody reads it, and nobody has gone either, until this weir is no more.
                    Ok(Reader::Sleeps) => {
                        let _ = leaves.recv();
                        return;
                    }
                    Ok(Reader::Leaves) | Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
        });
        let address = |side: &str| {
            let log = log.lock().unwrap();
            let line = log.iter().find(|line| line["weir.side"] == side)?;
            Some(format!("http://{}", line["server.address"].as_str()?))
        };
        super::until("weir says where it listens", || address("app").is_some() && address("admin").is_some()).await;
        let (app, admin) = (address("app").unwrap(), address("admin").unwrap());
        Self { child, app, admin, log, reader: left }
    }

    /// The log lines so far whose message contains this.
    pub(crate) fn told(&self, part: &str) -> Vec<Value> {
        let log = self.log.lock().unwrap();
        let is_it = |line: &&Value| line["message"].as_str().is_some_and(|message| message.contains(part));
        log.iter().filter(is_it).cloned().collect()
    }

    /// The log lines so far that are no JSON objects.
    pub(crate) fn untold(&self) -> Vec<Value> {
        self.log.lock().unwrap().iter().filter(|line| !line.is_object()).cloned().collect()
    }

    /// The most memory that it had so far.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// After its next line, this becomes of whoever reads its log.
    pub(crate) fn log_reader(&self, becomes: Reader) {
        self.reader.send(becomes).unwrap();
    }

    /// From now on none of its files may grow beyond so many bytes, or `unlimited`.
    pub(crate) fn limit_files(&self, bytes: &str) {
        let pid = self.child.id().to_string();
        let limited = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:unlimited")]).status();
        assert!(limited.unwrap().success(), "a limit on files");
    }

    /// From now on it may have so many descriptors.
    pub(crate) fn limit_descriptors(&self, most: &str) {
        let pid = self.child.id().to_string();
        let limited = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={most}:")]).status();
        assert!(limited.unwrap().success(), "a limit on descriptors");
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// `kill`: it is told to stop.
    pub(crate) fn begin_to_stop(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
    }

    /// `kill -HUP`: it is told to read its configuration again.
    pub(crate) fn hang_up(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    }

    /// It is told to stop, and ends by itself, and well.
    pub(crate) async fn stop(self) {
        self.begin_to_stop();
        self.end().await;
    }

    /// It has been told to stop, and ends by itself, and well.
    pub(crate) async fn end(mut self) {
        super::until("weir ends", || self.child.try_wait().unwrap().is_some()).await;
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {:?}", self.log.lock().unwrap());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
