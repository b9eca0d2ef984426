#![no_main]

use weir::provider::endpoint::Endpoint;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use Endpoint::{
        CountContent, EmbedContent, GenerateContent, Interactions, PredictEmbeddings, StreamGenerateContent,
    };
    weir_fuzz::read(
        &[GenerateContent, StreamGenerateContent, CountContent, EmbedContent, PredictEmbeddings, Interactions],
        data,
    );
});
