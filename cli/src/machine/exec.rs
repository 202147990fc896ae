//! Starts a command inside a pod, a node, or another place of the machine.
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use nix::sched::CloneFlags;
use tokio::process::{Child, Command};

use super::{Machine, sandbox};
use crate::control::{Exec, Reply, Target};
use crate::system::{self, Namespaces, PidNamespace};

const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// Where a command is to run.
struct Place {
    namespaces: Namespaces,
    pid_namespace: Option<File>,
    environment: BTreeMap<String, String>,
    folder: String,
}

pub(super) fn spawn(
    machine: &Machine,
    request: Exec,
    descriptors: Vec<OwnedFd>,
) -> Result<Child, Reply> {
    let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(descriptors) else {
        return Err(Reply::Failed(
            "a command needs three descriptors".to_owned(),
        ));
    };
    let Some((program, arguments)) = request.command.split_first() else {
        return Err(Reply::Failed("no command is given".to_owned()));
    };
    let Some(target) = &request.target else {
        return Err(Reply::Failed("no target is given".to_owned()));
    };
    let place = place(machine, target, request.container.as_deref()).map_err(Reply::NotFound)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(&place.environment)
        .envs(&request.env)
        .current_dir(&place.folder)
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr))
        .kill_on_drop(true);
    system::enter_before_exec(command.as_std_mut(), place.namespaces);
    if request.tty {
        system::take_terminal_before_exec(command.as_std_mut());
    }
    let spawned = match &place.pid_namespace {
        Some(namespace) => {
            system::spawn_in_pid_namespace(PidNamespace::Join(namespace.as_fd()), || {
                command.spawn()
            })
        }
        None => command.spawn(),
    };
    spawned.map_err(|error| Reply::NotStarted {
        why: format!("can't start {program}: {error}"),
        // The same error where the folder is gone, which is no fault of the program.
        no_program: error.kind() == io::ErrorKind::NotFound && Path::new(&place.folder).is_dir(),
    })
}

/// The target's network namespace, and the addresses it knows itself by.
pub(super) fn network_of(
    machine: &Machine,
    target: &Target,
) -> Result<(OwnedFd, Vec<IpAddr>), String> {
    let clone = |netns: io::Result<OwnedFd>| netns.map_err(|error| error.to_string());
    Ok(match target {
        Target::Pod { namespace, name } => {
            let controller = machine.controller.borrow();
            let (pid, pod) = controller.running(namespace, name)?;
            let netns = open(pid, "net")?;
            (
                netns.into(),
                LOOPBACK.into_iter().chain(pod.ips()).collect(),
            )
        }
        Target::Node(name) => {
            let node = machine.node(name)?;
            (
                clone(node.netns().try_clone_to_owned())?,
                LOOPBACK.into_iter().chain(node.addresses()).collect(),
            )
        }
        Target::Switch => (
            clone(machine.network.switch().try_clone_to_owned())?,
            LOOPBACK.into(),
        ),
        Target::ControlPlane => (
            clone(machine.network.control_plane().try_clone_to_owned())?,
            LOOPBACK.into(),
        ),
    })
}

fn place(machine: &Machine, target: &Target, container: Option<&str>) -> Result<Place, String> {
    let host: BTreeMap<String, String> = sandbox::inherited().collect();
    if let Target::Pod { namespace, name } = target {
        let controller = machine.controller.borrow();
        let (pid, pod) = controller.running(namespace, name)?;
        let (environment, folder) = sandbox::settings(pod, container)?;
        let join = [
            ("net", CloneFlags::CLONE_NEWNET),
            ("uts", CloneFlags::CLONE_NEWUTS),
            ("ipc", CloneFlags::CLONE_NEWIPC),
            // Last: afterwards /proc is another one.
            ("mnt", CloneFlags::CLONE_NEWNS),
        ];
        let join = join
            .into_iter()
            .map(|(kind, flag)| Ok((open(pid, kind)?.into(), flag)))
            .collect::<Result<_, String>>()?;
        return Ok(Place {
            namespaces: Namespaces {
                join,
                make: CloneFlags::empty(),
            },
            pid_namespace: Some(open(pid, "pid")?),
            environment,
            folder,
        });
    }
    let (netns, _) = network_of(machine, target)?;
    Ok(Place {
        namespaces: Namespaces {
            join: vec![(netns, CloneFlags::CLONE_NEWNET)],
            make: CloneFlags::empty(),
        },
        pid_namespace: None,
        environment: host,
        folder: "/".to_owned(),
    })
}

fn open(pid: i32, kind: &str) -> Result<File, String> {
    File::open(format!("/proc/{pid}/ns/{kind}"))
        .map_err(|error| format!("the pod's namespaces are gone: {error}"))
}

// === impl Machine ===

impl Machine {
    fn node(&self, name: &str) -> Result<std::rc::Rc<super::node::Node>, String> {
        self.controller
            .borrow()
            .node(name)
            .ok_or_else(|| format!("there is no node {name}"))
    }
}
