#![no_main]

use weir::frames::eventstream::Decoder;
use weir_fuzz::{event_stream, pieces};

// The bytes as they are, and as the payloads of sound messages: no mutation finds a checksum.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for stream in [data.to_vec(), event_stream(data)] {
        let mut decoder = Decoder::new(256);
        for piece in pieces(&stream) {
            decoder.push(piece, &mut |event| assert!(event.data.len() <= 256));
        }
        decoder.finish();
    }
});
