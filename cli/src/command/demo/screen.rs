//! The demo's one screen.

use anstream::{print, println};
use anstyle::AnsiColor;

use super::canary::{Explanation, Versions};
use super::{Seen, flush};
use crate::control::Status;
use crate::exit::Result;
use crate::table::Table;

pub(super) fn print(status: &Status, seen: &Seen, program: &str) -> Result {
    let (edge, refusal) = (&seen.edge, &seen.refusal);
    let heading = AnsiColor::Cyan.on_default().bold();
    let good = AnsiColor::Green.on_default().bold();
    let bad = AnsiColor::Red.on_default().bold();

    println!(
        "\n{heading}The mesh{heading:#}, over {}",
        status.folder.display()
    );
    let mut table = Table::new(&["NODE", "ADDRESS", "ZTUNNEL"]);
    for node in &status.nodes {
        let addresses: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
        let state = if node.ztunnel_connected {
            "connected"
        } else {
            "not connected"
        };
        table.row([node.name.clone(), addresses.join(","), state.to_owned()]);
    }
    print!("{table}");

    println!("\n{heading}Its pods{heading:#}");
    let mut table = Table::new(&["POD", "NODE", "IDENTITY", "CAPTURED"]);
    for pod in &status.pods {
        let identity = format!(
            "spiffe://{}/ns/{}/sa/{}",
            status.trust_domain, pod.namespace, pod.service_account
        );
        table.row([
            format!("{}/{}", pod.namespace, pod.name),
            pod.node.clone().unwrap_or_default(),
            identity,
            if pod.captured { "yes" } else { "no" }.to_owned(),
        ]);
    }
    print!("{}", table.sorted());

    println!(
        "\n{good}Encrypted{good:#}: productpage calls details, {:.1} s after the start",
        seen.took.as_secs_f64()
    );
    println!("  from   {}", field(edge, "src.identity"));
    println!("  to     {}", field(edge, "dst.identity"));
    println!(
        "  over   HBONE, mutual TLS 1.3, key exchange {}",
        field(edge, "tls.group")
    );
    if let Some(link) = &seen.link {
        println!(
            "  proof  {} packets captured between the nodes on port 15008, {} with a word of the page in them",
            link.hbone, link.clear
        );
    }

    println!("\n{bad}Refused{bad:#}: details calls ratings, which policy gives to reviews only");
    println!("  from   {}", field(refusal, "src.identity"));
    println!("  to     {}", field(refusal, "dst.identity"));
    println!("  why    {}", field(refusal, "error"));

    print_waypoint(&seen.versions, &seen.explanation);

    println!("\n{heading}Try{heading:#}, in another terminal:");
    for line in [
        "status",
        "get pods -A -o wide",
        "ztunnel-config certificates",
        "waypoint why reviews -n bookinfo",
        "why bookinfo/productpage-v1 reviews.bookinfo:9080 DELETE /reviews/0",
        "logs ztunnel/node-1 -f",
        "exec -n legacy cron -- weft fetch http://productpage.bookinfo:9080/productpage",
    ] {
        println!("  {program} {line}");
    }
    println!("\nCtrl-C stops it and leaves the machine as it was.");
    flush()
}

/// The waypoint and why there is one, what it routes, and what it refuses.
fn print_waypoint(versions: &Versions, explanation: &Explanation) {
    let good = AnsiColor::Green.on_default().bold();
    let bad = AnsiColor::Red.on_default().bold();

    println!("\n{good}Routed{good:#}: reviews, 80 to v1 and 20 to v2, at a waypoint made for it");
    if let Some(step) = explanation.waypoint() {
        println!("  made   {}", step.text);
        for detail in &step.details {
            println!("         {detail}");
        }
    }
    println!(
        "  proof  {} pages with reviews of v1, {} of v2",
        versions.first, versions.canary
    );

    println!(
        "\n{bad}Refused{bad:#}: productpage asks reviews to {}, as weft why explains",
        explanation.request
    );
    let status = explanation
        .status
        .map(|status| format!(", answered {status}"));
    println!(
        "  why    {}{}",
        explanation.verdict,
        status.unwrap_or_default()
    );
    for reason in &explanation.reasons {
        println!("         {reason}");
    }
}

/// The value of `key="value"` in an access log line.
fn field<'a>(line: &'a str, key: &str) -> &'a str {
    line.split_once(&format!("{key}=\""))
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("?", |(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_from_a_log_line() {
        let line = "access\tconnection complete\tsrc.identity=\"spiffe://a\" error=\"denied by policy a/b\"";
        assert_eq!(field(line, "error"), "denied by policy a/b");
        assert_eq!(field(line, "nothing"), "?");
    }
}
