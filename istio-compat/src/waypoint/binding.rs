//! Which waypoint stands in front of a service or a workload: the one a label names, else one
//! made on demand, where there are reasons. What asks for a waypoint that it can't have is
//! bound to none that answers: it is refused, and never goes around.

use mesh::address::{GatewayAddress, GatewayDestination, NamespacedHostname};

use crate::kind::Kind;
use crate::kinds::metadata::ObjectMeta;
use crate::labels;
use crate::object::ObjectKey;
use crate::view::View;
use crate::waypoint::gateway::{self, Traffic};
use crate::waypoint::reasons::{Need, Reason};
use crate::waypoint::{HBONE_PORT, WaypointName, is_managed};

/// What stands in front of an object, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub waypoint: WaypointName,
    pub cause: Cause,
    /// Why the waypoint can't be used, where it can't: connections are refused.
    pub refusal: Option<Refusal>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// `istio.io/use-waypoint` of the object itself, or of its namespace.
    Label(ObjectKey),
    /// Something needs one.
    Demand(Vec<Reason>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such Gateway.
    Missing,
    /// The Gateway's class is not a waypoint's.
    NotAWaypoint,
    /// `allowedRoutes` do not admit the namespace.
    AttachmentDenied,
    /// `istio.io/waypoint-for` names other traffic.
    UnsupportedTrafficType,
}

/// What `istio.io/use-waypoint` says.
enum Labelled {
    Nothing,
    None,
    Waypoint {
        name: WaypointName,
        by: ObjectKey,
        inherited: bool,
    },
}

impl View {
    /// What stands in front of a Service or ServiceEntry.
    pub fn binding_of_service(&self, kind: Kind, metadata: &ObjectMeta) -> Option<Binding> {
        if is_managed(metadata) {
            return None;
        }
        let namespace = metadata.namespace.as_str();
        let key = ObjectKey::new(kind, namespace, metadata.name.as_str());
        match self.labelled(&key, metadata) {
            Labelled::None => None,
            Labelled::Waypoint {
                name,
                by,
                inherited,
            } => self.judge(namespace, name, by, inherited, Traffic::Service),
            Labelled::Nothing => self.on_demand(namespace, self.reasons(&key)),
        }
    }

    /// What stands in front of a Service or ServiceEntry, by its key.
    pub fn binding(&self, service: &ObjectKey) -> Option<Binding> {
        let contents = self.contents(&service.namespace)?;
        let metadata = match service.kind {
            Kind::Service => &contents.services.get(&service.name)?.metadata,
            _ => &contents.service_entries.get(&service.name)?.metadata,
        };
        self.binding_of_service(service.kind, metadata)
    }

    /// What stands in front of a workload when it is dialled itself. Of a namespace's waypoint
    /// only one that is for workloads; on demand only for policies.
    pub(crate) fn binding_of_workload(
        &self,
        key: &ObjectKey,
        metadata: &ObjectMeta,
        reasons: &[Reason],
    ) -> Option<Binding> {
        if is_managed(metadata) || metadata.label(labels::GATEWAY_NAME).is_some() {
            return None;
        }
        let namespace = &*key.namespace;
        match self.labelled(key, metadata) {
            Labelled::None => None,
            Labelled::Waypoint {
                name,
                by,
                inherited,
            } => self.judge(namespace, name, by, inherited, Traffic::Workload),
            Labelled::Nothing => self.on_demand(namespace, reasons.to_vec()),
        }
    }

    /// The waypoint that a label names for a service, where it may be used.
    pub(crate) fn labelled_waypoint(&self, service: &ObjectKey) -> Option<WaypointName> {
        let contents = self.contents(&service.namespace)?;
        let name = &service.name;
        let metadata = match service.kind {
            Kind::Service => contents.services.get(name).map(|one| &one.metadata),
            _ => contents.service_entries.get(name).map(|one| &one.metadata),
        }?;
        match self.labelled(service, metadata) {
            Labelled::Waypoint {
                name,
                by,
                inherited,
            } => {
                let binding =
                    self.judge(&service.namespace, name, by, inherited, Traffic::Service)?;
                binding.refusal.is_none().then_some(binding.waypoint)
            }
            Labelled::Nothing | Labelled::None => None,
        }
    }

