#![no_main]

use weir::provider::endpoint::Endpoint;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use Endpoint::{Responses, ResponsesCompact};
    weir_fuzz::read(&[Responses, ResponsesCompact], data);
});
