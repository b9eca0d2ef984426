//! The operator's side of limits and budgets: how they stand, what finance changes, and what lets calls pass for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::limits::{CHAT, answer, ask};
use crate::support::client::{Answer, collect};
use crate::support::fake::{Fake, Script, Step};
use crate::support::weir::Weir;

const BUDGETS: &str = "/api/v1/budgets";
const LIMITS: &str = "/api/v1/limits";
const MONTHLY: &str = "/api/v1/cost/budget";
const OVERRIDE: &str = "/api/v1/budgets/app/override";
const OPERATOR: (&str, &str) = ("authorization", "Bearer sesame");
/// A budget that one call of 20 cents spends.
const SPENT_BY_ONE: &str =
    "cache: { mode: off }\nbudgets: [{ name: app, limit_usd: 0.20, window: month, enforce: block }]";

async fn asks(weir: &Weir, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    collect(weir.client.open(method, &format!("{}{path}", weir.admin), headers, body.as_bytes()).await).await
}

async fn get(weir: &Weir, path: &str) -> Value {
    let answer = asks(weir, Method::GET, path, &[], "").await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.body);
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(!text.contains("NaN") && !text.to_lowercase().contains("inf"), "{text}");
    answer.json()
}

/// Does what an operator may do.
async fn does(weir: &Weir, method: Method, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    asks(weir, method, path, &[OPERATOR], &body).await
}

