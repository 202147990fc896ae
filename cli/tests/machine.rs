//! The machine as a person meets it: `weft up`, pods, `weft down`, and what is left afterwards.
//!
//! Needs the built `control-plane` and `ztunnel` beside `weft` (`cargo build --workspace`), `nft`,
//! and the right to make namespaces.
#![expect(clippy::unwrap_used, reason = "a test ends where its own means fail")]
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  containers:
  - name: web
    command: [sh, -c, 'echo started as $NAME; exec sleep 1000']
    env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
";

/// A state folder and a folder of objects; whatever runs over them ends with the test.
struct Mesh {
    folders: TempDir,
}

// === impl Mesh ===

impl Mesh {
    fn new() -> Self {
        let folders = tempfile::Builder::new()
            .prefix("weft-machine-")
            .tempdir()
            .unwrap();
        std::fs::create_dir(folders.path().join("objects")).unwrap();
        Self { folders }
    }

    fn up() -> Self {
        let mesh = Self::new();
        mesh.write("pod.yaml", POD);
        let output = mesh.weft(&[
            "up",
            "--detach",
            "-f",
            &mesh.objects().display().to_string(),
        ]);
        assert!(output.status.success(), "{}", text(&output));
        mesh
    }

    fn objects(&self) -> PathBuf {
        self.folders.path().join("objects")
    }

    fn state(&self) -> PathBuf {
        self.folders.path().join("state")
    }

    fn write(&self, name: &str, content: &str) {
        let hidden = self.folders.path().join(name);
        std::fs::write(&hidden, content).unwrap();
        std::fs::rename(hidden, self.objects().join(name)).unwrap();
    }

    fn weft(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_weft"))
            .arg("--state")
            .arg(self.state())
            .args(arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn status(&self) -> serde_json::Value {
        let status = self.weft(&["status", "-o", "json"]).stdout;
        let status: serde_json::Value = serde_json::from_slice(&status).unwrap_or_default();
        status["machine"].clone()
    }

    /// Host pids of the launcher and the machine.
    fn pids(&self) -> [i32; 2] {
        let record = std::fs::read(self.state().join("run/machine.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        ["launcher", "machine"]
            .map(|who| i32::try_from(record[who]["pid"].as_i64().unwrap()).unwrap())
    }

    fn exec(&self, command: &[&str]) -> Output {
        let mut arguments = vec!["exec", "-n", "shop", "web", "--"];
        arguments.extend(command);
        self.weft(&arguments)
    }

    fn wait_for_web(&self) {
        eventually("the pod runs", || self.exec(&["true"]).status.success());
    }

    /// Processes that have anything to do with this mesh's folders.
    fn processes(&self) -> BTreeSet<i32> {
        let folder = self.folders.path().display().to_string();
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| {
                let path = PathBuf::from(format!("/proc/{pid}"));
                let mentions = |name: &str| {
                    std::fs::read(path.join(name))
                        .is_ok_and(|content| String::from_utf8_lossy(&content).contains(&folder))
                };
                let inside =
                    std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder));
                mentions("cmdline") || inside
            })
            .collect()
    }

    fn assert_nothing_is_left(&self, namespaces: &BTreeSet<PathBuf>) {
        eventually("no process is left", || self.processes().is_empty());
        assert!(!self.state().join("run").exists(), "run/ is left behind");
        assert!(
            network_namespaces().is_disjoint(namespaces),
            "a network namespace of the mesh is left"
        );
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(
            !mounts.contains(&self.folders.path().display().to_string()),
            "a mount is left"
        );
    }

    /// Those of the mesh's own processes.
    fn network_namespaces(&self) -> BTreeSet<PathBuf> {
        let [_, machine] = self.pids();
        let mut all = BTreeSet::new();
        let mut pids = vec![machine];
        while let Some(pid) = pids.pop() {
            all.extend(std::fs::read_link(format!("/proc/{pid}/ns/net")));
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
                .unwrap_or_default();
            pids.extend(
                children
                    .split_ascii_whitespace()
                    .map(|pid| pid.parse::<i32>().unwrap()),
            );
        }
        all
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.weft(&["down"]);
    }
}

fn network_namespaces() -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path().join("ns/net")).ok())
        .collect()
}

fn interfaces() -> BTreeSet<PathBuf> {
    std::fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "not within 60 s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn kill(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn a_pod_is_a_machine_of_its_own_and_down_leaves_nothing() {
    let before = interfaces();
    let mesh = Mesh::up();
    mesh.wait_for_web();

    assert_eq!(text(&mesh.exec(&["hostname"])), "web\n");
    let processes = text(&mesh.exec(&["sh", "-c", "echo /proc/[0-9]*"]));
    assert!(
        processes.split(' ').count() <= 4,
        "it sees others' processes: {processes}"
    );
    let resolv_conf = text(&mesh.exec(&["cat", "/etc/resolv.conf"]));
    assert!(
        resolv_conf.contains("search shop.svc.cluster.local"),
        "{resolv_conf}"
    );
    assert_eq!(mesh.exec(&["sh", "-c", "exit 7"]).status.code(), Some(7));
    let log = text(&mesh.weft(&["logs", "-n", "shop", "web"]));
    assert_eq!(log, "started as web\n");

    let second = mesh.weft(&["up", "--detach"]);
    assert_eq!(second.status.code(), Some(75), "{}", text(&second));
    assert!(
        text(&second).contains("already running"),
        "{}",
        text(&second)
    );

    let namespaces = mesh.network_namespaces();
    assert!(
        namespaces.len() >= 4,
        "the machine, control plane, two nodes, a pod: {namespaces:?}"
    );
    let down = mesh.weft(&["down"]);
    assert!(down.status.success(), "{}", text(&down));
    mesh.assert_nothing_is_left(&namespaces);
    assert_eq!(interfaces(), before);
    assert_eq!(mesh.weft(&["down"]).status.code(), Some(0), "down twice");
    assert_eq!(mesh.weft(&["status"]).status.code(), Some(69));
}

