#![no_main]

use weir::frames::websocket::Decoder;
use weir_fuzz::pieces;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut last_end = 0;
    let mut decoder = Decoder::new(256);
    for piece in pieces(data) {
        decoder.push(piece, &mut |event| {
            assert!(event.data.len() <= 256);
            // A close frame may stand between the fragments of a message: only ends are in order.
            assert!(event.span.start <= event.span.end && last_end <= event.span.end);
            last_end = event.span.end;
        });
    }
});
