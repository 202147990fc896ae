//! What goes without a tunnel: from outside of the mesh, or as an annotation has it.

use super::{CLIENT, check};
use crate::command::why::answer::Enforcer;
use crate::command::why::screen;

#[test]
fn strict_refuses_plaintext() {
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                  metadata: {name: default, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";
    for source in ["outside/stranger", "192.0.2.9"] {
        check(
            "",
            (source, "web.shop:80", &[]),
            (true, Enforcer::Node, None),
            "allowed",
        );
        check(
            strict,
            (source, "web.shop:80", &[]),
            (false, Enforcer::Node, None),
            "PeerAuthentication shop/default, more.yaml:4",
        );
    }
    check(
        strict,
        (CLIENT, "web.shop:80", &[]),
        (true, Enforcer::Node, None),
        "allowed",
    );
}

#[test]
fn what_annotations_keep_from_capture_is_plaintext() {
    let annotated = |name: &str, annotation: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: shop\n  \
             labels: {{app: {name}}}\n  annotations: {{{annotation}}}\n\
             spec: {{serviceAccountName: {name}, containers: [{{name: it}}]}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec:\n  selector: {{app: {name}}}\n  \
             ports: [{{name: tcp, port: 80, targetPort: 8080}}]\n"
        )
    };
    let strict = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                  metadata: {name: default, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";
    let with = |name, annotation| annotated(name, annotation) + strict;
    for annotation in [
        "traffic.sidecar.istio.io/excludeOutboundPorts: \"80\"",
        "traffic.sidecar.istio.io/excludeOutboundIPRanges: 0.0.0.0/0",
    ] {
        // Of a port and an address as they are dialled, which are the service's.
        let answer = check(
            &with("leaky", annotation),
            ("shop/leaky", "web.shop:80", &[]),
            (false, Enforcer::Node, None),
            "plaintext is refused",
        );
        let shown = screen::of(&answer);
        assert!(shown.contains("goes out in plaintext"), "{shown}");
    }
    check(
        &with(
            "leaky",
            "traffic.sidecar.istio.io/excludeOutboundPorts: \"8080\"",
        ),
        ("shop/leaky", "web.shop:80", &[]),
        (true, Enforcer::Node, None),
        "allowed",
    );
    for (annotation, own) in [
        (
            "traffic.sidecar.istio.io/excludeInboundPorts: \"8080\"",
            true,
        ),
        ("ambient.istio.io/bypass-inbound-capture: \"true\"", true),
        (
            "traffic.sidecar.istio.io/excludeInboundPorts: \"80\"",
            false,
        ),
    ] {
        let text = with("open", annotation);
        let enforcer = if own {
            Enforcer::Nobody
        } else {
            Enforcer::Node
        };
        check(
            &text,
            ("outside/stranger", "open.shop:80", &[]),
            (own, enforcer, None),
            if own {
                "allowed: nothing is enforced"
            } else {
                "plaintext is refused"
            },
        );
        // Over the tunnel it is a port as any other.
        check(
            &text,
            (CLIENT, "open.shop:80", &[]),
            (true, Enforcer::Node, None),
            "allowed",
        );
    }
}

/// The line is that of the mode that decides, of the port or of the parent too.
#[test]
fn plaintext_is_refused_by_a_mode() {
    let namespace = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                     metadata: {name: default, namespace: shop}\nspec:\n  mtls:\n    mode: STRICT\n";
    let of_web = |spec: &str| {
        format!(
            "{namespace}---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
             metadata: {{name: web, namespace: shop}}\nspec:\n  \
             selector: {{matchLabels: {{app: web}}}}\n{spec}"
        )
    };
    let refused = |text: &str, because| {
        check(
            text,
            ("outside/stranger", "web.shop:80", &[]),
            (false, Enforcer::Node, None),
            because,
        );
    };
    refused(namespace, "PeerAuthentication shop/default, more.yaml:6");
    // What is unset, or undone by nothing, is the parent's.
    let unset = of_web("  portLevelMtls:\n    8080:\n      mode: DISABLE\n");
    refused(&unset, "PeerAuthentication shop/default, more.yaml:6");
    let exempt = of_web("  portLevelMtls:\n    9090: {mode: PERMISSIVE}\n");
    refused(&exempt, "PeerAuthentication shop/default, more.yaml:6");
    let by_port = "  mtls: {mode: PERMISSIVE}\n  portLevelMtls:\n    9090: {mode: DISABLE}\n    \
                   8080:\n      mode: STRICT\n";
    refused(
        &of_web(by_port),
        "PeerAuthentication shop/web, more.yaml:17",
    );
    let whole = "  portLevelMtls:\n    9090: {mode: PERMISSIVE}\n  mtls:\n    mode: STRICT\n";
    refused(&of_web(whole), "PeerAuthentication shop/web, more.yaml:16");
}
