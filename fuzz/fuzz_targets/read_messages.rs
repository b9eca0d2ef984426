#![no_main]

use weir::provider::endpoint::Endpoint;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    weir_fuzz::read_reply(Endpoint::Messages, data);
    weir_fuzz::read_request(Endpoint::Messages, data);
});
