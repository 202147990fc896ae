//! Lines as Kiali reads them.

use std::time::{Duration, SystemTime};

use mesh::local_reply::response_flag::ResponseFlag;
use serde_json::Value;

use super::*;

fn line(format: Format) -> Line {
    let mut response_flags = ResponseFlags::default();
    response_flags.add(ResponseFlag::UpstreamRetryLimitExceeded);
    response_flags.add(ResponseFlag::UpstreamConnectionFailure);
    Line {
        format,
        start_time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        request: Some(RequestLine {
            method: Method::GET,
            path: "/a".to_owned(),
            protocol: "HTTP/1.1",
            authority: "web.shop".to_owned(),
            forwarded_for: None,
            user_agent: Some(HeaderValue::from_static("curl/8 \"x\"")),
            request_id: Some(HeaderValue::from_static("id")),
        }),
        response_code: 503,
        response_flags,
        response_code_details: "upstream reset".into(),
        connection_termination_details: None,
        upstream_transport_failure_reason: Some("refused\nforged line".to_owned()),
        bytes_received: 3,
        bytes_sent: 95,
        duration: Duration::from_millis(12),
        upstream_service_time: Some(Duration::from_millis(7)),
        upstream_host: Some(([10, 0, 0, 1], 8080).into()),
        upstream_cluster: Some("inbound-vip|80|http|web.shop".into()),
        downstream_local_address: ([10, 1, 0, 1], 80).into(),
        downstream_remote_address: ([10, 0, 0, 7], 4000).into(),
        route_name: None,
    }
}

fn written(line: &Line) -> String {
    let mut out = String::new();
    assert!(line.own_form(&mut out));
    out
}

/// Splits a line as Kiali's one pattern does: brackets, quotes with escapes, words.
fn fields(text: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(first) = characters.next() {
        let end = match first {
            '[' => ']',
            '"' => '"',
            ' ' => continue,
            _ => ' ',
        };
        let mut field = String::new();
        if end == ' ' {
            field.push(first);
        }
        while let Some(character) = characters.next() {
            match character {
                '\\' if end == '"' => field.extend(characters.next()),
                character if character == end => break,
                character => field.push(character),
            }
        }
        fields.push(field);
    }
    fields
}

#[test]
fn kiali_compat_a_request_has_istios_fields_in_istios_order() {
    let text = written(&line(Format::Text));
    assert_eq!(
        fields(&text),
        [
            "2023-11-14T22:13:20.123Z",
            "GET /a HTTP/1.1",
            "503",
            "URX,UF",
            "upstream_reset",
            "-",
            "refusedu{a}forged line",
            "3",
            "95",
            "12",
            "7",
            "-",
            "curl/8 \"x\"",
            "id",
            "web.shop",
            "10.0.0.1:8080",
            "inbound-vip|80|http|web.shop",
            "-",
            "10.1.0.1:80",
            "10.0.0.7:4000",
            "-",
            "-",
        ]
    );
    assert!(!text.contains('\n'));
}

#[test]
fn kiali_compat_a_connection_is_a_line_with_code_0() {
    let mut connection = line(Format::Text);
    connection.request = None;
    connection.response_code = 0;
    let fields = fields(&written(&connection));
    assert_eq!((&*fields[1], &*fields[2]), ("- - -", "0"));
    assert_eq!(fields.len(), 22);
}

#[test]
fn the_object_has_istios_keys() {
    let object: Value = serde_json::from_str(&written(&line(Format::Json))).expect("an object");
    assert_eq!(object["response_code"], 503);
    assert_eq!(object["response_flags"], "URX,UF");
    assert_eq!(object["user_agent"], "curl/8 \"x\"");
    assert_eq!(object["upstream_host"], "10.0.0.1:8080");
    assert_eq!(object["route_name"], Value::Null);
    assert_eq!(object["duration"], 12);
    assert_eq!(object.as_object().expect("an object").len(), 24);
}

/// Bytes that are no text, quotes, and ends of lines, in every field that a peer has a say in.
#[test]
fn cve_2024_34363_and_45808_whatever_was_sent_is_one_line_and_one_object() {
    let strange = HeaderValue::from_bytes(b"a\"\\\xff\xfe\tz").expect("obs-text");
    for format in [Format::Text, Format::Json] {
        let mut line = line(format);
        line.request = Some(RequestLine {
            method: Method::from_bytes(b"!#$%&'*+-.^_`|~").expect("a token"),
            path: "/\u{85}\u{7f}\u{2028}\"".to_owned(),
            protocol: "HTTP/2",
            authority: "[::1]:80".to_owned(),
            forwarded_for: Some(strange.clone()),
            user_agent: Some(strange.clone()),
            request_id: Some(strange.clone()),
        });
        line.response_code_details = "via\r\nupstream".into();
        line.upstream_transport_failure_reason = Some("\0\u{1b}[31m".to_owned());
        let text = written(&line);
        assert!(!text.contains(['\n', '\r']), "{text:?}");
        match format {
            Format::Text => assert_eq!(fields(&text).len(), 22, "{text}"),
            Format::Json => {
                let object: Value = serde_json::from_str(&text).expect("an object");
                assert_eq!(object.as_object().expect("an object").len(), 24);
            }
        }
    }
}
