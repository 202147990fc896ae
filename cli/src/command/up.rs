//! `weft up`: starts the mesh on this machine.
mod ztunnel;

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anstream::{eprintln, println};
use istio_compat::diagnostic::Severity;

use crate::command::Global;
use crate::control::client::Client;
use crate::control::{Pod, Status};
use crate::exit::{Exit, Result};
use crate::machine::launch::{self, Config, Launched, Report};
use crate::state::State;
use crate::system;

/// How long the folder's pods are waited for; later ones go on becoming ready by themselves.
const PODS_WITHIN: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  weft up
  weft up -f ./objects --nodes 3
  weft up --detach && weft status
  weft up --ztunnel ./another/ztunnel
  weft up --ztunnel node-2=./another/ztunnel
";

/// Start the mesh on this machine
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The folder of YAML, watched [default: objects/ in the state folder]
    #[arg(short = 'f', long = "folder", value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// How many nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=100), value_name = "N")]
    nodes: u8,
    /// The ztunnel program of every node, or of one; may be repeated [default: the one beside weft]
    #[arg(long, value_name = "[NODE=]PATH")]
    ztunnel: Vec<ztunnel::Choice>,
    /// The control-plane program [default: the one beside weft]
    #[arg(long, value_name = "PATH")]
    control_plane: Option<PathBuf>,
    /// The waypoint program [default: the one beside weft]
    #[arg(long, value_name = "PATH")]
    waypoint: Option<PathBuf>,
    /// Return when the mesh is ready and leave it running
    #[arg(long)]
    detach: bool,
    /// A folder with ca-cert.pem, ca-key.pem, root-cert.pem and cert-chain.pem to sign with
    #[arg(long, value_name = "FOLDER")]
    cacerts: Option<PathBuf>,
    /// The trust domain of every identity
    #[arg(long, default_value = "cluster.local", value_name = "NAME")]
    trust_domain: String,
    /// A former name of the trust domain, which principals in policies may still have
    #[arg(
        long = "trust-domain-alias",
        value_name = "NAME",
        value_delimiter = ','
    )]
    trust_domain_aliases: Vec<String>,
}

impl Arguments {
    pub(crate) fn run(self, global: &Global) -> Result {
        let detach = self.detach;
        let config = self.config(global.state()?)?;
        if detach {
            return start_detached(config);
        }
        let state = config.state.clone();
        let mesh = start(config)?;
        print_screen(&state)?;
        mesh.wait()
    }

    fn config(self, state: State) -> Result<Config> {
        let folder = self.folder.unwrap_or_else(|| state.objects());
        Ok(Config {
            folder: std::path::absolute(folder)?,
            nodes: self.nodes,
            ztunnels: ztunnel::of_nodes(self.ztunnel, self.nodes, |given| {
                program("ztunnel", given)
            })?,
            control_plane: program("control-plane", self.control_plane)?,
            waypoint: program("waypoint", self.waypoint)?,
            cacerts: self.cacerts.map(cacerts).transpose()?,
            trust_domain: self.trust_domain,
            trust_domain_aliases: self.trust_domain_aliases,
            state,
        })
    }
}

/// Starts a mesh that lives as long as this process, and waits until it is ready. Ctrl-C ends it.
///
/// Must be called while the process has one thread.
pub(crate) fn start(config: Config) -> Result<Launched> {
    launch(config, |step| eprintln!("{step} …"))
}

/// The program beside ours, unless another is given.
pub(crate) fn program(name: &str, given: Option<PathBuf>) -> Result<PathBuf> {
    let program = match given {
        Some(given) => std::path::absolute(given)?,
        None => std::env::current_exe()?.with_file_name(name),
    };
    if program.is_file() {
        return Ok(program);
    }
    Err(Exit::BadInput.because(format!(
        "there is no {name} program at {}: build it, or name one with --{name}",
        program.display()
    )))
}

/// The folder's own files, checked before anything starts.
fn cacerts(folder: PathBuf) -> Result<PathBuf> {
    for name in [
        "ca-cert.pem",
        "ca-key.pem",
        "root-cert.pem",
        "cert-chain.pem",
    ] {
        let path = folder.join(name);
        std::fs::File::open(&path).map_err(|error| {
            Exit::BadInput.because(format!("--cacerts: can't read {}: {error}", path.display()))
        })?;
    }
    Ok(std::path::absolute(folder)?)
}

