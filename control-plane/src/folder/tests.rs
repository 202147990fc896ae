//! The folder as users and their editors treat it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use istio_compat::diagnostic::Severity;
use istio_compat::object::ObjectKey;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::source::Event;

/// Far beyond the promised 100 ms, so that a loaded machine fails no test.
const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough that something wrong would have happened.
const QUIET: Duration = Duration::from_millis(250);

/// A watched folder and what its source said so far.
struct Watched {
    folder: TempDir,
    batches: mpsc::Receiver<Batch>,
    objects: BTreeMap<String, String>,
    deleted: Vec<ObjectKey>,
    report: Arc<Report>,
}

impl Watched {
    async fn new(prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().expect("works");
        prepare(folder.path());
        Self::of(folder).await
    }

    /// A source that knows nothing but what is on the disk.
    async fn of(folder: TempDir) -> Self {
        let user = folder.path().join("user");
        let cluster = folder.path().join("cluster");
        fs::create_dir_all(&user).expect("works");
        fs::create_dir_all(&cluster).expect("works");
        let source = FolderSource::open(&[user, cluster], Raw::Drop).expect("works");
        let source = source.keeping(folder.path().join("last-good"));
        let (sender, batches) = mpsc::channel(16);
        tokio::spawn(source.run(sender));
        let mut watched = Self {
            folder,
            batches,
            objects: BTreeMap::new(),
            deleted: Vec::new(),
            report: Arc::default(),
        };
        watched.next().await;
        watched
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("works");
    }

    async fn next(&mut self) {
        let batch = tokio::time::timeout(PATIENCE, self.batches.recv())
            .await
            .expect("the source says something in time")
            .expect("the source runs");
        self.take(batch);
    }

    fn take(&mut self, batch: Batch) {
        for event in batch.events {
            match event {
                Event::Applied(object) => {
                    let value = object.metadata().labels.get("version").cloned();
                    self.objects
                        .insert(object.key().to_string(), value.unwrap_or_default());
                }
                Event::Deleted(key) => {
                    self.objects.remove(&key.to_string());
                    self.deleted.push(key);
                }
            }
        }
        if let Some(report) = batch.report {
            self.report = report;
        }
    }

    async fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            self.next().await;
        }
    }

    async fn until_version(&mut self, object: &str, version: &str) {
        self.until(|watched| {
            watched
                .objects
                .get(object)
                .is_some_and(|known| known == version)
        })
        .await;
    }

    /// Takes whatever comes in a while in which nothing should be lost.
    async fn rest(&mut self) {
        while let Ok(Some(batch)) = tokio::time::timeout(QUIET, self.batches.recv()).await {
            self.take(batch);
        }
    }

    fn errors(&self) -> Vec<String> {
        self.report
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .map(ToString::to_string)
            .collect()
    }
}

