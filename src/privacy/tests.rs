//! What a record still says once it may be told, and what is kept of whom.

use std::io::Write;
use std::time::SystemTime;

use tempfile::NamedTempFile;

use super::*;
use crate::record::call::{Call, Caller, Delivery, Operation, RequestId};
use crate::record::head::HeadFacts;
use crate::record::outcome::{BypassReason, CacheStatus, Outcome};
use crate::record::trace::{Part, SpanId, Told, TraceId};
use crate::record::usage::Cost;
use crate::record::{CacheFacts, Downgrade, ReplyFacts, Timing};

/// What must not be told, in the form that a rule finds.
const MAIL: &str = "jane@example.com";

/// Users as they are, and what weir knows of what must not be told.
pub(crate) fn plain() -> Arc<Privacy> {
    Arc::new(privacy(&Settings::default()))
}

fn privacy(settings: &Settings) -> Privacy {
    let redactor = Redactor::new(&settings.patterns).expect("patterns that can be used");
    Privacy::new(settings, Arc::new(redactor)).expect("a key that can be used")
}

/// A trace that says `text` wherever it says something from outside.
fn trace(text: &str) -> Trace {
    let span = SpanId::new(1).expect("an id");
    Trace {
        id: TraceId::new(1).expect("an id"),
        parent: None,
        state: None,
        is_sampled: true,
        is_handed_on: false,
        server: span,
        model_call: span,
        attempt: span,
        lookup: span,
        part: Part::Whole,
        origin: None,
        told: Told {
            uri: Some(format!("/openai/v1/files/{text}?key={text}").parse().expect("a path")),
            target: Some(format!("https://api.openai.com/v1/files/{text}?key={text}").parse().expect("a URI")),
            route: Some(text.into()),
            ..Told::default()
        },
    }
}

/// A record that says `text` wherever it says something from outside.
fn record(text: &str) -> Record {
    let caller = Caller {
        namespace: Some(text.into()),
        workspace: Some(text.into()),
        user: Some("alice".into()),
        agent: Some(text.into()),
        loop_type: Some(text.into()),
        run: Some(text.into()),
        run_ends: None,
        is_retry: false,
        client: Some(text.into()),
    };
    Record {
        id: RequestId::next(),
        trace: Some(Box::new(trace(text))),
        call: Call {
            provider: "openai".into(),
            operation: Operation::Chat,
            model: Some(text.into()),
            delivery: Delivery::Whole,
            caller,
        },
        reply: ReplyFacts {
            model: Some(text.into()),
            id: Some(text.into()),
            service_tier: Some(text.into()),
            speed: Some(text.into()),
            inference_geo: Some(text.into()),
            finish_reasons: vec![text.into()],
            tools: vec![text.into(), "look_up".into()],
            calls: None,
        },
        head: HeadFacts { request_id: Some(text.into()), ..HeadFacts::default() },
        usage: None,
        cost: Cost::Nothing,
        provenance: None,
        list_cost: None,
        priced_model: None,
        cache: CacheFacts::new(CacheStatus::Bypass(BypassReason::Off)),
        downgrade: Some(Downgrade { from: text.into(), budget: "app".into() }),
        outcome: Outcome::UpstreamError,
        error_type: None,
        error_detail: Some(format!("no answer from {text}").into()),
        content: None,
        prefixes: None,
        status: Some(502),
        attempt: None,
        tries: None,
        arrived_at: SystemTime::UNIX_EPOCH,
        timing: Timing::default(),
        bytes_in: 0,
        bytes_out: 0,
    }
}

#[test]
fn a_record_says_nowhere_what_must_not_be_told() {
    let mut record = record(MAIL);
    privacy(&Settings::default()).tidy(&mut record);
    let shown = format!("{record:?}");
    assert!(!shown.contains("jane"), "{shown}");
    let told = &record.trace.as_ref().expect("it is traced").told;
    let shown = |uri: &Option<Uri>| uri.as_ref().map(ToString::to_string);
    assert_eq!(shown(&told.uri).as_deref(), Some("/openai/v1/files/[redacted:email]"));
    assert_eq!(shown(&told.target).as_deref(), Some("https://api.openai.com/v1/files/[redacted:email]"));
    assert_eq!(record.error_detail.as_deref(), Some("no answer from [redacted:email]"));
    assert_eq!(record.reply.tools, ["[redacted:email]".into(), Box::from("look_up")]);
}

