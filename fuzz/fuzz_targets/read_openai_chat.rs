#![no_main]

use weir::provider::endpoint::Endpoint;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use Endpoint::{ChatCompletions, Completions};
    weir_fuzz::read(&[ChatCompletions, Completions], data);
});
