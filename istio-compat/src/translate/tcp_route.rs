//! TCPRoute to route.

use mesh::route::{RouteKind, RouteRules, TcpRule};

use crate::kinds::tcp_route::TcpRoute;
use crate::translate::Translation;
use crate::translate::route::Translating;
use crate::view::View;

pub(super) fn translate(view: &View, route: &TcpRoute) -> Translation {
    let spec = &route.spec;
    let (kind, metadata) = (RouteKind::Tcp, &route.metadata);
    Translating::route(view, kind, metadata, &spec.parent_refs, |translating| {
        RouteRules::Tcp(translating.rules(&spec.rules, |translating, rule| {
            Some(TcpRule {
                name: rule.name.as_deref().map(Into::into),
                backends: translating.backends(&rule.backend_refs),
            })
        }))
    })
}
