//! The state folder: where objects, keys and what belongs to the running mesh lie.
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Result};

/// A unix socket's path holds 107 bytes; the longest name we put below the folder is a node's socket.
const LONGEST_SOCKET_SUFFIX: usize = "/run/nodes/node-255/handover.sock".len();
const LONGEST_SOCKET_PATH: usize = 107;

#[derive(Debug, Clone)]
pub(crate) struct State {
    root: PathBuf,
}

impl State {
    /// `--state`, else `WEFT_STATE` (clap reads both), else root's or the user's usual place.
    pub(crate) fn resolve(given: Option<&Path>) -> Result<Self> {
        let root = match given {
            Some(path) => path.to_path_buf(),
            None if nix::unistd::geteuid().is_root() => PathBuf::from("/var/lib/weft"),
            None => match std::env::var_os("XDG_STATE_HOME").filter(|home| !home.is_empty()) {
                Some(home) => PathBuf::from(home).join("weft"),
                None => match std::env::var_os("HOME").filter(|home| !home.is_empty()) {
                    Some(home) => PathBuf::from(home).join(".local/state/weft"),
                    None => return Err(Exit::Usage.because("neither HOME nor XDG_STATE_HOME is set: give the state folder with --state")),
                },
            },
        };
        let root = std::path::absolute(root)?;
        if root.as_os_str().len() + LONGEST_SOCKET_SUFFIX > LONGEST_SOCKET_PATH {
            return Err(Exit::Usage.because(format!(
                "the state folder's path is too long for unix sockets ({} bytes, at most {}): {}",
                root.as_os_str().len(),
                LONGEST_SOCKET_PATH - LONGEST_SOCKET_SUFFIX,
                root.display()
            )));
        }
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The user's objects when `weft up` got no `-f`.
    pub(crate) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.root.join("ca")
    }

    /// Service addresses once given stay given over restarts.
    pub(crate) fn allocations(&self) -> PathBuf {
        self.root.join("allocations.json")
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Locked by the running machine. Beside `run/` and not in it, so that removing `run/` never lets two machines hold "the" lock.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn machine_json(&self) -> PathBuf {
        self.run().join("machine.json")
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.run().join("control.sock")
    }

    pub(crate) fn machine_log(&self) -> PathBuf {
        self.run().join("machine.log")
    }

    pub(crate) fn control_plane_log(&self) -> PathBuf {
        self.run().join("control-plane.log")
    }

    /// What Kubernetes would know: one object per file.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.run().join("cluster")
    }

    /// What the control plane makes of its own accord: waypoints, one object per file.
    pub(crate) fn waypoints(&self) -> PathBuf {
        self.run().join("waypoints")
    }

    /// What Kubernetes would know of a pod.
    pub(crate) fn pod_object(&self, namespace: &str, pod: &str) -> PathBuf {
        self.cluster().join(format!("Pod.{namespace}.{pod}.json"))
    }

    pub(crate) fn token_issuer(&self) -> PathBuf {
        self.run().join("token-issuer.pub.pem")
    }

    pub(crate) fn api_socket(&self) -> PathBuf {
        self.run().join("control-plane/api.sock")
    }

    /// A node's ztunnel runs here.
    pub(crate) fn node(&self, node: &str) -> PathBuf {
        self.run().join("nodes").join(node)
    }

    pub(crate) fn ztunnel_log(&self, node: &str) -> PathBuf {
        self.node(node).join("ztunnel.log")
    }

    pub(crate) fn pod_folder(&self, namespace: &str, pod: &str) -> PathBuf {
        self.run().join("pods").join(namespace).join(pod)
    }

    pub(crate) fn pod_log(&self, namespace: &str, pod: &str) -> PathBuf {
        self.pod_folder(namespace, pod).join("log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let long = PathBuf::from(format!("/{}", "x".repeat(100)));
        assert_eq!(State::resolve(Some(&long)).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn everything_of_the_running_mesh_is_below_run() {
        let state = State::resolve(Some(Path::new("/s"))).unwrap();
        for path in [
            state.control_socket(),
            state.cluster(),
            state.waypoints(),
            state.node("node-1"),
            state.pod_log("a", "b"),
            state.machine_json(),
        ] {
            assert!(path.starts_with("/s/run"), "{}", path.display());
        }
    }
}
