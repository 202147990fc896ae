//! `weft status`: one screen of what runs, what is in sync, what expires, what is not captured.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anstyle::AnsiColor;
use chrono::{DateTime, Utc};
use futures::future;
use identity::grpc::HARMLESS_SKEW;
use serde::Serialize;
use serde_json::Value;

use crate::command::waypoint::{self, Waypoint};
use crate::command::{Global, block_on};
use crate::control::client::Client;
use crate::control::{Node, Piece, Pod, Status, Target};
use crate::exit::Result;
use crate::http;
use crate::state::State;
use crate::table::Table;

const EXAMPLES: &str = "\
Examples:
  weft status
  weft status -o json
";

/// How many certificates the screen shows.
const CERTIFICATES_SHOWN: usize = 3;

/// Show what runs, in one screen
///
/// Pieces and their versions, whether each ztunnel is in sync, the certificates soonest to
/// expire, pods that are not captured, and whatever is wrong with objects of the folder.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {}

/// Everything the screen shows; also its JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    api_version: &'static str,
    kind: &'static str,
    machine: Status,
    /// The control plane's own account, or why there is none.
    control_plane: std::result::Result<Value, String>,
    certificates: Vec<Certificate>,
    /// Nodes whose ztunnel hears nothing of the control plane, and since when (RFC 3339).
    stale: BTreeMap<String, String>,
    /// By how many seconds nodes' clocks are ahead of the control plane's; negative: behind.
    clock_skew_seconds: BTreeMap<String, i64>,
    /// Nodes whose ztunnel runs and does not answer, and how that was seen.
    silent: BTreeMap<String, String>,
    waypoints: Vec<Waypoint>,
}

#[derive(Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    /// RFC 3339; first, so that the order is by expiry.
    expires: String,
    identity: String,
    node: String,
    state: String,
}

// === impl Arguments ===

impl Arguments {
    pub(crate) fn run(self, global: &Global) -> Result {
        let report = Report::gather(&global.state()?)?;
        if !global.output.print_value(&report)? {
            anstream::print!("{}", report.screen(Utc::now())?);
        }
        Ok(())
    }
}

// === impl Report ===

