//! Of several kinds of routes on one port of a service, only one counts there: GRPCRoute, then
//! HTTPRoute, then TCPRoute (GEP-1294).

use mesh::route::{RouteKey, RouteKind};

use crate::kind::Kind;
use crate::kinds::route::ParentReference;
use crate::object::ObjectKey;
use crate::translate::route::{ParentPort, parent_port};
use crate::view::View;
use crate::view::routes::service_kind;

/// A route of a kind that takes precedence wherever this reference attaches one.
pub(super) fn superior<'a>(
    view: &'a View,
    route: &RouteKey,
    reference: &ParentReference,
) -> Option<&'a ObjectKey> {
    let kind = service_kind(reference.group(), reference.kind())?;
    let namespace = reference.namespace(&route.namespace);
    let parent = ObjectKey::new(kind, namespace, reference.name.as_str());
    // A consumer's route meets those of its own namespace only.
    let consumer = |key: &ObjectKey| *key.namespace != *namespace;
    let own = *route.namespace != *namespace;
    let own_port = parent_port(view, &route.namespace, reference);
    view.routes
        .attached_to(&parent)
        .filter(|other| rank(other).is_some_and(|rank| rank < route.kind))
        .filter(|other| consumer(other) == own && (!own || other.namespace == route.namespace))
        .find(|other| {
            parent_refs(view, other).iter().any(|one| {
                let same = service_kind(one.group(), one.kind()) == Some(kind)
                    && one.name == reference.name
                    && one.namespace(&other.namespace) == namespace;
                let port = parent_port(view, &other.namespace, one);
                same && (port == ParentPort::All || port == own_port)
            })
        })
}

fn rank(route: &ObjectKey) -> Option<RouteKind> {
    match route.kind {
        Kind::GrpcRoute => Some(RouteKind::Grpc),
        Kind::HttpRoute => Some(RouteKind::Http),
        Kind::TcpRoute => Some(RouteKind::Tcp),
        _ => None,
    }
}

fn parent_refs<'a>(view: &'a View, route: &ObjectKey) -> &'a [ParentReference] {
    let Some(contents) = view.contents(&route.namespace) else {
        return &[];
    };
    let name = &route.name;
    let parent_refs = match route.kind {
        Kind::GrpcRoute => contents
            .grpc_routes
            .get(name)
            .map(|one| &one.spec.parent_refs),
        Kind::HttpRoute => contents
            .http_routes
            .get(name)
            .map(|one| &one.spec.parent_refs),
        Kind::TcpRoute => contents
            .tcp_routes
            .get(name)
            .map(|one| &one.spec.parent_refs),
        _ => None,
    };
    parent_refs.map_or(&[], Vec::as_slice)
}