    fn labelled(&self, key: &ObjectKey, metadata: &ObjectMeta) -> Labelled {
        let namespace = self.namespace(&key.namespace);
        let of_namespace = || ObjectKey::new(Kind::Namespace, "", key.namespace.clone());
        let sources = [
            Some((metadata, key.clone(), false)),
            namespace.map(|one| (&one.metadata, of_namespace(), true)),
        ];
        for (source, by, inherited) in sources.into_iter().flatten() {
            let Some(name) = source.label(labels::USE_WAYPOINT) else {
                continue;
            };
            if name == "none" {
                return Labelled::None;
            }
            let namespace = source
                .label(labels::USE_WAYPOINT_NAMESPACE)
                .unwrap_or(&key.namespace);
            return Labelled::Waypoint {
                name: WaypointName::new(namespace, name),
                by,
                inherited,
            };
        }
        Labelled::Nothing
    }

    /// None where the label is the namespace's and about other traffic.
    fn judge(
        &self,
        namespace: &str,
        waypoint: WaypointName,
        by: ObjectKey,
        inherited: bool,
        traffic: Traffic,
    ) -> Option<Binding> {
        let refusal = match self.gateway(&waypoint) {
            // What a Gateway that isn't there would be for is not known: for services.
            None if inherited && traffic == Traffic::Workload => return None,
            None => Some(Refusal::Missing),
            Some(gateway) if !gateway::is_waypoint(self, gateway) => Some(Refusal::NotAWaypoint),
            Some(gateway) if !gateway::is_for(self, gateway, traffic) => {
                if inherited {
                    return None;
                }
                Some(Refusal::UnsupportedTrafficType)
            }
            Some(gateway) if !gateway::admits(self, gateway, namespace) => {
                Some(Refusal::AttachmentDenied)
            }
            Some(_) => None,
        };
        Some(Binding {
            waypoint,
            cause: Cause::Label(by),
            refusal,
        })
    }

    /// In an ambient namespace, unless it says `weft.dev/waypoint: off`. A policy that names
    /// the service can be enforced by nothing else, so that it counts in any.
    fn on_demand(&self, namespace: &str, reasons: Vec<Reason>) -> Option<Binding> {
        let metadata = self.namespace(namespace).map(|one| &one.metadata);
        let label = |key| metadata.and_then(|metadata| metadata.label(key));
        if label(labels::WAYPOINT) == Some("off") {
            return None;
        }
        let ambient = label(labels::DATAPLANE_MODE) == Some("ambient");
        let targeted = || reasons.iter().any(|reason| reason.need == Need::Target);
        if reasons.is_empty() || !(ambient || targeted()) {
            return None;
        }
        let waypoint = WaypointName::on_demand(namespace);
        let known = self.gateway(&waypoint);
        let foreign = known.is_some_and(|known| !gateway::is_waypoint(self, known));
        Some(Binding {
            waypoint,
            cause: Cause::Demand(reasons),
            refusal: foreign.then_some(Refusal::NotAWaypoint),
        })
    }

    /// What the data plane is told. What may not be used is named so that nothing has the name:
    /// top-level domain `invalid` (RFC 2606).
    pub(crate) fn address(&self, binding: &Binding) -> GatewayAddress {
        let WaypointName { namespace, name } = &binding.waypoint;
        let object = match self.gateway(&binding.waypoint) {
            Some(gateway) => gateway::name_of_objects(&gateway.metadata),
            None => name,
        };
        let hostname = match binding.refusal {
            None | Some(Refusal::Missing) => self.context.service_hostname(object, namespace),
            Some(refusal) => format!("{name}.{namespace}.{}.invalid", refusal.label()),
        };
        GatewayAddress {
            destination: GatewayDestination::Hostname(NamespacedHostname::new(
                namespace.clone(),
                hostname,
            )),
            hbone_mtls_port: HBONE_PORT,
        }
    }

    /// Whether a pod of the waypoint answers.
    pub fn is_ready(&self, waypoint: &WaypointName) -> bool {
        self.waypoint_pods(waypoint).any(|pod| pod.is_ready())
    }
}

// === impl Refusal ===

impl Refusal {
    fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::NotAWaypoint => "not-a-waypoint",
            Self::AttachmentDenied => "attachment-denied",
            Self::UnsupportedTrafficType => "unsupported-traffic-type",
        }
    }

    /// As conditions have it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing | Self::NotAWaypoint => "WaypointIsNotReady",
            Self::AttachmentDenied => "AttachmentDenied",
            Self::UnsupportedTrafficType => "UnsupportedTrafficType",
        }
    }

    /// What is wrong, for a person; it stands after the waypoint's name.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Missing => "is not there",
            Self::NotAWaypoint => "is a Gateway of another class",
            Self::AttachmentDenied => "does not admit this namespace in its allowedRoutes",
            Self::UnsupportedTrafficType => "is for other traffic (istio.io/waypoint-for)",
        }
    }
}
