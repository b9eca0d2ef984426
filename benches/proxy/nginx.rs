//! nginx as a cache, tuned as well as it can be for this: what P7 is held against.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::Failure;
use crate::bench::Bench;
use crate::load::Load;
use crate::process::{Process, Server, on};

/// nginx in front of the bench's upstream, or why there is none.
///
/// One process, so that nothing but the worker is counted. Files stay open, nothing is logged, the request's body is the
/// key; the cache's folder is the bench's own, where the pages of files stay in memory.
pub(crate) fn start(bench: &Bench) -> Result<Result<Server, String>, Failure> {
    if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
        return Ok(Err("nginx is not installed (Debian: apt-get install nginx-light)".to_owned()));
    }
    let folder = bench.folder.join("nginx");
    fs::create_dir_all(folder.join("cache"))?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration(&folder.display().to_string(), &address.to_string(), bench))?;
    let mut command = on(bench.cores.proxy(), "nginx");
    command.arg("-p").arg(&folder).arg("-c").arg(&file).args(["-e", "error.log"]);
    let process = Process::of(command)?;
    for _ in 0..500 {
        if Load::repeated(address).is_answered() {
            return Ok(Ok(Server { process, address }));
        }
        sleep(Duration::from_millis(10));
    }
    Err(format!("nginx did not answer: {}", fs::read_to_string(folder.join("error.log")).unwrap_or_default()).into())
}

fn configuration(folder: &str, address: &str, bench: &Bench) -> String {
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = write!(temporary, "{kind}_temp_path {folder}/{kind};\n    ");
    }
    format!(
        "daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 1024; accept_mutex off; }}
http {{
    {temporary}access_log off;
    default_type application/json;
    sendfile off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_buffer_size 2m;
    client_max_body_size 4m;
    open_file_cache max=10000 inactive=1h;
    open_file_cache_valid 1h;
    open_file_cache_min_uses 1;
    proxy_cache_path {folder}/cache keys_zone=bench:16m max_size=256m inactive=1h use_temp_path=off;
    upstream provider {{ server {}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen {address};
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            proxy_cache bench;
            proxy_cache_methods POST;
            proxy_cache_key $request_uri|$http_authorization|$request_body;
            proxy_cache_valid 200 1h;
        }}
    }}
}}
",
        bench.upstream.address
    )
}
