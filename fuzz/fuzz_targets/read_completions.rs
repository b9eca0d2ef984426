#![no_main]

use weir::provider::endpoint::Endpoint;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    weir_fuzz::read_reply(Endpoint::Completions, data);
    weir_fuzz::read_request(Endpoint::Completions, data);
});
