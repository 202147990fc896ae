//! Tunnels made per second where no pool has one ready, by either end of a tunnel.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::client;
use super::load::client as run_client;
use super::system::{System, Ztunnels};
use super::{COUNT_PORT, objects};
use crate::lab::Lab;

/// How many connections, each with a tunnel of its own, are made at a time.
const AT_A_TIME: usize = 16;
/// How long a pod may take to serve.
const START: Duration = Duration::from_secs(20);

/// Handshakes of one ztunnel.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Handshakes {
    pub(super) rate: f64,
    /// Seconds that the ztunnel's processors spent on one, and on the connection it carried.
    pub(super) processor: f64,
    /// Which share of the connections failed: their tunnel had gone away meanwhile, and the
    /// ztunnel took no other one.
    pub(super) failed: f64,
}

/// As the server of a tunnel, and as its client.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct BothEnds {
    pub(super) server: Handshakes,
    pub(super) client: Handshakes,
}

/// Starts the pods that the measurements need.
pub(super) fn prepare(lab: &Lab, systems: &[System]) -> Result<()> {
    let authority = lab.state().join("ca").display().to_string();
    for system in systems.iter().filter(|system| **system != System::Plain) {
        let yaml = objects::cold(*system, &authority);
        lab.write(&format!("cold-{}.yaml", system.name()), &yaml)?;
        let once = [
            format!("cold.{}", system.name()),
            "--seconds=0.01".to_owned(),
        ];
        lab.eventually(START, "a server of tunnels answers", || {
            run_client(lab, &system.client(), client::Load::Connect, &once).map(|_| ())
        })?;
    }
    Ok(())
}

pub(super) fn measure(
    lab: &Lab,
    ztunnels: &Ztunnels,
    system: System,
    seconds: f64,
) -> Result<BothEnds> {
    Ok(BothEnds {
        server: server(lab, ztunnels, system, seconds)?,
        client: client(lab, ztunnels, system, seconds)?,
    })
}

/// A client of the benchmark's own makes tunnels to the ztunnel.
fn server(lab: &Lab, ztunnels: &Ztunnels, system: System, seconds: f64) -> Result<Handshakes> {
    let pod = format!("{}/far", system.name());
    let address = lab.addresses(&pod)?.into_iter().next().context("address")?;
    let node = [system.nodes()[1]];
    let before = ztunnels.processor_seconds(lab, &node)?;
    let arguments = [
        address.to_string(),
        format!("--connections={AT_A_TIME}"),
        format!("--seconds={seconds}"),
        format!("--authority={}", lab.state().join("ca").display()),
    ];
    let pod = System::Plain.client();
    let measured = run_client(lab, &pod, client::Load::Handshake, &arguments)?;
    let spent = ztunnels.processor_seconds(lab, &node)? - before;
    Ok(Handshakes {
        rate: measured.rate,
        processor: spent / measured.total as f64,
        failed: 0.0,
    })
}

/// The ztunnel makes tunnels to a server of the benchmark's own.
fn client(lab: &Lab, ztunnels: &Ztunnels, system: System, seconds: f64) -> Result<Handshakes> {
    let node = [system.nodes()[0]];
    let count_before = count(lab, system)?;
    let before = ztunnels.processor_seconds(lab, &node)?;
    let arguments = [
        format!("cold.{}", system.name()),
        format!("--connections={AT_A_TIME}"),
        format!("--seconds={seconds}"),
        "--count-failures".to_owned(),
    ];
    let measured = run_client(lab, &system.client(), client::Load::Connect, &arguments)?;
    let spent = ztunnels.processor_seconds(lab, &node)? - before;
    let made = count(lab, system)? - count_before;
    Ok(Handshakes {
        // Connections that came together may have shared a tunnel.
        rate: measured.rate * made / measured.total as f64,
        processor: spent / made,
        failed: measured.failed as f64 / (measured.failed + measured.total) as f64,
    })
}

fn count(lab: &Lab, system: System) -> Result<f64> {
    let pod = format!("{}/cold", system.name());
    let port = COUNT_PORT.to_string();
    let text = lab.exec(&pod, &["bench", "count", "localhost", &port])?;
    Ok(text.trim().parse()?)
}
