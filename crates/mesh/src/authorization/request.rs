//! The attributes of an HTTP request, and of what is none.
//!
//! Where there is no request, an attribute of one is in doubt: an ALLOW match with it never
//! holds, and any other holds as if it weren't there.

mod claims;

mod headers;

mod path;

use std::fmt::Write;

use self::headers::Header;
pub(super) use self::path::OtherReadings;
use super::evaluation::{Checks, Reading, Subject, any_of, within};
use super::explain::{Attribute, Recorder, Seen};
use super::{Condition, ConditionKey, RequestMatch, StringMatch};
use crate::request::{Claims, Request};

// === impl RequestMatch, Condition ===

impl RequestMatch {
    pub(super) fn attributes<R: Recorder>(
        &self,
        subject: &Subject<'_>,
        checks: &mut Checks<'_, R>,
    ) {
        let request = subject.facts.request;
        checks.check(
            || Attribute::Hosts,
            (&self.hosts, &self.not_hosts),
            |values, reading| {
                of(request, reading, |request| {
                    let port = Port::new(request.port);
                    any_of(values, |m| host_matches(m, request.host, port.text()))
                })
            },
            || Seen::of_request(request, authority),
        );
        checks.check(
            || Attribute::Methods,
            (&self.methods, &self.not_methods),
            |values, reading| {
                of(request, reading, |request| {
                    any_of(values, |m| m.matches(request.method.as_str()))
                })
            },
            || Seen::of_request(request, |request| request.method.to_string()),
        );
        checks.check(
            || Attribute::Paths,
            (&self.paths, &self.not_paths),
            |values, reading| {
                of(request, reading, |request| {
                    path::matches(values, request.path, subject.facts.others, reading)
                })
            },
            || Seen::of_request(request, |request| request.path.to_owned()),
        );
        checks.check(
            || Attribute::RequestPrincipals,
            (&self.request_principals, &self.not_request_principals),
            |values, reading| {
                of(request, reading, |request| {
                    let claims = request.claims;
                    claims.is_some_and(|claims| any_of(values, |m| claims.is(m, reading)))
                })
            },
            || Seen::of_token(request, |claims| vec![claims.principal()]),
        );
        checks.check(
            || Attribute::RemoteIpBlocks,
            (&self.remote_ips, &self.not_remote_ips),
            |values, _| within(values, subject.remote_ip()),
            || Seen::value(subject.remote_ip()),
        );
        for condition in &self.conditions {
            condition.attributes(subject, checks);
        }
    }
}

impl Condition {
    fn attributes<R: Recorder>(&self, subject: &Subject<'_>, checks: &mut Checks<'_, R>) {
        let attribute = || Attribute::Condition(self.key.clone());
        if self.values.is_empty() && self.not_values.is_empty() {
            return checks.in_doubt(attribute);
        }
        let (values, request) = ((&*self.values, &*self.not_values), subject.facts.request);
        let connection = subject.facts.connection;
        match &self.key {
            ConditionKey::Header(name) => checks.check(
                attribute,
                values,
                |values, reading| {
                    of(request, reading, |request| {
                        Header::new(name).matches(request, values, reading)
                    })
                },
                || Seen::of_header(request, |request| Header::new(name).seen(request)),
            ),
            ConditionKey::Audiences => {
                token_values(checks, attribute, values, request, |claims, each| {
                    claims.audiences.iter().any(|audience| each(audience))
                });
            }
            ConditionKey::Presenter => {
                token_values(checks, attribute, values, request, |claims, each| {
                    claims.presenter.as_deref().is_some_and(each)
                });
            }
            ConditionKey::Claim(path) => {
                token_values(checks, attribute, values, request, |claims, each| {
                    claims.any_text(path, each)
                });
            }
            ConditionKey::TrustDomain => {
                let identity = connection.source_identity.as_ref();
                checks.check(
                    attribute,
                    values,
                    |values, _| {
                        identity.is_some_and(|id| any_of(values, |m| m.matches(&id.trust_domain)))
                    },
                    || Seen::of_identity(identity, |id| id.trust_domain.to_string()),
                );
            }
            ConditionKey::Sni => checks.check(
                attribute,
                values,
                |values, _| {
                    let sni = connection.sni.as_deref();
                    sni.is_some_and(|sni| any_of(values, |m| m.matches_any_case(&[sni])))
                },
                || connection.sni.as_ref().map_or(Seen::NoSni, Seen::value),
            ),
        }
    }
}

/// A condition on the texts that a token has under some name: one that matches is enough.
fn token_values<R: Recorder>(
    checks: &mut Checks<'_, R>,
    attribute: impl Fn() -> Attribute,
    values: (&[StringMatch], &[StringMatch]),
    request: Option<&Request<'_>>,
    any_text: impl Fn(&Claims, &mut dyn FnMut(&str) -> bool) -> bool,
) {
    checks.check(
        attribute,
        values,
        |values, reading| {
            of(request, reading, |request| {
                let matches =
                    |claims| any_text(claims, &mut |text| any_of(values, |m| m.matches(text)));
                request.claims.is_some_and(matches)
            })
        },
        || {
            Seen::of_token(request, |claims| {
                let mut texts = Vec::new();
                any_text(claims, &mut |text| {
                    texts.push(text.to_owned());
                    false
                });
                texts
            })
        },
    );
}

/// What holds of the request; of none, nothing is known.
fn of(
    request: Option<&Request<'_>>,
    reading: Reading,
    matches: impl FnOnce(&Request<'_>) -> bool,
) -> bool {
    request.map_or(reading == Reading::Wide, matches)
}

/// With and without the port: a policy may write either (and a client may, CVE-2021-39155, write
/// any letter case).
fn host_matches(pattern: &StringMatch, host: &str, port: Option<&str>) -> bool {
    pattern.matches_any_case(&[host])
        || port.is_some_and(|port| pattern.matches_any_case(&[host, ":", port]))
}

/// The authority as the client wrote it.
fn authority(request: &Request<'_>) -> String {
    let port = Port::new(request.port);
    match port.text() {
        Some(port) => format!("{}:{port}", request.host),
        None => request.host.to_owned(),
    }
}

/// A port's digits, kept without allocating.
struct Port {
    digits: [u8; 5],
    length: usize,
}

// === impl Port ===

impl Port {
    fn new(port: Option<u16>) -> Self {
        let mut text = Self {
            digits: [0; 5],
            length: 0,
        };
        if let Some(port) = port {
            let _ = write!(text, "{port}");
        }
        text
    }

    fn text(&self) -> Option<&str> {
        let digits = std::str::from_utf8(&self.digits[..self.length]).ok()?;
        (!digits.is_empty()).then_some(digits)
    }
}

impl Write for Port {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        let place = self
            .digits
            .get_mut(self.length..end)
            .ok_or(std::fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
