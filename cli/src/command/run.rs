//! `weft run`: a process as a pod of the mesh.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anstream::println;
use istio_compat::kinds::container::{Container, ContainerPort, EnvVar};
use istio_compat::kinds::metadata::ObjectMeta;
use istio_compat::kinds::pod::{Pod, PodSpec, PodStatus, RestartPolicy};
use istio_compat::object::{Document, Resource};
use nix::sys::signal::{SigSet, Signal};

use crate::command::Global;
use crate::control;
use crate::control::client::Client;
use crate::exit::{Exit, Result};
use crate::objects::{Input, Objects};
use crate::state::State;

const EXAMPLES: &str = "\
Examples:
  weft run --name web --port 8080 -- ./server --verbose
  weft run --name web -n shop --service-account web --label app=web --port 8080 -- ./server
  weft run --name try --attach -- curl -s http://web.shop/
";

/// Run a process as a pod of the mesh: own namespace, address, identity, DNS, logs
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The pod's name
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Its identity's service account
    #[arg(long, default_value = "default", value_name = "NAME")]
    service_account: String,
    /// A port it serves, as PORT or NAME:PORT; may be given more than once
    #[arg(long = "port", value_name = "PORT")]
    ports: Vec<String>,
    /// A label, as key=value; may be given more than once [default: app=NAME]
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// An environment variable, as NAME=VALUE; may be given more than once
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The node to run on
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Follow the logs, and delete the pod on Ctrl-C or when it ends
    #[arg(long)]
    attach: bool,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Until the pod runs and is ready.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

impl Arguments {
    pub(crate) fn run(self, global: &Global) -> Result {
        let state = global.state()?;
        let mut client = Client::connect(&state)?;
        let pod = self.pod(global.namespace())?;
        let text = crate::yaml::to_string(&Document::new(&pod))?;
        let name = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
        let input =
            Input::parse("the command line", text.as_bytes(), None).map_err(|mistakes| {
                let mistakes: Vec<_> = mistakes
                    .iter()
                    .map(|mistake| mistake.message.clone())
                    .collect();
                Exit::Usage.because(mistakes.join("; "))
            })?;
        let mut objects = Objects::open(&state)?;
        if objects.get(&pod.key()).is_some() {
            return Err(Exit::Failed.because(format!(
                "there is a pod {name} already: delete it with `weft delete pod {} -n {}`",
                pod.metadata.name, pod.metadata.namespace
            )));
        }
        for (object, text) in &input.objects {
            objects.put(object, text)?;
        }
        if self.attach {
            return attach(&state, &mut client, &pod, global);
        }
        let running = wait(&mut client, &pod)?;
        let addresses: Vec<_> = running.addresses.iter().map(ToString::to_string).collect();
        println!(
            "pod {name} runs at {} on {}",
            addresses.join(", "),
            running.node.unwrap_or_default()
        );
        Ok(())
    }

    fn pod(&self, namespace: &str) -> Result<Pod> {
        let mut labels = pairs(&self.labels, "--label")?;
        labels
            .entry("app".to_owned())
            .or_insert_with(|| self.name.clone());
        let env = pairs(&self.env, "--env")?;
        let container = Container {
            name: self.name.clone(),
            command: self.command.clone(),
            working_dir: std::env::current_dir()?.display().to_string(),
            env: env
                .into_iter()
                .map(|(name, value)| EnvVar {
                    name,
                    value,
                    value_from: None,
                })
                .collect(),
            ports: self
                .ports
                .iter()
                .map(|text| port(text))
                .collect::<Result<_>>()?,
            ..Container::default()
        };
        Ok(Pod {
            metadata: ObjectMeta {
                name: self.name.clone(),
                namespace: namespace.to_owned(),
                labels,
                ..ObjectMeta::default()
            },
            spec: PodSpec {
                node_name: self.node.clone().unwrap_or_default(),
                service_account_name: self.service_account.clone(),
                restart_policy: if self.attach {
                    RestartPolicy::Never
                } else {
                    RestartPolicy::Always
                },
                containers: vec![container],
                ..PodSpec::default()
            },
            status: PodStatus::default(),
        })
    }
}

