//! A real mesh for the tests: `weft up` as a child process over a temporary folder.
//!
//! A lab is a state folder, a folder of YAML and the processes of `weft up`; nothing of it is
//! shared with another lab or visible outside its own namespaces, so labs run side by side.

use std::fs::{self, File};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

pub mod accounts;
pub mod baseline;
pub mod capture;
pub mod control_group;
mod link;
pub mod process_status;
pub mod scale;
pub mod wire;
mod wrapped;

/// Another ztunnel to run the tests against: its program, or `NODE=` and its program.
const ZTUNNEL: &str = "WEFT_TEST_ZTUNNEL";

/// How long a mesh may take to start, on a busy machine.
const START: Duration = Duration::from_secs(60);

/// How long anything may take of which nobody says how long: only what hangs takes longer, on a busy
/// machine too.
pub const SOON: Duration = Duration::from_secs(60);

/// A running mesh; stopped, and its folders removed, when dropped.
pub struct Lab {
    folders: tempfile::TempDir,
    launcher: Option<Child>,
    watch: Option<link::Watch>,
    /// Added to the environment of `weft`.
    settings: Vec<(String, String)>,
}

// === impl Lab ===

impl Lab {
    /// Starts a mesh of two nodes over these documents and waits until every pod is ready. From
    /// then on the link between the nodes is captured: see [`Lab::check_link`].
    pub fn up(yaml: &str) -> Result<Self> {
        Self::up_under(yaml, &[])
    }

    /// As [`Lab::up`], with variables added to the environment.
    pub fn up_under(yaml: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let mut lab = Self::stopped()?;
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        lab.settings = settings.iter().map(owned).collect();
        lab.write("lab.yaml", yaml)?;
        lab.start(&["--nodes", "2"])?;
        let watch = link::Watch::begin(&lab)?;
        watch.learn(&lab.pods()?);
        lab.watch = Some(watch);
        Ok(lab)
    }

    /// As [`Lab::up`], with other arguments to `weft up` and nothing captured.
    pub fn up_with(yaml: &str, arguments: &[&str]) -> Result<Self> {
        let mut lab = Self::stopped()?;
        lab.write("lab.yaml", yaml)?;
        lab.start(arguments)?;
        Ok(lab)
    }

    /// Folders only; nothing runs.
    pub fn stopped() -> Result<Self> {
        let folders = tempfile::Builder::new().prefix("weft-").tempdir()?;
        fs::create_dir(folders.path().join("objects"))?;
        Ok(Self {
            folders,
            launcher: None,
            watch: None,
            settings: Vec::new(),
        })
    }

    /// Panics if two pods of the mesh have sent each other a byte of TCP outside HBONE between
    /// the nodes so far. Pods that are outside the mesh when it starts or now don't count. A lab
    /// checks when it is dropped.
    pub fn check_link(&self) {
        let Some(watch) = &self.watch else { return };
        let mut strays = watch.strays().expect("the capture is readable");
        if !strays.is_empty() {
            // A mesh that is down already has no pods to tell; its first ones are known.
            watch.learn(&self.pods().unwrap_or_default());
            strays = watch.strays().expect("the capture is readable");
        }
        assert!(strays.is_empty(), "outside HBONE: {strays:?}");
    }

    /// What has crossed between the nodes outside HBONE so far, of anybody.
    pub fn outside_hbone(&self) -> Result<Vec<capture::Segment>> {
        self.watch.as_ref().context("nothing is captured")?.seen()
    }

    pub fn start(&mut self, arguments: &[&str]) -> Result<()> {
        let folder = self.folder();
        let mut all = vec!["up", "-f", folder.to_str().context("path is text")?];
        all.extend(arguments);
        let ztunnel = std::env::var(ZTUNNEL).ok();
        if let Some(ztunnel) = ztunnel.as_deref().filter(|_| !all.contains(&"--ztunnel")) {
            all.extend(["--ztunnel", ztunnel]);
        }
        let log = File::create(self.folders.path().join("up.log"))?;
        let command = self.command_line(&all);
        self.launcher = Some(spawn_for_life(command, log)?);
        let result = self
            .eventually(START, "the mesh runs", || self.is_up())
            .and_then(|()| self.ready());
        result.with_context(|| format!("weft up said:\n{}", self.up_log()))
    }

