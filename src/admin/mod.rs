//! Admin: the operator's side. Metrics, health, version, the cache, limits and budgets; one file for each resource.
//!
//! Never serves an app's call. What needs no token shows no prompt, no key and no user: it may be read by anyone who can
//! reach it. Some resources serve the app beside weir, and nobody else: see `admin::lookaside`,
//! `admin::custom` and `admin::otlp`.

pub mod access;
#[cfg(feature = "ledger")]
pub mod analytics;
#[cfg(feature = "ledger")]
mod asker;
pub mod attempts;
mod audit;
mod body;
mod budgets;
pub mod cache;
pub mod custom;
pub mod health;
#[cfg(feature = "inject")]
pub mod injector;
mod limits;
mod live;
mod lookaside;
pub mod metrics;
mod monthly;
mod openapi;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod problem;
pub mod query;
pub mod reload;
pub mod tokens;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::http::{Request, StatusCode, Uri};
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::access::{Access, Peer};
use crate::admin::cache::CacheSide;
use crate::admin::health::Readiness;
use crate::admin::problem::Problem;
use crate::admin::reload::Bell;
use crate::door::Door;
use crate::limits::Limits;
use crate::privacy::Privacy;
use crate::sinks::live::Live;
use crate::sinks::metrics::Metrics;
use crate::store::Store;

/// Most connections at once: a few Prometheus servers, the kubelet and a person. More wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may be idle, or take to send a request's head. Longer than the usual scrape intervals, so
/// that a scraper keeps its connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long requests in progress may go on once weir stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What the operator writes of the admin side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where `/metrics`, `/livez`, `/readyz`, `/version` and `/api/v1/…` are served.
    pub listen: SocketAddr,
    /// A file that holds the token (`Authorization: Bearer …`) which changes need, and from other machines whatever is
    /// below `/api/v1/`. It is read again when it changes. Without it there are no changes.
    pub token_file: Option<PathBuf>,
    /// A file that holds a token with which whatever is below `/api/v1/` may be read, and nothing changed.
    pub reader_token_file: Option<PathBuf>,
    /// More tokens. A list; each has a `name` and a `file`, and may have a `role`, and a `workspace` or a `user` whose calls
    /// are all that it shows (docs/admin.md).
    #[schemars(example = [tokens::Settings::example()])]
    pub tokens: Vec<tokens::Settings>,
    /// Whether programs on this machine, too, need a token for reading what is below `/api/v1/`: for pods where the app
    /// must not see what others spend.
    pub require_token: bool,
    /// Whether questions about calls have to name a workspace, in `X-Workspace-ID` or by a token that is bound to one.
    pub require_workspace: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9348)),
            token_file: None,
            reader_token_file: None,
            tokens: Vec::new(),
            require_token: false,
            require_workspace: false,
        }
    }
}

impl Settings {
    /// Whether somebody may change something.
    #[must_use]
    pub fn allows_changes(&self) -> bool {
        self.token_file.is_some() || self.tokens.iter().any(|token| token.role == tokens::Role::Admin)
    }
}

/// What the admin side shows.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The numbers, and what is running.
    pub metrics: Arc<Metrics>,
    /// Whether the app may send calls.
    pub readiness: Readiness,
    /// Who may read and change.
    pub access: Access,
    /// Stored answers.
    pub cache: CacheSide,
    /// Limits and budgets.
    pub limits: Arc<Limits>,
    /// Every call that is over.
    #[cfg(feature = "ledger")]
    pub ledger: analytics::LedgerSide,
    /// What is going on.
    pub live: Arc<Live>,
    /// Under which names users are kept.
    pub privacy: Arc<Privacy>,
    /// What replicas share, if something is.
    pub store: Option<Arc<Store>>,
    /// Has the configuration read again.
    pub bell: Bell,
}

/// What the admin side shows now. A request is answered by what is shown when it comes.
#[derive(Debug)]
pub struct Desk {
    router: Shown,
    live: Arc<Live>,
}

