#![no_main]

use weir::provider::endpoint::Endpoint;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use Endpoint::{CountInput, Decisions, Embeddings, Moderations, Ocr};
    weir_fuzz::read(&[Embeddings, Moderations, Decisions, Ocr, CountInput], data);
});
