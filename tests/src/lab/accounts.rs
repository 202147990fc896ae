//! Identities in numbers: a pod for each.

/// An account, and a pod on node-1 that has it.
pub fn account(number: usize) -> String {
    format!(
        "---\n\
         apiVersion: v1\n\
         kind: ServiceAccount\n\
         metadata: {{name: account-{number}, namespace: shop}}\n\
         ---\n\
         apiVersion: v1\n\
         kind: Pod\n\
         metadata: {{name: pod-{number}, namespace: shop}}\n\
         spec:\n  \
           nodeName: node-1\n  \
           serviceAccountName: account-{number}\n  \
           containers:\n    \
             - {{name: idle, command: [sleep, infinity]}}\n"
    )
}
