//! The control plane's settings, from the command line and the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use istio_compat::view::Context;

use crate::ca::Account;

/// Turns Kubernetes and Istio YAML into what the mesh's proxies need, and issues their
/// certificates.
#[derive(Clone, Debug, Parser)]
#[command(name = "control-plane", version)]
pub struct Args {
    /// Folder of YAML and JSON files to read and watch
    #[arg(long, env = "WEFT_FOLDER", value_name = "DIR")]
    pub folder: PathBuf,

    /// Folder of what the machine knows of its pods; overlays the user's folder
    #[arg(long, env = "WEFT_CLUSTER", value_name = "DIR")]
    pub cluster: Option<PathBuf>,

    /// Folder in which to put the objects of waypoints, for the machine to run; what the
    /// user's folder says of an object wins over it
    #[arg(long, env = "WEFT_WAYPOINTS", value_name = "DIR")]
    pub waypoints: Option<PathBuf>,

    /// Folder of the certificate authority's key and certificates; made if it is missing
    #[arg(long, env = "WEFT_CA_DIR", value_name = "DIR")]
    pub ca_dir: PathBuf,

    /// Folder with the user's own authority: ca-cert.pem, ca-key.pem, root-cert.pem, cert-chain.pem
    #[arg(long, env = "WEFT_CACERTS", value_name = "DIR")]
    pub cacerts: Option<PathBuf>,

    /// Folder for what has to survive a restart [default: the parent of --ca-dir]
    #[arg(long, env = "WEFT_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Public key (PEM) with which node tokens are checked
    #[arg(long, env = "WEFT_TOKEN_ISSUER", value_name = "FILE")]
    pub token_issuer: PathBuf,

    /// Address of xDS and of the certificate service
    #[arg(
        long,
        env = "WEFT_XDS_LISTEN",
        value_name = "ADDRESS",
        default_value = "[::]:15012"
    )]
    pub xds_listen: SocketAddr,

    /// Unix socket of the API
    #[arg(long, env = "WEFT_API_SOCKET", value_name = "FILE")]
    pub api_socket: PathBuf,

    /// Address of metrics and readiness
    #[arg(
        long,
        env = "WEFT_METRICS_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:15014"
    )]
    pub metrics_listen: SocketAddr,

    /// Further names and addresses the serving certificate is good for
    #[arg(
        long = "san",
        env = "WEFT_SANS",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub sans: Vec<String>,

    /// Trust domain of every identity
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: String,

    /// Former names of the trust domain, which principals in policies may still have
    #[arg(
        long = "trust-domain-alias",
        env = "TRUST_DOMAIN_ALIASES",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub trust_domain_aliases: Vec<String>,

    /// Name of this cluster
    #[arg(long, env = "CLUSTER_ID", default_value = "Kubernetes")]
    pub cluster_id: String,

    /// Suffix of the names of services
    #[arg(long, env = "DOMAIN_SUFFIX", default_value = "cluster.local")]
    pub domain_suffix: String,

    /// Namespace whose policies hold for the whole mesh
    #[arg(long, env = "ROOT_NAMESPACE", default_value = "istio-system")]
    pub root_namespace: String,

    /// Whether policies with the annotation istio.io/dry-run are sent to nodes; tunnels of Istio
    /// before 1.29 enforce them
    #[arg(
        long,
        env = "AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY",
        value_name = "BOOL",
        action = clap::ArgAction::Set,
        default_value_t = true
    )]
    pub dry_run_policies: bool,

    /// Accounts (NAMESPACE/NAME) that may ask for the identities of their node's pods
    #[arg(
        long = "trusted-node-account",
        env = "CA_TRUSTED_NODE_ACCOUNTS",
        value_delimiter = ',',
        default_value = "weft-system/ztunnel"
    )]
    pub trusted_node_accounts: Vec<Account>,

    /// Logging levels: LEVEL or TARGET=LEVEL, separated by commas
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log_level: String,

    /// Format of the log: plain or json
    #[arg(long, env = "LOG_FORMAT", default_value = "plain")]
    pub log_format: runtime::logs::Format,
}

// === impl Args ===

impl Args {
    /// The folders of objects, lowest precedence first.
    pub fn folders(&self) -> Vec<PathBuf> {
        std::iter::once(&self.folder)
            .chain(&self.cluster)
            .cloned()
            .collect()
    }

    /// What is the same for the whole mesh.
    pub fn mesh(&self) -> Context {
        Context {
            trust_domain: self.trust_domain.as_str().into(),
            trust_domain_aliases: self
                .trust_domain_aliases
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            root_namespace: self.root_namespace.as_str().into(),
            cluster_domain: self.domain_suffix.as_str().into(),
            cluster_id: self.cluster_id.as_str().into(),
            dry_run_policies: self.dry_run_policies,
            ..Context::default()
        }
    }

    /// Where allocated addresses are written down.
    pub fn address_book(&self) -> PathBuf {
        self.state_folder().join("service-entry-addresses.json")
    }

    /// Where copies of the folder's files are kept.
    pub fn last_good(&self) -> PathBuf {
        self.state_folder().join("last-good")
    }

    fn state_folder(&self) -> PathBuf {
        let parent = || self.ca_dir.parent().map(PathBuf::from).unwrap_or_default();
        self.state.clone().unwrap_or_else(parent)
    }
}
