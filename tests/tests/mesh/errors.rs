//! What a user gets wrong: one clear error each, and the running mesh unharmed.

use anyhow::ensure;
use tests::lab::{Lab, SOON};

use crate::shop::{YAML, own, shared};

#[track_caller]
fn check_unharmed(lab: &Lab) {
    lab.peer("shop/client", &["get", "server:80"])
        .expect("the mesh is unharmed");
}

#[test]
fn apply_of_ill_formed_yaml_names_file_line_and_column() {
    let lab = own();
    let cases = [
        ("syntax", "kind: [Pod\nmetadata: {}\n", "bad.yaml:"),
        (
            "a value of the wrong type",
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec:\n  ports:\n    - port: eighty\n",
            "bad.yaml:6:",
        ),
        (
            "an unknown kind",
            "apiVersion: v9\nkind: Gizmo\nmetadata: {name: a}\n",
            "Gizmo",
        ),
        (
            "a bad port in a policy",
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: shop}\nspec: {rules: [{to: [{operation: {ports: [\"http\"]}}]}]}\n",
            "bad.yaml:4",
        ),
    ];
    for (what, yaml, expected) in cases {
        let file = lab.state().join("bad.yaml");
        std::fs::write(&file, yaml).expect("written");
        let output = lab
            .weft_output(&["apply", "-f", file.to_str().expect("text")])
            .expect("runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{what}: {text}");
        assert!(text.contains(expected), "{what}: {text}");
    }
    check_unharmed(&lab);
}

#[test]
fn an_ill_formed_file_in_the_folder_is_reported_and_changes_nothing() {
    let lab = own();
    lab.write(
        "lab.yaml",
        &YAML.replace("targetPort: request", "targetPort: [oops"),
    )
    .expect("written");
    lab.eventually(SOON, "status names the file", || {
        let status = lab.weft(&["status"])?;
        ensure!(status.contains("lab.yaml:"), "{status}");
        Ok(())
    })
    .expect("reported");
    check_unharmed(&lab);
    assert!(lab.pods().expect("pods").len() >= 4, "nothing was deleted");
}

#[test]
fn a_folder_that_vanishes_and_returns_harms_nothing() {
    let lab = own();
    let elsewhere = lab.folder().with_extension("moved");
    std::fs::rename(lab.folder(), &elsewhere).expect("moved");
    lab.eventually(SOON, "status says so", || {
        let status = lab.weft(&["status"])?;
        ensure!(status.contains("objects"), "{status}");
        ensure!(status.to_lowercase().contains("problems"), "{status}");
        Ok(())
    })
    .expect("said");
    check_unharmed(&lab);
    std::fs::rename(&elsewhere, lab.folder()).expect("moved back");
    lab.write(
        "extra.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: extra, namespace: shop}\nspec: {ports: [{port: 80}]}\n",
    )
    .expect("written");
    lab.eventually(SOON, "the folder is watched again", || {
        lab.peer("shop/client", &["resolve", "extra"]).map(|_| ())
    })
    .expect("watched");
}

#[test]
fn a_folder_that_is_not_there_is_bad_input() {
    let lab = Lab::stopped().expect("folders");
    let output = lab
        .weft_output(&["up", "-f", "/nonexistent/folder"])
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{text}");
    assert!(text.contains("/nonexistent/folder"), "{text}");
}

#[test]
fn commands_without_a_mesh_say_how_to_start_one() {
    let lab = Lab::stopped().expect("folders");
    for command in [
        &["status"][..],
        &["exec", "web", "--", "true"],
        &["ztunnel-config", "all"],
    ] {
        let output = lab.weft_output(command).expect("runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{command:?}: {text}");
        assert!(text.contains("weft up"), "{command:?}: {text}");
    }
}

#[test]
fn get_without_a_mesh_says_that_none_runs() {
    let lab = Lab::stopped().expect("folders");
    let output = lab.weft_output(&["get", "pods", "-A"]).expect("runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("No mesh is running"), "{text}");
    let lab = shared();
    let output = lab.weft_output(&["get", "pods", "-A"]).expect("runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("No mesh"), "{text}");
}

#[test]
fn what_is_not_there_is_66() {
    let lab = shared();
    for command in [
        &["get", "pod", "nobody", "-n", "shop"][..],
        &["delete", "pod", "nobody", "-n", "shop"],
        &["logs", "nobody", "-n", "shop"],
        &["exec", "nobody", "-n", "shop", "--", "true"],
        &["waypoint", "status", "nothing", "-n", "shop"],
        &["waypoint", "why", "nothing", "-n", "shop"],
    ] {
        let output = lab.weft_output(command).expect("runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(66), "{command:?}: {text}");
    }
}

#[test]
fn a_command_that_can_not_be_started_exits_as_in_a_shell() {
    let lab = shared();
    for (program, code) in [("no-such-program", 127), ("/etc/passwd", 126)] {
        let output = lab.exec_output("shop/client", &[program]).expect("runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{program}: {text}");
        assert!(text.contains(program), "{text}");
    }
}

#[test]
fn a_failing_probe_says_why() {
    let lab = own();
    lab.write(
        "deaf.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: deaf, namespace: shop}\nspec:\n  \
         containers:\n  - name: deaf\n    command: [sleep, infinity]\n    \
         readinessProbe: {tcpSocket: {port: 9}, periodSeconds: 1}\n",
    )
    .expect("written");
    lab.eventually(SOON, "the status says why", || {
        let status = lab.weft(&["status"])?;
        ensure!(
            status.contains("deaf: readiness probe failed: can't connect to"),
            "{status}"
        );
        Ok(())
    })
    .expect("said");
}

#[test]
fn wrong_usage_is_64() {
    let lab = Lab::stopped().expect("folders");
    for command in [&["frobnicate"][..], &["up", "--nodes", "many"], &["apply"]] {
        let output = lab.weft_output(command).expect("runs");
        assert_eq!(output.status.code(), Some(64), "{command:?}");
    }
}

#[test]
fn a_full_disk_is_one_clear_error() {
    let lab = Lab::stopped().expect("folders");
    let script = format!(
        "mkdir -p {state} && mount -t tmpfs -o size=64k tmpfs {state} && head -c 1M /dev/zero > {state}/fill; exec {weft} --state {state} up -f {folder} --detach",
        state = lab.state().display(),
        folder = lab.folder().display(),
        weft = tests::lab::program("weft").display(),
    );
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .env("NO_COLOR", "1")
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stderr);
    let error: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("error"))
        .collect();
    assert!(!output.status.success(), "{text}");
    assert_eq!(error.len(), 1, "{text}");
    assert!(error[0].contains("No space left"), "{text}");
}

#[test]
fn no_permission_for_namespaces_is_77() {
    let lab = Lab::stopped().expect("folders");
    // No capability and no user namespaces: what an ordinary user of a locked-down machine has.
    let script = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs {weft} --state {state} up -f {folder} --detach",
        state = lab.state().display(),
        folder = lab.folder().display(),
        weft = tests::lab::program("weft").display(),
    );
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", &script])
        .env("NO_COLOR", "1")
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{text}");
    assert!(text.contains("namespaces"), "{text}");
}
