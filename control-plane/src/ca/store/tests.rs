//! First start, second start, an operator's set, and everything that must stop the start.

use boring::pkey::PKey;
use boring::rsa::Rsa;
use identity::authority::Subject;
use identity::key::PrivateKey;
use mesh::identity::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer,
    KeyIdMethod, KeyUsagePurpose,
};

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn load(folder: &Path) -> Result<Signer, StoreError> {
    load_or_create(folder, SystemTime::now())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("exists").permissions().mode() & 0o777
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(
        DnType::OrganizationName,
        DnValue::PrintableString("Acme".try_into().expect("printable")),
    );
    params.distinguished_name.push(DnType::CommonName, name);
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since;
    params.not_after = params.not_before + Duration::from_secs(20 * 86_400);
    params.serial_number = Some(7.into());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    params.key_identifier_method = KeyIdMethod::PreSpecified(name.as_bytes().to_vec());
    params
}

/// An operator's set: an intermediate with this key, under a root whose key is elsewhere.
fn plugged_with(key: &PrivateKey) -> tempfile::TempDir {
    let folder = folder();
    let root_key = PrivateKey::generate().expect("a key");
    let root_params = ca_params("Root");
    let root = root_params.self_signed(&root_key).expect("signed").pem();
    let issuer = Issuer::new(root_params, root_key);
    let certificate = ca_params("Mesh")
        .signed_by(key, &issuer)
        .expect("signed")
        .pem();
    for (name, content) in [
        (ROOT, root.as_bytes()),
        (CERTIFICATE, certificate.as_bytes()),
        (CHAIN, format!("{certificate}{root}").as_bytes()),
        (KEY, &key.to_pem().expect("PEM")),
    ] {
        fs::write(folder.path().join(name), content).expect("written");
    }
    folder
}

fn plugged() -> tempfile::TempDir {
    plugged_with(&PrivateKey::generate().expect("a key"))
}

#[test]
fn the_first_start_makes_a_root_and_the_next_one_keeps_it() {
    let parent = folder();
    let folder = parent.path().join("state/ca");
    let made = load(&folder).expect("made");
    assert_eq!(mode(&folder.join(KEY)), 0o600);
    assert_eq!(mode(&folder), 0o700);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    files.sort();
    assert_eq!(files, [KEY, ROOT]);

    fs::set_permissions(folder.join(KEY), Permissions::from_mode(0o644)).expect("set");
    let kept = load(&folder).expect("kept");
    assert_eq!(made.roots(), kept.roots());
    assert_eq!(made.key().public(), kept.key().public());
    assert_eq!(mode(&folder.join(KEY)), 0o600);
}

#[test]
fn an_operators_set_signs_chains_that_verify_up_to_its_root() {
    let rsa = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
    let rsa = rsa.private_key_to_pem_pkcs8().expect("PEM");
    for key in [PrivateKey::generate(), PrivateKey::from_pem(&rsa)] {
        let folder = plugged_with(&key.expect("a key"));
        let signer = load(folder.path()).expect("loaded");
        let web = Identity::new("cluster.local", "shop", "web");
        let certificate = signer
            .workload_certificate(&web, Duration::from_secs(3600), SystemTime::now())
            .expect("signed");
        assert_eq!(
            certificate.chain().count(),
            2,
            "leaf and intermediate, no root"
        );
        assert_eq!(certificate.roots().count(), 1);
    }
}

#[test]
fn an_incomplete_set_is_fatal_whatever_is_missing() {
    for name in [CERTIFICATE, KEY, ROOT, CHAIN] {
        let folder = plugged();
        fs::remove_file(folder.path().join(name)).expect("removed");
        let error = load(folder.path()).err().expect("incomplete").to_string();
        assert!(error.contains(&format!("no {name}")), "{error}");
    }
    for name in [KEY, ROOT] {
        let folder = folder();
        load(folder.path()).expect("made");
        fs::remove_file(folder.path().join(name)).expect("removed");
        let error = load(folder.path()).err().expect("incomplete").to_string();
        assert!(error.contains(&format!("no {name}")), "{error}");
        assert!(!folder.path().join(name).exists(), "nothing is made up");
    }
}

