//! Where a control plane is, as Istio's proxies are told by their environment.

use runtime::environment::Environment;
use zeroize::Zeroizing;

use super::{Config, Roots, Token};

const ISTIOD: &str = "https://istiod.istio-system.svc:15012";
const LOCAL_ISTIOD: &str = "https://localhost:15012";
const ROOT_CERT: &str = "./var/run/secrets/istio/root-cert.pem";
const TOKEN: &str = "./var/run/secrets/tokens/istio-token";

// === impl Config ===

impl Config {
    /// Reads the variables of one service (`XDS`, `CA`), with `default` for an address that is
    /// not said. None where the address is set and empty: the service is off.
    pub fn read(
        environment: &mut Environment,
        prefix: &str,
        default: Option<String>,
    ) -> Option<Self> {
        let variable = format!("{prefix}_ADDRESS");
        let istiod = || match environment.text("KUBERNETES_SERVICE_HOST") {
            Some(_) => ISTIOD.to_owned(),
            None => LOCAL_ISTIOD.to_owned(),
        };
        let address = environment
            .set_text(&variable)
            .or(default)
            .unwrap_or_else(istiod);
        if address.is_empty() {
            return None;
        }
        let address = if address.contains("://") {
            address
        } else {
            format!("https://{address}")
        };
        if address
            .parse::<http::Uri>()
            .ok()
            .is_none_or(|uri| uri.host().is_none() || uri.scheme_str() != Some("https"))
        {
            environment.mistake(format!("{variable}: {address:?} is not https://host:port"));
        }
        let roots = environment.text(&format!("{prefix}_ROOT_CA"));
        let token = environment.text("AUTH_TOKEN").map(Zeroizing::new);
        Some(Self {
            address,
            roots: Roots::parse(roots.as_deref().unwrap_or(ROOT_CERT)),
            alternate_name: environment.text(&format!("ALT_{prefix}_HOSTNAME")),
            token: Some(Token::parse(
                token.as_ref().map_or(TOKEN, |token| token.as_str()),
            )),
            headers: environment.prefixed(&format!("{prefix}_HEADER_")),
        })
    }
}
