//! Paths, hosts and targets that try to reach another place than the operator configured: another provider's, another
//! tenant's behind the same gateway, a cloud's metadata. There is no way from a request to an address.

use crate::support::fake::{Fake, Script};
use crate::support::raw::{answers, has_sane_metrics, say, status};
use crate::support::weir::Weir;

/// A provider below a path of a gateway, with a key of the operator's; and one beside it.
async fn stage(files: &std::path::Path) -> (Fake, Fake, Weir) {
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let beside = Fake::always(Script::json(200, b"{}")).await;
    let key = files.join("key");
    std::fs::write(&key, "sk-operator").unwrap();
    let yaml = format!(
        "providers:\n  openai: {{ base_url: \"{}/team\", api_key_file: \"{}\" }}\n  local: {{ api: openai, base_url: \"{}\" }}\n",
        fake.url(),
        key.display(),
        beside.url()
    );
    (fake, beside, Weir::start(&yaml).await)
}

#[tokio::test]
async fn no_path_leads_out_of_a_providers_base_url() {
    let files = tempfile::tempdir().unwrap();
    let (fake, beside, weir) = stage(files.path()).await;
    for path in [
        "/openai/../local/v1/models",
        "/openai/v1/../../../admin",
        "/openai/%2e%2e/admin",
        "/openai/%2E%2E/admin",
        "/openai/.%2e/admin",
        "/openai/%252e%252e/admin",
        "/openai/..;/admin",
        "/openai/v1/..;x=y/admin",
        "/openai/..%2fadmin",
        "/openai/..%5cadmin",
        "/openai/v1/..",
        "/v1/../admin",
        "/v1/%2e%2e/admin",
    ] {
        let answer =
            say(&weir.app, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(status(&answer), 400, "{path}: {text}");
        assert!(text.contains("path_leads_upwards") && text.contains("leads out of a provider's base URL"), "{text}");
    }
    assert!(fake.received().is_empty() && beside.received().is_empty());
    has_sane_metrics(&weir).await;
    weir.stop().await;
}

#[tokio::test]
async fn what_looks_like_another_host_stays_below_the_base_url() {
    let files = tempfile::tempdir().unwrap();
    let (fake, beside, weir) = stage(files.path()).await;
    for (target, host, expected) in [
        ("/openai//169.254.169.254/latest/meta-data/", "x", "/team//169.254.169.254/latest/meta-data/"),
        ("/openai/@169.254.169.254/", "x", "/team/@169.254.169.254/"),
        ("/openai/http://169.254.169.254/", "x", "/team/http://169.254.169.254/"),
        ("/openai/v1/models", "169.254.169.254", "/team/v1/models"),
        ("/openai/v1/models", "local", "/team/v1/models"),
        ("/openai/v1/models?url=http://169.254.169.254/..", "x", "/team/v1/models?url=http://169.254.169.254/.."),
        ("http://169.254.169.254/openai/v1/models", "169.254.169.254", "/team/v1/models"),
        ("http://user:pass@169.254.169.254/openai/v1/models", "x", "/team/v1/models"),
        ("/openai/./v1/models", "x", "/team/./v1/models"),
    ] {
        let before = fake.received().len();
        let request = format!(
            "GET {target} HTTP/1.1\r\nhost: {host}\r\nx-forwarded-host: 169.254.169.254\r\nconnection: close\r\n\r\n"
        );
        let answer = say(&weir.app, request.as_bytes()).await;
        assert_eq!(status(&answer), 200, "{target}: {}", String::from_utf8_lossy(&answer));
        let received = fake.received();
        assert_eq!(received.len(), before + 1, "{target}");
        let one = received.last().unwrap();
        assert_eq!(one.target, expected, "{target}");
        assert_eq!(one.header("host"), Some(&*fake.address.to_string()), "{target}");
    }
    assert!(beside.received().is_empty());
    has_sane_metrics(&weir).await;
    weir.stop().await;
}

#[tokio::test]
async fn weir_is_no_proxy_to_anywhere() {
    let files = tempfile::tempdir().unwrap();
    let (fake, beside, weir) = stage(files.path()).await;
    let there = beside.address;
    for (request, expected) in [
        (format!("GET http://{there}/v1/models HTTP/1.1\r\nhost: {there}\r\n"), 200),
        (format!("GET http://{there}/latest/meta-data/ HTTP/1.1\r\nhost: {there}\r\n"), 404),
        ("GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\nhost: 169.254.169.254\r\n".to_owned(), 404),
        ("GET /169.254.169.254/latest/meta-data/ HTTP/1.1\r\nhost: 169.254.169.254\r\n".to_owned(), 404),
        ("GET /openai@169.254.169.254/ HTTP/1.1\r\nhost: x\r\n".to_owned(), 404),
        ("GET /openai%2f..%2flocal/ HTTP/1.1\r\nhost: x\r\n".to_owned(), 400),
        ("GET //169.254.169.254/ HTTP/1.1\r\nhost: x\r\n".to_owned(), 404),
        ("GET /OPENAI/v1/models HTTP/1.1\r\nhost: x\r\n".to_owned(), 404),
        (format!("CONNECT {there} HTTP/1.1\r\nhost: {there}\r\n"), 404),
        ("OPTIONS * HTTP/1.1\r\nhost: x\r\n".to_owned(), 404),
    ] {
        let answer = say(&weir.app, format!("{request}connection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(
            (status(&answer), answers(&answer)),
            (expected, 1),
            "{request}: {}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert!(beside.received().is_empty(), "nothing leads there but its own name");
    // `/v1/…` is the default provider's, whatever host is named.
    assert_eq!(fake.received().len(), 1);
    has_sane_metrics(&weir).await;
    weir.stop().await;
}

#[tokio::test]
async fn a_path_that_is_no_text_is_forwarded_as_it_is_or_refused_and_named_nowhere() {
    let files = tempfile::tempdir().unwrap();
    let (fake, _beside, weir) = stage(files.path()).await;
    for path in [
        "/openai/v1/%ff%fe",
        "/openai/v1/models/%00",
        "/openai/v1/a%0d%0aset-cookie:%20b",
        "/nobody%0d%0ax:%20y/%ff",
        "/%ff",
    ] {
        let answer =
            say(&weir.app, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert!([200, 404].contains(&status(&answer)), "{path}: {text}");
        assert!(!text.to_lowercase().contains("\nset-cookie") && !text.contains("\nx: y"), "{path}: {text}");
    }
    let raw = say(&weir.app, b"GET /openai/v1/\xff\xfe HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!([200, 400].contains(&status(&raw)), "{}", String::from_utf8_lossy(&raw));
    assert!(fake.received().iter().all(|one| one.target.starts_with("/team/v1/")));
    has_sane_metrics(&weir).await;
    weir.stop().await;
}
