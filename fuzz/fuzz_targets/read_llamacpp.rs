#![no_main]

use weir::provider::endpoint::Endpoint;

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::read(&[Endpoint::LlamaCppCompletion], data));
