//! gRPC over HTTP: its status codes and messages.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

/// A status code of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum GrpcCode {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

// === impl GrpcCode ===

impl GrpcCode {
    const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    pub fn number(self) -> u8 {
        self as u8
    }

    /// As `grpc-status` and metrics have it.
    pub fn as_str(self) -> &'static str {
        const NUMBERS: [&str; 17] = [
            "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15",
            "16",
        ];
        NUMBERS[usize::from(self.number())]
    }

    /// What `grpc-status` says, in headers or trailers. A number that is no code is
    /// [`GrpcCode::Unknown`].
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get("grpc-status")?.as_bytes();
        let known = Self::ALL.into_iter();
        let found = known.clone().find(|code| code.as_str().as_bytes() == value);
        Some(found.unwrap_or(Self::Unknown))
    }

    /// What a reply of the proxy means to a gRPC client.
    pub fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

/// Whether a message is of gRPC, by its `content-type`: `application/grpc`, perhaps with a
/// `+` or `;` and more. gRPC-Web is not: it needs no trailers.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value
            .split_at_checked(GRPC.len())
            .is_some_and(|(kind, rest)| {
                kind.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';'))
            })
    })
}

/// The value of `grpc-message`: everything but printable ASCII, and `%` itself, is escaped.
pub fn encode_message(message: &str) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte),
            _ => encoded.extend_from_slice(&[
                b'%',
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]),
        }
    }
    HeaderValue::from_bytes(&encoded).expect("printable ASCII is a header's value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn statuses_map_to_codes() {
        for (status, code) in [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (429, 14),
            (502, 14),
            (503, 14),
            (504, 14),
            (500, 2),
            (200, 2),
            (418, 2),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(GrpcCode::of_status(status).number(), code, "{status}");
        }
    }

    #[test]
    fn codes_are_their_numbers() {
        for (number, code) in GrpcCode::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.number()), number);
            assert_eq!(code.as_str(), number.to_string());
        }
    }

    #[test]
    fn a_status_that_is_no_code_is_unknown() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from_static(value));
            GrpcCode::of(&headers)
        };
        assert_eq!(of("14"), Some(GrpcCode::Unavailable));
        for value in ["", "17", "-1", "x", "014", "99999999999"] {
            assert_eq!(of(value), Some(GrpcCode::Unknown), "{value}");
        }
        assert_eq!(GrpcCode::of(&HeaderMap::new()), None);
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("Application/GRPC", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpcx", false),
            ("application/json", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(is_grpc(&headers), expected, "{value}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn messages_are_escaped() {
        assert_eq!(encode_message("100% ü\n"), "100%25 %C3%BC%0A");
    }

    proptest! {
        #[test]
        fn every_message_is_a_header(message in any::<String>()) {
            let encoded = encode_message(&message);
            prop_assert!(encoded.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)));
        }
    }
}
