//! Requests written to be read in two ways, against nginx and Apache behind a waypoint that
//! denies `/admin`: whatever the bytes, the server never answers from there.
//!
//! The cases are in `smuggling/corpus.rs`.

mod corpus;

use std::fs;
use std::path::Path;

use anyhow::ensure;
use tests::lab::{Lab, SOON};

use crate::shop;

/// What the servers answer with under `/admin`.
const SECRET: &str = "THE-SECRET";

#[test]
fn nginx_never_serves_what_is_denied() {
    let lab = shop::own();
    let folder = lab.state().join("nginx");
    fs::create_dir_all(folder.join("temporary")).expect("a folder");
    let folder_text = folder.display();
    fs::write(
        folder.join("nginx.conf"),
        format!(
            "\
user root;
daemon off;
pid {folder_text}/pid;
error_log {folder_text}/error.log;
worker_processes 1;
events {{}}
http {{
  log_format path $uri;
  access_log {folder_text}/access.log path;
  client_body_temp_path {folder_text}/temporary;
  proxy_temp_path {folder_text}/temporary;
  fastcgi_temp_path {folder_text}/temporary;
  uwsgi_temp_path {folder_text}/temporary;
  scgi_temp_path {folder_text}/temporary;
  server {{
    listen 8080;
    listen [::]:8080;
    location /admin {{ return 200 '{SECRET}'; }}
    location / {{ return 200 'public'; }}
  }}
}}
"
        ),
    )
    .expect("written");
    let configuration = folder.join("nginx.conf").display().to_string();
    check(
        &lab,
        &format!("[nginx, -e, {folder_text}/error.log, -c, {configuration}]"),
        &folder.join("access.log"),
    );
}

#[test]
fn apache_never_serves_what_is_denied() {
    let lab = shop::own();
    let folder = lab.state().join("apache");
    for (place, content) in [("www/admin", SECRET), ("www", "public")] {
        let place = folder.join(place);
        fs::create_dir_all(&place).expect("a folder");
        fs::write(place.join("index.html"), content).expect("written");
    }
    let folder_text = folder.display();
    fs::write(
        folder.join("apache.conf"),
        format!(
            "\
ServerRoot {folder_text}
ServerName apache
PidFile {folder_text}/pid
ErrorLog {folder_text}/error.log
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
Listen 8080
HttpProtocolOptions Unsafe
AllowEncodedSlashes On
LogFormat \"%U\" path
CustomLog {folder_text}/access.log path
DocumentRoot {folder_text}/www
DirectoryIndex index.html
AliasMatch ^/admin {folder_text}/www/admin/index.html
<Directory {folder_text}>
  Require all granted
</Directory>
"
        ),
    )
    .expect("written");
    let configuration = folder.join("apache.conf").display().to_string();
    check(
        &lab,
        &format!("[apache2, -f, {configuration}, -D, FOREGROUND]"),
        &folder.join("access.log"),
    );
}

fn check(lab: &Lab, command: &str, log: &Path) {
    lab.write(
        "server.yaml",
        &format!(
            "\
apiVersion: v1
kind: Pod
metadata: {{name: server, namespace: shop, labels: {{app: server}}}}
spec:
  containers: [{{name: server, command: {command}}}]
---
{}---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: server, namespace: shop}}
spec:
  targetRefs: [{{group: \"\", kind: Service, name: server}}]
  action: DENY
  rules: [{{to: [{{operation: {{paths: ['/admin*']}}}}]}}]
",
            shop::versions("server", "{app: server}"),
        ),
    )
    .expect("written");
    // The server serves what is not denied, and would serve what is.
    lab.eventually(SOON, "the server answers", || {
        let answer = shop::ask(lab, "shop/client", &["http://server.shop/"])?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
    .expect("served");
    let secret = lab
        .exec(
            "shop/server",
            &["web", "ask", "http://127.0.0.1:8080/admin"],
        )
        .expect("asked inside the pod");
    assert!(secret.contains(SECRET), "{secret}");
    // It logs what it has answered already.
    lab.eventually(SOON, "the server's log tells of it", || {
        let seen = fs::read_to_string(log)?;
        ensure!(
            seen.lines().any(|path| path.starts_with("/admin")),
            "{seen}"
        );
        Ok(())
    })
    .expect("logged");
    fs::write(log, "").expect("forgotten");

    let (answered, others): (Vec<_>, Vec<_>) = corpus::cases()
        .into_iter()
        .partition(|case| case.status.is_some());
    let answered = answered.chunks(16).map(|cases| (cases, true));
    let others = others.chunks(16).map(|cases| (cases, false));
    let mut wrong = Vec::new();
    for (cases, is_answered) in answered.chain(others) {
        let mut command = vec!["web".to_owned(), "raw".into(), "server.shop:80".into()];
        command.extend(is_answered.then(|| "--answered".to_owned()));
        command.extend(cases.iter().map(|case| hexadecimal(&case.bytes)));
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let output = lab.exec("shop/client", &command).expect("sent");
        let answers: Vec<String> = serde_json::from_str(&output).expect("a list");
        for (case, answer) in cases.iter().zip(answers) {
            if answer.contains(SECRET) {
                wrong.push(format!("{}: was served: {answer:?}", case.name));
            }
            if let Some(status) = case.status
                && !answer.starts_with(&format!("HTTP/1.1 {status}"))
            {
                wrong.push(format!("{}: not {status}: {answer:?}", case.name));
            }
        }
    }
    let seen = fs::read_to_string(log).expect("the server's log");
    for path in seen.lines().filter(|path| path.starts_with("/admin")) {
        wrong.push(format!("the server was asked for {path}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // And it still works for everybody else.
    shop::expect_status(lab, 200, &["http://server.shop/"]);
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