fn namespace(name: &str, version: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {{version: \"{version}\"}}\n"
    )
}

const SHOP: &str = "Namespace shop";

#[tokio::test]
async fn what_is_there_comes_first_then_each_change() {
    let mut watched = Watched::new(|folder| {
        fs::create_dir_all(folder.join("user")).expect("works");
        fs::write(folder.join("user/a.yaml"), namespace("shop", "1")).expect("works");
    })
    .await;
    assert_eq!(watched.objects[SHOP], "1");
    watched.write("user/a.yaml", &namespace("shop", "2"));
    watched.until_version(SHOP, "2").await;
    watched.write("user/b.yml", &namespace("bank", "1"));
    watched.until_version("Namespace bank", "1").await;
    fs::remove_file(watched.path("user/a.yaml")).expect("works");
    watched.until(|watched| watched.objects.len() == 1).await;
}

#[tokio::test]
async fn an_editor_that_moves_the_old_file_away_deletes_nothing() {
    let mut watched = Watched::new(|_| {}).await;
    watched.write("user/a.yaml", &namespace("shop", "1"));
    watched.until_version(SHOP, "1").await;
    fs::rename(watched.path("user/a.yaml"), watched.path("user/a.yaml~")).expect("works");
    watched.write("user/.a.yaml.swp", "not yaml: [");
    watched.write("user/4913", "");
    watched.write("user/a.yaml", &namespace("shop", "2"));
    watched.until_version(SHOP, "2").await;
    watched.rest().await;
    assert_eq!(watched.deleted, []);
    assert_eq!(watched.errors(), [""; 0]);
}

#[tokio::test]
async fn a_file_replaced_by_rename_takes_effect() {
    let mut watched = Watched::new(|_| {}).await;
    watched.write("user/a.yaml", &namespace("shop", "1"));
    watched.until_version(SHOP, "1").await;
    watched.write("user/.new", &namespace("shop", "2"));
    fs::rename(watched.path("user/.new"), watched.path("user/a.yaml")).expect("works");
    watched.until_version(SHOP, "2").await;
    fs::rename(watched.path("user/a.yaml"), watched.path("user/b.yaml")).expect("works");
    watched.rest().await;
    assert_eq!(watched.objects[SHOP], "2");
    assert_eq!(watched.deleted, []);
}

#[tokio::test]
async fn a_mistake_keeps_the_whole_file_as_it_was() {
    let mut watched = Watched::new(|_| {}).await;
    let good = format!("{}---\n{}", namespace("shop", "1"), namespace("bank", "1"));
    watched.write("user/a.yaml", &good);
    watched.until_version("Namespace bank", "1").await;
    watched.write(
        "user/a.yaml",
        &format!("{}---\nkind: [", namespace("shop", "2")),
    );
    watched.until(|watched| !watched.errors().is_empty()).await;
    assert_eq!(watched.objects.len(), 2);
    assert_eq!(watched.objects[SHOP], "1");
    assert!(
        watched.errors()[0].contains("a.yaml:"),
        "{:?}",
        watched.errors()
    );
    watched.write("user/a.yaml", &namespace("shop", "3"));
    watched.until_version(SHOP, "3").await;
    assert_eq!(watched.errors(), [""; 0]);
    assert_eq!(watched.objects.len(), 1);
}

#[tokio::test]
async fn a_file_broken_at_the_start_says_what_it_said_last() {
    let mut watched = Watched::new(|_| {}).await;
    watched.write("user/a.yaml", &namespace("shop", "1"));
    watched.write("user/b.yaml", &namespace("bank", "1"));
    watched.write("user/c.yaml", &namespace("post", "1"));
    watched.until(|watched| watched.objects.len() == 3).await;

    watched.write("user/a.yaml", "kind: [");
    watched.until(|watched| !watched.errors().is_empty()).await;
    drop(watched.batches);
    let folder = watched.folder;
    fs::remove_file(folder.path().join("user/b.yaml")).expect("works");
    fs::write(folder.path().join("user/c.yaml"), namespace("post", "2")).expect("works");
    let mut watched = Watched::of(folder).await;
    assert_eq!(watched.objects[SHOP], "1");
    assert_eq!(watched.objects["Namespace post"], "2");
    assert_eq!(watched.errors().len(), 1, "{:?}", watched.errors());
    let warned = |watched: &Watched| format!("{:?}", watched.report.diagnostics);
    assert!(warned(&watched).contains("read from it before stay in force"));
    watched.until(|watched| watched.objects.len() == 2).await;

    watched.write("user/a.yaml", &namespace("shop", "2"));
    watched.until_version(SHOP, "2").await;
    assert_eq!(watched.errors(), [""; 0]);
}

#[tokio::test]
async fn a_file_being_written_is_read_when_its_writer_is_done() {
    use std::io::Write;
    let mut watched = Watched::new(|_| {}).await;
    let two = format!("{}---\n{}", namespace("shop", "1"), namespace("bank", "1"));
    watched.write("user/a.yaml", &two);
    watched.until_version("Namespace bank", "1").await;
    let mut file = fs::File::create(watched.path("user/a.yaml")).expect("works");
    file.write_all(namespace("shop", "2").as_bytes())
        .expect("works");
    file.flush().expect("works");
    watched.rest().await;
    assert_eq!(watched.objects.len(), 2);
    assert_eq!(watched.objects[SHOP], "1");
    file.write_all(format!("---\n{}", namespace("bank", "2")).as_bytes())
        .expect("works");
    drop(file);
    watched.until_version("Namespace bank", "2").await;
    assert_eq!(watched.deleted, []);
}

#[tokio::test]
async fn a_folder_that_vanishes_keeps_what_it_said_until_it_is_back() {
    let mut watched = Watched::new(|_| {}).await;
    watched.write("user/a.yaml", &namespace("shop", "1"));
    watched.write("user/b.yaml", &namespace("bank", "1"));
    watched.until(|watched| watched.objects.len() == 2).await;
    fs::remove_dir_all(watched.path("user")).expect("works");
    watched
        .until(|watched| watched.report.places[0].trouble.is_some())
        .await;
    watched.rest().await;
    assert_eq!(watched.objects.len(), 2);

    fs::create_dir(watched.path("user")).expect("works");
    watched.rest().await;
    assert_eq!(watched.objects.len(), 2, "an empty folder is not believed");

    watched.write("user/a.yaml", &namespace("shop", "2"));
    watched.until_version(SHOP, "2").await;
    watched.until(|watched| watched.objects.len() == 1).await;
    assert_eq!(watched.report.places[0].trouble, None);
}

#[tokio::test]
async fn a_folder_moved_away_and_back_loses_nothing() {
    let mut watched = Watched::new(|_| {}).await;
    watched.write("user/a.yaml", &namespace("shop", "1"));
    watched.until_version(SHOP, "1").await;
    fs::rename(watched.path("user"), watched.path("elsewhere")).expect("works");
    watched
        .until(|watched| watched.report.places[0].trouble.is_some())
        .await;
    fs::rename(watched.path("elsewhere"), watched.path("user")).expect("works");
    watched
        .until(|watched| watched.report.places[0].trouble.is_none())
        .await;
    watched.write("user/a.yaml", &namespace("shop", "2"));
    watched.until_version(SHOP, "2").await;
    assert_eq!(watched.deleted, []);
}

#[tokio::test]
async fn folders_nest_and_links_are_followed() {
    let mut watched = Watched::new(|folder| {
        fs::create_dir_all(folder.join("data/..1")).expect("works");
        fs::write(folder.join("data/..1/a.yaml"), namespace("shop", "1")).expect("works");
        fs::create_dir_all(folder.join("data/..2")).expect("works");
        fs::write(folder.join("data/..2/a.yaml"), namespace("shop", "2")).expect("works");
        std::os::unix::fs::symlink("..1", folder.join("data/..data")).expect("works");
        fs::create_dir_all(folder.join("user")).expect("works");
        std::os::unix::fs::symlink("../data/..data/a.yaml", folder.join("user/a.yaml"))
            .expect("works");
    })
    .await;
    assert_eq!(watched.objects[SHOP], "1");
    std::os::unix::fs::symlink("..2", watched.path("data/.new")).expect("works");
    fs::rename(watched.path("data/.new"), watched.path("data/..data")).expect("works");
    watched.until_version(SHOP, "2").await;

    fs::create_dir_all(watched.path("user/team/deep")).expect("works");
    watched.write("user/team/deep/b.yaml", &namespace("bank", "1"));
    watched.until_version("Namespace bank", "1").await;
    watched.write("user/team/deep/b.yaml", &namespace("bank", "2"));
    watched.until_version("Namespace bank", "2").await;
    fs::remove_dir_all(watched.path("user/team")).expect("works");
    watched.until(|watched| watched.objects.len() == 1).await;
}

#[tokio::test]
async fn the_machines_folder_overlays_the_users() {
    let mut watched = Watched::new(|_| {}).await;
    watched.write("user/a.yaml", &namespace("shop", "user"));
    watched.until_version(SHOP, "user").await;
    watched.write(
        "cluster/Namespace..shop.json",
        r#"{"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "shop", "labels": {"version": "cluster"}}}"#,
    );
    watched.until_version(SHOP, "cluster").await;
    assert_eq!(watched.errors(), [""; 0]);
    watched.write("user/a.yaml", &namespace("shop", "user2"));
    watched.rest().await;
    assert_eq!(watched.objects[SHOP], "cluster");
    fs::remove_file(watched.path("cluster/Namespace..shop.json")).expect("works");
    watched.until_version(SHOP, "user2").await;
    assert_eq!(watched.deleted, []);
}

#[tokio::test]
async fn an_object_in_two_files_is_that_of_the_first_and_the_second_is_told() {
    let mut watched = Watched::new(|_| {}).await;
    watched.write("user/b.yaml", &namespace("shop", "b"));
    watched.until_version(SHOP, "b").await;
    watched.write("user/a.yaml", &namespace("shop", "a"));
    watched.until_version(SHOP, "a").await;
    let errors = watched.errors();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("b.yaml:1"), "{errors:?}");
    assert!(errors[0].contains("a.yaml:1"), "{errors:?}");
    fs::remove_file(watched.path("user/a.yaml")).expect("works");
    watched.until_version(SHOP, "b").await;
    assert_eq!(watched.errors(), [""; 0]);
}

#[tokio::test]
async fn a_file_emptied_by_mistake_or_halfway_is_not_believed_at_once() {
    let mut watched = Watched::new(|_| {}).await;
    watched.write("user/a.yaml", &namespace("shop", "1"));
    watched.until_version(SHOP, "1").await;
    watched.write("user/a.yaml", "");
    watched.write("user/a.yaml", &namespace("shop", "2"));
    watched.until_version(SHOP, "2").await;
    assert_eq!(watched.deleted, []);
    watched.write("user/a.yaml", "");
    watched.until(|watched| watched.objects.is_empty()).await;
}
