#![no_main]

use weir::provider::endpoint::Endpoint;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use Endpoint::{CountMessages, Messages, PublishedMessages};
    weir_fuzz::read(&[Messages, CountMessages, PublishedMessages], data);
});
