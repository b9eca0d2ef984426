#![no_main]

use weir::provider::endpoint::Endpoint;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use Endpoint::{
        CohereChat, CohereChatV1, CohereClassify, CohereEmbed, CohereGenerate, CohereRerank, CohereTokenize,
    };
    weir_fuzz::read(
        &[CohereChat, CohereChatV1, CohereGenerate, CohereEmbed, CohereRerank, CohereClassify, CohereTokenize],
        data,
    );
});