#[test]
fn what_a_path_hides_in_its_coding_is_found() {
    let mut uri = "/v1/4111%201111%201111%201111/a%20b".parse().expect("a path");
    privacy(&Settings::default()).tidy_uri(&mut uri);
    assert_eq!(uri, "/v1/[redacted:card]/a%20b");
}

#[test]
fn a_record_that_may_be_told_is_told_as_it_is_but_for_queries() {
    let (mut told, untouched) = (record("gpt-5-mini"), record("gpt-5-mini"));
    privacy(&Settings::default()).tidy(&mut told);
    let path = |record: &Record| record.trace.as_ref().and_then(|trace| trace.told.uri.clone());
    assert_eq!(path(&told).expect("a path"), "/openai/v1/files/gpt-5-mini");
    (told.trace, told.id) = (None, untouched.id);
    assert_eq!(format!("{told:?}"), format!("{:?}", Record { trace: None, ..untouched }));
}

#[test]
fn no_text_from_outside_is_kept_longer_than_anybody_shows() {
    let mut record = record("gpt-5-mini");
    let long: Box<str> = "ü".repeat(1 << 20).into();
    (record.call.model, record.error_detail, record.call.caller.user) =
        (Some(long.clone()), Some(long.clone()), Some(long));
    privacy(&Settings::default()).tidy(&mut record);
    let length = |text: &Option<Box<str>>| text.as_ref().map(|text| text.len());
    let lengths = [&record.call.model, &record.error_detail, &record.call.caller.user].map(length);
    assert_eq!(lengths, [Some(MAX_NAME_BYTES), Some(MAX_DETAIL_BYTES), Some(MAX_NAME_BYTES)]);
}

#[test]
fn a_user_is_kept_as_the_operator_wants() {
    let mut key = NamedTempFile::new().expect("a file");
    key.write_all(b"0123456789abcdef0123456789abcdef\n").expect("a key");
    let with = |user_ids| {
        let user_id_key_file = Some(key.path().to_owned());
        privacy(&Settings { user_ids, user_id_key_file, ..Settings::default() })
    };
    let (plain, hashed, off) = (with(UserIds::Plain), with(UserIds::Hashed), with(UserIds::Off));
    assert_eq!(plain.user(MAIL).as_deref(), Some(MAIL), "whoever is called by an address is kept by it");
    assert_eq!(off.user(MAIL), None);
    let name = hashed.user(MAIL).expect("a name");
    assert!(name.starts_with("h-") && name.len() == 24 && !name.contains("jane"), "{name}");
    assert_eq!(hashed.user(MAIL), Some(name.clone()), "the same user, the same name");
    assert_ne!(hashed.user("john@example.com"), Some(name.clone()));
    let secret = format!("sk-{}", "a1B2c3D4".repeat(6));
    assert_eq!(plain.user(&secret).as_deref(), Some("[redacted:api_key]"));

    // Whatever was configured when a row was written, whoever asks finds it; by the name in the ledger too.
    for privacy in [&plain, &hashed, &off] {
        assert_eq!(privacy.names_of_user(MAIL), [MAIL.into(), name.clone()]);
        assert_eq!(privacy.names_of_user(&name)[0], name);
    }
}

#[test]
fn a_key_that_can_be_guessed_is_none() {
    let mut key = NamedTempFile::new().expect("a file");
    key.write_all(b"short").expect("a key");
    let of = |user_id_key_file| {
        let settings = Settings { user_ids: UserIds::Hashed, user_id_key_file, ..Settings::default() };
        Users::new(&settings).expect_err("no key").to_string()
    };
    assert!(of(None).contains("is missing"));
    assert!(of(Some(key.path().to_owned())).contains("holds fewer than 32 characters"));
    assert!(of(Some("/no/such/file".into())).contains("/no/such/file cannot be read"));
}

#[test]
fn the_most_private_of_what_is_said_holds() {
    use Capture::{Full, None as Nothing, Redacted};
    for (all, provider, namespace, expected) in [
        (Nothing, Some(Full), Some(Full), Nothing),
        (Full, None, None, Full),
        (Full, Some(Redacted), None, Redacted),
        (Full, None, Some(Nothing), Nothing),
        (Full, Some(Nothing), Some(Redacted), Nothing),
        (Redacted, Some(Full), Some(Full), Redacted),
    ] {
        let namespaces = namespace.map(|capture| ("team".to_owned(), capture)).into_iter().collect();
        let privacy = privacy(&Settings { capture: all, namespaces, ..Settings::default() });
        assert_eq!(privacy.capture(provider, Some("team")), expected, "{all:?} {provider:?} {namespace:?}");
        assert_eq!(privacy.capture(None, Some("other")), all);
    }
}
