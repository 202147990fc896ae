//! Tests.

use super::*;

fn said(content_length: &[&str], transfer_encoding: &[&str]) -> Result<Statement, FramingError> {
    let mut said = Statement::default();
    for value in content_length {
        said.add_content_length(value.as_bytes())?;
    }
    for value in transfer_encoding {
        said.add_transfer_encoding(value.as_bytes());
    }
    Ok(said)
}

#[test]
fn a_request_body_has_one_possible_end() {
    use FramingError::{
        Ambiguous, ContentLength, TransferEncoding, TransferEncodingOnHttp10, UnsupportedCoding,
    };
    let (v10, v11) = (Version::HTTP_10, Version::HTTP_11);
    for (version, length, coding, expected) in [
        (v11, &[][..], &[][..], Ok(Length::None)),
        (v11, &["0"], &[], Ok(Length::None)),
        (v11, &["7"], &[], Ok(Length::Exact(7))),
        (v10, &["7"], &[], Ok(Length::Exact(7))),
        (v11, &["7", "7"], &[], Ok(Length::Exact(7))),
        (v11, &["7, 7"], &[], Ok(Length::Exact(7))),
        (v11, &["7", "8"], &[], Err(ContentLength)),
        (v11, &["7, 8"], &[], Err(ContentLength)),
        (v11, &["+7"], &[], Err(ContentLength)),
        (v11, &["-1"], &[], Err(ContentLength)),
        (v11, &["7 7"], &[], Err(ContentLength)),
        (v11, &["0x7"], &[], Err(ContentLength)),
        (v11, &[""], &[], Err(ContentLength)),
        (v11, &["7,"], &[], Err(ContentLength)),
        (v11, &["99999999999999999999"], &[], Err(ContentLength)),
        (v11, &[], &["chunked"], Ok(Length::Chunked)),
        (v11, &[], &["Chunked"], Ok(Length::Chunked)),
        (v11, &[], &[" chunked\t"], Ok(Length::Chunked)),
        (v11, &["7"], &["chunked"], Err(Ambiguous)),
        (v11, &["0"], &["chunked"], Err(Ambiguous)),
        (v11, &["7"], &["gzip"], Err(Ambiguous)),
        (v10, &[], &["chunked"], Err(TransferEncodingOnHttp10)),
        (v11, &[], &["gzip"], Err(TransferEncoding)),
        (v11, &[], &["identity"], Err(TransferEncoding)),
        (v11, &[], &["chunked, gzip"], Err(TransferEncoding)),
        (v11, &[], &["chunked, chunked"], Err(TransferEncoding)),
        (v11, &[], &["chunked", "chunked"], Err(TransferEncoding)),
        (v11, &[], &["chunked", "identity"], Err(TransferEncoding)),
        (v11, &[], &["chunked,"], Err(TransferEncoding)),
        (v11, &[], &[""], Err(TransferEncoding)),
        (v11, &[], &["\u{b}chunked"], Err(TransferEncoding)),
        (v11, &[], &["\"chunked\""], Err(TransferEncoding)),
        (v11, &[], &["gzip, chunked"], Err(UnsupportedCoding)),
        (v11, &[], &["gzip", "chunked"], Err(UnsupportedCoding)),
    ] {
        let decided = said(length, coding).and_then(|said| of_request(version, said));
        assert_eq!(decided, expected, "{version:?} {length:?} {coding:?}");
    }
}

#[test]
fn a_response_body_ends_as_its_request_and_status_say() {
    let (get, head) = (Method::GET, Method::HEAD);
    for (method, status, length, coding, expected) in [
        (&get, 200, &[][..], &[][..], Ok(Length::UntilClose)),
        (&get, 200, &["7"], &[], Ok(Length::Exact(7))),
        (&get, 200, &["0"], &[], Ok(Length::None)),
        (&get, 200, &["7"], &["chunked"], Ok(Length::Chunked)),
        (&head, 200, &["7"], &[], Ok(Length::None)),
        (&head, 200, &[], &["chunked"], Ok(Length::None)),
        (&get, 204, &["7"], &[], Ok(Length::None)),
        (&get, 304, &["7"], &[], Ok(Length::None)),
        (&get, 100, &[], &[], Ok(Length::None)),
        (&get, 101, &["7"], &[], Ok(Length::None)),
        (
            &get,
            200,
            &[],
            &["gzip"],
            Err(FramingError::TransferEncoding),
        ),
        (
            &get,
            200,
            &[],
            &["gzip, chunked"],
            Err(FramingError::UnsupportedCoding),
        ),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let said = said(length, coding).unwrap();
        let decided = of_response(method, status, Version::HTTP_11, said);
        assert_eq!(decided, expected, "{method} {status} {length:?} {coding:?}");
    }
}
