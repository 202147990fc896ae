//! Services of a local mesh.

use std::sync::Arc;

use mesh::service::Service;
use serde::Deserialize;

use super::{LocalGateway, Ports, address, ports};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalService {
    name: Arc<str>,
    namespace: Arc<str>,
    hostname: Arc<str>,
    /// `network/address`.
    #[serde(default)]
    vips: Vec<String>,
    #[serde(default)]
    ports: Ports,
    #[serde(default)]
    subject_alt_names: Vec<Arc<str>>,
    waypoint: Option<LocalGateway>,
    #[serde(default)]
    canonical: bool,
}

// === impl LocalService ===

impl LocalService {
    pub(super) fn service(self) -> Result<Service, String> {
        let mut service = Service::new(&self.name, &self.namespace, &self.hostname);
        for vip in &self.vips {
            let parsed = address(vip);
            let parsed = parsed.ok_or_else(|| format!("{vip:?} is not network/address"))?;
            service.addresses.push(parsed);
        }
        service.ports = ports(self.ports);
        service.subject_alt_names = self.subject_alt_names;
        service.waypoint = self.waypoint.map(LocalGateway::gateway).transpose()?;
        service.canonical = self.canonical;
        Ok(service)
    }
}
