//! Gateway: listeners that can be told apart.

use std::collections::HashSet;

use crate::kinds::gateway::{FromNamespaces, Gateway, Listener};
use crate::validate::{Problems, Validate, labels, names};

const MAX_LISTENERS: usize = 64;
const MAX_ADDRESSES: usize = 16;

impl Validate for Gateway {
    fn validate(&self, problems: &mut Problems<'_>) {
        let spec = &self.spec;
        match spec.gateway_class_name.as_str() {
            "" => problems.error(
                "spec.gatewayClassName",
                "has no value: use istio-waypoint for a waypoint",
            ),
            name => problems.check("spec.gatewayClassName", names::subdomain(name)),
        }
        problems.at_most("spec.listeners", spec.listeners.len(), MAX_LISTENERS);
        problems.at_most("spec.addresses", spec.addresses.len(), MAX_ADDRESSES);
        if spec.listeners.is_empty() {
            problems.error(
                "spec.listeners",
                "has no listener: a waypoint has one named mesh, on port 15008, with protocol \
                 HBONE",
            );
        }
        let mut listener_names = HashSet::new();
        let mut places = HashSet::new();
        for (index, one) in spec.listeners.iter().enumerate() {
            let field = format!("spec.listeners[{index}]");
            listener(&field, one, problems);
            if !listener_names.insert(&one.name) {
                problems.error(
                    format!("{field}.name"),
                    format!("{:?} is there twice", one.name),
                );
            }
            if !places.insert((one.port, &one.protocol, &one.hostname)) {
                problems.error(
                    format!("{field}.port"),
                    format!("{} is there twice for one protocol and hostname", one.port),
                );
            }
        }
        if let Some(infrastructure) = &spec.infrastructure {
            labels(
                "spec.infrastructure.labels",
                &infrastructure.labels,
                problems,
            );
        }
    }
}

fn listener(field: &str, listener: &Listener, problems: &mut Problems<'_>) {
    problems.check(format!("{field}.name"), names::subdomain(&listener.name));
    problems.check(format!("{field}.port"), names::port(listener.port.into()));
    if listener.protocol.is_empty() {
        problems.error(
            format!("{field}.protocol"),
            "has no value: use HBONE for a waypoint",
        );
    }
    if let Some(hostname) = &listener.hostname {
        let plain = hostname.strip_prefix("*.").unwrap_or(hostname);
        problems.check(format!("{field}.hostname"), names::host(plain));
    }
    let namespaces = listener
        .allowed_routes
        .as_ref()
        .and_then(|allowed| allowed.namespaces.as_ref());
    if let Some(namespaces) = namespaces
        && namespaces.from == FromNamespaces::Selector
        && namespaces.selector.is_none()
    {
        problems.error(
            format!("{field}.allowedRoutes.namespaces.selector"),
            "has no value: from Selector needs one",
        );
    }
}