/// Shows what the pod writes; deletes it when it has ended, or when it is to.
fn attach(state: &State, client: &mut Client, pod: &Pod, global: &Global) -> Result {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block()?;
    let (state, key) = (state.clone(), pod.key());
    let delete = move || -> Result { Objects::open(&state)?.remove(&key).map(drop) };
    std::thread::spawn({
        let delete = delete.clone();
        move || {
            let interrupted = signals.wait();
            let _ = delete();
            // The shell's convention for a process that a signal ended.
            std::process::exit(128 + interrupted.map_or(0, |signal| signal as i32));
        }
    });
    let metadata = &pod.metadata;
    let program = std::env::current_exe()?;
    let mut logs = std::process::Command::new(program);
    logs.arg("logs")
        .arg("-f")
        .arg(&metadata.name)
        .args(["-n", &metadata.namespace]);
    if let Some(state) = &global.state {
        logs.arg("--state").arg(state);
    }
    let result = wait(client, pod);
    let mut logs = logs.spawn()?;
    let ended = result.and_then(|_| ended(client, pod));
    // What was written last is on its way through the log.
    std::thread::sleep(2 * LOOK);
    delete()?;
    logs.wait()?;
    ended
}

/// Waits until the pod runs, or says why it doesn't.
fn wait(client: &mut Client, pod: &Pod) -> Result<control::Pod> {
    let end = Instant::now() + PATIENCE;
    let mut reason = "the machine has not seen it yet".to_owned();
    while Instant::now() < end {
        if let Some(found) = find(client, pod)? {
            if found.ready || found.phase == "Succeeded" {
                return Ok(found);
            }
            reason = found
                .reason
                .or(found.capture_pending)
                .unwrap_or(found.phase.clone());
            if found.phase == "Failed"
                || reason.contains("CrashLoopBackOff")
                || reason.contains("StartError")
                || reason.contains("Unschedulable")
                || reason.contains("can't start")
            {
                break;
            }
        }
        std::thread::sleep(LOOK);
    }
    let exit = if Instant::now() < end {
        Exit::Failed
    } else {
        Exit::TryAgain
    };
    let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
    let hint = match pod.spec.restart_policy {
        // An attached pod is deleted on the way out.
        RestartPolicy::Never => String::new(),
        RestartPolicy::Always | RestartPolicy::OnFailure => format!(
            "\nlook at it with `weft logs {name} -n {namespace}`, and take it away with `weft delete pod {name} -n {namespace}`"
        ),
    };
    Err(exit.because(format!(
        "pod {namespace}/{name} doesn't run: {reason}{hint}"
    )))
}

fn ended(client: &mut Client, pod: &Pod) -> Result {
    loop {
        match find(client, pod)?.map(|found| (found.phase, found.reason)) {
            None => return Ok(()),
            Some((phase, _)) if phase == "Succeeded" => return Ok(()),
            Some((phase, reason)) if phase == "Failed" => {
                return Err(Exit::Failed.because(reason.unwrap_or(phase)));
            }
            Some(_) => std::thread::sleep(LOOK),
        }
    }
}

fn find(client: &mut Client, pod: &Pod) -> Result<Option<control::Pod>> {
    let metadata = &pod.metadata;
    let pods = client.status()?.pods;
    Ok(pods
        .into_iter()
        .find(|found| found.namespace == metadata.namespace && found.name == metadata.name))
}

fn pairs(texts: &[String], option: &str) -> Result<BTreeMap<String, String>> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Exit::Usage.because(format!("{option} {text:?} is not KEY=VALUE"))),
        })
        .collect()
}

fn port(text: &str) -> Result<ContainerPort> {
    let (name, number) = text.split_once(':').unwrap_or(("", text));
    match number.parse() {
        Ok(container_port) if container_port > 0 => Ok(ContainerPort {
            name: name.to_owned(),
            container_port,
            ..ContainerPort::default()
        }),
        _ => Err(Exit::Usage.because(format!("--port {text:?} is not PORT or NAME:PORT"))),
    }
}
