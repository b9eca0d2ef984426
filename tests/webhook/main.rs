//! The webhook, served for real: TLS, certificates and the trust in them, with a simulated Kubernetes API and clients that
//! trust what it hands out and nothing else.
#![cfg(feature = "inject")]

mod injector;
mod kubernetes;
mod serving;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::sync::Barrier;

use injector::{NAME, Running, review, reviewed, until};
use kubernetes::{Kubernetes, Mood};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test]
async fn the_first_start_makes_a_certificate_and_has_it_trusted() {
    let kubernetes = Kubernetes::start().await;
    let injector = Running::in_cluster(&kubernetes).await;
    injector.ready().await;
    let bundle = kubernetes.bundle().expect("trust comes before readiness");
    let answer = injector.review(&bundle).await.expect("an answer");
    assert_eq!(answer["response"]["uid"], review(false)["request"]["uid"]);
    assert_eq!(answer["response"]["allowed"], true);
    assert_eq!(answer["response"]["patchType"], "JSONPatch");

    let kept = kubernetes.in_secret("ca.crt").expect("an authority");
    assert_eq!(kept, bundle);
    assert!(kubernetes.in_secret("tls.key").expect("a key").contains("PRIVATE KEY"));
    assert_eq!(kubernetes.held().secret["metadata"]["labels"]["app.kubernetes.io/name"], "weir", "the rest stays");
    let expiry = injector.series("weir_inject_cert_expiry_timestamp_seconds").await.expect("a certificate");
    let days = (expiry - seconds(SystemTime::now())) / DAY.as_secs_f64();
    assert!((89.0..=90.0).contains(&days), "{days}");
    assert_eq!(injector.series("weir_config_last_reload_successful").await, Some(1.0));
}

#[tokio::test]
async fn two_replicas_that_start_at_once_agree() {
    let kubernetes = Kubernetes::start().await;
    kubernetes.held().mood = Mood::Together(Arc::new(Barrier::new(2)));
    let (one, other) = tokio::join!(Running::in_cluster(&kubernetes), Running::in_cluster(&kubernetes));
    until!("both have written", kubernetes.times("PUT secret 200") + kubernetes.times("PUT secret 409") == 2);
    kubernetes.held().mood = Mood::Well;
    for injector in [&one, &other] {
        injector.ready().await;
        let bundle = kubernetes.bundle().expect("trust");
        assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 1, "one authority");
        injector.review(&bundle).await.expect("both are trusted");
    }
    assert_eq!((kubernetes.times("PUT secret 200"), kubernetes.times("PUT secret 409")), (1, 1));
}

