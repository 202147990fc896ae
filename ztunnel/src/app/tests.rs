//! What becomes of the process when a part of it does not go on.

use super::*;

fn config(environment: &[(&str, &str)]) -> Arc<Config> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Arc::new(Config::parse(environment.collect(), None, 1).expect("valid"))
}

fn certificates(config: &Config) -> CertificateManager {
    let manager = certificate_manager(config, &Clock::default());
    manager.expect("starts").expect("there is a CA")
}

/// Has one of the parts that keep a process up to date panic.
async fn lose(part: &str) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("file");
    let path = file.to_str().expect("text");
    match part {
        "control plane" => {
            own_process::panic_at("not connected to the control plane");
            let config = config(&[
                ("XDS_ADDRESS", "https://127.0.0.1:1"),
                ("XDS_ROOT_CA", "SYSTEM"),
            ]);
            let following = Following {
                state: Arc::default(),
                freshness: Some(Freshness::new(SystemTime::now())),
                clock: Clock::default(),
            };
            let readiness = Readiness::new();
            let (synced, _) = follow_control_plane(&config, &readiness, following).expect("starts");
            let _ = synced.await;
        }
        "certificates" => {
            own_process::panic_at("fetching a certificate");
            let manager = certificates(&config(&[("FAKE_CA", "true")]));
            let web = mesh::identity::Identity::new("cluster.local", "shop", "web");
            let _ = manager.certificate(&web).await;
        }
        "roots" => {
            own_process::panic_at("the CA's roots have changed");
            std::fs::write(&file, "some").expect("writes");
            let _manager = certificates(&config(&[
                ("CA_ADDRESS", "https://127.0.0.1:1"),
                ("CA_ROOT_CA", path),
            ]));
            time::sleep(Duration::from_secs(1)).await;
            std::fs::write(&file, "others").expect("writes");
            time::sleep(Duration::from_secs(60)).await;
        }
        "revocations" => {
            own_process::panic_at("revocation lists can't be read");
            let _manager = certificates(&config(&[("FAKE_CA", "true"), ("CRL_PATH", path)]));
            std::fs::write(&file, "none").expect("writes");
            time::sleep(Duration::from_secs(60)).await;
        }
        part => panic!("no part {part}"),
    }
}

#[test]
fn a_process_ends_with_what_keeps_it_up_to_date() {
    let Some(part) = own_process::part() else {
        let test = "app::tests::a_process_ends_with_what_keeps_it_up_to_date";
        let parts = ["control plane", "certificates", "roots", "revocations"];
        return parts
            .into_iter()
            .for_each(|part| own_process::ends(test, part));
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build();
    runtime.expect("starts").block_on(lose(&part));
}

#[tokio::test]
async fn a_mesh_that_is_not_all_here_is_not_served() {
    let shutdown = Shutdown::new();
    let (synced, wait) = oneshot::channel();
    synced.send(()).expect("waits");
    known(wait, &shutdown).await.expect("all is here");

    let (synced, wait) = oneshot::channel::<()>();
    drop(synced);
    known(wait, &shutdown).await.expect_err("it never comes");

    let (_synced, wait) = oneshot::channel();
    shutdown.request("a test");
    known(wait, &shutdown)
        .await
        .expect("nothing is to be served");
}
