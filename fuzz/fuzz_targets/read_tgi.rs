#![no_main]

use weir::provider::endpoint::Endpoint;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use Endpoint::{TgiGenerate, TgiGenerateStream};
    weir_fuzz::read(&[TgiGenerate, TgiGenerateStream], data);
});
