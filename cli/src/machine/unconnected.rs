//! Stands in until the network is there.
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(crate) struct Network {
    nodes: Vec<NodeNetwork>,
    control_plane: OwnedFd,
}
pub(crate) struct NodeNetwork {
    index: u8,
    netns: OwnedFd,
}
impl Network {
    pub(crate) async fn new(nodes: u8) -> anyhow::Result<Self> {
        Ok(Self {
            nodes: (1..=nodes)
                .map(|index| {
                    Ok(NodeNetwork {
                        index,
                        netns: cni::netns::create()?,
                    })
                })
                .collect::<anyhow::Result<_>>()?,
            control_plane: cni::netns::create()?,
        })
    }
    pub(crate) fn node(&self, index: u8) -> &NodeNetwork {
        &self.nodes[usize::from(index) - 1]
    }
    pub(crate) fn switch(&self) -> BorrowedFd<'_> {
        self.control_plane.as_fd()
    }
    pub(crate) fn control_plane(&self) -> BorrowedFd<'_> {
        self.control_plane.as_fd()
    }
    pub(crate) async fn attach_pod(
        &self,
        node: u8,
        _uid: &str,
        netns: &OwnedFd,
    ) -> anyhow::Result<Vec<IpAddr>> {
        cni::netns::run(netns, || {
            std::process::Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status()
        })
        .await??;
        Ok(vec![format!("10.244.{node}.2").parse()?])
    }
    pub(crate) fn publish(
        &self,
        _services: &[istio_compat::kinds::service::Service],
        _pods: &[&istio_compat::kinds::pod::Pod],
    ) {
    }
    pub(crate) async fn detach_pod(&self, _uid: &str) {}
}
impl NodeNetwork {
    pub(crate) fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        vec![IpAddr::from([172, 30, 0, self.index])]
    }
}
