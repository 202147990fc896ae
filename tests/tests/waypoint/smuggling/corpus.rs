//! The corpus: each case by the disagreement it looks for (RFC 9112 §11.2, RFC 9110 §17).

/// Bytes of one connection.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    /// What is answered first, where it is documented.
    pub(super) status: Option<u16>,
}

/// What a smuggled request would look like to the server.
const INNER: &str = "GET /admin HTTP/1.1\r\nHost: x\r\n\r\n";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = framing();
    cases.extend(heads());
    cases.extend(paths());
    cases
}

fn case(name: &'static str, status: Option<u16>, bytes: impl AsRef<[u8]>) -> Case {
    Case {
        name,
        bytes: bytes.as_ref().to_vec(),
        status,
    }
}

/// A POST with these framing headers and this body; the hidden request is in the body.
fn post(headers: &str, body: &str) -> String {
    format!("POST /public HTTP/1.1\r\nHost: server.shop\r\n{headers}\r\n{body}")
}

fn framing() -> Vec<Case> {
    let length = INNER.len();
    let chunk = format!("0\r\n\r\n{INNER}");
    let both = format!(
        "Content-Length: {}\r\nTransfer-Encoding: chunked\r\n",
        chunk.len()
    );
    let reversed = format!(
        "Transfer-Encoding: chunked\r\nContent-Length: {}\r\n",
        chunk.len()
    );
    let encoded = |value: &str| {
        let headers = format!("Content-Length: 4\r\n{value}\r\n");
        post(&headers, &chunk)
    };
    vec![
        case("CL.TE", Some(400), post(&both, &chunk)),
        case("TE.CL", Some(400), post(&reversed, &chunk)),
        case(
            "two Content-Length",
            Some(400),
            post("Content-Length: 0\r\nContent-Length: 5\r\n", INNER),
        ),
        case(
            "Content-Length list",
            Some(400),
            post("Content-Length: 0, 5\r\n", INNER),
        ),
        case(
            "signed Content-Length",
            Some(400),
            post("Content-Length: +0\r\n", INNER),
        ),
        case(
            "negative Content-Length",
            Some(400),
            post("Content-Length: -1\r\n", INNER),
        ),
        case(
            "hexadecimal Content-Length",
            Some(400),
            post("Content-Length: 0x0\r\n", INNER),
        ),
        case(
            "Content-Length with a space",
            Some(400),
            post("Content-Length: 0 0\r\n", INNER),
        ),
        case(
            "empty Content-Length",
            Some(400),
            post("Content-Length: \r\n", INNER),
        ),
        case(
            "overflowing Content-Length",
            Some(400),
            post("Content-Length: 18446744073709551616\r\n", INNER),
        ),
        case(
            "space before the colon",
            Some(400),
            post("Content-Length : 0\r\n", INNER),
        ),
        case(
            "TE with a space before the colon",
            Some(400),
            encoded("Transfer-Encoding : chunked"),
        ),
        case(
            "TE behind a tab",
            None,
            encoded("Transfer-Encoding:\tchunked"),
        ),
        case(
            "TE with a vertical tab",
            Some(400),
            encoded("Transfer-Encoding: \x0bchunked"),
        ),
        case(
            "TE folded",
            Some(400),
            encoded("Transfer-Encoding:\r\n chunked"),
        ),
        case(
            "TE in quotes",
            Some(400),
            encoded("Transfer-Encoding: \"chunked\""),
        ),
        case(
            "TE unknown",
            Some(400),
            post("Transfer-Encoding: xchunked\r\n", &chunk),
        ),
        case(
            "TE chunked not last",
            Some(400),
            post("Transfer-Encoding: chunked, identity\r\n", &chunk),
        ),
        case(
            "TE chunked twice",
            Some(400),
            post("Transfer-Encoding: chunked, chunked\r\n", &chunk),
        ),
        case(
            "TE in two headers",
            Some(501),
            post(
                "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
                &chunk,
            ),
        ),
        case(
            "TE misspelt by a byte",
            Some(400),
            post("Transfer-Encoding: chunked\u{1}\r\n", &chunk),
        ),
        case(
            "TE with HTTP/1.0",
            Some(400),
            post("Transfer-Encoding: chunked\r\n", &chunk).replace("1.1", "1.0"),
        ),
        case(
            "line feeds only",
            None,
            post(&both, &chunk).replace("\r\n", "\n"),
        ),
        case(
            "bare CR in a header",
            Some(400),
            post("X: a\rTransfer-Encoding: chunked\r\n", &chunk),
        ),
        case(
            "NUL in a header",
            Some(400),
            post("X: a\0b\r\nContent-Length: 0\r\n", INNER),
        ),
        case(
            "chunk size with a sign",
            None,
            post(
                "Transfer-Encoding: chunked\r\n",
                &format!("+0\r\n\r\n{INNER}"),
            ),
        ),
        case(
            "chunk size with 0x",
            None,
            post(
                "Transfer-Encoding: chunked\r\n",
                &format!("0x{length:x}\r\n{INNER}\r\n0\r\n\r\n"),
            ),
        ),
        case(
            "chunk size overflows",
            None,
            post(
                "Transfer-Encoding: chunked\r\n",
                &format!("10000000000000000{length:x}\r\n{INNER}"),
            ),
        ),
        case(
            "line feed ends a chunk extension",
            None,
            post(
                "Transfer-Encoding: chunked\r\n",
                &format!("2;\nxx\r\n{length:x}\r\n{INNER}\r\n0\r\n\r\n"),
            ),
        ),
        case(
            "chunk without its end",
            None,
            post(
                "Transfer-Encoding: chunked\r\n",
                &format!("1\r\nxx0\r\n\r\n{INNER}"),
            ),
        ),
        case(
            "a trailer that frames",
            None,
            post(
                "Transfer-Encoding: chunked\r\n",
                &format!("0\r\nContent-Length: 5\r\n\r\n{INNER}"),
            ),
        ),
        case(
            "content of a GET without framing",
            None,
            format!("GET /public HTTP/1.1\r\nHost: x\r\n\r\n{INNER}"),
        ),
        case(
            "content of a GET with length",
            None,
            format!("GET /public HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{INNER}"),
        ),
        case(
            "Upgrade that is not taken",
            None,
            format!(
                "GET /public HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{INNER}"
            ),
        ),
        case(
            "Upgrade to h2c",
            None,
            format!(
                "GET /public HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n{INNER}"
            ),
        ),
        case(
            "CONNECT",
            None,
            format!("CONNECT x:8080 HTTP/1.1\r\nHost: x:8080\r\n\r\n{INNER}"),
        ),
        case(
            "Expect, and content at once",
            None,
            format!(
                "POST /public HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n{INNER}"
            ),
        ),
        case(
            "Connection names Content-Length",
            None,
            post("Connection: Content-Length\r\nContent-Length: 5\r\n", INNER),
        ),
        case(
            "Connection names Transfer-Encoding",
            None,
            post(
                "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
                &chunk,
            ),
        ),
    ]
}