impl Desk {
    /// Shows this.
    #[must_use]
    pub fn of(admin: Admin) -> Self {
        let live = Arc::clone(&admin.live);
        Self { router: Arc::new(ArcSwap::from_pointee(router(admin))), live }
    }

    /// Shows this from now on, to those whose connections are open as well: a token that is gone opens nothing.
    pub fn show(&self, admin: Admin) {
        self.router.store(Arc::new(router(admin)));
    }
}

/// Serves the admin side until `shutdown`, then lets requests in progress end. Dropping the future stops accepting;
/// open connections go on until the runtime ends.
pub async fn run(door: Door, desk: Arc<Desk>, shutdown: impl Future<Output = ()>) {
    let ended = async {
        shutdown.await;
        // Those who watch would be in progress for ever.
        desk.live.end();
    };
    serve_all(door, Arc::clone(&desk.router), ended).await;
}

/// What answers requests now.
type Shown = Arc<ArcSwap<Router>>;

/// Serves what `shown` has until `shutdown`, then lets requests in progress end.
async fn serve_all(door: Door, shown: Shown, shutdown: impl Future<Output = ()>) {
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let stop = CancellationToken::new();
    let accept = async {
        while let Ok(seat) = Arc::clone(&seats).acquire_owned().await {
            let (stream, peer) = door.next().await;
            let connection = serve(stream, Peer(peer), Arc::clone(&shown), stop.clone());
            connections.spawn(async move {
                connection.await;
                drop(seat);
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = shutdown => {}
    }
    stop.cancel();
    connections.close();
    // A scraper that is gone without a word must not keep weir from ending.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await;
}

/// Serves one connection until the peer closes it, it idles too long, or `stop`.
async fn serve(stream: TcpStream, peer: Peer, shown: Shown, stop: CancellationToken) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        TowerToHyperService::new(Router::clone(&shown.load())).call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error.message = %error, "admin connection ended early");
    }
}

fn router(admin: Admin) -> Router {
    let router = Router::new()
        .route("/", get(openapi::show_index))
        .route("/metrics", get(metrics::scrape))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/healthz", get(health::healthy))
        .route("/version", get(health::version))
        .merge(api());
    #[cfg(feature = "otlp")]
    let router = router.route("/v1/metrics", post(otlp::push));
    router.fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(admin)
}

/// All that is below `/api/v1/`: what is described beside each handler, which a test holds against this.
fn api() -> Router<Admin> {
    let api = Router::new()
        .route("/api/v1/openapi.json", get(openapi::serve))
        .route("/api/v1/cache/stats", get(cache::stats))
        .route("/api/v1/cache/config", get(cache::config))
        .route("/api/v1/cache/clear", post(cache::clear))
        .route("/api/v1/cache/invalidate", post(cache::invalidate))
        .route("/api/v1/cache/get", post(lookaside::get))
        .route("/api/v1/cache/set", post(lookaside::set))
        .route("/api/v1/limits", get(limits::list))
        .route("/api/v1/budgets", get(budgets::list))
        .route("/api/v1/budgets/{name}/override", post(budgets::begin_override).delete(budgets::end_override))
        .route("/api/v1/cost/budget", get(monthly::get).put(monthly::put).delete(monthly::delete))
        .route("/api/v1/metrics", post(custom::push))
        .route("/api/v1/reload", post(reload::reload))
        .route("/api/v1/live", get(live::watch));
    #[cfg(feature = "ledger")]
    let api = api.merge(analytics::routes());
    api
}

async fn not_found(uri: Uri) -> Problem {
    const OF_THE_LEDGER: [&str; 6] = ["analytics/", "usage/", "cost/", "performance/", "stats", "audit"];
    let rest = uri.path().strip_prefix("/api/v1/").unwrap_or_default();
    if cfg!(not(feature = "ledger")) && OF_THE_LEDGER.iter().any(|of| rest.starts_with(of)) {
        let detail = "this weir has no ledger: build it with the feature `ledger`, which it has by default";
        return Problem::new(StatusCode::NOT_IMPLEMENTED, detail);
    }
    Problem::new(StatusCode::NOT_FOUND, format!("there is no {}; GET / lists what is here", uri.path()))
}

