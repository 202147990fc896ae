//! The whole mesh as an ordinary user: up, traffic between captured pods, down.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use tests::lab::{SOON, eventually, program};

/// Nobody's user and group on every Linux.
const NOBODY: u32 = 65534;

/// `weft` as an ordinary user: as ourselves, or as nobody where that would be root.
fn weft(folder: &Path, arguments: &[&str]) -> Result<String> {
    let user = NOBODY.to_string();
    let programs = folder.join("programs");
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
            .arg(programs.join("weft"));
        command
    } else {
        Command::new(programs.join("weft"))
    };
    let path = std::env::var("PATH").unwrap_or_default();
    let output = command
        .args(arguments)
        .env("HOME", folder)
        .env_remove("XDG_STATE_HOME")
        .env_remove("WEFT_STATE")
        .env("NO_COLOR", "1")
        .env("PATH", format!("{}:{path}", programs.display()))
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "weft {arguments:?} ended with {}: {text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("runs");
    id.stdout == b"0\n"
}

#[test]
fn an_ordinary_user_runs_the_whole_mesh() {
    let folder = tempfile::tempdir().expect("a folder");
    let objects = folder.path().join("objects");
    let programs = folder.path().join("programs");
    std::fs::create_dir(&objects).expect("made");
    std::fs::create_dir(&programs).expect("made");
    // The build's own folder may be out of an ordinary user's reach. By another process: what
    // another test starts meanwhile would inherit the descriptors that write, and a file that is
    // being written can't be run.
    let names = ["weft", "control-plane", "ztunnel", "waypoint", "peer"];
    let copied = Command::new("cp")
        .arg("--preserve=mode")
        .args(names.map(program))
        .arg(&programs)
        .status();
    assert!(copied.expect("cp runs").success());
    std::fs::write(objects.join("shop.yaml"), crate::shop::YAML).expect("written");
    for path in [folder.path(), &objects, &programs] {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, mode).expect("set");
    }
    if is_root() {
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("given away");
        chown(&objects, Some(NOBODY), Some(NOBODY)).expect("given away");
    }

    weft(folder.path(), &["up", "-f", "objects", "--detach"]).expect("up");
    let result = eventually(SOON, "captured pods talk", || {
        let exec = ["exec", "-n", "shop", "client", "--"];
        let reply = weft(
            folder.path(),
            &[&exec[..], &["peer", "get", "server:80"]].concat(),
        )?;
        ensure!(reply.starts_with("server "), "{reply}");
        let log = folder
            .path()
            .join(".local/state/weft/run/nodes/node-2/ztunnel.log");
        let log = std::fs::read_to_string(log)?;
        ensure!(
            log.contains("tls.group=\"X25519MLKEM768\""),
            "not over HBONE: {log}"
        );
        Ok(())
    });
    weft(folder.path(), &["down"]).expect("down");
    result.expect("traffic");
    assert!(!folder.path().join(".local/state/weft/run").exists());
}
