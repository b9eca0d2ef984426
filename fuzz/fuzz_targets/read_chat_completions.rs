#![no_main]

use weir::provider::endpoint::Endpoint;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    weir_fuzz::read_reply(Endpoint::ChatCompletions, data);
    weir_fuzz::read_request(Endpoint::ChatCompletions, data);
});
