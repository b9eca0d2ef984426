#![no_main]

use weir::provider::endpoint::Endpoint;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use Endpoint::{Images, Speech, Transcription};
    weir_fuzz::read(&[Images, Speech, Transcription], data);
});
