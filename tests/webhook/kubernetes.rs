//! Kubernetes: what of its API the injector uses, simulated over TLS on loopback: one Secret and one
//! `MutatingWebhookConfiguration`, with versions and conflicts, tokens, and everything that can go wrong.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Barrier;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use weir::inject::cluster::Cluster;

const SECRET: &str = "/api/v1/namespaces/weir-system/secrets/weir-injector-tls";
const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/weir-injector";

/// What the API does to requests.
#[derive(Clone)]
pub(crate) enum Mood {
    /// What it should.
    Well,
    /// Answers this to all of them.
    Refuses(u16),
    /// Answers this to those of this method.
    RefusesTo(Method, u16),
    /// Hangs up on whoever connects.
    Gone,
    /// Takes them and says nothing.
    Silent,
    /// Answers no reader of the Secret before this many have asked.
    Together(Arc<Barrier>),
}

/// What it holds, and what it was asked.
pub(crate) struct Held {
    pub(crate) mood: Mood,
    pub(crate) token: String,
    pub(crate) secret: Value,
    pub(crate) webhooks: Value,
    version: u64,
    /// What was done, such as `PUT secret 200`.
    pub(crate) done: Vec<String>,
}

/// The API, running.
pub(crate) struct Kubernetes {
    port: u16,
    held: Arc<Mutex<Held>>,
    service_account: TempDir,
    server: JoinHandle<()>,
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Kubernetes {
    /// With the Secret as a chart installs it: empty. And two webhooks without trust.
    pub(crate) async fn start() -> Self {
        let (authority, tls) = tls();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("a bound address").port();
        let service_account = TempDir::new().expect("a directory");
        write(&service_account, "ca.crt", &authority);
        write(&service_account, "token", "the-first\n");
        let webhook = |name: &str, path: &str| {
            json!({
                "name": format!("{name}.inject.weir.dev"),
                "clientConfig": { "service": { "name": "weir-injector", "namespace": "weir-system", "path": path } },
                "failurePolicy": "Ignore",
            })
        };
        let held = Arc::new(Mutex::new(Held {
            mood: Mood::Well,
            token: "the-first".to_owned(),
            secret: json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": { "name": "weir-injector-tls", "namespace": "weir-system", "resourceVersion": "1",
                              "labels": { "app.kubernetes.io/name": "weir" } },
            }),
            webhooks: json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
                "metadata": { "name": "weir-injector", "resourceVersion": "2" },
                "webhooks": [webhook("namespace", "/mutate/namespace"), webhook("object", "/mutate/object")],
            }),
            version: 2,
            done: Vec::new(),
        }));
        let server = tokio::spawn(serve(listener, tls, Arc::clone(&held)));
        Self { port, held, service_account, server }
    }

    /// How a pod finds it.
    pub(crate) fn cluster(&self) -> Cluster {
        Cluster {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: self.port,
            service_account: self.service_account.path().to_owned(),
            namespace: "weir-system".to_owned(),
            deadline: Duration::from_millis(300),
        }
    }

    /// What it holds now.
    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("nobody panics with it")
    }

    /// The token changes, for the pod too.
    pub(crate) fn change_token(&self) {
        "the-second".clone_into(&mut self.held().token);
        write(&self.service_account, "token", "the-second");
    }

    /// What one entry of the Secret says.
    pub(crate) fn in_secret(&self, name: &str) -> Option<String> {
        let held = self.held();
        let text = BASE64_STANDARD.decode(held.secret["data"][name].as_str()?).expect("base64");
        Some(String::from_utf8(text).expect("text"))
    }

    /// What every webhook trusts; `None` while they do not agree, or trust nothing.
    pub(crate) fn bundle(&self) -> Option<String> {
        let held = self.held();
        let all: Vec<_> = held.webhooks["webhooks"].as_array().expect("webhooks").iter().collect();
        let first = all[0]["clientConfig"]["caBundle"].as_str()?;
        let agree = all.iter().all(|webhook| webhook["clientConfig"]["caBundle"] == *first);
        agree.then(|| String::from_utf8(BASE64_STANDARD.decode(first).expect("base64")).expect("text"))
    }

    /// How often something was done, such as `PUT secret 200`.
    pub(crate) fn times(&self, done: &str) -> usize {
        self.held().done.iter().filter(|it| *it == done).count()
    }
}

