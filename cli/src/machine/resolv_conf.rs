//! A pod's /etc/resolv.conf, by its DNS policy. No I/O.
use std::fmt;
use std::net::IpAddr;

use istio_compat::kinds::pod::{DnsPolicy, Pod, PodSpec};

use super::network::plan::CLUSTER_DNS_IPV4;

/// glibc reads three.
const MOST_NAMESERVERS: usize = 3;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub(crate) nameservers: Vec<String>,
    pub(crate) searches: Vec<String>,
    pub(crate) options: Vec<String>,
}

// === impl ResolvConf ===

impl ResolvConf {
    /// `host` is the text of the host's own file, for pods that want it.
    pub(crate) fn of(pod: &Pod, host: &str) -> Self {
        let mut conf = match pod.spec.dns_policy {
            DnsPolicy::ClusterFirst | DnsPolicy::ClusterFirstWithHostNet => {
                Self::cluster(&pod.metadata.namespace)
            }
            DnsPolicy::Default => Self::parse(host),
            DnsPolicy::None => Self::default(),
        };
        conf.add(&pod.spec);
        conf
    }

    /// What the mesh's own processes use.
    pub(crate) fn cluster(namespace: &str) -> Self {
        Self {
            nameservers: vec![CLUSTER_DNS_IPV4.to_string()],
            searches: vec![
                format!("{namespace}.svc.cluster.local"),
                "svc.cluster.local".to_owned(),
                "cluster.local".to_owned(),
            ],
            options: vec!["ndots:5".to_owned()],
        }
    }

    fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => conf.nameservers.extend(words.next().map(str::to_owned)),
                Some("search") => conf.searches = words.map(str::to_owned).collect(),
                Some("options") => conf.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        conf
    }

    fn add(&mut self, spec: &PodSpec) {
        let config = &spec.dns_config;
        let nameservers = config.nameservers.iter().map(IpAddr::to_string);
        extend_new(&mut self.nameservers, nameservers);
        self.nameservers.truncate(MOST_NAMESERVERS);
        extend_new(&mut self.searches, config.searches.iter().cloned());
        for option in &config.options {
            let name = option.name.as_str();
            self.options
                .retain(|present| present.split(':').next() != Some(name));
            self.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.to_owned(),
            });
        }
    }
}

impl fmt::Display for ResolvConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for nameserver in &self.nameservers {
            writeln!(f, "nameserver {nameserver}")?;
        }
        if !self.searches.is_empty() {
            writeln!(f, "search {}", self.searches.join(" "))?;
        }
        if !self.options.is_empty() {
            writeln!(f, "options {}", self.options.join(" "))?;
        }
        Ok(())
    }
}

fn extend_new(list: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: serde_json::Value, expected: &str) {
        let pod = serde_json::from_value(
            serde_json::json!({"metadata": {"name": "a", "namespace": "shop"}, "spec": spec}),
        )
        .unwrap();
        let host = "# by hand\nnameserver 192.0.2.1\nsearch example.org\n";
        assert_eq!(ResolvConf::of(&pod, host).to_string(), expected);
    }

    #[test]
    fn the_policy_decides_where_names_are_asked() {
        check(
            serde_json::json!({}),
            "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
        );
        check(
            serde_json::json!({"dnsPolicy": "Default"}),
            "nameserver 192.0.2.1\nsearch example.org\n",
        );
        check(
            serde_json::json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.9"]}}),
            "nameserver 192.0.2.9\n",
        );
    }

    #[test]
    fn the_pods_own_settings_are_added_and_replace_options() {
        check(
            serde_json::json!({"dnsConfig": {
                "nameservers": ["192.0.2.9"],
                "searches": ["example.com", "cluster.local"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
            }}),
            "nameserver 10.96.0.10\nnameserver 192.0.2.9\nsearch shop.svc.cluster.local svc.cluster.local cluster.local example.com\noptions ndots:2 edns0\n",
        );
    }
}
