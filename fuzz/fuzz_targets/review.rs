#![no_main]

use serde_json::Value;
use weir::inject::review::Outcome;
use weir::inject::{Settings, answer};

// Whatever the API server or somebody else sends is answered, and only a pod with a wrong annotation is refused.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let settings = Settings { image: Some("weir:1".to_owned()), ..Settings::default() };
    let answer = answer(data, &settings);
    let review: Value = serde_json::from_slice(&answer.body).expect("an answer is JSON");
    assert_eq!(review["response"]["allowed"], answer.result != Outcome::Denied);
    assert_eq!(review["response"]["patch"].is_string(), answer.result == Outcome::Injected);
});