fn heads() -> Vec<Case> {
    let get = |line: &str, headers: &str| format!("{line}\r\n{headers}\r\n");
    vec![
        case(
            "two Host",
            Some(400),
            get("GET / HTTP/1.1", "Host: a\r\nHost: b\r\n"),
        ),
        case("no Host", Some(400), get("GET / HTTP/1.1", "")),
        case(
            "Host with a path",
            Some(400),
            get("GET / HTTP/1.1", "Host: a/admin\r\n"),
        ),
        case(
            "Host with a user",
            Some(400),
            get("GET / HTTP/1.1", "Host: a@b\r\n"),
        ),
        case(
            "a header before the request line",
            Some(400),
            "X: a\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        case(
            "a space in the method",
            Some(505),
            get("GE T / HTTP/1.1", "Host: x\r\n"),
        ),
        case(
            "a header name with a space",
            Some(400),
            get("GET / HTTP/1.1", "Host: x\r\nX y: z\r\n"),
        ),
        case(
            "a header without a colon",
            Some(400),
            get("GET / HTTP/1.1", "Host: x\r\nXyz\r\n"),
        ),
        case(
            "HTTP/2.0 in a request line",
            None,
            get("GET /admin HTTP/2.0", "Host: x\r\n"),
        ),
        case("HTTP/0.9", None, "GET /admin\r\n"),
        case("HTTP/1.2", None, get("GET /admin HTTP/1.2", "Host: x\r\n")),
        case(
            "a path that is overridden",
            None,
            get(
                "GET /public HTTP/1.1",
                "Host: x\r\nX-Original-URL: /admin\r\nX-Envoy-Original-Path: /admin\r\n",
            ),
        ),
    ]
}

/// Spellings of `/admin` that one of the servers understands, or might.
fn paths() -> Vec<Case> {
    const SPELLINGS: &[&str] = &[
        "/admin",
        "/admin/",
        "/admin?x",
        "/admin#x",
        "/#/../admin",
        "//admin",
        "///admin//",
        "/./admin",
        "/x/../admin",
        "/x/..//admin",
        "/%61dmin",
        "/%61%64%6d%69%6e",
        "/%2561dmin",
        "/x/%2e%2e/admin",
        "/x/%2E%2E%2Fadmin",
        "/x/..%2fadmin",
        "/x%2f..%2fadmin",
        "%2fadmin",
        "/%2fadmin",
        "/x/..%5cadmin",
        "\\admin",
        "/\\admin",
        "/x\\..\\admin",
        "/x/..;/admin",
        "/;x/admin",
        "/admin;x",
        "/.;/admin",
        "/admin%00",
        "/admin%20",
        "/admin%0a",
        "/x/../../admin",
        "/x/./../admin/.",
        "http://x/admin",
        "http://x//admin",
        "HTTP://x/admin",
        "http://x/y/../admin",
        "http://admin@x/admin",
        "/admin\u{e9}",
        "/%c0%afadmin",
        "/%u0061dmin",
        "*",
        "?/admin",
        "admin",
    ];
    SPELLINGS
        .iter()
        .map(|path| {
            let bytes = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            case(path, None, bytes)
        })
        .collect()
}
