//! The rules of `manifests/prometheus/alerts.yaml`: that they fire when they should, ask for nothing that is
//! not told, and lead to a page that says what to do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use tests::lab::{Lab, SOON};

use crate::shop::YAML;

/// What Prometheus says itself.
const OF_PROMETHEUS: &[&str] = &["up"];
/// Words of its language that look like metrics.
const KEYWORDS: &[&str] = &["and", "or", "unless", "on", "ignoring", "by", "without"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    let path = repository().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(repository())
        .output()
        .expect("promtool is installed: Debian's package prometheus");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// The values of these keys, each of which stands on one line.
fn values<'a>(rules: &'a str, key: &str) -> Vec<&'a str> {
    let lines = rules
        .lines()
        .map(|line| line.trim().trim_start_matches("- "));
    lines.filter_map(|line| line.strip_prefix(key)).collect()
}

/// The metrics that an expression asks for: names that no label, function or number is.
fn metrics(expression: &str) -> BTreeSet<String> {
    let (mut depth, mut is_text, mut bare) = (0, false, String::new());
    for character in expression.chars() {
        match character {
            '"' => is_text = !is_text,
            '{' | '[' if !is_text => depth += 1,
            '}' | ']' if !is_text => depth -= 1,
            _ if depth == 0 && !is_text => bare.push(character),
            _ => {}
        }
    }
    let grouped = ["on", "ignoring", "by", "without"];
    let mut names = BTreeSet::new();
    let mut rest = bare.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
        rest = &rest[start..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
        let next = after.trim_start();
        let calls = ["(", "by ", "without "]
            .iter()
            .any(|opening| next.starts_with(opening));
        // Labels to match or to group by.
        rest = match (calls && grouped.contains(&name), after.split_once(')')) {
            (true, Some((_, after))) => after,
            _ => after,
        };
        if !calls && !KEYWORDS.contains(&name) {
            names.insert(name.to_owned());
        }
    }
    names
}

#[test]
fn the_metrics_of_an_expression_are_told_from_the_rest_of_it() {
    for (expression, found) in [
        ("up{job=~\".*{a}.*\"} == 0", &["up"][..]),
        ("increase(a_total[5m]) > 0", &["a_total"]),
        ("a / b > 0.8 and on (instance) c{d=\"e\"}", &["a", "b", "c"]),
        ("sum by (d) (rate(a[1m])) < 30 * 86400", &["a"]),
        ("abs(a) > 300", &["a"]),
    ] {
        let found: BTreeSet<_> = found.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(metrics(expression), found, "{expression}");
    }
}

#[test]
fn alerts_fire_when_they_should_and_say_what_to_do() {
    let rules = "manifests/prometheus/alerts.yaml";
    let firing = "tests/tests/faults/alerts/firing.yaml";
    promtool(&["check", "rules", rules]);
    promtool(&["test", "rules", firing]);
    let (rules, firing, page) = (read(rules), read(firing), read("docs/failures.md"));
    let alerts = values(&rules, "alert: ");
    for key in [
        "summary: ",
        "description: ",
        "runbook: ",
        "labels: {severity: ",
    ] {
        assert_eq!(values(&rules, key).len(), alerts.len(), "{key}");
    }
    for runbook in values(&rules, "runbook: ") {
        assert_eq!(runbook, "docs/failures.md#alerts");
    }
    assert!(page.contains("\n## Alerts\n"));
    for alert in alerts {
        assert!(
            firing.contains(&format!("\"{alert}\"")),
            "{alert}: untested"
        );
        assert!(page.contains(&format!("`{alert}`")), "{alert}: not in docs");
    }
}

#[test]
fn alerts_ask_for_what_is_told() {
    let lab = Lab::up(YAML).expect("the mesh starts");
    let rules = read("manifests/prometheus/alerts.yaml");
    let asked: BTreeSet<_> = values(&rules, "expr: ")
        .into_iter()
        .flat_map(metrics)
        .filter(|name| !OF_PROMETHEUS.contains(&name.as_str()))
        .collect();
    assert!(asked.len() > 8, "{asked:?}");
    let told = || -> Result<BTreeSet<String>> {
        let page = |place, port: u16| {
            let address = format!("127.0.0.1:{port}");
            lab.exec(place, &["peer", "http", &address, "/metrics"])
        };
        let pages = [
            page("node/node-1", 15020)?,
            page("node/node-1", 15014)?,
            page("control-plane", 15014)?,
        ];
        let lines = pages.iter().flat_map(|page| page.lines());
        let samples = lines.filter(|line| !line.starts_with('#'));
        let names = samples.filter_map(|line| line.split(['{', ' ']).next());
        Ok(names.map(str::to_owned).collect())
    };
    // Some are there only once a pod has a certificate.
    lab.eventually(SOON, "all are told", || {
        let told = told()?;
        let missing: Vec<_> = asked.difference(&told).collect();
        ensure!(missing.is_empty(), "{missing:?}");
        Ok(())
    })
    .expect("told");
}