#[test]
fn nothing_is_left_after_the_launcher_or_the_machine_is_killed() {
    for victim in [0, 1] {
        let mesh = Mesh::up();
        mesh.wait_for_web();
        let namespaces = mesh.network_namespaces();
        kill(mesh.pids()[victim]);
        eventually("the kernel has ended everything", || {
            mesh.processes().is_empty()
        });
        assert!(mesh.weft(&["down"]).status.success());
        mesh.assert_nothing_is_left(&namespaces);
    }
}

#[test]
fn a_piece_that_is_killed_comes_back_and_is_counted() {
    let mesh = Mesh::up();
    for index in 0..3 {
        let pid = |status: &serde_json::Value| status["pieces"][index]["pid"].as_i64();
        let name = mesh.status()["pieces"][index]["name"].clone();
        let killed = pid(&mesh.status()).expect("it runs");
        // Its pid is the machine's, where `kill` is run.
        let output = mesh.weft(&[
            "exec",
            "switch",
            "--",
            "sh",
            "-c",
            &format!("kill -9 {killed}"),
        ]);
        assert!(output.status.success(), "{}", text(&output));
        eventually(&format!("{name} is back"), || {
            let status = mesh.status();
            pid(&status).is_some_and(|pid| pid != killed)
                && status["pieces"][index]["restarts"] == 1
        });
    }
    eventually("every ztunnel is connected again", || {
        let status = mesh.status();
        status["nodes"]
            .as_array()
            .is_some_and(|nodes| nodes.iter().all(|node| node["ztunnelConnected"] == true))
    });
}

#[test]
fn a_stale_record_never_hits_another_process() {
    let mesh = Mesh::new();
    let mut innocent = Command::new("sleep").arg("100").spawn().unwrap();
    let run = mesh.state().join("run");
    std::fs::create_dir_all(&run).unwrap();
    let process = format!(r#"{{"pid": {}, "startTime": 1}}"#, innocent.id());
    let record = format!(
        r#"{{"version": "0", "launcher": {process}, "machine": {process}, "folder": "/", "nodes": [], "started": ""}}"#
    );
    std::fs::write(run.join("machine.json"), record).unwrap();
    assert!(mesh.weft(&["down"]).status.success());
    assert!(
        innocent.try_wait().unwrap().is_none(),
        "an innocent process was ended"
    );
    assert!(!run.exists());
    innocent.kill().unwrap();
    innocent.wait().unwrap();
}

#[test]
fn what_is_wrong_is_said_before_anything_starts() {
    let mesh = Mesh::new();
    let check = |arguments: &[&str], code: i32, expected: &str| {
        let output = mesh.weft(arguments);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert_eq!(
            said.lines()
                .filter(|line| line.starts_with("error:"))
                .count(),
            1,
            "one error: {said}"
        );
        assert!(!mesh.state().join("run/machine.json").exists());
    };
    let objects = mesh.objects().display().to_string();
    check(
        &["up", "--detach", "-f", "/nonexistent"],
        65,
        "/nonexistent",
    );
    check(
        &[
            "up",
            "--detach",
            "-f",
            &objects,
            "--ztunnel",
            "/nonexistent",
        ],
        65,
        "no ztunnel program",
    );
    check(
        &[
            "up",
            "--detach",
            "-f",
            &objects,
            "--cacerts",
            "/nonexistent",
        ],
        65,
        "ca-cert.pem",
    );
    check(&["up", "--nodes", "0"], 64, "--nodes");
    mesh.write(
        "bad.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: 3}\n",
    );
    check(&["up", "--detach", "-f", &objects], 65, "bad.yaml:4");
}

#[test]
fn deployments_roll_and_pods_follow_the_folder() {
    let mesh = Mesh::up();
    let deployment = |replicas: u32, version: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: app, namespace: shop}}\nspec:\n  \
             replicas: {replicas}\n  selector: {{matchLabels: {{app: app}}}}\n  template:\n    \
             metadata: {{labels: {{app: app, version: {version}}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      \
             containers: [{{name: c, command: [sleep, '1000']}}]\n"
        )
    };
    let pods = |mesh: &Mesh| -> Vec<(String, bool)> {
        let pods = mesh.status()["pods"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let name = |pod: &serde_json::Value| pod["name"].as_str().unwrap_or_default().to_owned();
        pods.iter()
            .map(|pod| (name(pod), pod["ready"] == true))
            .filter(|(name, _)| name.starts_with("app-"))
            .collect()
    };
    mesh.write("app.yaml", &deployment(2, "v1"));
    eventually("two replicas are ready", || {
        pods(&mesh).iter().filter(|(_, ready)| *ready).count() == 2
    });
    let first = pods(&mesh);
    mesh.write("app.yaml", &deployment(2, "v2"));
    eventually("both are replaced", || {
        let now = pods(&mesh);
        assert!(
            now.iter().filter(|(_, ready)| *ready).count() >= 2,
            "too few are ready: {now:?}"
        );
        now.len() == 2
            && now
                .iter()
                .all(|(name, ready)| *ready && first.iter().all(|(old, _)| old != name))
    });
    std::fs::remove_file(mesh.objects().join("app.yaml")).unwrap();
    eventually("all are gone", || pods(&mesh).is_empty());
    assert!(
        Path::new(&mesh.state())
            .join("run/cluster/Pod.shop.web.json")
            .exists()
    );
}
