//! The structure that `ARCHITECTURE.md` promises, read from the workspace itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Who may use whom: the table of `ARCHITECTURE.md`.
const ALLOWED: &[(&str, &[&str])] = &[
    ("mesh", &[]),
    ("runtime", &[]),
    ("proto", &["mesh"]),
    ("istio-compat", &["mesh"]),
    ("xds", &["mesh", "runtime", "proto"]),
    ("identity", &["mesh", "runtime", "proto"]),
    ("hbone", &["mesh", "runtime", "proto", "identity"]),
    (
        "ztunnel",
        &["mesh", "runtime", "proto", "xds", "identity", "hbone"],
    ),
    (
        "waypoint",
        &["mesh", "runtime", "proto", "xds", "identity", "hbone"],
    ),
    (
        "control-plane",
        &[
            "mesh",
            "runtime",
            "proto",
            "istio-compat",
            "xds",
            "identity",
        ],
    ),
    ("cni", &["mesh", "runtime", "proto"]),
    (
        "cli",
        &[
            "mesh",
            "runtime",
            "proto",
            "istio-compat",
            "identity",
            "cni",
            "control-plane",
        ],
    ),
    (
        "tests",
        &[
            "mesh",
            "runtime",
            "proto",
            "istio-compat",
            "xds",
            "identity",
            "hbone",
            "ztunnel",
            "control-plane",
            "cni",
        ],
    ),
];

/// Third-party crates and the only members that may link them directly.
const WRAPPED: &[(&str, &[&str])] = &[
    ("serde-saphyr", &["istio-compat", "ztunnel", "cli"]),
    ("boring", &["identity", "control-plane", "cli", "tests"]),
    ("rtnetlink", &["cni", "cli"]),
    ("h2", &["hbone", "ztunnel", "waypoint", "tests"]),
];

/// A file of more lines than this holds two nouns.
const LINES_MAXIMUM: usize = 800;

#[test]
fn dependencies_point_one_way() {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    let allowed: BTreeMap<_, BTreeSet<_>> = ALLOWED
        .iter()
        .map(|(name, edges)| (*name, edges.iter().copied().collect()))
        .collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let Some(edges) = allowed.get(name) else {
            wrong.push(format!("{name} is not in the table of allowed edges"));
            continue;
        };
        for dependency in &package.dependencies {
            let target = dependency.name.as_str();
            let ours = allowed.contains_key(target) && dependency.path.is_some();
            // A crate's own tests may use what lies below the programs.
            if ours && dependency.kind == DependencyKind::Normal && !edges.contains(target) {
                wrong.push(format!("{name} must not use {target}"));
            }
            if let Some((_, wrappers)) = WRAPPED.iter().find(|(wrapped, _)| *wrapped == target)
                && !wrappers.contains(&name)
            {
                wrong.push(format!("{name} must not link {target} itself"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn architecture_names_every_member_and_edge() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let missing: Vec<_> = ALLOWED
        .iter()
        .map(|(name, edges)| {
            let edges = if edges.is_empty() {
                "–".to_owned()
            } else {
                edges
                    .iter()
                    .map(|edge| format!("`{edge}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            format!("| `{name}` | {edges} |")
        })
        .filter(|row| !text.contains(row.as_str()))
        .collect();
    assert!(missing.is_empty(), "rows missing:\n{}", missing.join("\n"));
}

#[test]
fn every_file_opens_with_its_job_and_holds_one_noun() {
    let mut wrong = Vec::new();
    for file in rust_files(&root()) {
        let text = fs::read_to_string(&file).expect("readable source");
        let name = file.strip_prefix(root()).unwrap_or(&file).display();
        if !text.starts_with("//!") {
            wrong.push(format!("{name} does not open with a //! line"));
        }
        if text.lines().count() > LINES_MAXIMUM {
            wrong.push(format!("{name} has more than {LINES_MAXIMUM} lines"));
        }
        let stem = file
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or("");
        if ["mod", "utils", "util", "common", "helpers", "misc"].contains(&stem) {
            wrong.push(format!("{name}: a file by that name has no reason to be"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What `docs/cves.md` promises is there, and what has a number here is on the page.
#[test]
fn each_fault_of_others_is_on_its_page_and_has_its_test() {
    let page = fs::read_to_string(root().join("docs/cves.md")).expect("docs/cves.md");
    let sources: Vec<_> = rust_files(&root())
        .iter()
        .map(|file| fs::read_to_string(file).expect("readable source"))
        .collect();
    let tests: BTreeSet<&str> = sources
        .iter()
        .flat_map(|text| text.split("fn ").skip(1))
        .filter_map(|rest| rest.split_once('('))
        .map(|(name, _)| name)
        .collect();
    let mut wrong = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let quoted = row.split('`').skip(1).step_by(2);
        let missing = quoted.filter(|name| name.contains('_') && !tests.contains(name));
        wrong.extend(missing.map(|name| format!("there is no test {name}")));
    }
    for rest in sources.iter().flat_map(|text| text.split("CVE-2").skip(1)) {
        let end = rest.find(|letter: char| letter != '-' && !letter.is_ascii_digit());
        let name = format!("CVE-2{}", &rest[..end.unwrap_or(rest.len())]);
        if !page.contains(&name) {
            wrong.push(format!("{name} is not on the page"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests live in the workspace")
        .to_owned()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("readable folder").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                files.extend(rust_files(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