impl Report {
    pub(crate) fn gather(state: &State) -> Result<Self> {
        let machine = Client::connect(state)?.status()?;
        let (control_plane, dumps) = block_on(async {
            let control_plane = async {
                let body = http::get_from_control_plane(state, "/api/v1/status").await;
                body.map_err(|failure| format!("{:#}", failure.error))
                    .and_then(|body| parse(&body))
            };
            // One that is down shows as such: it is not asked.
            let running = machine.pieces.iter().filter(|piece| piece.pid.is_some());
            let nodes = running.filter_map(|piece| piece.node.as_deref());
            let dumps = nodes.map(|node| async move { (node.to_owned(), dump(state, node).await) });
            // At once: those that do not answer are waited for together.
            Ok(future::join(control_plane, future::join_all(dumps)).await)
        })?;
        let (mut certificates, mut stale, mut silent) =
            (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let mut clock_skew_seconds = BTreeMap::new();
        for (node, dump) in dumps {
            match dump {
                Ok(dump) => {
                    certificates.extend(certificates_of(&node, &dump));
                    if let Some(ahead) = seconds_ahead(&dump, &control_plane) {
                        clock_skew_seconds.insert(node.clone(), ahead);
                    }
                    if let Some(since) = dump["staleSince"].as_str() {
                        stale.insert(node, since.to_owned());
                    }
                }
                Err(why) => {
                    silent.insert(node, why);
                }
            }
        }
        certificates.sort();
        // Without a control plane there is nothing to tell of them.
        let waypoints = match &control_plane {
            Ok(_) => waypoint::waypoints(state).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        Ok(Self {
            waypoints,
            api_version: "weft.dev/v1",
            kind: "Status",
            machine,
            control_plane,
            certificates,
            stale,
            clock_skew_seconds,
            silent,
        })
    }

    fn screen(&self, now: DateTime<Utc>) -> anyhow::Result<String> {
        let heading = AnsiColor::Cyan.on_default().bold();
        let mut out = String::new();
        let machine = &self.machine;
        writeln!(
            out,
            "{heading}weft {}{heading:#} over {}, up {}, trust domain {}",
            machine.version,
            machine.folder.display(),
            age(&machine.started, now),
            machine.trust_domain,
        )?;

        let mut pieces = Table::new(&[
            "PIECE", "NODE", "VERSION", "STATE", "SYNC", "RESTARTS", "UP",
        ]);
        for piece in &machine.pieces {
            pieces.row([
                piece.name.clone(),
                piece.node.clone().unwrap_or_default(),
                piece.version.clone(),
                match (piece.pid, &piece.last_exit) {
                    (Some(_), _) if self.is_silent(piece) => "does not answer".to_owned(),
                    (Some(_), _) if !piece.former.is_empty() => {
                        format!("running, {} former ending", piece.former.len())
                    }
                    (Some(_), _) => "running".to_owned(),
                    (None, Some(exit)) => format!("down ({exit})"),
                    (None, None) => "down".to_owned(),
                },
                piece
                    .node
                    .as_deref()
                    .map_or_else(String::new, |node| self.sync(node, now)),
                piece.restarts.to_string(),
                piece
                    .since
                    .as_deref()
                    .map_or_else(String::new, |since| age(since, now)),
            ]);
        }
        write!(out, "\n{pieces}")?;

        let captured = machine.pods.iter().filter(|pod| pod.captured).count();
        let ready = machine.pods.iter().filter(|pod| pod.ready).count();
        writeln!(
            out,
            "\n{heading}Pods{heading:#}: {}, {ready} ready, {captured} captured",
            machine.pods.len(),
        )?;
        let mut pods = Table::new(&["NAMESPACE", "POD", "NODE", "STATE", "NOT CAPTURED"]);
        for pod in machine.pods.iter().filter(|pod| {
            let whole = pod.captured && pod.not_captured.is_none();
            !pod.ready || !(whole || pod.waypoint)
        }) {
            pods.row([
                pod.namespace.clone(),
                pod.name.clone(),
                pod.node.clone().unwrap_or_default(),
                state_of(pod),
                match (&pod.capture_pending, pod.captured) {
                    (Some(why), _) => format!("PENDING: {why}"),
                    (None, true) => pod.not_captured.clone().unwrap_or_default(),
                    (None, false) if pod.waypoint => String::new(),
                    (None, false) if pod.node.is_none() => "not running".to_owned(),
                    (None, false) => "namespace or pod is not labelled ambient".to_owned(),
                },
            ]);
        }
        if !pods.is_empty() {
            write!(out, "{}", pods.sorted())?;
        }

        let mut waypoints = Table::new(&["WAYPOINT", "MADE", "READY", "SERVICES", "WORKLOADS"]);
        for waypoint in &self.waypoints {
            waypoints.row(waypoint.cells());
        }
        if !waypoints.is_empty() {
            write!(out, "\n{}", waypoints.sorted())?;
        }

        let mut certificates = Table::new(&["CERTIFICATE", "NODE", "STATE", "EXPIRES IN"]);
        for certificate in self.certificates.iter().take(CERTIFICATES_SHOWN) {
            certificates.row([
                certificate.identity.clone(),
                certificate.node.clone(),
                certificate.state.clone(),
                until(&certificate.expires, now),
            ]);
        }
        if !certificates.is_empty() {
            writeln!(
                out,
                "\n{heading}Certificates{heading:#}: {}, soonest to expire:",
                self.certificates.len()
            )?;
            write!(out, "{certificates}")?;
        }

        let problems = self.problems();
        if !problems.is_empty() {
            let wrong = AnsiColor::Red.on_default().bold();
            writeln!(out, "\n{wrong}Problems{wrong:#}:")?;
            for problem in problems {
                writeln!(out, "  {problem}")?;
            }
        }
        Ok(out)
    }

    fn is_silent(&self, piece: &Piece) -> bool {
        match &piece.node {
            Some(node) => self.silent.contains_key(node),
            None => self.control_plane.is_err(),
        }
    }

    /// Whether a node's ztunnel has acknowledged what it was sent; without a control plane, how
    /// old what it goes on with is.
    fn sync(&self, node: &str, now: DateTime<Utc>) -> String {
        if let Some(since) = self.stale.get(node) {
            return format!("stale since {since} ({})", age(since, now));
        }
        let Ok(status) = &self.control_plane else {
            return "control plane down".to_owned();
        };
        let Some(proxy) = status["proxies"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|proxy| proxy["node"] == *node)
        else {
            return "not connected".to_owned();
        };
        let types = proxy["types"].as_object();
        let rejected: usize = types
            .into_iter()
            .flatten()
            .filter_map(|(_, state)| state["nacks"].as_array().map(Vec::len))
            .sum();
        let behind = types
            .into_iter()
            .flatten()
            .any(|(_, state)| state["acked"] != state["sent"]);
        match (rejected, behind) {
            (0, false) => "in sync".to_owned(),
            (0, true) => "behind".to_owned(),
            (count, _) => format!("{count} rejected"),
        }
    }

    /// Certificates begin and end by the control plane's clock.
    fn wrong_clocks(&self) -> impl Iterator<Item = String> {
        let skewed = self.clock_skew_seconds.iter();
        skewed
            .filter(|(_, ahead)| ahead.abs() > HARMLESS_SKEW.into())
            .map(|(node, ahead)| {
                let (side, consequence) = match *ahead > 0 {
                    true => ("ahead of", "taken for expired"),
                    false => ("behind", "taken for not valid yet"),
                };
                format!(
                    "the clock of {node} is {} {side} the control plane's, which is more than {}: \
                     certificates are {consequence} there; set the clock, and have NTP keep it",
                    span(ahead.abs()),
                    span(HARMLESS_SKEW.into()),
                )
            })
    }

    /// What is wrong, one line each: of the machine, of the control plane, of objects.
    fn problems(&self) -> Vec<String> {
        let mut problems = self.machine.problems.clone();
        let silent = self.silent.iter();
        problems
            .extend(silent.map(|(node, why)| format!("ztunnel of {node} does not answer: {why}")));
        problems.extend(self.wrong_clocks());
        problems.extend(unserved(&self.machine, &self.stale));
        let status = match &self.control_plane {
            Ok(status) => status,
            Err(why) => {
                problems.push(why.clone());
                return problems;
            }
        };
        problems.extend(
            status["problems"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|problem| problem.as_str().map(str::to_owned)),
        );
        for proxy in status["proxies"].as_array().into_iter().flatten() {
            for (_, state) in proxy["types"].as_object().into_iter().flatten() {
                for nack in state["nacks"].as_array().into_iter().flatten() {
                    let text = nack["message"]
                        .as_str()
                        .map_or(nack.to_string(), str::to_owned);
                    problems.push(format!(
                        "{} rejected: {text}",
                        proxy["node"].as_str().unwrap_or("?")
                    ));
                }
            }
        }
        for object in status["objects"].as_array().into_iter().flatten() {
            let place = format!(
                "{}:{}",
                object["file"].as_str().unwrap_or("?"),
                object["line"].as_u64().unwrap_or(0)
            );
            for key in ["errors", "warnings"] {
                for message in object[key].as_array().into_iter().flatten() {
                    let text = message["message"]
                        .as_str()
                        .or(message.as_str())
                        .unwrap_or("?");
                    // The machine reads the same folder, and may have said it already.
                    let said = |problem: &String| {
                        problem.starts_with(&format!("{place}:")) && problem.ends_with(text)
                    };
                    if !self.machine.problems.iter().any(said) {
                        problems.push(format!("{place}: {}: {text}", key.trim_end_matches('s')));
                    }
                }
            }
        }
        problems.dedup();
        problems
    }
}

/// By how much a node's clock is ahead of the control plane's. Both were asked at once; the longest
/// that an answer may take is far less than what matters.
fn seconds_ahead(dump: &Value, control_plane: &std::result::Result<Value, String>) -> Option<i64> {
    let time = |of: &Value| DateTime::parse_from_rfc3339(of["time"].as_str()?).ok();
    let theirs = time(control_plane.as_ref().ok()?)?;
    Some((time(dump)? - theirs).num_seconds())
}

/// Nodes whose ztunnel runs and has not asked for their pods, which it does once it knows the mesh.
fn unserved(machine: &Status, stale: &BTreeMap<String, String>) -> Vec<String> {
    let runs = |node: &Node| {
        let mut pieces = machine.pieces.iter();
        pieces.any(|piece| piece.node.as_ref() == Some(&node.name) && piece.pid.is_some())
    };
    let nodes = machine.nodes.iter();
    nodes
        .filter(|node| !node.ztunnel_connected && runs(node))
        .map(|node| {
            let waits = match stale.contains_key(&node.name) {
                true => ": it waits for the control plane, for its keys are on no disk",
                false => "",
            };
            let node = &node.name;
            format!("connections of pods on {node} are refused: its ztunnel has not asked for them{waits}")
        })
        .collect()
}

/// What a node's ztunnel says of itself; or why there is nothing.
async fn dump(state: &State, node: &str) -> std::result::Result<Value, String> {
    let target = Target::Node(node.to_owned());
    let body = http::get_from(state, target, 15000, "/config_dump").await;
    body.map_err(|failure| format!("{:#}", failure.error))
        .and_then(|body| parse(&body))
}

fn parse(body: &[u8]) -> std::result::Result<Value, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn certificates_of(node: &str, dump: &Value) -> Vec<Certificate> {
    dump["certificates"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|certificate| Certificate {
            expires: certificate["certChain"][0]["expirationTime"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            identity: certificate["identity"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            node: node.to_owned(),
            state: certificate["state"].as_str().unwrap_or_default().to_owned(),
        })
        .collect()
}

fn state_of(pod: &Pod) -> String {
    let state = if pod.ready { "Ready" } else { &pod.phase };
    match &pod.reason {
        Some(reason) => format!("{state}: {reason}"),
        None => state.to_owned(),
    }
}

/// `3m`, `2h5m`: how long ago, in two units at most.
pub(crate) fn age(since: &str, now: DateTime<Utc>) -> String {
    DateTime::parse_from_rfc3339(since).map_or_else(
        |_| since.to_owned(),
        |since| span((now - since.with_timezone(&Utc)).num_seconds()),
    )
}

fn until(when: &str, now: DateTime<Utc>) -> String {
    DateTime::parse_from_rfc3339(when).map_or_else(
        |_| when.to_owned(),
        |when| match (when.with_timezone(&Utc) - now).num_seconds() {
            left if left > 0 => span(left),
            _ => "EXPIRED".to_owned(),
        },
    )
}

fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_show_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m1s"),
            (7500, "2h5m"),
            (90_000, "1d1h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn a_clock_is_compared_with_the_control_plane_s_or_with_none() {
        let says = |time: &str| serde_json::json!({ "time": time });
        let control_plane = Ok(says("2026-01-01T00:10:00.250Z"));
        for (node, ahead) in [
            ("2026-01-01T00:10:00Z", Some(0)),
            ("2026-01-01T00:00:00Z", Some(-600)),
            ("2026-01-01T01:10:01Z", Some(3600)),
            ("noon", None),
        ] {
            assert_eq!(seconds_ahead(&says(node), &control_plane), ahead, "{node}");
        }
        let away = Err("no answer".to_owned());
        assert_eq!(seconds_ahead(&says("2026-01-01T00:10:00Z"), &away), None);
        // One of another version says no time.
        assert_eq!(seconds_ahead(&serde_json::json!({}), &control_plane), None);
    }

    #[test]
    fn a_ztunnel_that_has_not_asked_for_its_pods_is_named_where_it_runs() {
        let piece = |node: &str, pid| Piece {
            node: Some(node.to_owned()),
            pid,
            ..Default::default()
        };
        let node = |name: &str, ztunnel_connected| Node {
            name: name.to_owned(),
            ztunnel_connected,
            ..Default::default()
        };
        let machine = Status {
            pieces: vec![piece("a", Some(1)), piece("b", Some(2)), piece("c", None)],
            nodes: vec![node("a", true), node("b", false), node("c", false)],
            ..Default::default()
        };
        let said = "connections of pods on b are refused: its ztunnel has not asked for them";
        assert_eq!(unserved(&machine, &BTreeMap::new()), [said]);
        let stale = BTreeMap::from([("b".to_owned(), String::new())]);
        let waits = format!("{said}: it waits for the control plane, for its keys are on no disk");
        assert_eq!(unserved(&machine, &stale), [waits]);
    }

    #[test]
    fn the_screen_names_what_is_not_right() {
        let report = Report {
            api_version: "weft.dev/v1",
            kind: "Status",
            machine: Status {
                version: "0.1.0".into(),
                folder: "/objects".into(),
                started: "2026-01-01T00:00:00Z".into(),
                trust_domain: "cluster.local".into(),
                pieces: vec![Piece {
                    name: "ztunnel".into(),
                    node: Some("node-1".into()),
                    version: "0.1.0".into(),
                    pid: Some(7),
                    since: Some("2026-01-01T00:00:00Z".into()),
                    ..Default::default()
                }],
                pods: vec![Pod {
                    namespace: "shop".into(),
                    name: "web".into(),
                    node: Some("node-1".into()),
                    phase: "Running".into(),
                    ready: true,
                    ..Default::default()
                }],
                ..Default::default()
            },
            control_plane: Ok(serde_json::json!({
                "proxies": [{"node": "node-1", "types": {"a": {"acked": 2, "sent": 2, "nacks": []}}}],
                "objects": [{"file": "a.yaml", "line": 3, "errors": ["bad port"]}]
            })),
            waypoints: Vec::new(),
            stale: BTreeMap::new(),
            clock_skew_seconds: BTreeMap::from([
                ("node-1".into(), -301),
                ("node-2".into(), 7500),
                ("node-3".into(), 300),
            ]),
            silent: BTreeMap::new(),
            certificates: vec![Certificate {
                expires: "2026-01-01T01:00:00Z".into(),
                identity: "spiffe://cluster.local/ns/shop/sa/web".into(),
                node: "node-1".into(),
                state: "Available".into(),
            }],
        };
        let now = "2026-01-01T00:01:01Z".parse().expect("a time");
        let screen = report.screen(now).expect("a screen");
        let plain = anstream::adapter::strip_str(&screen).to_string();
        insta::assert_snapshot!(plain);
    }
}
