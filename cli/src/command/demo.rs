//! `weft demo`: a mesh with an application in it, on one screen.

mod canary;

mod link;

mod screen;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anstream::eprintln;
use anyhow::Context;
use nix::sys::wait::{WaitStatus, waitpid};

use self::canary::{Explanation, Versions};
use self::link::Link;
use crate::command::{Global, up};
use crate::control::client::{Client, unexpected};
use crate::control::{self, Reply, Request, Status, Target};
use crate::exit::{Exit, OrExit, Result};
use crate::machine::launch::Config;
use crate::state::State;
use crate::system;

const EXAMPLES: &str = "\
Examples:
  weft demo
  weft demo --once
";

/// What the demo's folder holds; also to be found in manifests/examples.
const FILES: &[(&str, &str)] = &[
    (
        "bookinfo.yaml",
        include_str!("../../../manifests/examples/bookinfo.yaml"),
    ),
    (
        "bookinfo-policy.yaml",
        include_str!("../../../manifests/examples/bookinfo-policy.yaml"),
    ),
    (
        "bookinfo-waypoint.yaml",
        include_str!("../../../manifests/examples/bookinfo-waypoint.yaml"),
    ),
    (
        "outsider.yaml",
        include_str!("../../../manifests/examples/outsider.yaml"),
    ),
];

/// How long the application may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "bookinfo";
/// In every page, and never on the link in clear.
const TELLTALE: &str = "Shakespeare";

/// A mesh with an application in it, to look at, until Ctrl-C
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Show the screen, then stop
    #[arg(long)]
    once: bool,
}

impl Arguments {
    pub(crate) fn run(self, global: &Global) -> Result {
        let began = Instant::now();
        let state = global.state()?;
        let folder = state.root().join("demo");
        write_files(&folder)?;
        let mut program = find_ourselves()?;
        if let Some(folder) = &global.state {
            program += &format!(" --state {}", folder.display());
        }
        let config = Config {
            folder,
            nodes: 2,
            ztunnels: vec![up::program("ztunnel", None)?; 2],
            control_plane: up::program("control-plane", None)?,
            waypoint: up::program("waypoint", None)?,
            cacerts: None,
            trust_domain: mesh::identity::DEFAULT_TRUST_DOMAIN.to_owned(),
            trust_domain_aliases: Vec::new(),
            state: state.clone(),
        };
        // A launcher can start neither threads nor other processes of its own once its machine
        // has a PID namespace, so another process shows the screen; it begins when it is told.
        let (mut told, mut tell) = std::io::pipe()?;
        let Some(shower) = system::fork()? else {
            drop(tell);
            let ready = told.read_exact(&mut [0]).is_ok();
            let code = if ready {
                show(state, began, program, self.once)
            } else {
                Exit::Failed
            };
            std::process::exit(code.code().into());
        };
        drop(told);
        let mesh = up::start(config)?;
        tell.write_all(&[1])?;
        mesh.wait()?;
        match waitpid(shower, None)? {
            WaitStatus::Exited(_, code) if code != 0 => {
                Err(Exit::Failed.because("the demo could not be shown"))
            }
            _ => Ok(()),
        }
    }
}

/// The screen, then traffic for as long as the mesh runs; `once` ends both with the screen.
fn show(state: State, began: Instant, program: String, once: bool) -> Exit {
    let demo = Demo {
        state,
        began,
        program,
    };
    let shown = demo.show();
    if let Err(failure) = &shown {
        eprintln!("error: {:#}", failure.error);
    }
    if shown.is_ok() && !once {
        keep_asking(&demo.state);
        return Exit::Ok;
    }
    if let Ok(mut client) = Client::connect(&demo.state) {
        let _ = client.call(&Request::Shutdown, &[]);
    }
    shown.map_or_else(|failure| failure.exit, |()| Exit::Ok)
}

fn write_files(folder: &Path) -> Result {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .and_then(|()| {
            FILES
                .iter()
                .try_for_each(|(name, text)| std::fs::write(folder.join(name), text))
        })
        .with_context(|| format!("can't write the demo to {}", folder.display()))
        .or_exit(Exit::Failed)
}

/// The pods' command is `weft`, wherever this one was started from. The answer is how a user
/// starts it: by its name where the shell would find it, else by its path.
fn find_ourselves() -> Result<String> {
    let exe = std::env::current_exe()?;
    let ours = exe.parent().map(Path::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| Some(folder) == ours);
    let folders = ours.into_iter().chain(std::env::split_paths(&path));
    system::set_env("PATH", &std::env::join_paths(folders)?);
    Ok(match found {
        true => "weft".to_owned(),
        false => exe.display().to_string(),
    })
}

struct Demo {
    state: State,
    began: Instant,
    /// As a user starts `weft` here, with what it needs to find this mesh.
    program: String,
}

