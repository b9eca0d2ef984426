//! Container: which one weir is in, as its runtime calls it.
//!
//! No file says it outright. Where the container sees its group's path, the path ends in the id (docker, containerd and
//! CRI-O, with cgroup v1 or without a cgroup namespace); else the runtime mounts files from a directory named after it. What a
//! kubelet mounts for the whole pod names the pod's sandbox, which is another container.

use std::fs;
use std::path::Path;

/// Digits of an id.
const DIGITS: usize = 64;

/// The id of the container, as far as files below `root` tell.
#[must_use]
pub fn id(root: &Path) -> Option<String> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let groups = read("proc/self/cgroup");
    let of_group = groups.lines().find_map(|line| id_in(line.rsplit('/').next()?));
    of_group.or_else(|| {
        let mounts = read("proc/self/mountinfo");
        let mut directories = mounts.lines().flat_map(|line| line.split("containers/").skip(1));
        directories.find_map(|rest| id_in(rest.split(['/', ' ']).next()?))
    })
}

/// An id, as it is or as systemd's scopes have it: `cri-containerd-<id>.scope`.
fn id_in(name: &str) -> Option<String> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let id = name.rsplit(['-', ':']).next()?;
    let is_one = id.len() == DIGITS && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_one.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_called_what_its_runtime_calls_it() {
        let known = "0123456789abcdef".repeat(4);
        let sandbox = "f".repeat(DIGITS);
        let group = |path: &str| (format!("0::{path}\n"), String::new());
        let mount = |from: &str| {
            ("0::/\n".to_owned(), format!("621 602 254:1 {from} /etc/hostname rw,relatime - ext4 /dev/vda1 rw\n"))
        };
        for (runtime, (cgroup, mountinfo), expected) in [
            ("docker, cgroup v1", (format!("12:pids:/docker/{known}\n1:cpu:/docker/{known}\n"), String::new()), true),
            ("docker, systemd", group(&format!("/system.slice/docker-{known}.scope")), true),
            ("containerd", group(&format!("/kubepods/burstable/podc1a2/{known}")), true),
            ("containerd, systemd", group(&format!("/kubepods.slice/cri-containerd-{known}.scope")), true),
            ("containerd, with its namespace", group(&format!("/kubepods-pod1.slice:cri-containerd:{known}")), true),
            ("CRI-O", group(&format!("/kubepods.slice/crio-{known}.scope")), true),
            (
                "docker, cgroup v2 with a namespace",
                mount(&format!("/var/lib/docker/containers/{known}/hostname")),
                true,
            ),
            ("podman", mount(&format!("/containers/storage/overlay-containers/{known}/userdata/hostname")), true),
            ("a pod's sandbox", mount(&format!("/var/lib/containerd/sandboxes/{sandbox}/hostname")), false),
            ("no container", group("/user.slice/user-1000.slice/session-2.scope"), false),
            ("a hash that is too short", group("/docker/0123456789abcdef"), false),
            ("nothing to read", (String::new(), String::new()), false),
        ] {
            let root = tempfile::tempdir().expect("a temporary directory");
            let own = root.path().join("proc/self");
            fs::create_dir_all(&own).expect("a directory");
            fs::write(own.join("cgroup"), cgroup).expect("a written file");
            fs::write(own.join("mountinfo"), mountinfo).expect("a written file");
            assert_eq!(id(root.path()), expected.then(|| known.clone()), "{runtime}");
        }
        assert_eq!(id(Path::new("/nowhere")), None);
    }
}
