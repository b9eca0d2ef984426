#![no_main]

use weir::frames::array::Decoder;
use weir_fuzz::pieces;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut events = 0;
    let mut decoder = Decoder::new(256);
    for piece in pieces(data) {
        decoder.push(piece, &mut |event| {
            assert!(event.data.len() <= 256);
            events += 1;
        });
    }
    decoder.finish();
    assert!(events <= data.len());
});
