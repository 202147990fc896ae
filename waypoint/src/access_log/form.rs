//! Istio's default text line, which Kiali reads back by one pattern, and the same as an object.

use std::fmt::{Display, Write};

use http::HeaderValue;

use super::{Line, RequestLine};

/// Appends the text form.
pub(super) fn text(line: &Line, out: &mut String) {
    let start = humantime::format_rfc3339_millis(line.start_time);
    let _ = write!(out, "[{start}] \"");
    let request = line.request.as_ref();
    match request {
        Some(request) => {
            escaped(out, request.method.as_str());
            out.push(' ');
            escaped(out, &request.path);
            let _ = write!(out, " {}", request.protocol);
        }
        None => out.push_str("- - -"),
    }
    let _ = write!(out, "\" {} {} ", line.response_code, line.response_flags);
    word(out, Some(&line.response_code_details));
    out.push(' ');
    word(out, line.connection_termination_details.as_deref());
    out.push(' ');
    quoted(out, line.upstream_transport_failure_reason.as_deref());
    let _ = write!(
        out,
        " {} {} {} ",
        line.bytes_received,
        line.bytes_sent,
        line.duration.as_millis()
    );
    display(out, line.upstream_service_time.map(|time| time.as_millis()));
    for value in [
        request.and_then(|request| request.forwarded_for.as_ref()),
        request.and_then(|request| request.user_agent.as_ref()),
        request.and_then(|request| request.request_id.as_ref()),
    ] {
        out.push(' ');
        quoted(out, value.map(lossy).as_deref());
    }
    out.push(' ');
    quoted(out, request.map(|request| &*request.authority));
    out.push(' ');
    quoted(
        out,
        line.upstream_host.map(|host| host.to_string()).as_deref(),
    );
    out.push(' ');
    word(out, line.upstream_cluster.as_deref());
    // The local address of a pooled tunnel says nothing about a request.
    let _ = write!(
        out,
        " - {} {} - ",
        line.downstream_local_address, line.downstream_remote_address
    );
    word(out, line.route_name.as_deref());
}

/// Appends the JSON form: Istio's keys, null for what is missing.
pub(super) fn json(line: &Line, out: &mut String) {
    let request = line.request.as_ref();
    let header = |value: fn(&RequestLine) -> Option<&HeaderValue>| {
        request.and_then(value).map(lossy).map(String::from)
    };
    let object = serde_json::json!({
        "start_time": humantime::format_rfc3339_millis(line.start_time).to_string(),
        "route_name": line.route_name.as_deref(),
        "method": request.map(|request| request.method.as_str()),
        "path": request.map(|request| &request.path),
        "protocol": request.map(|request| request.protocol),
        "response_code": line.response_code,
        "response_flags": line.response_flags.to_string(),
        "response_code_details": &*line.response_code_details,
        "connection_termination_details": line.connection_termination_details.as_deref(),
        "bytes_received": line.bytes_received,
        "bytes_sent": line.bytes_sent,
        "duration": millis(line.duration),
        "upstream_service_time": line.upstream_service_time.map(millis),
        "x_forwarded_for": header(|request| request.forwarded_for.as_ref()),
        "user_agent": header(|request| request.user_agent.as_ref()),
        "request_id": header(|request| request.request_id.as_ref()),
        "authority": request.map(|request| &request.authority),
        "upstream_host": line.upstream_host.map(|host| host.to_string()),
        "upstream_cluster": line.upstream_cluster.as_deref(),
        "upstream_local_address": null,
        "downstream_local_address": line.downstream_local_address.to_string(),
        "downstream_remote_address": line.downstream_remote_address.to_string(),
        "requested_server_name": null,
        "upstream_transport_failure_reason": line.upstream_transport_failure_reason.as_deref(),
    });
    let _ = write!(out, "{object}");
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn lossy(value: &HeaderValue) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

fn display(out: &mut String, value: Option<impl Display>) {
    match value {
        Some(value) => {
            let _ = write!(out, "{value}");
        }
        None => out.push('-'),
    }
}

fn quoted(out: &mut String, value: Option<&str>) {
    out.push('"');
    match value {
        Some(value) if !value.is_empty() => escaped(out, value),
        Some(_) | None => out.push('-'),
    }
    out.push('"');
}

/// A field without quotes is one word.
fn word(out: &mut String, value: Option<&str>) {
    match value {
        Some(value) if !value.is_empty() => escaped(out, &value.replace(' ', "_")),
        Some(_) | None => out.push('-'),
    }
}

/// CVE-2024-45808: what a peer said can't end a field or a line.
fn escaped(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            character if character.is_control() => out.extend(character.escape_unicode()),
            character => out.push(character),
        }
    }
}