/// What the screen shows besides the mesh's status.
struct Seen {
    /// An access log line.
    edge: String,
    took: Duration,
    link: Option<Link>,
    versions: Versions,
    /// An access log line.
    refusal: String,
    explanation: Explanation,
}

// === impl Demo ===

impl Demo {
    fn show(&self) -> Result {
        let edge = self.first_edge()?;
        let took = self.began.elapsed();
        let status = Client::connect(&self.state)?.status()?;
        self.whole_page()?;
        let mut versions = Versions::default();
        let link = self.watch_link(&mut versions)?;
        let seen = Seen {
            edge,
            took,
            link,
            versions,
            refusal: self.refusal(&status)?,
            explanation: self.refused_request(&status)?,
        };
        screen::print(&status, &seen, &self.program)
    }

    /// Asks for the page until it has details, which need no waypoint; the access log line of its
    /// call to them.
    fn first_edge(&self) -> Result<String> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let outcome = self.page().and_then(|page| {
                if page.contains(TELLTALE) {
                    self.logged("details", "bookinfo-productpage", false)
                } else {
                    Err(Exit::TryAgain.because(format!("the page is not whole: {page}")))
                }
            });
            match outcome {
                Ok(line) => return Ok(line),
                Err(failure) if Instant::now() > deadline => return Err(failure),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Until its waypoint is ready, nobody reaches reviews.
    fn whole_page(&self) -> Result {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let page = self.page()?;
            if !page.contains("error") {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Exit::TryAgain.because(format!("the page is not whole: {page}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn page(&self) -> Result<String> {
        page(&self.state)
    }

    /// An inbound access log line of the destination's node.
    fn logged(&self, service: &str, client: &str, refused: bool) -> Result<String> {
        let status = Client::connect(&self.state)?.status()?;
        status
            .nodes
            .iter()
            .filter_map(|node| std::fs::read_to_string(self.state.ztunnel_log(&node.name)).ok())
            .find_map(|log| {
                log.lines()
                    .rev()
                    .find(|line| {
                        line.contains("direction=\"inbound\"")
                            && line.contains(&format!("/sa/{client}\""))
                            && line.contains(&format!("dst.workload=\"{service}"))
                            && line.contains("error=") == refused
                            // Only what crossed between nodes went through a handshake.
                            && (refused || line.contains("tls.group="))
                    })
                    .map(str::to_owned)
            })
            .ok_or_else(|| Exit::TryAgain.because(format!("no call to {service} is logged")))
    }

    /// Details has no business with ratings: policy refuses it, and the log says why.
    fn refusal(&self, status: &Status) -> Result<String> {
        let pod = pod_of(status, "details-v1")?;
        let command = ["weft", "fetch", "http://ratings:9080/ratings/0"];
        let (code, output) = run(&self.state, pod, &command)?;
        if code == 0 {
            return Err(
                Exit::Failed.because(format!("the policy let details call ratings: {output}"))
            );
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match self.logged("ratings", "bookinfo-details", true) {
                Err(failure) if Instant::now() > deadline => return Err(failure),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
                Ok(line) => return Ok(line),
            }
        }
    }
}

/// Traffic for whoever looks at metrics and logs, as long as the demo runs.
fn keep_asking(state: &State) {
    while Client::connect(state).is_ok() {
        let _ = page(state);
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn page(state: &State) -> Result<String> {
    let status = Client::connect(state)?.status()?;
    let pod = pod_of(&status, "productpage-v1")?;
    let command = ["weft", "fetch", "http://productpage:9080/productpage"];
    let (_, output) = run(state, pod, &command)?;
    Ok(output)
}

fn pod_of(status: &Status, deployment: &str) -> Result<Target> {
    status
        .pods
        .iter()
        .find(|pod| pod.namespace == NAMESPACE && pod.name.starts_with(deployment) && pod.ready)
        .map(|pod| Target::Pod {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
        })
        .ok_or_else(|| Exit::TryAgain.because(format!("no pod of {deployment} is ready")))
}

/// Runs a command inside the machine; its exit code and what it printed.
fn run(state: &State, target: Target, command: &[&str]) -> Result<(i32, String)> {
    let mut client = Client::connect(state)?;
    let (mut reader, writer) = std::io::pipe()?;
    let null = std::fs::File::open("/dev/null")?;
    let request = Request::Exec(control::Exec {
        target: Some(target),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        ..control::Exec::default()
    });
    client.send(&request, &[null.as_fd(), writer.as_fd(), writer.as_fd()])?;
    drop(writer);
    let mut output = Vec::new();
    reader.read_to_end(&mut output)?;
    let output = String::from_utf8_lossy(&output).into_owned();
    loop {
        match client.receive()? {
            Reply::Started => {}
            Reply::Exited(code) => return Ok((code, output)),
            other => return Err(unexpected(other)),
        }
    }
}

/// Flushes what was printed, so that the screen is whole before traffic goes on.
fn flush() -> Result {
    Ok(std::io::stdout().flush()?)
}
