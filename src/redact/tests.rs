//! What is found, and what is not.

use std::borrow::Cow;

use super::*;

fn redactor() -> Redactor {
    Redactor::new(&[]).expect("no patterns of an operator")
}

/// A key as long as the vendor's, of which only the head is true.
fn key(head: &str, tail: usize) -> String {
    let body = "a1B2c3D4e5F6g7H8i9J0";
    head.chars().chain(body.chars().cycle().take(tail)).collect()
}

#[test]
fn what_must_not_stay_is_replaced_by_what_it_was() {
    let redactor = redactor();
    for (text, expected) in [
        ("write to Jane.Doe+llm@mail.example.co.uk today", "write to [redacted:email] today"),
        ("<o'neil@example.com>, x", "<[redacted:email]>, x"),
        ("card 4111 1111 1111 1111 exp 12/29", "card [redacted:card] exp 12/29"),
        ("card 4111-1111-1111-1111.", "card [redacted:card]."),
        ("amex 378282246310005", "amex [redacted:card]"),
        ("SSN: 123-45-6789", "SSN: [redacted:ssn]"),
        ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN [redacted:iban] please"),
        ("GB29NWBK60161331926819", "[redacted:iban]"),
        ("call +49 (171) 123 45 67 now", "call [redacted:phone] now"),
        ("call +1-202-555-0143", "call [redacted:phone]"),
        ("call (202) 555-0143, or 202-555-0143", "call [redacted:phone], or [redacted:phone]"),
        ("ruf 0171 1234567 an", "ruf [redacted:phone] an"),
        ("ruf 030/12 34 56 78 an", "ruf [redacted:phone] an"),
        ("from 203.0.113.7:443", "from [redacted:ip]:443"),
        ("from 2001:db8:85a3::8a2e:370:7334 on", "from [redacted:ip] on"),
        ("from [fe80:0:0:0:1:2:3:4]", "from [[redacted:ip]]"),
        ("postgres://app:hunter2@db:5432/x", "postgres://app:[redacted:password]@db:5432/x"),
        ("Authorization: Bearer abcdef0123456789", "Authorization: Bearer [redacted:token]"),
        ("password = 'correct-horse-7-battery'", "password = '[redacted:secret]'"),
        (r#"{"api_key":"0123456789abcdef0123"}"#, r#"{"api_key":"[redacted:secret]"}"#),
        ("GET /v1beta/models?alt=sse&key=abcdef0123456789", "GET /v1beta/models?alt=sse&key=[redacted:secret]"),
        ("http://192.0.2.7/x, 203.0.113.7", "http://[redacted:ip]/x, [redacted:ip]"),
        ("/v1/hosts/203.0.113.7", "/v1/hosts/[redacted:ip]"),
        ("/v1/users/jane%40example.com/keys", "/v1/users/[redacted:email]/keys"),
        ("https://x.example/v1?api_key=0123456789abcdef", "https://x.example/v1?api_key=[redacted:secret]"),
    ] {
        assert_eq!(redactor.redact(text), expected);
        // Alone, and wherever it stands among others: a digit, a letter or nothing may be what comes before.
        let found = expected.split_once('[').map_or(text, |(before, _)| &text[before.len()..]);
        for texts in [vec![text], vec![found], vec!["gpt-5-2025", text, "x"], vec!["a.7", found], vec!["", found, "7"]]
        {
            let differs = texts.iter().any(|text| redactor.redact(text) != *text);
            assert!(!differs || !redactor.is_clean(texts.iter().copied()), "{texts:?}");
        }
    }
    assert!(redactor.is_clean(["gpt-4o-mini-2024-07-18", "chatcmpl-9x", "", "OpenAI/Python 1.2.3"].into_iter()));
    let wanted = [Pattern { name: "x".to_owned(), regex: "^x$".to_owned() }];
    assert!(
        !Redactor::new(&wanted).expect("a pattern").is_clean(["a"].into_iter()),
        "an operator's may need a whole text"
    );
}

#[test]
fn keys_of_the_known_vendors_are_found_wherever_they_stand() {
    let redactor = redactor();
    let keys = [
        key("sk-", 48),
        key("sk-proj-", 100),
        key("sk-svcacct-", 100),
        key("sk-ant-api03-", 95),
        key("sk-or-v1-", 64),
        key("AIza", 35),
        key("gsk_", 52),
        key("xai-", 80),
        key("pplx-", 48),
        key("hf_", 34),
        key("r8_", 37),
        key("fw_", 24),
        key("tgp_v1_", 43),
        key("nvapi-", 64),
        key("pcsk_", 60),
        key("lsv2_pt_", 43),
        key("ghp_", 36),
        key("github_pat_", 82),
        key("glpat-", 20),
        key("npm_", 36),
        key("pypi-AgEIcHlwaS5vcmc", 60),
        key("xoxb-", 50),
        key("sk_live_", 24),
        key("rk_test_", 24),
        key("ya29.", 60),
        key("ABSK", 128),
        key("bedrock-api-key-", 100),
        "AKIAIOSFODNN7EXAMPLE".replace('1', "2"),
        format!("dapi{}", "0123456789abcdef".repeat(2)),
        format!("csk-{}", "abcdefgh12345678".repeat(3)),
        format!("123456789:AA{}", key("", 33)),
        format!("sk-lf-{}", "01234567-89ab-cdef-0123-456789abcdef"),
        format!("SG.{}.{}", key("", 22), key("", 43)),
        format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.{}", key("", 43)),
    ];
    for key in &keys {
        for text in [
            key.clone(),
            format!("my key is {key}."),
            format!("\"{key}\""),
            format!("x={key}&y=1"),
            format!("Bearer {key}"),
        ] {
            let kept = redactor.redact(&text);
            assert!(!kept.contains(&key[key.len() - 10..]), "{text} became {kept}");
            assert_eq!(kept.matches("[redacted:").count(), 1, "{text} became {kept}");
        }
    }
    let pem = format!("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----", key("MII", 300));
    assert_eq!(redactor.redact(&format!("a\n{pem}\nb")), "a\n[redacted:private_key]\nb");
    assert_eq!(redactor.redact(&pem[..200]), "[redacted:private_key]", "cut off, it is still a key");
}

#[test]
fn what_is_too_long_for_a_password_is_none() {
    let redactor = redactor();
    for (rule, length, expected) in [("as long as they get", 256, true), ("longer", 257, false)] {
        let url = format!("amqp://app:{}@broker/x", "pä".repeat(200).chars().take(length).collect::<String>());
        assert_eq!(redactor.redact(&url).contains("[redacted:password]"), expected, "{rule}");
    }
}

#[test]
fn prose_and_code_stay_as_they_are() {
    let redactor = redactor();
    for text in [
        "The meeting is on 2026-11-21 at 10:30:00, room 4.2.1; see section 12.3.4.",
        "In 1998 we sold 1,234,567 units for $4,111,111.11 (up 12.5 %).",
        "order 1234567890123456, tracking 9400111899223100, epoch 1732212345678901234",
        "let x = std::io::stdin().lock(); use crate::a::b::c;",
        "fn token(&self) -> Token { self.token }  // token: Option<Token>",
        "secret: none; password: (see the vault)",
        "commit 51c350d1e2f3a4b5c6d7e8f90123456789abcdef",
        "uuid 550e8400-e29b-41d4-a716-446655440000",
        "http://127.0.0.1:9347/openai/v1 and http://localhost:9348, bind 0.0.0.0, [::1]:80",
        "Mozilla/5.0 AppleWebKit/537.36 Chrome/120.0.0.0 Safari/537.36 Tool/1.2.3.4 v1.2.3.4 10.0.0.0/8",
        "class=sk-estimator-container-outer",
        "version 1.2.3, sk-learn, sklearn, ask-me, task-force",
        "the MAC is 00:1a:2b:3c:4d:5e",
        "a@b and user@host and @mention and foo@",
        "123-45-678, 000-12-3456, 666-12-3456, 900-12-3456, 123-00-4567, 123-45-0000",
        "4111 1111 1111 1112 fails the check",
        "DE89 3704 0044 0532 0130 01 fails the check",
        "01-02-2026, 01/02/2026, 10-20-30-40",
        "Basic understanding of bearer tokens is assumed",
        "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
    ] {
        let kept = redactor.redact(text);
        assert!(matches!(kept, Cow::Borrowed(_)), "{text} became {kept}");
    }
}

/// What was found, by its name.
fn found(redactor: &Redactor) -> Vec<(&str, u64)> {
    redactor.found().into_iter().filter(|(_, times)| *times > 0).collect()
}

#[test]
fn what_two_rules_find_goes_as_one_and_a_second_time_finds_nothing() {
    let redactor = redactor();
    let text = "api_key=sk-ant-api03-a1B2c3D4e5F6g7H8i9J0, mail jane@example.com, jane@example.com";
    let kept = redactor.redact(text);
    assert_eq!(kept, "api_key=[redacted:api_key], mail [redacted:email], [redacted:email]");
    assert_eq!(found(&redactor), [("api_key", 1), ("email", 2)]);
    assert_eq!(redactor.redact(&kept), kept);
    assert_eq!(found(&redactor), [("api_key", 1), ("email", 2)]);
}

#[test]
fn what_only_tells_of_a_person_may_stay_where_secrets_may_not() {
    let text = format!("jane@example.com, +1-202-555-0143, {}", key("sk-proj-", 40));
    assert_eq!(redactor().redact_secrets(&text), "jane@example.com, +1-202-555-0143, [redacted:api_key]");
}

#[test]
fn json_stays_json() {
    let redactor = redactor();
    for (rule, text, expected) in [
        ("nothing to do", r#"{"a": "b", "n": 1024}"#, r#"{"a": "b", "n": 1024}"#),
        (
            "escapes hide nothing",
            r#"{"a": "line\njane\u0040example.com \"x\""}"#,
            r#"{"a": "line\n[redacted:email] \"x\""}"#,
        ),
        ("names of fields", r#"{"jane@example.com":1}"#, r#"{"[redacted:email]":1}"#),
        ("numbers become texts", "[4111111111111111, -1, 1e9]", r#"["[redacted:card]", -1, 1e9]"#),
        (
            "JSON in JSON",
            r#"{"arguments":"{\"api_key\":\"0123456789abcdef\"}"}"#,
            r#"{"arguments":"{\"api_key\":\"[redacted:secret]\"}"}"#,
        ),
        (
            "a name tells",
            r#"{"db": {"password" : "hunter2", "user": "app"}}"#,
            r#"{"db": {"password" : "[redacted:secret]", "user": "app"}}"#,
        ),
        (
            "a name tells not of what has spaces",
            r#"{"secret": "none of your business"}"#,
            r#"{"secret": "none of your business"}"#,
        ),
        (
            "tokens are words",
            r#"{"logprobs":[{"token":"Hello","bytes":[72]}]}"#,
            r#"{"logprobs":[{"token":"Hello","bytes":[72]}]}"#,
        ),
        ("cut off in a text", r#"{"a": "x jane@example.com y"#, r#"{"a": "x [redacted:email] y""#),
        ("cut off in an escape", r#"{"a": "jane@example.com \ud83d\ude"#, r#"{"a": "[redacted:email] ""#),
        ("no JSON", r#"jane "jane@example.com" \"#, r#"jane "[redacted:email]" \"#),
        ("bad escapes", r#"["\x jane@example.com"]"#, r#"["\\x [redacted:email]"]"#),
    ] {
        assert_eq!(redactor.redact_json(text), expected, "{rule}");
    }
}

#[test]
fn no_text_takes_long() {
    let redactor = redactor();
    let long = |part: &str| part.repeat((1 << 20) / part.len());
    // In time that grows with the square of the length, each of them would take minutes.
    for part in [
        "a.",
        "a@b.",
        "1",
        "1 ",
        "1.",
        "+1",
        "ab:",
        "0:",
        "sk-",
        "eyJa",
        "-----BEGIN PRIVATE KEY-----",
        "a://",
        "token=",
        "\"",
        "\\",
    ] {
        let text = long(part);
        let _ = (redactor.redact(&text), redactor.redact_json(&text));
    }
}

#[test]
fn an_operator_s_patterns_count_too_and_bad_ones_are_named() {
    let pattern = |name: &str, regex: &str| Pattern { name: name.to_owned(), regex: regex.to_owned() };
    let redactor =
        Redactor::new(&[pattern("employee", r"\bE-\d{6}\b"), pattern("case", r"case (\d+)")]).expect("good ones");
    assert_eq!(redactor.redact("E-123456 has case 77"), "[redacted:employee] has case [redacted:case]");
    assert_eq!(found(&redactor), [("employee", 1), ("case", 1)]);

    let mistakes = Redactor::new(&[pattern("open", "("), pattern("fine", "a"), pattern("huge", r"\w{5000}")])
        .expect_err("bad ones");
    assert_eq!(mistakes.iter().map(|mistake| mistake.position).collect::<Vec<_>>(), [0, 2]);
}