    /// Waits until every pod of the mesh is ready, and every ztunnel has been told of all there is:
    /// the machine knows first.
    pub fn ready(&self) -> Result<()> {
        self.eventually(START, "every pod is ready", || {
            let pods = self.pods()?;
            for pod in &pods {
                let ready = pod["status"]["conditions"]
                    .as_array()
                    .is_some_and(|conditions| {
                        conditions
                            .iter()
                            .any(|c| c["type"] == "Ready" && c["status"] == "True")
                    });
                ensure!(ready, "{}: {}", pod["metadata"]["name"], pod["status"]);
            }
            Ok(())
        })?;
        self.eventually(START, "every ztunnel knows all", || self.is_known())
    }

    fn is_known(&self) -> Result<()> {
        let (pods, services) = (self.pods()?, self.objects("services")?);
        for node in self.nodes()? {
            let dump = self.config_dump(&node)?;
            let knows = |list: &str, object: &Value, status: Option<&str>| {
                let mut known = dump[list].as_array().into_iter().flatten();
                known.any(|one| {
                    ["name", "namespace"]
                        .iter()
                        .all(|key| one[key] == object["metadata"][key])
                        && status.is_none_or(|status| one["status"] == status)
                })
            };
            for pod in &pods {
                let healthy = knows("workloads", pod, Some("Healthy"));
                ensure!(healthy, "{node}: {}", pod["metadata"]);
            }
            for service in &services {
                let known = knows("services", service, None);
                ensure!(known, "{node}: {}", service["metadata"]);
            }
        }
        Ok(())
    }

    /// The names of the mesh's nodes.
    pub fn nodes(&self) -> Result<Vec<String>> {
        let nodes = self.status()?["machine"]["nodes"].clone();
        let nodes = nodes.as_array().into_iter().flatten();
        nodes
            .map(|node| Ok(node["name"].as_str().context("a name")?.to_owned()))
            .collect()
    }

    fn is_up(&self) -> Result<()> {
        self.weft(&["status", "-o", "json"]).map(|_| ())
    }

    pub fn up_log(&self) -> String {
        fs::read_to_string(self.folders.path().join("up.log")).unwrap_or_default()
    }

    /// The folder of YAML that the mesh watches.
    pub fn folder(&self) -> PathBuf {
        self.folders.path().join("objects")
    }

    pub fn state(&self) -> PathBuf {
        self.folders.path().join("state")
    }

    pub fn run_file(&self, path: &str) -> String {
        fs::read_to_string(self.state().join("run").join(path)).unwrap_or_default()
    }

    /// Waits until a log below `run/` says this, and answers the whole log: programs write theirs
    /// from a thread of its own, a moment after what they tell of is seen.
    pub fn logged(&self, path: &str, text: &str) -> Result<String> {
        let mut log = String::new();
        self.eventually(SOON, &format!("{path} says {text:?}"), || {
            log = self.run_file(path);
            ensure!(log.contains(text), "{log}");
            Ok(())
        })?;
        Ok(log)
    }

    /// Writes a file of the folder as an editor would: whole, by rename.
    pub fn write(&self, name: &str, yaml: &str) -> Result<()> {
        let hidden = self.folders.path().join(name);
        fs::write(&hidden, yaml)?;
        fs::rename(hidden, self.folder().join(name))?;
        Ok(())
    }

    pub fn remove(&self, name: &str) -> Result<()> {
        Ok(fs::remove_file(self.folder().join(name))?)
    }

