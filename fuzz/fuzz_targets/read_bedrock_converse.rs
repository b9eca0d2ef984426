#![no_main]

use weir::provider::endpoint::Endpoint;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use Endpoint::{Converse, CountConverse};
    weir_fuzz::read(&[Converse, CountConverse], data);
});
