//! What goes without a tunnel: from outside of the mesh, or as an annotation has it.

use super::{CLIENT, check};
use crate::command::why::answer::Enforcer;
use crate::command::why::screen;

const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                      metadata: {name: default, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";

#[test]
fn strict_refuses_plaintext() {
    for source in ["outside/stranger", "192.0.2.9"] {
        check(
            "",
            (source, "web.shop:80", &[]),
            (true, Enforcer::Node, None),
            "allowed",
        );
        check(
            STRICT,
            (source, "web.shop:80", &[]),
            (false, Enforcer::Node, None),
            "PeerAuthentication shop/default, more.yaml:4",
        );
    }
    check(
        STRICT,
        (CLIENT, "web.shop:80", &[]),
        (true, Enforcer::Node, None),
        "allowed",
    );
}

/// A pod and its service in a mesh where plaintext is refused.
fn strict_with(name: &str, annotation: &str) -> String {
    format!(
        "{STRICT}---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: shop\n  \
         labels: {{app: {name}}}\n  annotations: {{{annotation}}}\n\
         spec: {{serviceAccountName: {name}, containers: [{{name: it}}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  selector: {{app: {name}}}\n  \
         ports: [{{name: tcp, port: 80, targetPort: 8080}}]\n"
    )
}

const REFUSED: (bool, Enforcer, Option<u16>) = (false, Enforcer::Node, None);
const ALLOWED: (bool, Enforcer, Option<u16>) = (true, Enforcer::Node, None);

#[test]
fn what_annotations_keep_from_capture_goes_out_in_plaintext() {
    let dials = |annotation: &str, ruling, because| {
        let text = strict_with("leaky", annotation);
        check(&text, ("shop/leaky", "web.shop:80", &[]), ruling, because)
    };
    for annotation in [
        "traffic.sidecar.istio.io/excludeOutboundPorts: \"80\"",
        "traffic.sidecar.istio.io/excludeOutboundIPRanges: 0.0.0.0/0",
    ] {
        let shown = screen::of(&dials(annotation, REFUSED, "plaintext is refused"));
        assert!(shown.contains("goes out in plaintext"), "{shown}");
    }
    // The port as it is dialled is the service's.
    let elsewhere = "traffic.sidecar.istio.io/excludeOutboundPorts: \"8080\"";
    dials(elsewhere, ALLOWED, "allowed");
}

#[test]
fn what_annotations_keep_from_capture_is_judged_by_nobody() {
    let nobody = (true, Enforcer::Nobody, None);
    let own = "allowed: nothing is enforced";
    for (annotation, ruling, because) in [
        (
            "traffic.sidecar.istio.io/excludeInboundPorts: \"8080\"",
            nobody,
            own,
        ),
        (
            "ambient.istio.io/bypass-inbound-capture: \"true\"",
            nobody,
            own,
        ),
        (
            "traffic.sidecar.istio.io/excludeInboundPorts: \"80\"",
            REFUSED,
            "plaintext is refused",
        ),
    ] {
        let text = strict_with("open", annotation);
        check(
            &text,
            ("outside/stranger", "open.shop:80", &[]),
            ruling,
            because,
        );
        // Over the tunnel it is a port as any other.
        check(&text, (CLIENT, "open.shop:80", &[]), ALLOWED, "allowed");
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
