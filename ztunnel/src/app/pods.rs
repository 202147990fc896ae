//! Everything that serves a pod: listeners on every worker, DNS, certificates.

use std::sync::Arc;

use super::succession::Predecessor;
use crate::certificates::PodCertificates;
use crate::dns::{DnsPod, DnsProxy};
use crate::handover::inherited::Inherited;
use crate::handover::{Owner, Port};
use crate::inpod::{NetnsId, NotServed, Pod, Proxies};
use crate::proxy::{PodSpec, Served, Workers};

pub(super) struct PodProxies {
    pub(super) workers: Workers,
    pub(super) dns: Option<DnsProxy>,
    pub(super) certificates: PodCertificates,
    /// Whose sockets are taken over where it serves the same pod.
    pub(super) predecessor: Predecessor,
    pub(super) dns_port: Option<u16>,
}

// === impl PodProxies ===

impl PodProxies {
    /// Listens for a pod's connections and questions; all of it or nothing.
    pub(super) async fn serve(
        &self,
        spec: PodSpec,
        search_domains: Arc<[String]>,
    ) -> Result<(), NotServed> {
        let uid = spec.uid.clone();
        self.certificates.pod_added(&uid, &spec.info);
        let result = self.listen(spec, search_domains).await;
        if result.is_err() {
            self.release(&uid);
        }
        result
    }

    async fn listen(&self, spec: PodSpec, search_domains: Arc<[String]>) -> Result<(), NotServed> {
        let ports: Vec<_> = self.workers.ports().map(Port::Tcp).collect();
        let inherited = self.inherited(&spec, &ports).await;
        // Whose application has one of the ports, say, the former process can't serve either.
        let holds_up = match self.predecessor.succession() {
            Some(succession) => !inherited.is_nothing() || succession.is_over().await,
            None => true,
        };
        let named = |error: std::io::Error| NotServed {
            reason: error.to_string(),
            holds_up,
        };
        self.workers
            .add_pod_with(spec.clone(), inherited)
            .await
            .map_err(named)?;
        if let Some(identity) = self.workers.identity(&spec.uid) {
            self.certificates.will_be_needed(&identity);
        }
        if let (Some(dns), Some(port), Served::Everything) =
            (&self.dns, self.dns_port, &spec.served)
        {
            let inherited = self
                .inherited(&spec, &[Port::Udp(port), Port::Tcp(port)])
                .await;
            let pod = DnsPod {
                spec,
                search_domains,
            };
            dns.add_pod_with(pod, inherited).await.map_err(named)?;
        }
        Ok(())
    }

    async fn inherited(&self, spec: &PodSpec, ports: &[Port]) -> Inherited {
        let (Some(succession), Ok(netns)) = (
            self.predecessor.succession(),
            NetnsId::of(spec.netns.as_deref()),
        ) else {
            return Inherited::none();
        };
        let uid = spec.uid.clone();
        succession.inherit(&Owner::Pod { uid, netns }, ports).await
    }

    fn release(&self, uid: &Arc<str>) {
        self.workers.remove_pod(uid);
        if let Some(dns) = &self.dns {
            dns.remove_pod(uid);
        }
        self.certificates.pod_removed(uid);
    }
}

impl Proxies for PodProxies {
    async fn add(&self, pod: &Pod) -> Result<(), NotServed> {
        self.serve(pod.spec.clone(), pod.search_domains.as_slice().into())
            .await
    }

    async fn remove(&self, uid: &Arc<str>) {
        self.release(uid);
    }

    fn pending(&self, pods: Vec<Pod>) {
        let named = pods.into_iter().map(|pod| (pod.spec.uid, pod.spec.info));
        self.workers.set_pending(named.collect());
    }

    async fn takes_over(&self) -> bool {
        match self.predecessor.succession() {
            Some(succession) => !succession.is_over().await,
            None => false,
        }
    }
}