#[test]
fn half_a_file_a_foreign_key_or_a_foreign_root_is_fatal() {
    for name in [KEY, ROOT] {
        let folder = folder();
        load(folder.path()).expect("made");
        let path = folder.path().join(name);
        let whole = fs::read(&path).expect("read");
        fs::write(&path, &whole[..whole.len() / 2]).expect("written");
        assert!(
            matches!(load(folder.path()), Err(StoreError::Unusable { .. })),
            "{name}"
        );
        fs::write(&path, []).expect("written");
        assert!(
            matches!(load(folder.path()), Err(StoreError::Unusable { .. })),
            "{name}"
        );
    }
    let (ours, theirs) = (plugged(), plugged());
    for (name, reason) in [(KEY, "does not belong"), (ROOT, "does not verify")] {
        let kept = fs::read(ours.path().join(name)).expect("read");
        fs::copy(theirs.path().join(name), ours.path().join(name)).expect("copied");
        let error = load(ours.path()).err().expect("foreign").to_string();
        assert!(error.contains(reason), "{error}");
        fs::write(ours.path().join(name), kept).expect("written");
    }
    load(ours.path()).expect("as it was");
}

#[test]
fn a_leaf_or_an_expired_certificate_signs_nothing() {
    let folder = plugged();
    let later = SystemTime::now() + Duration::from_secs(21 * 86_400);
    let error = load_or_create(folder.path(), later)
        .err()
        .expect("expired")
        .to_string();
    assert!(error.contains("expired"), "{error}");

    let (own, leaf) = (load(folder.path()).expect("loaded"), PrivateKey::generate());
    let leaf = leaf.expect("a key");
    let subject = Subject::Workload(Identity::new("a", "b", "c"));
    let issued = own
        .issue(
            leaf.public(),
            &subject,
            Duration::from_secs(3600),
            SystemTime::now(),
        )
        .expect("signed");
    fs::write(folder.path().join(CERTIFICATE), &issued.chain[0]).expect("written");
    fs::write(folder.path().join(KEY), leaf.to_pem().expect("PEM")).expect("written");
    let error = load(folder.path()).err().expect("no CA").to_string();
    assert!(error.contains("no CA certificate"), "{error}");
}

#[test]
fn a_place_that_cant_be_written_is_one_clear_error() {
    let parent = folder();
    fs::write(parent.path().join("file"), "").expect("written");
    let error = load(&parent.path().join("file/ca"))
        .err()
        .expect("no folder");
    assert!(matches!(error, StoreError::Write { .. }), "{error}");
}

/// Runs itself again in a mount namespace of its own, where the state folder is on a disk without room.
#[test]
fn a_full_disk_is_one_clear_error_and_leaves_nothing_behind() {
    const DISK: &str = "WEFT_TEST_FULL_DISK";
    if let Ok(disk) = std::env::var(DISK) {
        let folder = Path::new(&disk).join("ca");
        let error = load(&folder).err().expect("no room").to_string();
        assert!(error.contains("ca-key.pem can't be written"), "{error}");
        assert!(error.contains("No space left on device"), "{error}");
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0);
        fs::remove_file(Path::new(&disk).join("ballast")).expect("removed");
        load(&folder).expect("there is room again");
        return;
    }
    let disk = folder();
    let script = r#"mount -t tmpfs -o size=16k none "$1" && head -c 16k /dev/zero > "$1/ballast" && exec "$2" --exact "$3""#;
    let name = "ca::store::tests::a_full_disk_is_one_clear_error_and_leaves_nothing_behind";
    let output = std::process::Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(disk.path())
        .arg(std::env::current_exe().expect("this test"))
        .arg(name)
        .env(DISK, disk.path())
        .output()
        .expect("unshare is installed");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}
