//! What a waypoint's pod is given that no other pod is: its program, the control plane's
//! address, a token of its own and the root certificate.
use std::convert::Infallible;
use std::path::PathBuf;
use std::rc::Rc;

use istio_compat::kinds::container::EnvVar;
use istio_compat::kinds::pod::Pod;
use istio_compat::waypoint::deployment::CONTAINER;

use super::launch::Config;
use super::network::plan;
use super::node::Node;
use super::settings;
use super::start::{self, CONTROL_PLANE_PORT};
use super::token::{Issuer, Reference, Subject};
use crate::state::State;

/// Makes waypoints of pods.
pub(crate) struct Outfitter {
    program: PathBuf,
    issuer: Rc<Issuer>,
    state: State,
    cacerts: Option<PathBuf>,
}

// === impl Outfitter ===

impl Outfitter {
    pub(crate) fn new(config: &Config, issuer: Rc<Issuer>) -> Self {
        Self {
            program: config.waypoint.clone(),
            issuer,
            state: config.state.clone(),
            cacerts: config.cacerts.clone(),
        }
    }

    /// Sets what its containers run, where, and what they are told.
    pub(crate) fn dress(&self, pod: &mut Pod) {
        let folder = self.folder(pod).display().to_string();
        let control_plane = format!("https://{}:{CONTROL_PLANE_PORT}", plan::CONTROL_PLANE_IPV4);
        let crl_path = start::revocation_lists(self.cacerts.as_deref(), &self.folder(pod));
        let variable = |name: &str, value: &str| EnvVar {
            name: name.to_owned(),
            value: value.to_owned(),
            value_from: None,
        };
        let containers = pod.spec.containers.iter_mut();
        for container in containers.filter(|container| container.name == CONTAINER) {
            container.command = vec![self.program.display().to_string()];
            container.args.clear();
            container.working_dir.clone_from(&folder);
            let told = ["XDS_ADDRESS", "CA_ADDRESS"].map(|name| variable(name, &control_plane));
            let mut told = Vec::from(told);
            told.extend(crl_path.as_ref().map(|path| variable("CRL_PATH", path)));
            container
                .env
                .retain(|known| told.iter().all(|one| one.name != known.name));
            container.env.extend(told);
            // What its Gateway says is about this waypoint, and not about all.
            for (name, value) in settings::passed_on() {
                if container.env.iter().all(|known| known.name != name) {
                    container.env.push(variable(name, &value));
                }
            }
        }
    }

    /// Puts the token and the root certificate where the waypoint looks for them.
    pub(crate) async fn equip(&self, pod: &Pod, node: &Node) -> anyhow::Result<()> {
        let folder = self.folder(pod);
        for below in ["var/run/secrets/tokens", "var/run/secrets/istio"] {
            start::make(&folder.join(below))?;
        }
        self.issuer.write(&subject(pod, node), &folder)?;
        start::give_trust(&self.state, self.cacerts.as_deref(), &folder).await;
        Ok(())
    }

    /// Keeps the token fresh, and the root certificate what it is.
    pub(crate) async fn renew(&self, pod: &Pod, node: &Node) -> Infallible {
        let folder = self.folder(pod);
        let root = start::keep_trust(self.state.clone(), self.cacerts.clone(), folder.clone());
        let subject = subject(pod, node);
        tokio::join!(root, self.issuer.renew(&subject, &folder)).1
    }

    fn folder(&self, pod: &Pod) -> PathBuf {
        let metadata = &pod.metadata;
        self.state.pod_folder(&metadata.namespace, &metadata.name)
    }
}

/// The pod itself and nobody else: it can ask for no identity but its own.
fn subject(pod: &Pod, node: &Node) -> Subject {
    let metadata = &pod.metadata;
    Subject {
        namespace: metadata.namespace.clone(),
        service_account: Reference {
            name: pod.service_account().to_owned(),
            uid: metadata.namespace.clone(),
        },
        pod: Reference {
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
        },
        node: node.reference(),
    }
}
