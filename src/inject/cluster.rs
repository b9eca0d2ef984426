//! Cluster: what the injector asks of the Kubernetes API: one Secret and one `MutatingWebhookConfiguration`, read and
//! written. Four requests, each on a connection of its own, as the pod's service account.
//!
//! Knows HTTP and the shape of the API's objects; not what is in the Secret, nor when to ask.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Where a pod finds its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long one request may take, usually.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most bytes of an answer: more than any object of Kubernetes has.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Who is said to own the fields that are written.
const FIELD_MANAGER: &str = "weir-injector";

/// The Kubernetes API, as a pod sees it.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its host: a name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Where `ca.crt`, `token` and `namespace` are; each is read again for every request, because tokens change.
    pub service_account: PathBuf,
    /// The pod's namespace.
    pub namespace: String,
    /// How long one request may take, from the name to the last byte.
    pub deadline: Duration,
}

/// This is no pod of Kubernetes, or one without a service account.
#[derive(Debug, thiserror::Error)]
pub enum NoCluster {
    /// The environment does not tell of the API.
    #[error("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT do not say where the Kubernetes API is")]
    NoAddress,
    /// The pod has no service account mounted.
    #[error("{} cannot be read", path.display())]
    NoServiceAccount {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why the API did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// Something has changed since it was read: read it again.
    #[error("{what} has been changed meanwhile")]
    Conflict { what: String },
    /// It says no.
    #[error("the Kubernetes API answers {status} to {what}: {message}")]
    Status { what: String, status: StatusCode, message: String },
    /// It did not answer.
    #[error("the Kubernetes API does not answer to {what}: {cause}")]
    NoAnswer { what: String, cause: String },
}

impl Cluster {
    /// The cluster that this pod is in; `variable` looks one of the environment up.
    ///
    /// # Errors
    /// If this is no pod of one.
    pub fn found(variable: impl Fn(&str) -> Option<String>) -> Result<Self, NoCluster> {
        let host = variable("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty());
        let port = variable("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok());
        let (Some(host), Some(port)) = (host, port) else { return Err(NoCluster::NoAddress) };
        let service_account = PathBuf::from(SERVICE_ACCOUNT);
        let path = service_account.join("namespace");
        let namespace = match std::fs::read_to_string(&path) {
            Ok(namespace) => namespace.trim().to_owned(),
            Err(source) => return Err(NoCluster::NoServiceAccount { path, source }),
        };
        Ok(Self { host, port, service_account, namespace, deadline: DEADLINE })
    }

    /// The Secret called `name` of the pod's namespace.
    pub(super) async fn secret(&self, name: &str) -> Result<Value, Refused> {
        self.ask(Method::GET, &self.secret_path(name), None).await
    }

    /// Writes `secret`, as it was read but for its data. Fails if it has been changed since.
    pub(super) async fn replace_secret(&self, name: &str, secret: &Value) -> Result<(), Refused> {
        let path = format!("{}?fieldManager={FIELD_MANAGER}", self.secret_path(name));
        self.ask(Method::PUT, &path, Some(("application/json", secret))).await.map(drop)
    }

    /// The `MutatingWebhookConfiguration` called `name`.
    pub(super) async fn webhooks(&self, name: &str) -> Result<Value, Refused> {
        self.ask(Method::GET, &webhooks_path(name), None).await
    }

    /// Has all webhooks of `configuration` trust `bundle` (in base64). Fails if it has been changed since it was read.
    pub(super) async fn trust(&self, name: &str, configuration: &Value, bundle: &str) -> Result<(), Refused> {
        let version = "/metadata/resourceVersion";
        let mut patch = vec![json!({ "op": "test", "path": version, "value": configuration.pointer(version) })];
        for position in 0..configuration["webhooks"].as_array().map_or(0, Vec::len) {
            patch.push(json!({
                "op": "add",
                "path": format!("/webhooks/{position}/clientConfig/caBundle"),
                "value": bundle,
            }));
        }
        let to = format!("{}?fieldManager={FIELD_MANAGER}", webhooks_path(name));
        let patch = Value::Array(patch);
        self.ask(Method::PATCH, &to, Some(("application/json-patch+json", &patch))).await.map(drop)
    }

    fn secret_path(&self, name: &str) -> String {
        format!("/api/v1/namespaces/{}/secrets/{name}", self.namespace)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Value, Refused> {
        let what = format!("{method} {}", path.split('?').next().unwrap_or(path));
        let is_patch = method == Method::PATCH;
        let answered = match timeout(self.deadline, self.exchange(method, path, body)).await {
            Ok(answered) => answered.map_err(|cause| cause.to_string()),
            Err(_) => Err(format!("not within {}", humantime::format_duration(self.deadline))),
        };
        let (status, body) = match answered {
            Ok(answered) => answered,
            Err(cause) => return Err(Refused::NoAnswer { what, cause }),
        };
        let answer: Option<Value> = serde_json::from_slice(&body).ok();
        match (status, answer) {
            (StatusCode::OK | StatusCode::CREATED, Some(answer)) => Ok(answer),
            (StatusCode::CONFLICT, _) => Err(Refused::Conflict { what }),
            // A `test` of a patch that fails: what is to be patched is no longer as it was read.
            (StatusCode::UNPROCESSABLE_ENTITY, _) if is_patch => Err(Refused::Conflict { what }),
            (status, answer) => {
                let message =
                    answer.as_ref().and_then(|status| status["message"].as_str()).unwrap_or("no reason given");
                Err(Refused::Status { what, status, message: message.chars().take(500).collect() })
            }
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let token = read(&self.service_account.join("token")).await?;
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let tls = TlsConnector::from(Arc::new(self.trusted().await?));
        let tcp = TcpStream::connect((host, self.port)).await?;
        let tls = tls.connect(ServerName::try_from(host.to_owned())?, tcp).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        let named = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, named)
            .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, format!("Bearer {}", token.trim()));
        let mut text = Bytes::new();
        if let Some((media_type, body)) = body {
            request = request.header(CONTENT_TYPE, media_type);
            text = serde_json::to_vec(body)?.into();
        }
        let request = request.body(Full::new(text))?;
        let exchanged = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            Ok((head.status, Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes()))
        };
        let mut connection = std::pin::pin!(connection);
        let mut exchanged = std::pin::pin!(exchanged);
        tokio::select! {
            biased;
            exchanged = exchanged.as_mut() => exchanged,
            ended = connection.as_mut() => {
                ended?;
                exchanged.await
            }
        }
    }

    /// Trust in the cluster's own authority, and in no other.
    async fn trusted(&self) -> Result<ClientConfig, Box<dyn std::error::Error + Send + Sync>> {
        let path = self.service_account.join("ca.crt");
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(read(&path).await?.as_bytes()) {
            roots.add(authority?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

fn webhooks_path(name: &str) -> String {
    format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}")
}

async fn read(path: &Path) -> Result<String, String> {
    tokio::fs::read_to_string(path).await.map_err(|error| format!("{} cannot be read: {error}", path.display()))
}