    fn command_line(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("weft"));
        command
            .arg("--state")
            .arg(self.state())
            .args(arguments)
            .env("PATH", path_with_programs())
            .env("NO_COLOR", "1")
            .envs(self.settings.iter().cloned());
        command
    }

    /// Runs `weft` and answers what it printed; an error where it failed.
    pub fn weft(&self, arguments: &[&str]) -> Result<String> {
        text(self.weft_output(arguments)?, arguments)
    }

    pub fn weft_output(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command_line(arguments).stdin(Stdio::null()).output()?)
    }

    /// Runs a command in a pod (`namespace/name`) or in `node/NAME` or `switch`.
    pub fn exec(&self, place: &str, command: &[&str]) -> Result<String> {
        text(self.exec_output(place, command)?, command)
    }

    pub fn exec_output(&self, place: &str, command: &[&str]) -> Result<Output> {
        Ok(self
            .exec_command(place, command)
            .stdin(Stdio::null())
            .output()?)
    }

    /// Starts a command in a pod and leaves its input and output to the caller.
    pub fn exec_spawn(&self, place: &str, command: &[&str]) -> Result<Child> {
        Ok(self
            .exec_command(place, command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?)
    }

    fn exec_command(&self, place: &str, command: &[&str]) -> Command {
        let mut all = vec!["exec"];
        match place.split_once('/') {
            Some((namespace, pod)) if namespace != "node" => all.extend(["-n", namespace, pod]),
            _ => all.push(place),
        }
        all.push("--");
        all.extend(command);
        self.command_line(&all)
    }

    /// Runs the tests' application as a client in a pod.
    pub fn peer(&self, pod: &str, arguments: &[&str]) -> Result<String> {
        text(self.peer_output(pod, arguments)?, arguments)
    }

    pub fn peer_output(&self, pod: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = vec!["peer"];
        command.extend(arguments);
        self.exec_output(pod, &command)
    }

    pub fn pods(&self) -> Result<Vec<Value>> {
        self.objects("pods")
    }

    fn objects(&self, kind: &str) -> Result<Vec<Value>> {
        let list: Value = serde_json::from_str(&self.weft(&["get", kind, "-A", "-o", "json"])?)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// The pod's object, found by `namespace/name` or `namespace/PREFIX` of a Deployment's pod.
    pub fn pod(&self, name: &str) -> Result<Value> {
        let (namespace, prefix) = name.split_once('/').context("namespace/name")?;
        self.pods()?
            .into_iter()
            .find(|pod| {
                pod["metadata"]["namespace"] == namespace
                    && pod["metadata"]["name"].as_str().is_some_and(|name| {
                        name == prefix || name.starts_with(&format!("{prefix}-"))
                    })
            })
            .with_context(|| format!("no pod {name}"))
    }

    /// The pod's addresses, IPv4 first.
    pub fn addresses(&self, name: &str) -> Result<Vec<std::net::IpAddr>> {
        let pod = self.pod(name)?;
        let mut addresses: Vec<_> = link::addresses(&pod).collect();
        addresses.sort();
        Ok(addresses)
    }

    /// A node's ztunnel answers on its admin port.
    pub fn config_dump(&self, node: &str) -> Result<Value> {
        let output = self.weft(&["ztunnel-config", "all", "--node", node, "-o", "json"])?;
        Ok(serde_json::from_str(&output)?)
    }

    /// What `weft status` knows, as JSON.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(
            &self.weft(&["status", "-o", "json"])?,
        )?)
    }

    /// A node's ztunnel as the machine knows it: its pid inside the mesh, restarts, …
    pub fn ztunnel(&self, node: &str) -> Result<Value> {
        let status = self.status()?;
        let pieces = status["machine"]["pieces"].as_array();
        let mut pieces = pieces.into_iter().flatten();
        let found = pieces.find(|piece| piece["name"] == "ztunnel" && piece["node"] == node);
        found
            .cloned()
            .with_context(|| format!("no ztunnel of {node}"))
    }

    /// The ztunnel's metrics, as text.
    pub fn metrics(&self, node: &str) -> Result<String> {
        self.exec(
            &format!("node/{node}"),
            &["peer", "http", "127.0.0.1:15020", "/metrics"],
        )
    }

    /// The sum of a metric's series that have all of these labels (`name="value"`).
    pub fn counted(&self, node: &str, metric: &str, labels: &[&str]) -> Result<f64> {
        sum_of_series(&self.metrics(node)?, metric, labels)
    }

    /// Tries until it holds; the last error, after `within`, is the failure.
    pub fn eventually(
        &self,
        within: Duration,
        what: &str,
        holds: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        eventually(within, what, holds)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A test that has failed already says why itself.
        let checked = thread::panicking()
            || panic::catch_unwind(AssertUnwindSafe(|| self.check_link())).is_ok();
        let _ = self.weft_output(&["down"]);
        if let Some(mut launcher) = self.launcher.take() {
            let _ = launcher.kill();
            let _ = launcher.wait();
        }
        if let Some(watch) = &mut self.watch {
            watch.end();
        }
        assert!(checked, "pods of the mesh spoke outside HBONE");
    }
}