async fn method_not_allowed(uri: Uri) -> Problem {
    let detail = format!("{} takes another method; GET / lists what is here", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::UNIX_EPOCH;

    use axum::Extension;
    use axum::body::Bytes;
    use axum::http::Method;
    use flate2::read::GzDecoder;
    use http_body_util::{BodyExt, Empty};
    use hyper_util::client::legacy::Client;
    use hyper_util::client::legacy::connect::HttpConnector;
    use hyper_util::rt::TokioExecutor;
    use serde_json::json;
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;
    use tower_service::Service;

    use super::*;
    use crate::admin::tokens::{Bearer, Bounds, Role, Token, Tokens};
    use crate::cache::Cache;
    use crate::door::Side;
    use crate::sinks::Settings;
    use crate::sinks::metrics::{About, PriceTable};
    use crate::sinks::traces::Standing;

    pub(in crate::admin) fn admin() -> Admin {
        let prices = PriceTable { version: "1".to_owned(), source: "built-in".to_owned(), published_at: UNIX_EPOCH };
        let about = About { version: "0.1.0", revision: "abc1234", prices };
        let metrics = Arc::new(Metrics::new(&Settings::default(), &["openai".into()], about));
        let settings = Arc::new(crate::cache::Settings::default());
        let cache = Arc::new(Cache::new(&settings, Box::new(|_| {})));
        Admin {
            metrics,
            readiness: Readiness::starting(),
            access: Access::default(),
            store: None,
            bell: Bell::new().0,
            limits: Arc::new(Limits::new(&[], &[])),
            #[cfg(feature = "ledger")]
            ledger: analytics::LedgerSide::of(None, analytics::tests::prices()),
            live: Arc::default(),
            privacy: crate::privacy::tests::plain(),
            cache: CacheSide { cache, settings, labels: Arc::default() },
        }
    }

    /// The admin side, really listening.
    struct Running {
        address: SocketAddr,
        readiness: Readiness,
        client: Client<HttpConnector, Empty<Bytes>>,
        stop: oneshot::Sender<()>,
        server: JoinHandle<()>,
    }

    impl Running {
        async fn start() -> Self {
            let readiness = Readiness::starting();
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
            let address = listener.local_addr().expect("a bound address");
            let (stop, stopped) = oneshot::channel();
            let admin = Admin { readiness: readiness.clone(), ..admin() };
            let server = tokio::spawn(run(Door::new(listener, Side::Admin), Arc::new(Desk::of(admin)), async move {
                let _ = stopped.await;
            }));
            Self { address, readiness, client: Client::builder(TokioExecutor::new()).build_http(), stop, server }
        }

        async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> (http::response::Parts, Bytes) {
            let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Empty::new()).expect("a request");
            let (head, body) = self.client.request(request).await.expect("an answer").into_parts();
            (head, body.collect().await.expect("a whole body").to_bytes())
        }

        async fn get(&self, path: &str) -> (http::response::Parts, String) {
            let (head, body) = self.ask(Method::GET, path, &[]).await;
            (head, String::from_utf8(body.to_vec()).expect("text"))
        }
    }

    #[tokio::test]
    async fn health_follows_the_life_of_the_process() {
        let admin = Running::start().await;
        for (state, ready, says) in
            [("starting", 503, "starting"), ("ready", 200, "ready"), ("draining", 503, "draining")]
        {
            match state {
                "ready" => admin.readiness.set_ready(),
                "draining" => admin.readiness.set_draining(),
                _ => {}
            }
            assert_eq!(admin.get("/livez").await.0.status, 200, "{state}");
            let (head, body) = admin.get("/readyz").await;
            assert_eq!(head.status, ready, "{state}");
            assert!(body.starts_with(says), "{state}: {body}");
            let (head, body) = admin.get("/healthz").await;
            assert_eq!(head.status, ready, "{state}");
            let mut health: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            let [table] = health["dependencies"].take().as_array().expect("a list").clone().try_into().expect("one");
            let expected = json!({ "status": says, "version": "0.1.0", "uptime_seconds": 0, "dependencies": null });
            assert_eq!(health, expected, "{state}");
            assert!(table["age_seconds"].as_u64().is_some_and(|age| age > 1_700_000_000), "since 1970: {table}");
            assert_eq!([&table["name"], &table["status"], &table["source"]], ["price table", "up", "built-in"]);
        }
    }

    #[tokio::test]
    async fn a_collector_that_takes_no_spans_is_down_and_weir_is_ready_all_the_same() {
        let admin = admin();
        let standing = Standing { is_failing: true, last_taken: Some(UNIX_EPOCH), ..Standing::default() };
        admin.metrics.watch_traces(Arc::new(move || standing));
        admin.readiness.set_ready();
        let answer = health::healthy(axum::extract::State(admin)).await;
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
        let health: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(health["status"], "degraded");
        let collector = json!({ "name": "trace collector", "status": "down", "latency_ms": null,
            "last_success": "1970-01-01T00:00:00Z" });
        assert_eq!(health["dependencies"][0], collector);
    }

    #[tokio::test]
    async fn a_scrape_gets_the_format_and_coding_it_asks_for() {
        let admin = Running::start().await;
        let (head, classic) = admin.get("/metrics").await;
        assert_eq!(head.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        assert!(head.headers.get("content-encoding").is_none());
        assert!(classic.contains("# TYPE weir_build_info gauge\n"));

        let headers = [("accept", "application/openmetrics-text;version=1.0.0"), ("accept-encoding", "gzip")];
        let (head, body) = admin.ask(Method::GET, "/metrics", &headers).await;
        assert_eq!(head.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert_eq!(head.headers["content-encoding"], "gzip");
        let mut text = String::new();
        GzDecoder::new(&*body).read_to_string(&mut text).expect("gzip");
        assert!(text.ends_with("# EOF\n"));

        let (head, _) = admin.ask(Method::GET, "/metrics", &[("accept-encoding", "gzip;q=0, identity")]).await;
        assert!(head.headers.get("content-encoding").is_none());
    }

    #[tokio::test]
    async fn it_says_what_is_running_and_what_is_here() {
        let admin = Running::start().await;
        let (head, body) = admin.get("/version").await;
        assert_eq!(head.headers["content-type"], "application/json");
        let version: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            version,
            json!({
                "version": "0.1.0",
                "revision": "abc1234",
                "price_table": { "version": "1", "source": "built-in", "published_at": "1970-01-01T00:00:00Z" },
            })
        );
        let (_, index) = admin.get("/").await;
        for path in [
            "/metrics",
            "/livez",
            "/readyz",
            "/healthz",
            "/version",
            "/api/v1/cache/stats",
            "/api/v1/cache/config",
            "/api/v1/cache/get",
            "/api/v1/limits",
            "/api/v1/budgets",
            "/api/v1/cost/budget",
            "/api/v1/metrics",
            "/api/v1/reload",
            "/api/v1/live",
        ] {
            assert!(index.contains(path), "{path}");
        }
    }

    #[tokio::test]
    async fn the_document_has_what_this_weir_is_built_with() {
        let admin = Running::start().await;
        let (head, served) = admin.get("/api/v1/openapi.json").await;
        assert_eq!(head.headers["content-type"], "application/json");
        let served: serde_json::Value = serde_json::from_str(&served).expect("JSON");
        let served = served["paths"].as_object().expect("paths").keys();
        assert!(served.eq(openapi::described::document().paths.paths.keys()));
    }

    #[tokio::test]
    async fn who_may_do_what() {
        const TOKEN: &str = "Bearer sesame";
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "sesame").expect("a written file");
        let token = Arc::new(Token::from_file(file.path()).expect("a token"));
        let bearer = Bearer { name: "admin".into(), role: Role::Admin, bounds: Bounds::default(), token };
        let tokens = Arc::new(Tokens::of(vec![bearer]).expect("one token"));
        let guarded = Admin { access: Access { tokens, ..Access::default() }, ..admin() };
        let open = admin();
        let (read, change, health) = ("/api/v1/cache/stats", "/api/v1/cache/clear", "/metrics");
        let aside = "/api/v1/cache/get";
        for (admin, peer, shown, path, expected) in [
            (&open, "127.0.0.1:9", None, read, 200),
            (&open, "[::1]:9", None, read, 200),
            (&open, "10.0.0.1:9", None, read, 403),
            (&open, "10.0.0.1:9", Some(TOKEN), read, 403),
            (&open, "127.0.0.1:9", None, change, 403),
            (&open, "127.0.0.1:9", Some(TOKEN), change, 403),
            (&guarded, "127.0.0.1:9", None, read, 200),
            (&guarded, "127.0.0.1:9", Some("Bearer simsim"), read, 200),
            (&guarded, "10.0.0.1:9", None, read, 401),
            (&guarded, "10.0.0.1:9", Some("Bearer simsim"), read, 401),
            (&guarded, "10.0.0.1:9", Some(TOKEN), read, 200),
            (&guarded, "127.0.0.1:9", None, change, 401),
            (&guarded, "127.0.0.1:9", Some("Bearer simsim"), change, 401),
            (&guarded, "127.0.0.1:9", Some(TOKEN), change, 200),
            (&guarded, "10.0.0.1:9", Some(TOKEN), change, 200),
            (&guarded, "10.0.0.1:9", None, health, 200),
            (&open, "10.0.0.1:9", None, health, 200),
            (&open, "127.0.0.1:9", None, aside, 422),
            (&guarded, "127.0.0.1:9", Some("Bearer of-the-provider"), aside, 422),
            (&guarded, "[::1]:9", None, aside, 422),
            (&guarded, "10.0.0.1:9", None, aside, 403),
            (&guarded, "10.0.0.1:9", Some(TOKEN), aside, 403),
        ] {
            let mut router = router(admin.clone()).layer(Extension(Peer(peer.parse().expect("an address"))));
            let method = if path == change || path == aside { Method::POST } else { Method::GET };
            let mut request = Request::builder().method(method).uri(path);
            if let Some(shown) = shown {
                request = request.header("authorization", shown);
            }
            let request = request.body(axum::body::Body::empty()).expect("a request");
            let Ok(answer) = router.call(request).await;
            let token = !admin.access.tokens.are_none();
            assert_eq!(answer.status(), expected, "{peer} asks for {path} with {shown:?}, token configured: {token}");
            let challenge = answer.headers().contains_key("www-authenticate");
            assert_eq!(challenge, expected == 401, "RFC 9110, section 15.5.2: a 401 says how to do better");
        }
    }

    #[tokio::test]
    async fn errors_are_problems() {
        let admin = Running::start().await;
        for (method, path, status, title) in
            [(Method::GET, "/nowhere", 404, "Not Found"), (Method::POST, "/metrics", 405, "Method Not Allowed")]
        {
            let (head, body) = admin.ask(method, path, &[]).await;
            assert_eq!(head.status, status);
            assert_eq!(head.headers["content-type"], "application/problem+json");
            let problem: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(problem["status"], status);
            assert_eq!(problem["title"], title);
            assert_eq!(problem["type"], "about:blank");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(path)));
            // RFC 9110, section 15.5.6: a 405 lists what is allowed.
            assert_eq!(head.headers.get("allow").is_some(), status == 405);
        }
    }

    #[tokio::test]
    async fn it_ends_when_told_to_though_a_connection_idles() {
        let admin = Running::start().await;
        admin.get("/livez").await;
        admin.stop.send(()).expect("it runs");
        admin.server.await.expect("it ended well");
        assert!(TcpStream::connect(admin.address).await.is_err(), "nobody listens any more");
    }
}
