//! Files that somebody writes: an operator, a test, an export that broke off; and pods.

use std::io::Cursor;

use serde_json::Value;
use weir::cache::recording::file::{from_text, to_text};
use weir::config::{Config, Presence, Sources};
use weir::price::{PriceError, Prices, Settings as PriceSettings};
use weir::warm::lines::{BadFile, Lines};

use super::as_file;

/// A configuration: it holds, or all its mistakes are told. Nothing that it names is opened for good.
pub fn config(data: &[u8]) {
    // What a file names is read: no device, and nothing of this machine.
    let Ok(text) = std::str::from_utf8(data) else { return };
    if ["/dev", "/proc", "/sys"].iter().any(|path| text.contains(path)) {
        return;
    }
    as_file("weir.yaml", data, |path| {
        let sources = Sources { file: Some(path.to_owned()), presence: Presence::default(), ..Sources::default() };
        if let Err(mistakes) = Config::load(&sources) {
            assert!(!mistakes.all().is_empty(), "what does not hold has a mistake");
            assert!(mistakes.all().iter().all(|mistake| !mistake.message.is_empty()), "a mistake is told");
        }
    });
}

/// An overlay of prices, as `weir prices check` reads it: it is a table, or its mistakes are named.
pub fn price_overlay(data: &[u8]) {
    as_file("prices.json", data, |path| {
        match Prices::load(&PriceSettings { overlay: Some(path.to_owned()) }, Vec::new()) {
            Ok(prices) => drop((prices.overlay_size(), prices.remarks())),
            Err(PriceError::Mistaken { mistakes, .. }) => {
                assert!(
                    !mistakes.is_empty() && mistakes.iter().all(|it| !it.field.is_empty() && !it.problem.is_empty())
                );
            }
            Err(PriceError::Unreadable { .. }) => assert!(std::str::from_utf8(data).is_err(), "all text can be read"),
            Err(error @ PriceError::Unlisted { .. }) => unreachable!("nobody is to be billed: {error}"),
        }
    });
}

/// A recording: what is read is written as it was, and read again.
pub fn recording(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(recording) = from_text(text) else { return };
    let written = to_text(&recording);
    let again = from_text(&written).unwrap_or_else(|(line, why)| panic!("{line:?}: {why}: {written}"));
    // A request's JSON is kept by its value.
    assert_eq!(to_text(&again), written);
    assert_eq!(again.response.body, recording.response.body, "a reply is kept byte for byte");
}

/// Requests that warm the cache.
pub fn warm_lines(data: &[u8]) {
    as_file("requests.jsonl", data, |path| match Lines::check(path) {
        Ok(count) => assert!(count <= data.len()),
        Err(BadFile::Mistaken { mistakes, .. }) => {
            assert!(mistakes.iter().all(|(line, why)| *line > 0 && !why.is_empty()));
        }
        Err(BadFile::Unreadable { .. }) => {}
    });
}

/// An export that broke off: what is kept of it is a part of it, and keeping that keeps no less.
#[cfg(feature = "ledger")]
pub fn export_resume(data: &[u8]) {
    use weir::export::Format;
    use weir::export::resume::kept;
    for format in Format::ALL {
        let Ok(Some(found)) = kept(format, &mut Cursor::new(data)) else { continue };
        assert!(found.bytes <= data.len() as u64, "no more is kept than there is");
    }
}

/// Without a ledger there is nothing to export.
#[cfg(not(feature = "ledger"))]
pub fn export_resume(_: &[u8]) {
    let _ = Cursor::new(());
}

/// Whatever the API server or somebody else sends is answered, and only a pod with a wrong annotation is refused.
#[cfg(feature = "inject")]
pub fn review(data: &[u8]) {
    use weir::inject::review::Outcome;
    use weir::inject::{Settings, answer};
    let settings = Settings { image: Some("weir:1".to_owned()), ..Settings::default() };
    let answer = answer(data, &settings);
    let review: Value = serde_json::from_slice(&answer.body).expect("an answer is JSON");
    assert_eq!(review["response"]["allowed"], answer.result != Outcome::Denied);
    assert_eq!(review["response"]["patch"].is_string(), answer.result == Outcome::Injected);
}

/// Manifests that weir is put into: what comes of one can be read again.
#[cfg(feature = "inject")]
pub fn manifest(data: &[u8]) {
    use weir::inject::Settings;
    use weir::inject::manifest::inject;
    let settings = Settings { image: Some("weir:1".to_owned()), ..Settings::default() };
    let Ok(text) = std::str::from_utf8(data) else { return };
    match inject(text, &settings) {
        Ok(manifest) => {
            let again = inject(&manifest.text, &settings);
            assert!(again.is_ok(), "what is written can be read: {again:?}\n{}", manifest.text);
        }
        Err(faults) => assert!(!faults.is_empty(), "what is refused has a fault"),
    }
}

/// Without an injector there are no pods.
#[cfg(not(feature = "inject"))]
pub fn review(_: &[u8]) {
    let _ = Value::Null;
}

/// Without an injector there are no manifests.
#[cfg(not(feature = "inject"))]
pub fn manifest(_: &[u8]) {}
