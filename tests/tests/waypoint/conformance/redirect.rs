//! Redirects of HTTPRoute.

use anyhow::ensure;
use tests::lab::Lab;

use crate::shop::{apply_routes, expect, http_route, shared};

/// A service whose only rule redirects.
fn redirecting(name: &str, matches: &str, redirect: &str) -> &'static Lab {
    let lab = shared();
    let rules = format!(
        "  - matches: [{matches}]
    filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]
"
    );
    apply_routes(lab, name, &http_route(name, &rules));
    lab
}

fn expect_location(lab: &Lab, url: &str, status: u16, location: &str) {
    expect(lab, &[url], |answer| {
        ensure!(answer.status == status, "not {status}");
        ensure!(
            answer.header("location") == Some(location),
            "not {location}"
        );
        Ok(())
    });
}

const ANY: &str = "{path: {type: PathPrefix, value: /}}";

#[test]
fn mesh_http_route_redirect_host_and_status() {
    let lab = redirecting(
        "redirect-host",
        ANY,
        "{hostname: example.org, statusCode: 301}",
    );
    expect_location(
        lab,
        "http://redirect-host.shop/a?b=c",
        301,
        "http://example.org/a?b=c",
    );
    let lab = redirecting("redirect-302", ANY, "{hostname: example.org}");
    expect_location(
        lab,
        "http://redirect-302.shop/a",
        302,
        "http://example.org/a",
    );
}

#[test]
fn mesh_http_route_redirect_path() {
    let matches = "{path: {type: PathPrefix, value: /original-prefix}}";
    let prefix = "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement-prefix}}";
    let lab = redirecting("redirect-prefix", matches, prefix);
    expect_location(
        lab,
        "http://redirect-prefix.shop/original-prefix/lemon",
        302,
        "http://redirect-prefix.shop/replacement-prefix/lemon",
    );
    let full = "{path: {type: ReplaceFullPath, replaceFullPath: /full-path-replacement}}";
    let lab = redirecting("redirect-full", ANY, full);
    expect_location(
        lab,
        "http://redirect-full.shop/full/path/original",
        302,
        "http://redirect-full.shop/full-path-replacement",
    );
}

#[test]
fn mesh_http_route_redirect_port() {
    let lab = redirecting("redirect-port", ANY, "{port: 8083}");
    expect_location(
        lab,
        "http://redirect-port.shop/a",
        302,
        "http://redirect-port.shop:8083/a",
    );
}

#[test]
fn mesh_http_route_scheme_redirect() {
    let lab = redirecting("redirect-scheme", ANY, "{scheme: https}");
    expect_location(
        lab,
        "http://redirect-scheme.shop/a",
        302,
        "https://redirect-scheme.shop/a",
    );
}

fn check_status(status: u16) {
    let name = format!("redirect-{status}");
    let redirect = format!("{{hostname: example.org, statusCode: {status}}}");
    let lab = redirecting(&name, ANY, &redirect);
    let url = format!("http://{name}.shop/a");
    expect_location(lab, &url, status, "http://example.org/a");
}

#[test]
fn mesh_http_route_303_redirect() {
    check_status(303);
}

#[test]
fn mesh_http_route_307_redirect() {
    check_status(307);
}

#[test]
fn mesh_http_route_308_redirect() {
    check_status(308);
}
