//! Tests.

use proptest::prelude::*;

use super::*;

/// Decodes `input` in the pieces it comes in.
fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<HeaderMap>, bool), ChunkError> {
    let limits = HeadLimits::default();
    let mut decoder = Decoder::default();
    let mut data = Vec::new();
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match decoder.decode(&mut input, &limits)? {
                Decoded::Data(chunk) => data.extend_from_slice(&chunk),
                Decoded::More => break,
                Decoded::End(trailers) => return Ok((data, trailers, true)),
            }
        }
    }
    Ok((data, None, false))
}

#[test]
fn malformed_chunks_are_refused() {
    for (hazard, input) in [
        ("no size", &b"\r\n"[..]),
        ("not hexadecimal", b"g\r\n"),
        ("signed", b"+1\r\na\r\n"),
        ("prefixed", b"0x1\r\na\r\n"),
        ("LF after size", b"1\na\r\n0\r\n\r\n"),
        ("CR without LF", b"1\r a\r\n"),
        ("space after size", b"1 \r\na\r\n"),
        ("no line end after data", b"1\r\nab\r\n"),
        ("LF after data", b"1\r\na\n"),
        ("too large", b"1000000000000000\r\n"),
        ("padded with zeros", b"0000000000000001\r\na\r\n"),
        ("LF in an extension", b"1;a\nb\r\na\r\n"),
        ("NUL in an extension", b"1;a\0\r\na\r\n"),
        ("folded trailer", b"0\r\na: 1\r\n b\r\n\r\n"),
        ("LF in trailers", b"0\r\na: 1\n\r\n"),
        ("space before a trailer's colon", b"0\r\na : 1\r\n\r\n"),
    ] {
        assert!(decode(&[input]).is_err(), "{hazard}");
    }
    let long = format!("1;{}\r\n", "x".repeat(MOST_EXTENSIONS + 1));
    assert_eq!(decode(&[long.as_bytes()]), Err(ChunkError::Extension));
    let trailers = format!("0\r\na: {}\r\n\r\n", "x".repeat(70 << 10));
    assert_eq!(decode(&[trailers.as_bytes()]), Err(ChunkError::Trailers));
}

#[test]
fn extensions_are_dropped_and_bounded_over_the_whole_body() {
    let (data, _, ended) = decode(&[b"1;a=\"b\"\r\nx\r\n0\r\n\r\n"]).unwrap();
    assert_eq!((&data[..], ended), (&b"x"[..], true));
    let chunk = format!("1;{}\r\nx\r\n", "y".repeat(1024));
    let many = chunk.repeat(17);
    assert_eq!(decode(&[many.as_bytes()]), Err(ChunkError::Extension));
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_at_any_split(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        with_trailers: bool,
    ) {
        let mut wire = BytesMut::new();
        for chunk in &chunks {
            encode_size(&mut wire, chunk.len());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n");
        if with_trailers {
            wire.extend_from_slice(b"grpc-status: 0\r\nx: y\r\n");
        }
        wire.extend_from_slice(b"\r\n");
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&wire[from..cut]);
            from = cut;
        }
        pieces.push(&wire[from..]);
        let (data, trailers, ended) = decode(&pieces).unwrap();
        prop_assert_eq!(data, chunks.concat());
        prop_assert!(ended);
        prop_assert_eq!(trailers.map_or(0, |trailers| trailers.len()), if with_trailers { 2 } else { 0 });
    }
}
