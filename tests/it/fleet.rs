//! A budget counts what all instances of the app spend, as Prometheus tells; and whatever Prometheus does, calls go on.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;
use weir::limits::standing::{BudgetNow, Scope};
use weir::units::PicoUsd;

use crate::support::fake::{Fake, Script, Step};
use crate::support::until;
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";

/// A chat that cost 20 cents, as the budgets' tests have it.
fn provider() -> Script {
    let answer = json!({"id": "chatcmpl-1", "model": "gpt-5-mini", "object": "chat.completion",
        "usage": {"prompt_tokens": 0, "completion_tokens": 100_000, "total_tokens": 100_000},
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}]});
    Script::json(200, answer.to_string().as_bytes())
}

/// What Prometheus does when it is asked.
#[derive(Clone, Debug)]
enum Says {
    /// This amount, scraped so many seconds ago.
    Amount(&'static str, u64),
    /// No such series.
    Nothing,
    /// This, whatever was asked.
    Whatever(Script),
}

struct Prometheus {
    fake: Fake,
    says: Arc<Mutex<Says>>,
}

impl Prometheus {
    async fn that(says: Says) -> Self {
        let says = Arc::new(Mutex::new(says));
        let now = Arc::clone(&says);
        let fake = Fake::start(move |request| match now.lock().unwrap().clone() {
            Says::Amount(_, age) if request.target.contains("timestamp") => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
                vector(&format!(r#"[{{"metric":{{}},"value":[1,"{}.5"]}}]"#, now - age))
            }
            Says::Amount(amount, _) => vector(&format!(r#"[{{"metric":{{}},"value":[1,"{amount}"]}}]"#)),
            Says::Nothing => vector("[]"),
            Says::Whatever(script) => script,
        })
        .await;
        Self { fake, says }
    }

    fn now_says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    /// Waits until it has been asked again, twice: whatever it said before has been heard.
    async fn asked(&self) {
        let before = self.fake.received().len();
        until("Prometheus is asked again", || self.fake.received().len() >= before + 2).await;
    }
}

fn vector(result: &str) -> Script {
    Script::json(
        200,
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":{result}}}}}"#).as_bytes(),
    )
}

/// A weir with a budget of two dollars, which asks `prometheus` again and again.
async fn weir(provider: &Fake, prometheus: &str, more: &str) -> Weir {
    let yaml = format!(
        "cache: {{ mode: off }}\n\
         budgets: [{{ name: app, limit_usd: 2, window: month, enforce: block }}]\n\
         fleet_spend: {{ prometheus_url: \"{prometheus}\", match: 'job=\"weir\"', interval: 10ms{more} }}"
    );
    Weir::before_with(&provider.url(), &yaml).await
}

async fn call(weir: &Weir) -> StatusCode {
    let body = json!({"model": "gpt-5-mini", "max_tokens": 100_000, "messages": [{"role": "user", "content": "q"}]});
    let status = weir.post(CHAT, &[], body.to_string().as_bytes()).await.status;
    weir.settled().await;
    status
}

fn budget(weir: &Weir) -> (Scope, PicoUsd) {
    let BudgetNow { scope, foremost, .. } = weir.limits().budgets_now().remove(0);
    (scope, foremost.spent.usd)
}

fn usd(text: &str) -> PicoUsd {
    PicoUsd::of_usd(text).unwrap()
}

#[tokio::test]
async fn what_all_instances_spend_holds_this_one_up() {
    let provider = Fake::always(provider()).await;
    let prometheus = Prometheus::that(Says::Amount("1.7", 0)).await;
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let token = format!(", bearer_token_file: {}", token.display());
    let weir = weir(&provider, &prometheus.fake.url(), &token).await;
    until("the budget is the app's", || budget(&weir) == (Scope::App, usd("1.7"))).await;
    let statuses = [call(&weir).await, call(&weir).await, call(&weir).await];
    assert_eq!(statuses, [StatusCode::OK, StatusCode::OK, StatusCode::TOO_MANY_REQUESTS], "1.7, 1.9, 2.1");
    assert_eq!(budget(&weir), (Scope::App, usd("2.1")));
    let text = weir.metrics().await;
    for series in [
        r#"weir_budget_spent_usd{budget="app",window="month",scope="app"} 2.1"#,
        r#"weir_budget_remaining_usd{budget="app",window="month",scope="app"} 0.0"#,
        r#"weir_budget_charged_usd_total{budget="app"} 0.4"#,
    ] {
        assert!(text.lines().any(|line| line == series), "{series}\n{text}");
    }
    prometheus.asked().await;
    assert_eq!(budget(&weir), (Scope::App, usd("2.1")), "what was spent here is not among the 1.7");
    for request in prometheus.fake.received() {
        assert_eq!(request.header("authorization"), Some("Bearer s3cret"));
        assert!(request.target.starts_with("/api/v1/query?time="), "{}", request.target);
    }
    weir.stop().await;
}

#[tokio::test]
async fn whatever_prometheus_does_calls_go_on_and_nothing_wrong_counts() {
    let provider = Fake::always(provider()).await;
    let prometheus = Prometheus::that(Says::Nothing).await;
    let weir = weir(&provider, &prometheus.fake.url(), "").await;
    let whatever = |body: &str| Says::Whatever(Script::json(200, body.as_bytes()));
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    for (what, says) in [
        ("no such series", Says::Nothing),
        ("not a number", Says::Amount("NaN", 0)),
        ("infinite", Says::Amount("+Inf", 0)),
        ("negative", Says::Amount("-5", 0)),
        ("words", Says::Amount("a lot", 0)),
        ("too old", Says::Amount("5", 3601)),
        ("many series", whatever(r#"{"data":{"resultType":"vector","result":[{"value":[1,"5"]},{"value":[1,"5"]}]}}"#)),
        ("somebody else", whatever("<html>5</html>")),
        ("too large", whatever(&large)),
        ("refused", Says::Whatever(Script::json(401, b"{}"))),
        ("failing", Says::Whatever(Script::json(500, b"5"))),
        ("reset", Says::Whatever(Script::only(vec![Step::Reset]))),
        ("silent", Says::Whatever(Script::only(vec![Step::Hang]))),
    ] {
        prometheus.now_says(says);
        prometheus.asked().await;
        let (scope, spent) = budget(&weir);
        assert_eq!((scope, spent), (Scope::Instance, PicoUsd::ZERO), "{what}");
    }
    assert_eq!(call(&weir).await, StatusCode::OK, "while nobody answers");
    weir.stop().await;
}

#[tokio::test]
async fn the_last_good_value_counts_for_its_time_and_no_longer() {
    let provider = Fake::always(provider()).await;
    let prometheus = Prometheus::that(Says::Amount("5", 0)).await;
    let weir = weir(&provider, &prometheus.fake.url(), ", keep_for: 3s").await;
    until("the budget is the app's", || budget(&weir) == (Scope::App, usd("5"))).await;
    prometheus.now_says(Says::Amount("NaN", 0));
    prometheus.asked().await;
    assert_eq!(budget(&weir), (Scope::App, usd("5")), "what was spent stays spent");
    assert_eq!(call(&weir).await, StatusCode::TOO_MANY_REQUESTS);
    until("it is too long ago", || budget(&weir) == (Scope::Instance, PicoUsd::ZERO)).await;
    assert_eq!(call(&weir).await, StatusCode::OK);
    prometheus.now_says(Says::Amount("1", 0));
    until("Prometheus is back", || budget(&weir).0 == Scope::App).await;
    weir.stop().await;
}

#[tokio::test]
async fn a_prometheus_that_is_away_is_nobodys_trouble() {
    let provider = Fake::always(provider()).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let weir = weir(&provider, &format!("http://{address}"), "").await;
    assert_eq!(call(&weir).await, StatusCode::OK);
    assert_eq!(budget(&weir), (Scope::Instance, usd("0.2")));
    weir.stop().await;
}
