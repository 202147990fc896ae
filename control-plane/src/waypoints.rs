//! Keeps the folder of waypoints at what the objects ask for: one object a file, written
//! whole. Who runs them reads the folder; so does this control plane, through its source.
//!
//! - [`plan`]: what to write now, and what to remove when

mod plan;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use istio_compat::object::{Body, ObjectKey};
use istio_compat::waypoint::deployment::Wanted;
use plan::Plan;

use crate::controller::Knowledge;

/// How long a waypoint stays that nothing is bound to any more: what it carries may end.
const DRAIN: Duration = Duration::from_secs(10);
/// A write that failed is tried again after so long.
const RETRY: Duration = Duration::from_secs(1);

/// The folder, and what its files say.
pub(crate) struct Waypoints {
    folder: PathBuf,
    written: BTreeMap<String, Vec<u8>>,
}

// === impl Waypoints ===

impl Waypoints {
    /// What the folder holds is kept until it is known what is wanted.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        let mut written = BTreeMap::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".json") && !name.starts_with('.') {
                written.insert(name, fs::read(entry.path())?);
            }
        }
        Ok(Self { folder, written })
    }

    /// Follows the objects.
    pub(crate) async fn run(mut self, knowledge: Knowledge) {
        let mut applied = knowledge.applied();
        knowledge.synced().await;
        let mut plan = Plan::new(DRAIN);
        loop {
            applied.mark_unchanged();
            let wanted = files(&knowledge.read().index.wanted_waypoints(), &self.written);
            let steps = plan.next(wanted, &self.written, Instant::now());
            let mut again = steps.due;
            for (name, content) in steps.write {
                if let Err(error) = self.write(&name, content) {
                    tracing::warn!("a waypoint's object can't be written: {error}");
                    again = Some(Instant::now() + RETRY);
                }
            }
            for name in steps.remove {
                if let Err(error) = self.remove(&name) {
                    tracing::warn!("a waypoint's object can't be removed: {error}");
                    again = Some(Instant::now() + RETRY);
                }
            }
            let due = async {
                match again {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { return },
                () = due => {}
            }
        }
    }

    fn write(&mut self, name: &str, content: Vec<u8>) -> io::Result<()> {
        write(&self.folder, name, &content)?;
        tracing::info!(object = name, "written");
        self.written.insert(name.to_owned(), content);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        tracing::info!(object = name, "removed");
        self.written.remove(name);
        Ok(())
    }
}

/// The files that say so: what is kept is what is there.
fn files(wanted: &Wanted, there: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let objects = wanted.objects.iter().filter_map(|body| {
        // Plain data of ours: it always serializes.
        let content = serde_json::to_vec(body).ok()?;
        Some((file_name(&key(body)), content))
    });
    let kept = wanted.kept.iter().filter_map(|key| {
        let name = file_name(key);
        let content = there.get(&name)?.clone();
        Some((name, content))
    });
    kept.chain(objects).collect()
}

fn key(body: &Body) -> ObjectKey {
    let metadata = body.metadata();
    ObjectKey::new(
        body.kind(),
        metadata.namespace.as_str(),
        metadata.name.as_str(),
    )
}

fn file_name(key: &ObjectKey) -> String {
    format!("{}.{}.{}.json", key.kind, key.namespace, key.name)
}

/// Under a hidden name first, so that nobody reads half of it.
fn write(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let hidden = folder.join(format!(".{name}.new"));
    let written = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&hidden)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&hidden, folder.join(name)));
    if written.is_err() {
        // What can't be removed is written over with the next attempt.
        let _ = fs::remove_file(&hidden);
    }
    written
}

#[cfg(test)]
mod tests {
    use istio_compat::kind::Kind;
    use istio_compat::object::Resource;
    use istio_compat::waypoint::deployment::on_demand_gateway;

    use super::*;

    #[test]
    fn what_is_kept_stays_as_it_is() {
        let key = ObjectKey::new(Kind::Deployment, "shop", "gate");
        let absent = ObjectKey::new(Kind::Service, "shop", "gate");
        let wanted = Wanted {
            objects: vec![on_demand_gateway("shop").into_body()],
            kept: vec![key.clone(), absent],
        };
        let there = BTreeMap::from([
            (file_name(&key), b"as it is".to_vec()),
            ("Pod.shop.other.json".to_owned(), Vec::new()),
        ]);
        let files = files(&wanted, &there);
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["Deployment.shop.gate.json", "Gateway.shop.waypoint.json"]
        );
        assert_eq!(files["Deployment.shop.gate.json"], b"as it is");
    }
}