#[tokio::test]
async fn a_change_of_authority_fails_no_review() {
    let kubernetes = Kubernetes::start().await;
    let old = aged(270, 5);
    kubernetes.held().hold(&old.data());
    // It is due, and cannot be written: what there is does.
    kubernetes.held().mood = Mood::RefusesTo(Method::PUT, 500);
    let injector = Arc::new(Running::in_cluster(&kubernetes).await);
    injector.ready().await;
    let before = kubernetes.bundle().expect("trust");
    assert_eq!(before, old.authority);

    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = Vec::new();
    for _ in 0..4 {
        let (injector, bundle) = (Arc::clone(&injector), before.clone());
        let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
        clients.push(tokio::spawn(async move {
            let mut kept = injector.http2(&bundle).await.expect("a connection that is kept");
            while !stop.load(Ordering::Relaxed) {
                injector.review(&bundle).await.expect("who has not heard of the new authority trusts it");
                let answer = kept.send_request(reviewed("/mutate", false)).await.expect("an answer");
                assert_eq!(answer.status(), StatusCode::OK);
                asked.fetch_add(2, Ordering::Relaxed);
            }
        }));
    }
    until!("they ask", asked.load(Ordering::Relaxed) > 20);
    kubernetes.held().mood = Mood::Well;
    until!("there is another authority", kubernetes.in_secret("ca.crt").is_some_and(|now| now != old.authority));
    until!("both are trusted", kubernetes.bundle().is_some_and(|now| now.matches("BEGIN").count() == 2));
    let (new, both) = (kubernetes.in_secret("ca.crt").expect("one"), kubernetes.bundle().expect("trust"));
    assert_eq!(both, new.clone() + &old.authority);
    let then = asked.load(Ordering::Relaxed);
    let shown = "weir_config_reloads_total{result=\"success\"}";
    until!("the new certificate is shown", injector.series(shown).await > Some(0.0));
    for bundle in [&before, &both, &new] {
        injector.review(bundle).await.expect("whatever they have heard");
    }
    until!("they go on", asked.load(Ordering::Relaxed) > then + 20);
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no review failed");
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_by_the_same_authority() {
    let kubernetes = Kubernetes::start().await;
    let old = aged(30, 70);
    kubernetes.held().hold(&old.data());
    let injector = Running::in_cluster(&kubernetes).await;
    injector.ready().await;
    assert_eq!(kubernetes.in_secret("ca.crt").as_ref(), Some(&old.authority));
    assert_ne!(kubernetes.in_secret("tls.crt"), Some(old.leaf));
    injector.review(&old.authority).await.expect("it is trusted");
}

#[tokio::test]
async fn what_cannot_be_used_is_made_anew() {
    let (good, other) = (aged(1, 1), aged(1, 1));
    let with = |name: &'static str, text: &'static str| {
        let mut data = good.data();
        data.retain(|(it, _)| *it != name);
        data.push((name, text));
        data
    };
    let mut foreign_key = good.data();
    foreign_key.retain(|(name, _)| *name != "tls.key");
    foreign_key.push(("tls.key", &other.leaf_key));
    let mut foreign_authority = good.data();
    foreign_authority.retain(|(name, _)| *name != "ca.key");
    foreign_authority.push(("ca.key", &other.authority_key));
    for (rule, data, authority_stays) in [
        ("no certificate", with("tls.crt", ""), true),
        ("no PEM", with("tls.crt", "certificate"), true),
        ("the key of another", foreign_key, true),
        ("no key", with("tls.key", ""), true),
        ("an authority that is none", with("ca.crt", "authority"), false),
        ("an authority without its key", with("ca.key", ""), false),
        ("an authority with the key of another", foreign_authority, false),
    ] {
        let kubernetes = Kubernetes::start().await;
        kubernetes.held().hold(&data);
        let injector = Running::in_cluster(&kubernetes).await;
        injector.ready().await;
        let authority = kubernetes.in_secret("ca.crt").expect("an authority");
        assert_eq!(authority == good.authority, authority_stays, "{rule}");
        injector.review(&authority).await.unwrap_or_else(|error| panic!("{rule}: {error}"));
    }
}

#[tokio::test]
async fn it_waits_for_an_api_that_is_away_and_says_why() {
    for (rule, mood) in [
        ("nobody there", Mood::Gone),
        ("no answer", Mood::Silent),
        ("no token", Mood::Refuses(401)),
        ("no right", Mood::Refuses(403)),
        ("no Secret", Mood::Refuses(404)),
        ("always someone else", Mood::RefusesTo(Method::PUT, 409)),
        ("a fault of its own", Mood::Refuses(500)),
        ("too busy", Mood::Refuses(429)),
    ] {
        let kubernetes = Kubernetes::start().await;
        kubernetes.held().mood = mood;
        let injector = Running::in_cluster(&kubernetes).await;
        until!(rule, injector.series("weir_config_last_reload_successful").await == Some(0.0));
        assert_eq!(injector.series("weir_inject_cert_expiry_timestamp_seconds").await, None, "{rule}");
        let (status, says) = injector.get("/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{rule}");
        assert!(says.starts_with("starting: there is no certificate"), "{rule}: {says}");
        assert_eq!(injector.get("/livez").await.0, StatusCode::OK, "{rule}: a restart would not help");
        kubernetes.held().mood = Mood::Well;
        injector.ready().await;
        until!(rule, injector.series("weir_config_last_reload_successful").await == Some(1.0));
        injector.review(&kubernetes.bundle().expect("trust")).await.unwrap_or_else(|error| panic!("{rule}: {error}"));
    }
}

#[tokio::test]
async fn an_api_that_goes_away_later_hurts_nobody() {
    let kubernetes = Kubernetes::start().await;
    let injector = Running::in_cluster(&kubernetes).await;
    injector.ready().await;
    let bundle = kubernetes.bundle().expect("trust");
    for mood in [Mood::Gone, Mood::Silent, Mood::Refuses(403), Mood::Refuses(500)] {
        kubernetes.held().mood = mood;
        until!("it is noticed", injector.series("weir_config_last_reload_successful").await == Some(0.0));
        assert!(injector.is_ready().await);
        injector.review(&bundle).await.expect("what is at hand is served");
        kubernetes.held().mood = Mood::Well;
        until!("it is well again", injector.series("weir_config_last_reload_successful").await == Some(1.0));
    }
    assert_eq!(kubernetes.times("PUT secret 200"), 1, "nothing was due");
}

#[tokio::test]
async fn trust_that_is_taken_away_is_put_back() {
    let kubernetes = Kubernetes::start().await;
    let injector = Running::in_cluster(&kubernetes).await;
    injector.ready().await;
    let bundle = kubernetes.bundle().expect("trust");
    kubernetes.held().reset_trust();
    assert_eq!(kubernetes.bundle(), None);
    until!("it is back", kubernetes.bundle().as_ref() == Some(&bundle));
    assert_eq!(kubernetes.times("PATCH webhooks 200"), 2);
}

#[tokio::test]
async fn the_token_is_read_again() {
    let kubernetes = Kubernetes::start().await;
    let injector = Running::in_cluster(&kubernetes).await;
    injector.ready().await;
    kubernetes.change_token();
    let before = kubernetes.held().done.len();
    until!("it goes on asking", kubernetes.held().done.len() > before + 8);
    let asked = kubernetes.held().done.split_off(before + 2);
    assert!(asked.iter().all(|done| done.ends_with(" 200")), "{asked:?}");
}

/// An authority and its certificate, made some days ago.
struct Aged {
    authority: String,
    authority_key: String,
    leaf: String,
    leaf_key: String,
}

impl Aged {
    fn data(&self) -> Vec<(&'static str, &str)> {
        vec![
            ("ca.crt", &self.authority),
            ("ca.key", &self.authority_key),
            ("tls.crt", &self.leaf),
            ("tls.key", &self.leaf_key),
        ]
    }
}

/// As the injector makes them: an authority for 365 days, a certificate for 90; each made so many days ago.
fn aged(authority_days: u32, leaf_days: u32) -> Aged {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("weir-injector of {authority_days} days ago"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = (SystemTime::now() - authority_days * DAY).into();
    params.not_after = (SystemTime::now() + (365 - authority_days) * DAY).into();
    let authority = params.self_signed(&key).expect("an authority").pem();
    let authority_key = key.serialize_pem();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().expect("a key");
    let names = ["weir-injector", "weir-injector.weir-system", NAME].map(str::to_owned);
    let mut params = CertificateParams::new(names).expect("names");
    params.not_before = (SystemTime::now() - leaf_days * DAY).into();
    params.not_after = (SystemTime::now() + (90 - leaf_days) * DAY).into();
    let leaf = params.signed_by(&leaf_key, &issuer).expect("a certificate").pem();
    Aged { authority, authority_key, leaf, leaf_key: leaf_key.serialize_pem() }
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs_f64()
}
