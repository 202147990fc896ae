//! TCPRoute to route.

use mesh::route::{RouteKey, RouteKind, RouteRules, TcpRule};

use crate::kinds::tcp_route::TcpRoute;
use crate::translate::Translation;
use crate::translate::route::Translating;
use crate::view::View;

pub(super) fn translate(view: &View, route: &TcpRoute) -> Translation {
    let metadata = &route.metadata;
    let (namespace, name) = (metadata.namespace.as_str(), metadata.name.as_str());
    let mut translating = Translating::new(view, namespace);
    let rules = route
        .spec
        .rules
        .iter()
        .map(|rule| TcpRule {
            name: rule.name.as_deref().map(Into::into),
            backends: translating.backends(&rule.backend_refs),
        })
        .collect();
    translating.finish(
        RouteKey::new(RouteKind::Tcp, namespace, name),
        metadata,
        &route.spec.parent_refs,
        RouteRules::Tcp(rules),
    )
}
