//! The mesh of the scenarios, at rest before each.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdin, ChildStdout};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::lab::baseline::Baseline;
pub(crate) use tests::lab::scale::scaled;
use tests::lab::{Lab, SOON};

pub(crate) const YAML: &str = include_str!("objects/shop.yaml");
const RELEASE_SOON: &str = "export POOL_UNUSED_RELEASE_TIMEOUT=500ms";
/// How long resources may take to be given back, once whatever held them is over.
pub(crate) const BACK: Duration = SOON;

/// A mesh whose ztunnels have these settings, as `NAME=VALUE …`, and release idle tunnels soon.
pub(crate) fn mesh(settings: &str) -> Lab {
    mesh_with(&format!("export {settings}"))
}

/// The same of these objects, on as many nodes.
pub(crate) fn mesh_on(nodes: usize, yaml: &str, settings: &str) -> Lab {
    let prelude = format!("{RELEASE_SOON}\nexport {settings}");
    Lab::up_wrapped_on(nodes, yaml, &prelude).expect("the mesh starts")
}

/// A mesh of these objects, whose wires nobody listens to.
pub(crate) fn unwatched(yaml: &str) -> Lab {
    let mut lab = Lab::stopped().expect("folders");
    lab.write("lab.yaml", yaml).expect("written");
    let wrapper = lab.wrapper(RELEASE_SOON).expect("written");
    lab.start(&["--nodes", "2", "--ztunnel", &wrapper])
        .expect("the mesh starts");
    lab
}

/// The same, of other objects.
pub(crate) fn mesh_of(yaml: &str, settings: &str) -> Lab {
    wrapped(yaml, &format!("export {settings}"))
}

/// A mesh with these shell commands before each ztunnel.
pub(crate) fn mesh_with(prelude: &str) -> Lab {
    wrapped(YAML, prelude)
}

fn wrapped(yaml: &str, prelude: &str) -> Lab {
    let prelude = format!("{RELEASE_SOON}\n{prelude}");
    Lab::up_wrapped(yaml, &prelude).expect("the mesh starts")
}

/// Uses every path once, so that what is kept for good is there, and takes the baseline.
pub(crate) fn warm(lab: &Lab) -> Baseline {
    still_serves(lab);
    for exchange in [
        ["upload", "server:9002", "4194304"],
        ["download", "server:9003", "4194304"],
    ] {
        lab.peer("shop/client", &exchange).expect("a transfer");
    }
    Baseline::of(lab).expect("the mesh comes to rest")
}

/// The same, after something that keeps more for good.
pub(crate) fn warm_with(lab: &Lab, heat: impl FnOnce()) -> Baseline {
    still_serves(lab);
    heat();
    warm(lab)
}

/// The same, where applications are to read nothing: what of the program that takes is in memory.
pub(crate) fn warm_deaf(lab: &Lab) -> Baseline {
    let mut deaf = Running::start(lab, "shop/client", &["pour", "server:9005", "4"]);
    deaf.line();
    deaf.end();
    restart_server(lab);
    warm(lab)
}

#[track_caller]
pub(crate) fn still_serves(lab: &Lab) {
    for pod in ["shop/client", "shop/neighbour"] {
        let reply = lab.peer(pod, &["get", "server:80"]).expect("an answer");
        assert!(reply.starts_with("server "), "{reply}");
    }
}

/// Ends the server's application, and with it the connections that it keeps, and waits until
/// another one serves.
pub(crate) fn restart_server(lab: &Lab) {
    let restarts = || -> Result<u64> {
        let pod = lab.pod("shop/server")?;
        let count = &pod["status"]["containerStatuses"][0]["restartCount"];
        count.as_u64().with_context(|| pod["status"].to_string())
    };
    let before = restarts().expect("a count");
    lab.exec("shop/server", &["pkill", "-KILL", "-x", "peer"])
        .expect("killed");
    lab.eventually(BACK, "another one serves", || {
        ensure!(restarts()? > before, "it is still the former one");
        lab.ready()?;
        lab.peer("shop/neighbour", &["get", "server:80"])
            .map(|_| ())
    })
    .expect("serves");
}

/// Has the kernel forget what it tracks of connections whose other end never said that they are
/// over: it would for days.
pub(crate) fn forget_tracked(lab: &Lab) {
    for pod in ["shop/client", "shop/neighbour", "shop/server"] {
        lab.exec(pod, &["conntrack", "-F"]).expect("forgotten");
    }
}

/// A client in a pod that runs on while the test does something else.
pub(crate) struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

// === impl Running ===

impl Running {
    pub(crate) fn start(lab: &Lab, pod: &str, arguments: &[&str]) -> Self {
        let mut command = vec!["peer"];
        command.extend(arguments);
        let mut child = lab.exec_spawn(pod, &command).expect("starts");
        let stdout = child.stdout.take().expect("piped");
        Self {
            child,
            lines: BufReader::new(stdout).lines(),
        }
    }

    /// The next line it prints.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("text")
    }

    pub(crate) fn input(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().expect("piped")
    }

    /// Closes its input, which ends those that hold something, and answers its last line.
    pub(crate) fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let last = self.lines.by_ref().map_while(Result::ok).last();
        let _ = self.child.wait();
        last.unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