fn write(directory: &TempDir, name: &str, text: &str) {
    std::fs::write(Path::new(directory.path()).join(name), text).expect("a written file");
}

/// The API's own authority, and what it shows.
fn tls() -> (String, TlsAcceptor) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["kubernetes".to_owned()]).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("an authority");
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key");
    let shown = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
    let shown = shown.signed_by(&key, &issuer).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports them")
        .with_no_client_auth()
        .with_single_cert(vec![shown.der().clone()], key)
        .expect("a pair");
    (authority.pem(), TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, held: Arc<Mutex<Held>>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { return };
        if matches!(held.lock().expect("nobody panics with it").mood, Mood::Gone) {
            continue;
        }
        let (tls, held) = (tls.clone(), Arc::clone(&held));
        tokio::spawn(async move {
            let Ok(tls) = tls.accept(tcp).await else { return };
            let service = service_fn(move |request| answer(Arc::clone(&held), request));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

async fn answer(held: Arc<Mutex<Held>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, sent) = request.into_parts();
    let body = sent.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let mood = held.lock().expect("nobody panics with it").mood.clone();
    let is_read = parts.method == Method::GET && parts.uri.path() == SECRET;
    match &mood {
        Mood::Silent => std::future::pending::<()>().await,
        Mood::Together(barrier) if is_read => {
            barrier.wait().await;
        }
        _ => {}
    }
    let mut held = held.lock().expect("nobody panics with it");
    let refused = match mood {
        Mood::Refuses(status) => Some(status),
        Mood::RefusesTo(method, status) if method == parts.method => Some(status),
        _ => None,
    };
    let shown = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    let (status, answer) = match refused {
        Some(status) => (status, json!({ "kind": "Status", "message": "as the test wants it", "code": status })),
        None if shown != Some(&format!("Bearer {}", held.token)) => (401, json!({ "message": "Unauthorized" })),
        None => held.asked(&parts, &body),
    };
    let what = match parts.uri.path() {
        SECRET => "secret",
        WEBHOOKS => "webhooks",
        _ => "else",
    };
    held.done.push(format!("{} {what} {status}", parts.method));
    let mut response = Response::new(Full::new(answer.to_string().into()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    Ok(response)
}

impl Held {
    fn asked(&mut self, head: &http::request::Parts, body: &[u8]) -> (u16, Value) {
        let media_type = head.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        match (head.method.as_str(), head.uri.path(), media_type) {
            ("GET", SECRET, _) => (200, self.secret.clone()),
            ("GET", WEBHOOKS, _) => (200, self.webhooks.clone()),
            ("PUT", SECRET, "application/json") => {
                let written: Value = serde_json::from_slice(body).expect("JSON");
                if written["metadata"]["resourceVersion"] != self.secret["metadata"]["resourceVersion"] {
                    return (409, json!({ "message": "the object has been modified" }));
                }
                self.secret = written;
                self.secret["metadata"]["resourceVersion"] = self.next_version();
                (200, self.secret.clone())
            }
            ("PATCH", WEBHOOKS, "application/json-patch+json") => {
                let patch: json_patch::Patch = serde_json::from_slice(body).expect("a JSON patch");
                if json_patch::patch(&mut self.webhooks, &patch).is_err() {
                    return (
                        422,
                        json!({ "message": "the server rejected our request due to an error in our request" }),
                    );
                }
                self.webhooks["metadata"]["resourceVersion"] = self.next_version();
                (200, self.webhooks.clone())
            }
            _ => (404, json!({ "message": "not found" })),
        }
    }

    /// Someone else writes the webhooks: what a repository says, which knows of no trust.
    pub(crate) fn reset_trust(&mut self) {
        for webhook in self.webhooks["webhooks"].as_array_mut().expect("webhooks") {
            webhook["clientConfig"].as_object_mut().expect("a client").remove("caBundle");
        }
        self.webhooks["metadata"]["resourceVersion"] = self.next_version();
    }

    /// Someone else writes the Secret.
    pub(crate) fn hold(&mut self, data: &[(&str, &str)]) {
        let data = data.iter().map(|(name, text)| ((*name).to_owned(), BASE64_STANDARD.encode(text).into()));
        self.secret["data"] = Value::Object(data.collect());
        self.secret["metadata"]["resourceVersion"] = self.next_version();
    }

    fn next_version(&mut self) -> Value {
        self.version += 1;
        self.version.to_string().into()
    }
}
