#![no_main]

use std::collections::BTreeSet;

use weir::provider::session::{self, News};

// The first byte says which kind of session; each line is a message.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [kind, messages @ ..] = data else { return };
    let path = ["/v1/realtime", "/v1/responses"][usize::from(kind & 1)];
    let Some(mut opened) = session::open(path, Some("model=m")) else { return };
    let (mut open, mut ended) = (BTreeSet::new(), BTreeSet::new());
    let mut tell = |news| match news {
        News::Began(turn) => assert!(open.insert(turn), "a response begins once"),
        News::Content(turn) => assert!(open.contains(&turn), "only what is open brings content"),
        News::Ended(turn, _) => {
            open.remove(&turn);
            assert!(ended.insert(turn), "a response ends once");
            assert!(open.len() <= 32, "responses that are open are bounded");
        }
        News::Beside(..) | News::Complained(_) => {}
    };
    for message in messages.split(|byte| *byte == b'\n') {
        opened.reader.message(message, &mut tell);
    }
    opened.reader.finish(&mut tell);
    assert!(open.is_empty(), "whatever began has ended");
});
