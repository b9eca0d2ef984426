//! A container with little memory: what weir keeps is lowered until it fits, and nothing that apps do has it killed. For
//! real, in a control group of its own, where this machine lets a test make one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::client::Client;
use crate::support::fake::{Fake, Script};
use crate::support::process::Process;

const CHAT: &str = "/openai/v1/chat/completions";
/// What a sidecar has by default.
const LIMIT: u64 = 128 << 20;
/// What the answers come to: twice the limit.
const ANSWERS: u64 = 512;
const ANSWER_BYTES: usize = 512 << 10;
const APPS: u64 = 16;

/// A control group for one process, and what is allowed in it.
struct Group {
    at: PathBuf,
    /// The file that says how often a process in it was killed for its memory.
    kills: PathBuf,
}

impl Group {
    /// One below this process's own, with a limit of memory; what is in the way, if there can be none.
    fn with_memory(limit: u64) -> Result<Self, String> {
        let text = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let own = |controllers: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
            Some(lines.find(|(names, _)| *names == controllers)?.1.trim_start_matches('/').to_owned())
        };
        let name = format!("weir-test-{}", std::process::id());
        let (at, knob, kills) = if let Some(group) = own("memory") {
            let at = Path::new("/sys/fs/cgroup/memory").join(group).join(name);
            (at, "memory.limit_in_bytes", "memory.oom_control")
        } else {
            let group = own("").ok_or("no control groups")?;
            (Path::new("/sys/fs/cgroup").join(group).join(name), "memory.max", "memory.events")
        };
        let failed = |what: &str, error: &std::io::Error| format!("{what}: {error}");
        fs::create_dir(&at).map_err(|error| failed(&at.display().to_string(), &error))?;
        let group = Self { kills: at.join(kills), at };
        fs::write(group.at.join(knob), limit.to_string()).map_err(|error| failed(knob, &error))?;
        Ok(group)
    }

    fn kills(&self) -> u64 {
        let text = fs::read_to_string(&self.kills).unwrap();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| *name == "oom_kill").unwrap().1.parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The system removes it once its last process is gone, which may take a moment; one that stays does no harm.
        for _ in 0..100 {
            if fs::remove_dir(&self.at).is_ok() {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// Letters without a pattern, so that none is small once it is compressed.
fn incompressible() -> String {
    let mut state = 1_u64;
    let letters = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
    });
    letters.take(ANSWER_BYTES).collect()
}

#[expect(clippy::print_stdout, reason = "why nothing is tested")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_apps_do_it_fits_into_its_container() {
    let group = match Group::with_memory(LIMIT) {
        Ok(group) => group,
        Err(why) => return println!("skipped: no control group can be made here: {why}"),
    };
    let answers = AtomicU64::new(0);
    let text = incompressible();
    // No two of them are equal.
    let fake = Fake::start(move |_| {
        let answer = json!({"id": answers.fetch_add(1, Ordering::Relaxed).to_string(), "model": "gpt-5-mini",
            "object": "chat.completion", "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}]});
        Script::json(200, answer.to_string().as_bytes())
    })
    .await;
    let weir = Process::start_in(&group.at, &fake.url(), &["--set", "ledger.mode=memory"], &[]).await;
    assert!(!weir.told("cache.max_bytes is").is_empty(), "what is lowered is said");

    let mut apps = JoinSet::new();
    for app in 0..APPS {
        let (client, url) = (Client::default(), format!("{}{CHAT}", weir.app));
        apps.spawn(async move {
            for call in 0..ANSWERS / APPS {
                let long = "long ".repeat(50_000);
                let ask = format!(
                    r#"{{"model":"gpt-5-mini","messages":[{{"role":"user","content":"{app} {call} {long}"}}]}}"#
                );
                assert_eq!(client.post(&url, &[], ask.as_bytes()).await.status, StatusCode::OK);
            }
        });
    }
    while let Some(app) = apps.join_next().await {
        app.unwrap();
    }
    assert_eq!(group.kills(), 0);
    weir.stop().await;
}