async fn put(weir: &Weir, body: Value) -> Value {
    let answer = does(weir, Method::PUT, MONTHLY, &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{body}: {:?}", answer.body);
    answer.json()
}

/// Makes a call of 20 cents, and waits for it to be charged; the status that the app saw.
async fn call(weir: &Weir, user: &str) -> u16 {
    let answer = weir.post(CHAT, &[("x-user-id", user)], &ask(0, false)).await;
    weir.settled().await;
    answer.status.as_u16()
}

async fn weir(yaml: &str) -> (Weir, Fake) {
    let fake = Fake::always(Script::json(200, &answer())).await;
    (Weir::operated(&fake.url(), yaml).await, fake)
}

/// Takes `name` out of `value`, where it differs from run to run.
fn taken(value: &mut Value, name: &str) -> Value {
    value.as_object_mut().unwrap().remove(name).unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[tokio::test]
async fn budgets_are_listed_with_those_who_spend_most() {
    let (weir, _fake) = weir(
        "cache: { mode: off }\nbudgets:\n\
         - { name: users, per: user, limit_usd: 1, limit_tokens: 1000000, window: total, time_zone: Europe/Berlin, \
             enforce: downgrade, downgrade_to: gpt-5-nano, match: { provider: openai, model: 'gpt-5*' } }\n\
         - { name: app, limit_usd: 3, window: month }\n",
    )
    .await;
    for (user, calls) in [("ann", 2), ("bob", 1), ("cleo", 3)] {
        for _ in 0..calls {
            assert_eq!(call(&weir, user).await, 200);
        }
    }
    let mut list = get(&weir, &format!("{BUDGETS}?subjects=2")).await;
    let mut users = list["budgets"][0].take();
    let since = taken(&mut users, "counted_since");
    assert!(since.as_str().is_some_and(|since| since.ends_with('Z')), "{since}");
    let of = |user: &str, cents: u64, percent: f64| {
        json!({
            "subject": format!("user={user}"), "spent_usd": format!("0.{}", cents / 10), "spent_tokens": cents * 5_000,
            "reserved_usd": "0", "reserved_tokens": 0, "remaining_usd": format!("0.{}", 10 - cents / 10),
            "remaining_tokens": 1_000_000 - cents * 5_000, "used_percentage": percent,
        })
    };
    let mut expected = json!({
        "name": "users", "match": { "provider": "openai", "model": "gpt-5*" }, "per": "user", "scope": "instance",
        "window": "total", "time_zone": "Europe/Berlin", "period": { "start": "1970-01-01T00:00:00Z", "end": null },
        "limit_usd": "1", "limit_tokens": 1_000_000, "source": "config", "thresholds": [50, 80, 90, 100],
        "enforce": "downgrade", "downgrade_to": "gpt-5-nano", "override": null, "state": "over_threshold",
        "blocked_calls": 0, "subjects": 3,
        "foremost": [of("cleo", 60, 60.0), of("ann", 40, 40.0)],
    });
    let foremost = of("cleo", 60, 60.0);
    expected.as_object_mut().unwrap().extend(foremost.as_object().unwrap().clone());
    assert_eq!(users, expected);
    let app = &list["budgets"][1];
    assert_eq!(
        (&app["spent_usd"], &app["remaining_usd"], &app["used_percentage"], &app["state"]),
        (&json!("1.2"), &json!("1.8"), &json!(40.0), &json!("within"))
    );
    assert_eq!((&app["subjects"], &app["subject"], &app["per"]), (&json!(1), &json!(null), &json!(null)));
    assert_eq!((&app["foremost"], &app["match"]), (&json!([]), &json!({})), "they all share it");
    let only = get(&weir, &format!("{BUDGETS}?name=app&subjects=0")).await;
    assert_eq!((only["budgets"].as_array().unwrap().len(), &only["budgets"][0]["name"]), (1, &json!("app")));
    weir.stop().await;
}

#[tokio::test]
async fn limits_are_listed_with_those_who_have_least_left() {
    let (weir, _fake) = weir(
        "cache: { mode: off }\nlimits:\n\
         - { name: users, per: user, requests_per_day: 4, concurrent_calls: 2, wait: 250ms }\n\
         - { name: all, match: { agent: 'plan*' }, tokens_per_hour: 1000 }\n",
    )
    .await;
    for (user, calls) in [("ann", 1), ("bob", 3), ("bob", 2)] {
        for _ in 0..calls {
            call(&weir, user).await;
        }
    }
    let mut list = get(&weir, LIMITS).await;
    let users = &mut list["limits"][0];
    assert_eq!(
        users["fullest"].as_array().unwrap().iter().map(|one| &one["subject"]).collect::<Vec<_>>(),
        [&json!("user=bob"), &json!("user=ann")]
    );
    assert_eq!(taken(users, "fullest")[1]["used_percentage"], 25.0);
    let reset = taken(&mut users["rates"][0], "reset_seconds").as_u64().unwrap();
    assert!((86_390..=86_400).contains(&reset), "{reset}");
    let unit = |unit: &str, limit: u64, period: Option<u64>, remaining: u64| json!({ "unit": unit, "limit": limit, "period_seconds": period, "remaining": remaining });
    let mut calls = unit("concurrent calls", 2, None, 2);
    calls["reset_seconds"] = Value::Null;
    assert_eq!(
        *users,
        json!({
            "name": "users", "match": {}, "per": "user", "wait": "250ms", "count_hits": false, "scope": "instance",
            "decisions": { "allowed": 5, "delayed": 0, "rejected": 1 }, "subjects": 2, "subject": "user=bob",
            "used_percentage": 100.0, "rates": [unit("requests", 4, Some(86_400), 0), calls],
        })
    );
    let all = &list["limits"][1];
    assert_eq!((&all["match"], &all["wait"], &all["subjects"]), (&json!({"agent": "plan*"}), &json!(null), &json!(1)));
    assert_eq!((&all["used_percentage"], &all["rates"][0]["remaining"]), (&json!(0.0), &json!(1000)));
    weir.stop().await;
}

#[tokio::test]
async fn a_list_that_cannot_be_had_says_why() {
    let (weir, _fake) = weir(
        "limits: [{ name: agents, requests_per_day: 1 }]\nbudgets: [{ name: users, limit_usd: 1 }, { name: app, limit_usd: 2 }]",
    )
    .await;
    for (path, status, detail) in [
        ("/api/v1/budgets?name=user", 404, "there is no budget `user`: did you mean `users`?"),
        ("/api/v1/budgets?name=x-y-z", 404, "there is no budget `x-y-z`: there are `users`, `app`"),
        ("/api/v1/limits?name=agent", 404, "there is no limit `agent`: did you mean `agents`?"),
        ("/api/v1/limits?subjects=1000", 400, "`subjects` is `1000`: write a number from 0 to 100"),
        ("/api/v1/budgets?subject=1", 400, "`subject` is unknown: did you mean `subjects`?"),
    ] {
        let answer = asks(&weir, Method::GET, path, &[], "").await;
        assert_eq!((answer.status.as_u16(), &answer.json()["detail"]), (status, &json!(detail)), "{path}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    weir.stop().await;
}

#[tokio::test]
async fn the_month_has_no_limit_until_finance_gives_it_one() {
    let (weir, _fake) = weir("cache: { mode: off }").await;
    assert_eq!(get(&weir, BUDGETS).await, json!({ "budgets": [] }));
    let mut asleep = get(&weir, MONTHLY).await;
    let period = taken(&mut asleep, "period");
    assert_eq!(
        asleep,
        json!({
            "name": "monthly", "monthly_limit_usd": null, "alert_threshold_percentage": 50,
            "current_spend_usd": null, "remaining_usd": null, "used_percentage": null, "budget_limit_usd": null,
            "budget_remaining_usd": null, "budget_used_percentage": null, "is_over_threshold": false,
            "is_exceeded": false, "counted_since": null, "enforce": "alert", "override": null, "source": "config",
            "scope": "instance", "change_scope": "instance",
        })
    );
    assert!(period["start"].as_str().is_some_and(|start| start.ends_with("-01T00:00:00Z")), "{period}");
    assert_eq!(call(&weir, "ann").await, 200);

    let mut set = put(&weir, json!({ "monthly_limit_usd": 0.5, "alert_threshold_percentage": 80 })).await;
    let since = taken(&mut set, "counted_since");
    assert_eq!(taken(&mut set, "period"), period);
    assert_eq!(
        set,
        json!({
            "name": "monthly", "monthly_limit_usd": 0.5, "alert_threshold_percentage": 80, "current_spend_usd": 0,
            "remaining_usd": 0.5, "used_percentage": 0.0, "budget_limit_usd": 0.5, "budget_remaining_usd": 0.5,
            "budget_used_percentage": 0.0, "is_over_threshold": false, "is_exceeded": false,
            "enforce": "alert", "override": null, "source": "api", "scope": "instance",
            "change_scope": "instance",
        }),
        "what was spent before is not known, and `counted_since` says so"
    );
    for (spent, remaining, used, over, exceeded) in
        [(0.2, 0.3, 40.0, false, false), (0.4, 0.1, 80.0, true, false), (0.6, 0.0, 120.0, true, true)]
    {
        assert_eq!(call(&weir, "ann").await, 200, "it is told, and nothing is refused");
        let month = get(&weir, MONTHLY).await;
        let numbers = ["current_spend_usd", "remaining_usd", "used_percentage"].map(|name| month[name].as_f64());
        assert_eq!(numbers, [Some(spent), Some(remaining), Some(used)], "{month}");
        assert_eq!((&month["is_over_threshold"], &month["is_exceeded"]), (&json!(over), &json!(exceeded)), "{month}");
        assert_eq!(month["counted_since"], since);
    }
    let listed = get(&weir, BUDGETS).await;
    assert_eq!(
        (&listed["budgets"][0]["name"], &listed["budgets"][0]["thresholds"]),
        (&json!("monthly"), &json!([80, 90, 100]))
    );

    let answer = does(&weir, Method::DELETE, MONTHLY, &Value::Null).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["monthly_limit_usd"]), (200, &json!(null)));
    assert_eq!(get(&weir, BUDGETS).await, json!({ "budgets": [] }));
    let again = put(&weir, json!({ "monthly_limit_usd": 10 })).await;
    assert_eq!(
        (&again["current_spend_usd"], &again["alert_threshold_percentage"]),
        (&json!(0), &json!(50)),
        "what nobody counted is not taken for nothing"
    );
    weir.stop().await;
}

#[tokio::test]
async fn money_is_exact_to_the_last_digit() {
    let (weir, _fake) = weir("").await;
    for (written, shown) in [
        ("1234567890.123456789012", "1234567890.123456789012"),
        ("\"0.1\"", "0.1"),
        ("1.5e3", "1500"),
        ("0", "0"),
        ("99999999999999999999.000000000001", "99999999999999999999.000000000001"),
    ] {
        let body = format!("{{\"monthly_limit_usd\":{written}}}");
        let answer = asks(&weir, Method::PUT, MONTHLY, &[OPERATOR], &body).await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(text.contains(&format!("\"monthly_limit_usd\":{shown},")), "{written}: {text}");
        let list = asks(&weir, Method::GET, BUDGETS, &[], "").await;
        assert_eq!(list.json()["budgets"][0]["limit_usd"], shown);
    }
    weir.stop().await;
}

#[tokio::test]
async fn a_changed_limit_holds_for_the_very_next_call_until_it_is_taken_back() {
    let (weir, _fake) = weir(
        "cache: { mode: off }\nbudgets:\n\
         - { name: users, per: user, limit_usd: 100, window: month }\n\
         - { name: app, limit_usd: 1000, limit_tokens: 900000, window: month, enforce: block }\n",
    )
    .await;
    assert_eq!(call(&weir, "ann").await, 200);
    for (limit, status) in [(0.2, 429), (0.3, 200), (0.39, 429), (5.0, 200)] {
        let month = put(&weir, json!({ "monthly_limit_usd": limit })).await;
        assert_eq!((&month["name"], &month["source"]), (&json!("app"), &json!("api")), "the first one of all calls");
        assert_eq!(call(&weir, "ann").await, status, "{limit}: {month}");
    }
    let answer = does(&weir, Method::DELETE, MONTHLY, &Value::Null).await.json();
    assert_eq!((&answer["monthly_limit_usd"], &answer["source"]), (&json!(1000), &json!("config")));
    assert_eq!(answer["current_spend_usd"].as_f64(), Some(0.6), "what was spent stays spent");
    let listed = get(&weir, &format!("{BUDGETS}?name=app")).await;
    assert_eq!(listed["budgets"][0]["limit_tokens"], 900_000);
    assert_eq!(listed["budgets"][0]["blocked_calls"], 2);
    weir.stop().await;
}

#[tokio::test]
async fn a_limit_of_nothing_is_used_up_and_no_number_breaks() {
    let (weir, _fake) = weir("cache: { mode: off }").await;
    let month = put(&weir, json!({ "monthly_limit_usd": 0, "alert_threshold_percentage": 0 })).await;
    assert_eq!((&month["used_percentage"], &month["remaining_usd"]), (&json!(100.0), &json!(0)));
    assert_eq!((&month["is_exceeded"], &month["is_over_threshold"]), (&json!(true), &json!(true)));
    assert_eq!(call(&weir, "ann").await, 200, "`enforce: alert` refuses nothing");
    for path in [MONTHLY, BUDGETS] {
        get(&weir, path).await;
    }
    let exposed = weir.metrics().await;
    let budgets = exposed.lines().filter(|line| line.contains("budget") && !line.starts_with('#'));
    assert!(budgets.clone().all(|line| !line.ends_with("NaN") && !line.ends_with("Inf")), "{exposed}");
    weir.stop().await;
}

/// Whether each of these bodies is refused with these faults, and no others.
async fn is_refused(weir: &Weir, method: &Method, path: &str, bodies: &[(&str, &[&str])]) {
    for (body, faults) in bodies {
        let answer = asks(weir, method.clone(), path, &[OPERATOR], body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {:?}", answer.body);
        let problem = answer.json();
        for fault in *faults {
            assert!(problem["detail"].as_str().unwrap().contains(fault), "{body}: {fault} is not in {problem}");
        }
        assert_eq!(problem["errors"].as_array().unwrap().len(), faults.len(), "{problem}");
    }
}

#[tokio::test]
async fn every_mistake_in_a_budget_for_the_month_is_told_and_nothing_is_changed() {
    let (weir, _fake) = weir("budgets: [{ name: app, limit_usd: 1, window: month, enforce: block }]").await;
    let no_amount =
        "#/monthly_limit_usd `-1` is no amount of US dollars: write a number of at least 0, such as 1500 or 0.50";
    let bodies = [
        ("{}", &["#/monthly_limit_usd is missing: write a number of US dollars, such as 1500"][..]),
        (r#"{"monthly_limit_usd":null}"#, &["#/monthly_limit_usd is missing"]),
        (
            r#"{"monthly_limit_usd":-1,"alert_threshold_percentage":101,"limit":5}"#,
            &[
                no_amount,
                "#/alert_threshold_percentage `101` is no percentage: write a whole number from 0 to 100, such as 80",
                "#/limit is unknown: what is known here is `monthly_limit_usd`, `alert_threshold_percentage`",
            ],
        ),
        (r#"{"monthly_limit_usd":"much"}"#, &["#/monthly_limit_usd `much` is no amount"]),
        (r#"{"monthly_limit_usd":[1]}"#, &["#/monthly_limit_usd a list is no amount"]),
        (r#"{"monthly_limit_usd":1e99}"#, &["#/monthly_limit_usd `1e+99` is no amount"]),
        (
            r#"{"monthly_limit_usd":1,"alert_threshold_percentage":"80"}"#,
            &["#/alert_threshold_percentage `80` is no percentage"],
        ),
        (
            r#"{"monthly_limit_usd":1,"alert_threshold_percentage":79.5}"#,
            &["#/alert_threshold_percentage `79.5` is no percentage"],
        ),
    ];
    is_refused(&weir, &Method::PUT, MONTHLY, &bodies).await;
    let month = get(&weir, MONTHLY).await;
    assert_eq!((&month["monthly_limit_usd"], &month["source"]), (&json!(1), &json!("config")));
    weir.stop().await;
}

#[tokio::test]
async fn every_mistake_in_an_override_is_told() {
    let (weir, _fake) = weir("budgets: [{ name: app, limit_usd: 1, window: month, enforce: block }]").await;
    let long = json!({ "for": "32d", "reason": "x".repeat(501) }).to_string();
    let bodies = [
        ("", &["#/reason is missing: write a text", "# does not say how long: give `for`"][..]),
        (
            r#"{"for":"2h","until":"2000-01-01T00:00:00Z","limit_usd":1,"reason":"","why":1}"#,
            &[
                "# says `until` and `for`: give one of them",
                "#/until 2000-01-01T00:00:00Z is over: it is 2",
                "#/limit_usd 1 is no more than the budget's own 1: write more, or leave it out",
                "#/reason is empty",
                "#/why is unknown: what is known here is `until`, `for`, `limit_usd`, `reason`",
            ],
        ),
        (long.as_str(), &["#/for is more than 31 days away: the latest is 2", "#/reason has 501 bytes"]),
        (
            r#"{"until":"tomorrow","reason":"launch"}"#,
            &["#/until `tomorrow` is no time: write one by RFC 3339 such as 2026-11-30T18:00:00Z"],
        ),
        (r#"{"for":0,"reason":"launch"}"#, &["#/for `0` is no time at all"]),
        (
            r#"{"until":"9000-01-01T00:00:00Z","reason":"launch"}"#,
            &["#/until is more than 31 days away: the latest is 2"],
        ),
    ];
    is_refused(&weir, &Method::POST, OVERRIDE, &bodies).await;
    for (method, path, detail) in [
        (Method::POST, "/api/v1/budgets/ap/override", "there is no budget `ap`: did you mean `app`?"),
        (Method::DELETE, "/api/v1/budgets/nobody/override", "there is no budget `nobody`: there are `app`"),
        (Method::DELETE, OVERRIDE, "budget `app` is not overridden: there is nothing to end"),
    ] {
        let answer = asks(&weir, method, path, &[OPERATOR], r#"{"for":"1h","reason":"x"}"#).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["detail"]), (404, &json!(detail)), "{path}");
    }
    let answer = does(&weir, Method::DELETE, "/api/v1/budgets/%ff/override", &Value::Null).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (400, "application/problem+json"));
    weir.stop().await;
    let (without, _fake) = self::weir("").await;
    let answer =
        does(&without, Method::POST, "/api/v1/budgets/monthly/override", &json!({ "for": "1h", "reason": "x" })).await;
    let detail = "budget `monthly` has no limit yet: PUT /api/v1/cost/budget sets one";
    assert_eq!((answer.status.as_u16(), &answer.json()["detail"]), (404, &json!(detail)));
    without.stop().await;
}

#[tokio::test]
async fn an_override_lets_the_very_next_call_pass_and_its_end_none() {
    let (weir, _fake) = weir(SPENT_BY_ONE).await;
    assert_eq!((call(&weir, "ann").await, call(&weir, "ann").await), (200, 429));
    let begun = does(&weir, Method::POST, OVERRIDE, &json!({ "for": "2h", "reason": "launch" })).await;
    assert_eq!(begun.status, StatusCode::OK, "{:?}", begun.body);
    let begun = begun.json();
    assert_eq!((&begun["state"], &begun["scope"]), (&json!("overridden"), &json!("instance")));
    let held = json!({
        "until": begun["override"]["until"], "limit_usd": null, "reason": "launch", "scope": "instance"
    });
    assert_eq!(begun["override"], held);
    assert_eq!((call(&weir, "ann").await, call(&weir, "ann").await), (200, 200), "0.6 of 0.2");
    assert_eq!(get(&weir, MONTHLY).await["override"], begun["override"]);

    // Up to a limit: the call that crosses it is the last.
    let until = begun["override"]["until"].as_str().unwrap();
    let up_to = json!({ "until": until, "limit_usd": 0.7, "reason": "launch, in bounds" });
    assert_eq!(does(&weir, Method::POST, OVERRIDE, &up_to).await.json()["override"]["limit_usd"], "0.7");
    assert_eq!((call(&weir, "ann").await, call(&weir, "ann").await), (200, 429), "0.8 of 0.7");

    let ended = does(&weir, Method::DELETE, OVERRIDE, &Value::Null).await.json();
    assert_eq!((&ended["state"], &ended["override"]), (&json!("spent"), &json!(null)));
    assert_eq!(call(&weir, "ann").await, 429);
    weir.stop().await;
}

#[tokio::test]
async fn an_override_ends_when_its_time_is_up() {
    let (weir, _fake) = weir(SPENT_BY_ONE).await;
    assert_eq!((call(&weir, "ann").await, call(&weir, "ann").await), (200, 429));
    does(&weir, Method::POST, OVERRIDE, &json!({ "for": "1s", "reason": "launch" })).await;
    let is_over = || weir.limits().monthly().terms().override_at(weir.limits().now()).is_none();
    crate::support::until("it is over", is_over).await;
    assert_eq!(get(&weir, BUDGETS).await["budgets"][0]["state"], "spent");
    assert_eq!(call(&weir, "ann").await, 429);
    weir.stop().await;
}

#[tokio::test]
async fn what_an_operator_changed_survives_a_restart_and_what_was_taken_back_does_not() {
    let fake = Fake::always(Script::json(200, &answer())).await;
    let state = tempfile::tempdir().unwrap();
    let kept = format!("cache: {{ mode: off }}\nstate_dir: {}\n", state.path().display());
    // Nothing is configured: the month was asleep.
    let weir = Weir::operated(&fake.url(), &kept).await;
    put(&weir, json!({ "monthly_limit_usd": 0.5, "alert_threshold_percentage": 70 })).await;
    assert_eq!(call(&weir, "ann").await, 200);
    let held = json!({ "for": "1h", "limit_usd": 2, "reason": "launch" });
    assert_eq!(does(&weir, Method::POST, "/api/v1/budgets/monthly/override", &held).await.status, 200);
    let before = get(&weir, MONTHLY).await;
    weir.stop().await;

    let weir = Weir::operated(&fake.url(), &kept).await;
    let after = get(&weir, MONTHLY).await;
    assert_eq!(after, before);
    assert_eq!((after["current_spend_usd"].as_f64(), &after["source"]), (Some(0.2), &json!("api")));
    assert_eq!(does(&weir, Method::DELETE, MONTHLY, &Value::Null).await.status, 200);
    weir.stop().await;

    let weir = Weir::operated(&fake.url(), &kept).await;
    assert_eq!(get(&weir, BUDGETS).await, json!({ "budgets": [] }));
    assert_eq!(get(&weir, MONTHLY).await["source"], "config");
    weir.stop().await;
}

/// Calls go on all the time; each change holds for every call that begins after its answer has come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_hold_at_once_while_calls_are_running() {
    const ROUNDS: usize = 10;
    let go = Arc::new(Notify::new());
    let held = Arc::clone(&go);
    let fake = Fake::start(move |request| {
        let script = Script::json(200, &answer());
        let is_held = String::from_utf8_lossy(&request.body).contains("q7");
        if is_held { script.after(Step::Wait(Arc::clone(&held))) } else { script }
    })
    .await;
    let weir = Arc::new(Weir::operated(&fake.url(), SPENT_BY_ONE).await);
    assert_eq!(call(&weir, "ann").await, 200);
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (weir, over) = (Arc::clone(&weir), Arc::clone(&over));
            tokio::spawn(async move {
                let mut passed = [0, 0];
                while !over.load(Ordering::SeqCst) {
                    let status = weir.post(CHAT, &[], &ask(0, false)).await.status;
                    assert!([StatusCode::OK, StatusCode::TOO_MANY_REQUESTS].contains(&status), "{status}");
                    passed[usize::from(status.is_success())] += 1;
                }
                passed
            })
        })
        .collect();
    let next = || async { weir.post(CHAT, &[], &ask(0, false)).await.status.as_u16() };
    for round in 0..ROUNDS {
        assert_eq!(does(&weir, Method::POST, OVERRIDE, &json!({ "for": "1h", "reason": "launch" })).await.status, 200);
        assert_eq!(next().await, 200, "round {round}: the very next call passes");
        // One that began meanwhile goes on whatever changes.
        let (client, url) = (weir.client.clone(), weir.url(CHAT));
        let under_way = tokio::spawn(async move { client.post(&url, &[], &ask(7, true)).await.status });
        let reserved = || weir.limits().budgets_now()[0].foremost.reserved.usd;
        crate::support::until("it is under way", || {
            fake.received().iter().filter(|call| String::from_utf8_lossy(&call.body).contains("q7")).count() > round
        })
        .await;
        assert!(reserved().pico() > 0);
        assert_eq!(does(&weir, Method::DELETE, OVERRIDE, &Value::Null).await.status, 200);
        assert_eq!(next().await, 429, "round {round}: the very next call is refused");
        put(&weir, json!({ "monthly_limit_usd": 1_000_000 })).await;
        assert_eq!(next().await, 200, "round {round}: a raised limit");
        put(&weir, json!({ "monthly_limit_usd": 0.2 })).await;
        assert_eq!(next().await, 429, "round {round}: a lowered limit");
        go.notify_waiters();
        assert_eq!(under_way.await.unwrap(), StatusCode::OK);
    }
    over.store(true, Ordering::SeqCst);
    let mut passed = [0, 0];
    for caller in callers {
        let of_caller = caller.await.unwrap();
        passed = [passed[0] + of_caller[0], passed[1] + of_caller[1]];
    }
    assert!(passed[0] > ROUNDS && passed[1] > 0, "there was traffic of both kinds: {passed:?}");
    weir.settled().await;
    let list = get(&weir, BUDGETS).await;
    assert_eq!(list["budgets"][0]["reserved_usd"], "0", "nothing stays reserved");
    Arc::into_inner(weir).unwrap().stop().await;
}

#[tokio::test]
async fn changes_need_the_token_and_names_are_not_for_everybody() {
    let fake = Fake::always(Script::json(200, &answer())).await;
    let operated = Weir::operated(&fake.url(), SPENT_BY_ONE).await;
    let without_token = Weir::before_with(&fake.url(), SPENT_BY_ONE).await;
    let page = ("origin", "http://page.example");
    let changes = [
        (Method::PUT, MONTHLY, r#"{"monthly_limit_usd":5}"#),
        (Method::DELETE, MONTHLY, ""),
        (Method::POST, OVERRIDE, r#"{"for":"1h","reason":"x"}"#),
        (Method::DELETE, OVERRIDE, ""),
    ];
    for (weir, headers, change, read) in [
        (&operated, &[OPERATOR][..], 200, 200),
        (&operated, &[], 401, 200),
        (&operated, &[("authorization", "Bearer simsim")], 401, 200),
        (&operated, &[page], 401, 401),
        (&operated, &[page, OPERATOR], 200, 200),
        (&without_token, &[], 403, 200),
        (&without_token, &[OPERATOR], 403, 200),
        (&without_token, &[page], 403, 403),
    ] {
        for (method, path, body) in &changes {
            let answer = asks(weir, method.clone(), path, headers, body).await;
            assert_eq!(answer.status.as_u16(), change, "{method} {path} with {headers:?}: {:?}", answer.body);
            assert_eq!(answer.headers.contains_key("www-authenticate"), change == 401);
        }
        for path in [BUDGETS, LIMITS, MONTHLY] {
            let answer = asks(weir, Method::GET, path, headers, "").await;
            assert_eq!(answer.status.as_u16(), read, "{path} with {headers:?}");
            assert_eq!(answer.header("cache-control") == "no-store", read == 200);
        }
    }
    let unchanged = get(&without_token, MONTHLY).await;
    assert_eq!(unchanged["source"], "config");
    operated.stop().await;
    without_token.stop().await;
}
