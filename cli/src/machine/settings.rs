//! What the mesh's own programs are told of the environment that `weft up` was started in.

use std::collections::BTreeMap;

/// The settings of ztunnel, waypoint and control plane that the documents name, but for those that
/// `weft up` decides itself. `docs/failures.md` has the list too.
const PASSED_ON: &[&str] = &[
    "COMPLIANCE_POLICY",
    "CONNECT_TIMEOUT",
    "EJECTION_BASE_TIME",
    "EJECTION_MAX_PERCENT",
    "EJECTION_MAX_TIME",
    "ENABLE_RESPONSE_BAGGAGE",
    "ENABLE_SAME_NODE_DIRECT",
    "HALF_CLOSED_TIMEOUT",
    "HANDSHAKE_TIMEOUT",
    "HTTP2_CONNECTION_WINDOW_SIZE",
    "HTTP2_PING_INTERVAL",
    "HTTP2_PING_TIMEOUT",
    "KEEPALIVE_INTERVAL",
    "KEEPALIVE_RETRIES",
    "KEEPALIVE_TIME",
    "LOG_FORMAT",
    "MAX_CONNECTIONS",
    "MAX_REQUESTS",
    "MAX_SEGMENT_SIZE",
    "MAX_TUNNELS",
    "METRICS_IDLE_TIMEOUT",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "SECRET_TTL",
    "UNSTABLE_ENABLE_SOCKS5",
    "USER_TIMEOUT_ENABLED",
    "WAYPOINT_WORKER_THREADS",
    "ZTUNNEL_HANDOVER_DEADLINE",
    "ZTUNNEL_HANDOVER_UDS",
    "ZTUNNEL_WORKER_THREADS",
];

/// What they are told where nobody says otherwise. A stolen key is good for as long as its
/// certificate; Istio's day is for authorities that are seldom there.
const DEFAULTS: [(&str, &str); 1] = [("SECRET_TTL", "1h")];

/// Those that are set, and our own defaults.
pub(super) fn passed_on() -> BTreeMap<&'static str, String> {
    told(|name| std::env::var(name).ok())
}

fn told(environment: impl Fn(&str) -> Option<String>) -> BTreeMap<&'static str, String> {
    let mut told = BTreeMap::from(DEFAULTS.map(|(name, value)| (name, value.to_owned())));
    let set = PASSED_ON.iter();
    told.extend(set.filter_map(|name| Some((*name, environment(name)?))));
    told
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Documented, and not for users of `weft up`: it sets them, or they would break what it runs.
    const ITS_OWN: &[&str] = &[
        "CA_ADDRESS",
        "CLUSTER_CIDRS",
        "CRL_PATH",
        "ENABLE_PROXY",
        "FAKE_CA",
        "POD_NAME",
        "POD_NAMESPACE",
        "PROXY_CONFIG",
        "PROXY_MODE",
        "SERVICE_ACCOUNT",
        "TLS12_ENABLED",
        "TRUST_DOMAIN",
        "XDS_ADDRESS",
    ];
    const HEADING: &str = "### Under `weft up`";

    fn read(path: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// What looks like a variable of several words, between these quotes, with or without a value.
    fn variables(text: &str, quote: char) -> BTreeSet<String> {
        let quoted = text.split(quote).map(|text| text.split('=').next());
        let of_variable =
            |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        quoted
            .flatten()
            .filter(|text| text.contains('_') && text.bytes().all(of_variable))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn what_the_documents_call_a_setting_is_passed_on() {
        let programs = [
            "ztunnel/src/config.rs",
            "ztunnel/src/config/build.rs",
            "ztunnel/src/config/workers.rs",
            "waypoint/src/config.rs",
        ];
        let known: BTreeSet<_> = programs
            .iter()
            .flat_map(|path| variables(&read(path), '"'))
            .collect();
        assert!(known.contains("ENABLE_SAME_NODE_DIRECT"), "{known:?}");
        for document in ["endpoints", "failures", "istio", "upgrade", "waypoints"] {
            let named = variables(&read(&format!("docs/{document}.md")), '`');
            for name in named.intersection(&known) {
                let name = name.as_str();
                assert!(
                    PASSED_ON.contains(&name) != ITS_OWN.contains(&name),
                    "docs/{document}.md names {name}"
                );
            }
        }
    }

    #[test]
    fn certificates_live_for_an_hour_unless_the_environment_says_otherwise() {
        assert_eq!(told(|_| None)["SECRET_TTL"], "1h");
        let day = |name: &str| (name == "SECRET_TTL").then(|| "24h".to_owned());
        assert_eq!(told(day)["SECRET_TTL"], "24h");
    }

    #[test]
    fn the_documents_list_what_is_passed_on() {
        let text = read("docs/failures.md");
        let (_, section) = text.split_once(HEADING).expect("the heading");
        let section = section.split("\n#").next().unwrap_or_default();
        let listed = variables(section, '`');
        let passed: BTreeSet<_> = PASSED_ON.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(listed, passed);
    }
}
