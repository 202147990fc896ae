//! What is shared between those who need the same keys.

use std::time::Duration;

use mesh::request_authentication::{JwtKeys, JwtRule};

use super::fetch::is_blocked;
use super::*;

fn rule(keys: JwtKeys) -> JwtRule {
    JwtRule {
        issuer: "https://issuer".into(),
        audiences: vec![],
        keys,
        locations: vec![],
        output_payload_to_header: None,
        output_claim_to_headers: vec![],
        forward_original_token: false,
        timeout: Duration::from_secs(5),
        space_delimited_claims: vec![],
    }
}

#[tokio::test]
async fn one_source_for_all_who_name_it() {
    let jwks = Jwks::new(Duration::from_secs(1200));
    let one = jwks.source(&rule(JwtKeys::Uri("http://a".into())));
    let same = jwks.source(&rule(JwtKeys::Uri("http://a".into())));
    let other = jwks.source(&rule(JwtKeys::Discovery));
    assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
    assert_eq!(one.step(Instant::now(), false), Step::FetchAndWait);
    let waiting = one.wait(Duration::from_secs(5));
    one.finish(Err("gone".to_owned()), Instant::now());
    assert_eq!(waiting.await, Ok(()));
    assert_eq!(one.failure(), Unavailable::Failed("gone".to_owned()));
    assert!(one.keys().is_none());
}

#[test]
fn addresses_in_disguise_are_blocked() {
    let blocked = ["127.0.0.0/8".parse().expect("a range")];
    for (address, expected) in [
        ("127.0.0.1", true),
        ("::ffff:127.0.0.1", true),
        ("10.0.0.1", false),
    ] {
        let address = address.parse().expect("an address");
        assert_eq!(is_blocked(&blocked, address), expected, "{address}");
    }
}