/// Tries until it holds; the last error, after `within`, is the failure.
pub fn eventually(
    within: Duration,
    what: &str,
    mut holds: impl FnMut() -> Result<()>,
) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        match holds() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("not within {within:?}: {what}"));
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn text(output: Output, command: &[&str]) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}: {stdout}{}",
            describe(output.status),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(stdout)
}

fn describe(status: ExitStatus) -> String {
    status
        .code()
        .map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

/// The sum of a metric's series, in a scrape's text, that have all of these labels (`name="value"`).
pub fn sum_of_series(scrape: &str, metric: &str, labels: &[&str]) -> Result<f64> {
    let series = scrape.lines().filter(|line| {
        let rest = line.strip_prefix(metric);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    series
        .map(|line| {
            let value = line.rsplit(' ').next().unwrap_or_default();
            value.parse::<f64>().with_context(|| line.to_owned())
        })
        .sum()
}

/// The ztunnel of a node that no mesh of ours runs on: the environment chooses it as for a mesh's.
pub fn ztunnel_of(node: &str) -> PathBuf {
    let chosen = std::env::var(ZTUNNEL).ok();
    let path = chosen
        .as_deref()
        .and_then(|chosen| match chosen.split_once('=') {
            Some((of, path)) => (of == node).then_some(path),
            None => Some(chosen),
        });
    match path {
        Some(path) => std::path::absolute(path).expect("a path"),
        None => program("ztunnel"),
    }
}

/// A program of this workspace, as built beside the test.
pub fn program(name: &str) -> PathBuf {
    let path = programs().join(name);
    assert!(
        path.exists(),
        "{} is missing: build the workspace first (make test does)",
        path.display()
    );
    path
}

fn programs() -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let folder = test.parent().expect("the test is in a folder");
    if folder.ends_with("deps") {
        folder.parent().map(Path::to_owned).unwrap_or_default()
    } else {
        folder.to_owned()
    }
}

fn path_with_programs() -> String {
    format!(
        "{}:{}",
        programs().display(),
        std::env::var("PATH").unwrap_or_default()
    )
}

/// Starts a child that is killed when this process ends, however it ends. The kernel ties the
/// child to the thread that made it, so that thread stays.
fn spawn_for_life(command: Command, log: File) -> Result<Child> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .name("launcher".into())
        .spawn(move || {
            let spawned = (|| {
                let mut wrapped = Command::new("setpriv");
                wrapped
                    .args(["--pdeathsig", "TERM"])
                    .arg(command.get_program())
                    .args(command.get_args());
                for (key, value) in command.get_envs() {
                    if let Some(value) = value {
                        wrapped.env(key, value);
                    }
                }
                wrapped
                    .stdin(Stdio::null())
                    .stdout(log.try_clone()?)
                    .stderr(log)
                    .spawn()
            })();
            let _ = sender.send(spawned);
            loop {
                thread::park();
            }
        })?;
    Ok(receiver.recv()??)
}
