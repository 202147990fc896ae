//! Which waypoint stands in front of a service or a workload: the one a label names, else one
//! made on demand, where there are reasons. What asks for a waypoint that it can't have is
//! bound to none that answers: it is refused, and never goes around.

use mesh::address::{GatewayAddress, GatewayDestination, NamespacedHostname};

use crate::kind::Kind;
use crate::kinds::metadata::ObjectMeta;
use crate::labels;
use crate::object::ObjectKey;
use crate::view::View;
use crate::waypoint::canary::Canary;
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
    /// Another one that labels give a share of a service's connections.
    pub canary: Option<Canary>,
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
            } => {
                let binding = self.judge(namespace, name, by, inherited, Traffic::Service)?;
                let whole = self.namespace(namespace).filter(|_| inherited);
                let sources = [Some(metadata), whole.map(|one| &one.metadata)];
                Some(Binding {
                    canary: self.canary(namespace, sources, &binding.waypoint),
                    ..binding
                })
            }
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

    /// The waypoints that labels name for a service, where they may be used.
    pub(crate) fn labelled_waypoints(&self, service: &ObjectKey) -> Vec<WaypointName> {
        let metadata = self.contents(&service.namespace).and_then(|contents| {
            let name = &service.name;
            match service.kind {
                Kind::Service => contents.services.get(name).map(|one| &one.metadata),
                _ => contents.service_entries.get(name).map(|one| &one.metadata),
            }
        });
        let labelled = metadata.filter(|metadata| {
            matches!(self.labelled(service, metadata), Labelled::Waypoint { .. })
        });
        let binding = labelled.and_then(|metadata| self.binding_of_service(service.kind, metadata));
        let Some(binding) = binding else {
            return Vec::new();
        };
        let canary = binding.canary.filter(Canary::has_share);
        let first = binding.refusal.is_none().then_some(binding.waypoint);
        first
            .into_iter()
            .chain(canary.map(|canary| canary.waypoint))
            .collect()
    }

    /// Whether services of the namespace are bound to a waypoint that they may use, given a reason
    /// for one and no label of their own.
    pub(crate) fn binds_with(&self, namespace: &str, reason: &Reason) -> bool {
        let nothing = ObjectMeta {
            namespace: namespace.to_owned(),
            ..ObjectMeta::default()
        };
        let key = ObjectKey::new(Kind::Service, namespace, "");
        let binding = match self.labelled(&key, &nothing) {
            Labelled::None => None,
            Labelled::Waypoint {
                name,
                by,
                inherited,
            } => self.judge(namespace, name, by, inherited, Traffic::Service),
            Labelled::Nothing => self.on_demand(namespace, vec![reason.clone()]),
        };
        binding.is_some_and(|binding| binding.refusal.is_none())
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
        let refusal = self.refusal(namespace, &waypoint, traffic);
        match (refusal, traffic) {
            // What a Gateway that isn't there would be for is not known: for services.
            (Some(Refusal::Missing), Traffic::Workload) if inherited => return None,
            (Some(Refusal::UnsupportedTrafficType), _) if inherited => return None,
            (_, Traffic::Service | Traffic::Workload) => {}
        }
        Some(Binding {
            waypoint,
            cause: Cause::Label(by),
            refusal,
            canary: None,
        })
    }

    /// Why what is in a namespace can't use a waypoint for such traffic.
    pub(super) fn refusal(
        &self,
        namespace: &str,
        waypoint: &WaypointName,
        traffic: Traffic,
    ) -> Option<Refusal> {
        match self.gateway(waypoint) {
            None => Some(Refusal::Missing),
            Some(gateway) if !gateway::is_waypoint(self, gateway) => Some(Refusal::NotAWaypoint),
            Some(gateway) if !gateway::is_for(self, gateway, traffic) => {
                Some(Refusal::UnsupportedTrafficType)
            }
            Some(gateway) if !gateway::admits(self, gateway, namespace) => {
                Some(Refusal::AttachmentDenied)
            }
            Some(_) => None,
        }
    }

    /// In an ambient namespace, unless it says `weft.dev/waypoint: off`. A policy that names
    /// the service, or one with the same pods, can be enforced by nothing else, so that it counts in any.
    fn on_demand(&self, namespace: &str, reasons: Vec<Reason>) -> Option<Binding> {
        let metadata = self.namespace(namespace).map(|one| &one.metadata);
        let label = |key| metadata.and_then(|metadata| metadata.label(key));
        if label(labels::WAYPOINT) == Some("off") {
            return None;
        }
        let ambient = label(labels::DATAPLANE_MODE) == Some("ambient");
        let targeted = || {
            let mut needs = reasons.iter().map(|reason| &reason.need);
            needs.any(|need| matches!(need, Need::Target | Need::Guard(_)))
        };
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
            canary: None,
        })
    }

    /// What the data plane is told. What may not be used is named so that nothing has the name:
    /// top-level domain `invalid` (RFC 2606).
    pub(crate) fn address(&self, binding: &Binding) -> GatewayAddress {
        self.address_of(&binding.waypoint, binding.refusal)
    }

    pub(crate) fn address_of(
        &self,
        waypoint: &WaypointName,
        refusal: Option<Refusal>,
    ) -> GatewayAddress {
        let WaypointName { namespace, name } = waypoint;
        let object = match self.gateway(waypoint) {
            Some(gateway) => gateway::name_of_objects(&gateway.metadata),
            None => name,
        };
        let hostname = match refusal {
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
