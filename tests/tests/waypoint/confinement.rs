//! What the running pieces have given up, as the kernel sees it.

use anyhow::{Context, Result, ensure};
use tests::lab::{Lab, SOON};

use crate::shop::{apply, expect_status, http_route, shared};

/// `CAP_DAC_OVERRIDE`, of capabilities(7).
const DAC_OVERRIDE: u64 = 1 << 1;

/// Checks a process's /proc/PID/status.
fn check(status: &str, kept: u64) -> Result<()> {
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let line = line.with_context(|| format!("no {name} in {status:?}"))?;
        Ok::<_, anyhow::Error>(line.trim_start_matches(':').trim())
    };
    ensure!(line("Seccomp")? == "2", "no filter: {status}");
    ensure!(line("NoNewPrivs")? == "1", "{status}");
    for set in ["CapEff", "CapPrm"] {
        let held = u64::from_str_radix(line(set)?, 16)?;
        ensure!(held == kept, "{set} {held:x}");
    }
    for set in ["CapInh", "CapAmb"] {
        ensure!(u64::from_str_radix(line(set)?, 16)? == 0, "{set}");
    }
    Ok(())
}

fn waypoints(lab: &Lab) -> Result<Vec<String>> {
    let label = "gateway.networking.k8s.io/gateway-name";
    let pods = lab.pods()?;
    let waypoints = pods.iter().filter_map(|pod| {
        let labels = &pod["metadata"]["labels"];
        (!labels[label].is_null()).then(|| {
            let name = |what: &str| {
                pod["metadata"][what]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            format!("{}/{}", name("namespace"), name("name"))
        })
    });
    Ok(waypoints.collect())
}

#[test]
fn a_waypoint_keeps_no_capability_and_few_system_calls() {
    let lab = shared();
    let rule = "  - backendRefs: [{name: confined, port: 80}]\n";
    apply(lab, "confined", &http_route("confined", rule));
    expect_status(lab, 200, &["http://confined/"]);
    let script = "for one in /proc/[0-9]*; do \
                  read -r name < $one/comm && [ \"$name\" = waypoint ] && cat $one/status; done; true";
    // Other tests' waypoints come and go; a new one is confined before it serves, not when its
    // process begins.
    lab.eventually(SOON, "every waypoint is confined", || {
        let waypoints = waypoints(lab)?;
        ensure!(!waypoints.is_empty(), "there is none");
        for waypoint in waypoints {
            check(&lab.exec(&waypoint, &["sh", "-c", script])?, 0)?;
        }
        Ok(())
    })
    .expect("confined");
}

#[test]
fn a_control_plane_keeps_what_files_need() {
    let lab = shared();
    lab.eventually(SOON, "the control plane is confined", || {
        let status = lab.status()?;
        let pieces = status["machine"]["pieces"].as_array().context("pieces")?;
        let ours = pieces.iter().find(|piece| piece["name"] == "control-plane");
        let pid = ours.context("a control plane")?["pid"].to_string();
        let status = lab.exec("node/node-1", &["cat", &format!("/proc/{pid}/status")])?;
        check(&status, DAC_OVERRIDE)
    })
    .expect("confined");
}