fn launch(config: Config, progress: impl FnMut(&str)) -> Result<Launched> {
    find_nft()?;
    let lock = launch::prepare(&config)?;
    check_folder(&config.folder)?;
    let mut mesh = launch::launch(config, lock)?;
    mesh.wait_until_ready(progress)?;
    Ok(mesh)
}

/// A mesh of its own session; this process only waits until it is ready.
fn start_detached(config: Config) -> Result {
    let (ours, mut theirs) = UnixStream::pair()?;
    let state = config.state.clone();
    if system::fork()?.is_none() {
        drop(ours);
        let code = match detached(config, &mut theirs) {
            Ok(()) => Exit::Ok,
            Err(failure) => {
                let report = Report::Failed {
                    exit: failure.exit.code(),
                    reason: format!("{:#}", failure.error),
                };
                let _ = launch::tell(&mut theirs, &report);
                failure.exit
            }
        };
        std::process::exit(code.code().into());
    }
    drop(theirs);
    for line in BufReader::new(ours).lines() {
        match serde_json::from_str(&line?)? {
            Report::Progress(step) => eprintln!("{step} …"),
            Report::Ready => return print_screen(&state),
            Report::Failed { exit, reason } => return Err(Exit::from_code(exit).because(reason)),
        }
    }
    Err(Exit::Failed.because(format!(
        "the mesh ended before it was ready: see {}",
        state.machine_log().display()
    )))
}

fn detached(config: Config, caller: &mut UnixStream) -> Result {
    nix::unistd::setsid()?;
    let mesh = launch(config, |step| {
        drop(launch::tell(caller, &Report::Progress(step.to_owned())))
    })?;
    // Nobody must wait for the end of what this process holds open.
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    std::env::set_current_dir("/")?;
    launch::tell(caller, &Report::Ready)?;
    caller.shutdown(std::net::Shutdown::Both)?;
    mesh.wait()
}

/// The rules are applied with it, as root and as others, whose PATH often lacks its folder.
fn find_nft() -> Result {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .collect();
    if !folders.iter().any(|folder| folder.join("nft").is_file()) {
        return Err(Exit::Failed
            .because("nft is missing: install the package nftables (apt-get install nftables)"));
    }
    system::set_env("PATH", &std::env::join_paths(folders)?);
    Ok(())
}

/// A mistake in the folder is easier to mend before anything runs.
fn check_folder(folder: &Path) -> Result {
    let batch = control_plane::folder::load(folder, istio_compat::parse::Raw::Drop)
        .map_err(|error| Exit::BadInput.because(error))?;
    let report = batch.report.unwrap_or_default();
    let errors = report
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error);
    let errors: Vec<_> = errors.map(ToString::to_string).collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Exit::BadInput.because(errors.join("\n")))
    }
}

/// What runs and what to do next.
/// Gives the folder's pods a moment, so that what is typed next finds them.
fn wait_for_pods(state: &State) -> Result<Status> {
    let deadline = Instant::now() + PODS_WITHIN;
    loop {
        let status = Client::connect(state)?.status()?;
        let pending = |pod: &Pod| {
            !pod.ready
                && pod.node.is_some()
                && pod.restarts == 0
                && matches!(pod.phase.as_str(), "Pending" | "Running")
        };
        if !status.pods.iter().any(pending) || Instant::now() >= deadline {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn print_screen(state: &State) -> Result {
    let status = wait_for_pods(state)?;
    let bold = anstyle::Style::new().bold();
    println!("{bold}The mesh is up.{bold:#}");
    println!(
        "  nodes    {}",
        status
            .nodes
            .iter()
            .map(|node| node.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    );
    println!(
        "  objects  {}, pods: {}, {} ready",
        status.folder.display(),
        status.pods.len(),
        status.pods.iter().filter(|pod| pod.ready).count()
    );
    println!("  state    {}", state.root().display());
    for problem in &status.problems {
        println!("  problem  {problem}");
    }
    println!("Look at it with `weft status`; stop it with `weft down`.");
    Ok(())
}
