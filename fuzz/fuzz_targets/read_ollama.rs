#![no_main]

use weir::provider::endpoint::Endpoint;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use Endpoint::{OllamaChat, OllamaEmbed, OllamaGenerate};
    weir_fuzz::read(&[OllamaChat, OllamaGenerate, OllamaEmbed], data);
});
