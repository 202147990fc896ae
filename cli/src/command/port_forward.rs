//! `weft port-forward`: a local port that leads into the mesh.
use std::net::SocketAddr;

use anstream::{eprintln, println};
use anyhow::Context;
use istio_compat::kind::Kind;
use istio_compat::kinds::pod::Pod;
use istio_compat::kinds::selector::labels_match;
use istio_compat::kinds::service::Service;
use istio_compat::object::ObjectKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::command::{Global, block_on, named_pod};
use crate::control::client::{Client, unexpected};
use crate::control::{Reply, Request, Target};
use crate::exit::{Exit, Result};
use crate::machine::endpoints;
use crate::objects::Objects;
use crate::state::State;

const EXAMPLES: &str = "\
Examples:
  weft port-forward web 8080:80 -n shop
  weft port-forward svc/reviews 9080
  weft port-forward node/node-1 15000
";

/// Make a local port lead to a pod, a service or a node
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A pod, deploy/NAME, svc/NAME or node/NAME
    target: String,
    /// LOCAL:REMOTE, or one number for both; may be given more than once
    #[arg(required = true, value_name = "PORTS")]
    ports: Vec<String>,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    address: std::net::IpAddr,
}

/// One local port and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    /// 0 for any that is free.
    local: u16,
    remote: u16,
}

impl Arguments {
    pub(crate) fn run(self, global: &Global) -> Result {
        let state = global.state()?;
        Client::connect(&state)?;
        let ports = self
            .ports
            .iter()
            .map(|text| Ports::parse(text))
            .collect::<Result<Vec<_>>>()?;
        block_on(async move {
            let mut forwards = JoinSet::new();
            for ports in ports {
                let (target, remote) =
                    find(&state, &self.target, global.namespace(), ports.remote)?;
                let local = SocketAddr::new(self.address, ports.local);
                let listener = TcpListener::bind(local)
                    .await
                    .with_context(|| format!("can't listen on {local}"))?;
                println!(
                    "Forwarding from {} to {}:{remote}",
                    listener.local_addr()?,
                    self.target
                );
                forwards.spawn(forward(state.clone(), listener, target, remote));
            }
            // Each goes on until Ctrl-C, or until one fails.
            while let Some(ended) = forwards.join_next().await {
                ended??;
            }
            Ok(())
        })
    }
}

async fn forward(state: State, listener: TcpListener, target: Target, port: u16) -> Result {
    loop {
        let (mut local, _) = listener.accept().await?;
        let (state, target) = (state.clone(), target.clone());
        tokio::spawn(async move {
            let connected = tokio::task::spawn_blocking(move || dial(&state, target, port)).await;
            match connected {
                Ok(Ok(remote)) => {
                    if let Ok(mut remote) = TcpStream::from_std(remote) {
                        let _ = tokio::io::copy_bidirectional(&mut local, &mut remote).await;
                    }
                }
                Ok(Err(failure)) => eprintln!("{:#}", failure.error),
                Err(error) => eprintln!("{error}"),
            }
        });
    }
}

fn dial(state: &State, target: Target, port: u16) -> Result<std::net::TcpStream> {
    let mut client = Client::connect(state)?;
    match client.call(&Request::Dial { target, port }, &[])? {
        Reply::Connected => {}
        other => return Err(unexpected(other)),
    }
    let descriptor = client
        .descriptor()
        .context("the machine sent no connection")?;
    let stream = std::net::TcpStream::from(descriptor);
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// A pod or a node as it is; for a service one of its ready pods, and that pod's port.
fn find(state: &State, target: &str, namespace: &str, port: u16) -> Result<(Target, u16)> {
    let name = match target.split_once('/') {
        Some(("svc" | "service" | "services", name)) => name,
        _ => {
            let target = named_pod::resolve(state, target, namespace)?;
            return Ok((Target::parse(&target, namespace), port));
        }
    };
    let objects = Objects::open(state)?.with_cluster(state);
    let service = objects
        .get(&ObjectKey::new(Kind::Service, namespace, name))
        .and_then(|object| object.get::<Service>())
        .ok_or_else(|| Exit::NotFound.because(format!("there is no service {namespace}/{name}")))?;
    let spec = service
        .spec
        .ports
        .iter()
        .find(|candidate| candidate.port == port)
        .ok_or_else(|| {
            Exit::NotFound.because(format!("service {namespace}/{name} has no port {port}"))
        })?;
    objects
        .of_kind(Kind::Pod)
        .filter_map(|object| object.get::<Pod>())
        .filter(|pod| pod.metadata.namespace == namespace && pod.is_ready())
        .filter(|pod| {
            !service.spec.selector.is_empty()
                && labels_match(&service.spec.selector, &pod.metadata.labels)
        })
        .find_map(|pod| {
            let target = Target::Pod {
                namespace: namespace.to_owned(),
                name: pod.metadata.name.clone(),
            };
            Some((target, endpoints::target(spec, pod)?))
        })
        .ok_or_else(|| {
            Exit::TryAgain.because(format!("service {namespace}/{name} has no ready pod"))
        })
}

// === impl Ports ===

impl Ports {
    fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Exit::Usage.because(format!(
                "{text:?} is not LOCAL:REMOTE, :REMOTE or one port for both"
            ))
        };
        let port = |text: &str| {
            text.parse::<u16>()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(wrong)
        };
        Ok(match text.split_once(':') {
            Some(("", remote)) => Self {
                local: 0,
                remote: port(remote)?,
            },
            Some((local, remote)) => Self {
                local: port(local)?,
                remote: port(remote)?,
            },
            None => Self {
                local: port(text)?,
                remote: port(text)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_a_pair_or_one_for_both() {
        assert_eq!(
            Ports::parse("8080:80").unwrap(),
            Ports {
                local: 8080,
                remote: 80
            }
        );
        assert_eq!(
            Ports::parse("80").unwrap(),
            Ports {
                local: 80,
                remote: 80
            }
        );
        assert_eq!(
            Ports::parse(":80").unwrap(),
            Ports {
                local: 0,
                remote: 80
            }
        );
        for wrong in ["", "a:b", "80:", "0:80", "70000"] {
            assert_eq!(
                Ports::parse(wrong).unwrap_err().exit,
                Exit::Usage,
                "{wrong}"
            );
        }
    }
}
