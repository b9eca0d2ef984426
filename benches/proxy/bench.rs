//! What every bar is measured with: the upstream, floors and weir, each on the processor that is theirs.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Failure;
use crate::floor::Kind;
use crate::process::{Cores, Plan, Process, Server};
use crate::upstream;

/// The house of all bars.
pub(crate) struct Bench {
    pub(crate) rounds: usize,
    /// How long one side is measured in one round.
    pub(crate) length: Duration,
    pub(crate) cores: Cores,
    /// Where files go; the target folder's own, so on a disk if that is on one.
    pub(crate) folder: PathBuf,
    pub(crate) upstream: Server,
    weirs: Cell<u32>,
}

impl Bench {
    pub(crate) fn new(folder: &Path, rounds: usize, length: Duration) -> Result<Self, Failure> {
        let cores = Cores::found()?;
        // The load sleeps to the microsecond, if it may: threads inherit this. It is 50 µs otherwise.
        let _ = std::fs::write("/proc/self/timerslack_ns", "1");
        upstream::certify(folder)?;
        let upstream = Process::of_this_program(cores.load(), &["upstream"])?;
        Ok(Self { rounds, length, cores, folder: folder.to_owned(), upstream, weirs: Cell::new(0) })
    }

    /// A floor of one thread, on the proxy's processor.
    pub(crate) fn floor(&self, kind: Kind) -> Result<Server, Failure> {
        self.floor_to(kind, &[&self.upstream.address.to_string()])
    }

    /// The same in front of another upstream, which is what `to` begins with; arguments of the floor may follow.
    pub(crate) fn floor_to(&self, kind: Kind, to: &[&str]) -> Result<Server, Failure> {
        let kind = match kind {
            Kind::Bare => "bare",
            Kind::Metering => "metering",
            Kind::Caching => "caching",
        };
        Process::of_this_program(self.cores.proxy(), &[&["floor", kind], to].concat())
    }

    /// weir with one worker, on the proxy's processor, with every default and the lines `also`.
    pub(crate) fn weir(&self, also: &str) -> Result<Server, Failure> {
        Ok(self.weir_and_admin(also)?.0)
    }

    /// The same, and the address of the operator's side.
    pub(crate) fn weir_and_admin(&self, also: &str) -> Result<(Server, SocketAddr), Failure> {
        self.plan(also).start()
    }

    /// How weir is started.
    pub(crate) fn plan<'a>(&'a self, also: &'a str) -> Plan<'a> {
        let number = self.weirs.replace(self.weirs.get() + 1);
        Plan {
            folder: self.folder.join(format!("weir-{number}")),
            upstream: format!("http://{}", self.upstream.address),
            workers: 1,
            also,
            cores: self.cores.proxy(),
        }
    }
}
