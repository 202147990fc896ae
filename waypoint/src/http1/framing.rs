//! Where a message's body ends (RFC 9112 §6), decided from its head alone.

use http::{Method, StatusCode, Version};

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    None,
    Exact(u64),
    Chunked,
    /// Until the sender closes; responses only.
    UntilClose,
}

/// Why a body's end can't be known for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("both transfer-encoding and content-length")]
    Ambiguous,
    #[error("content-length is not one number")]
    ContentLength,
    #[error("transfer-encoding on HTTP/1.0")]
    TransferEncodingOnHttp10,
    #[error("transfer-encoding does not end in one chunked")]
    TransferEncoding,
    #[error("transfer coding other than chunked")]
    UnsupportedCoding,
}

/// What a head says of its body's length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) content_length: Option<u64>,
    pub(crate) transfer_encoding: TransferEncoding,
}

/// The transfer codings of all fields together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TransferEncoding {
    #[default]
    None,
    Chunked,
    /// Codings without a chunked so far.
    Other,
    /// Codings before a final chunked.
    OtherChunked,
    Malformed,
}

/// How a request's body is delimited (RFC 9112 §6.3). What two readers could understand in two
/// ways is an error: it is how requests are smuggled.
pub(crate) fn of_request(version: Version, said: Statement) -> Result<Length, FramingError> {
    match (said.transfer_encoding, said.content_length) {
        (TransferEncoding::None, None | Some(0)) => Ok(Length::None),
        (TransferEncoding::None, Some(length)) => Ok(Length::Exact(length)),
        (_, Some(_)) => Err(FramingError::Ambiguous),
        (_, None) if version == Version::HTTP_10 => Err(FramingError::TransferEncodingOnHttp10),
        (TransferEncoding::Chunked, None) => Ok(Length::Chunked),
        (TransferEncoding::OtherChunked, None) => Err(FramingError::UnsupportedCoding),
        (TransferEncoding::Other | TransferEncoding::Malformed, None) => {
            Err(FramingError::TransferEncoding)
        }
    }
}

/// How a response's body is delimited. A transfer coding overrides a length (RFC 9112 §6.3,
/// rule 3), and a connection that said both carries no second message.
pub(crate) fn of_response(
    method: &Method,
    status: StatusCode,
    version: Version,
    said: Statement,
) -> Result<Length, FramingError> {
    if !has_body(method, status) {
        return Ok(Length::None);
    }
    match (said.transfer_encoding, said.content_length) {
        (TransferEncoding::None, None) => Ok(Length::UntilClose),
        (TransferEncoding::None, Some(0)) => Ok(Length::None),
        (TransferEncoding::None, Some(length)) => Ok(Length::Exact(length)),
        (_, _) if version == Version::HTTP_10 => Err(FramingError::TransferEncodingOnHttp10),
        (TransferEncoding::Chunked, _) => Ok(Length::Chunked),
        (TransferEncoding::OtherChunked, _) => Err(FramingError::UnsupportedCoding),
        (TransferEncoding::Other | TransferEncoding::Malformed, _) => {
            Err(FramingError::TransferEncoding)
        }
    }
}

/// Whether a response to `method` with `status` may have a body at all (RFC 9110 §6.4.1).
pub(crate) fn has_body(method: &Method, status: StatusCode) -> bool {
    *method != Method::HEAD
        && !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
}

// === impl Statement ===

impl Statement {
    /// Takes in a `content-length` field. Repeats must be equal (RFC 9110 §8.6).
    pub(crate) fn add_content_length(&mut self, value: &[u8]) -> Result<(), FramingError> {
        for element in value.split(|byte| *byte == b',') {
            let length = number(trim(element)).ok_or(FramingError::ContentLength)?;
            if self.content_length.is_some_and(|known| known != length) {
                return Err(FramingError::ContentLength);
            }
            self.content_length = Some(length);
        }
        Ok(())
    }

    /// Takes in a `transfer-encoding` field.
    pub(crate) fn add_transfer_encoding(&mut self, value: &[u8]) {
        for element in value.split(|byte| *byte == b',') {
            let coding = trim(element);
            let chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.transfer_encoding = match (self.transfer_encoding, chunked) {
                (_, false) if coding.is_empty() => TransferEncoding::Malformed,
                (TransferEncoding::None, true) => TransferEncoding::Chunked,
                (TransferEncoding::Other, true) => TransferEncoding::OtherChunked,
                (TransferEncoding::None | TransferEncoding::Other, false) => {
                    TransferEncoding::Other
                }
                // Nothing may follow a chunked.
                (
                    TransferEncoding::Chunked
                    | TransferEncoding::OtherChunked
                    | TransferEncoding::Malformed,
                    _,
                ) => TransferEncoding::Malformed,
            };
        }
    }
}

/// Digits only: no sign, no inner space.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + u64::from(byte - b'0'))
    })
}

/// Without the spaces and tabs around it (RFC 9110 §5.6.3); no other whitespace.
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests;
