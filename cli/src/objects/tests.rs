//! Edits of a folder: what they change, and what they leave alone.

use super::*;

const TWO: &str = "# The web.\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web, namespace: shop} # kept\n---\n# The client.\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: client, namespace: shop}\n";

fn folder() -> (tempfile::TempDir, Objects) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("two.yaml"), TWO).expect("written");
    let objects = Objects::read(folder.path().to_owned()).expect("read");
    (folder, objects)
}

fn account(name: &str) -> ObjectKey {
    ObjectKey::new(Kind::ServiceAccount, "shop", name)
}

fn input(text: &str) -> (Object, String) {
    Input::parse("input.yaml", text.as_bytes(), None)
        .expect("well formed")
        .objects
        .remove(0)
}

#[test]
fn replacing_one_object_leaves_the_others_text_alone() {
    let (folder, mut objects) = folder();
    let (object, text) = input(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: client, namespace: shop, labels: {a: b}}\n",
    );
    assert_eq!(
        objects.put(&object, &text).expect("put"),
        Change::Configured
    );
    assert_eq!(objects.put(&object, &text).expect("put"), Change::Unchanged);
    let file = std::fs::read_to_string(folder.path().join("two.yaml")).expect("file");
    assert!(file.starts_with("# The web.\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web, namespace: shop} # kept\n---\n"), "{file}");
    assert!(file.contains("labels: {a: b}"), "{file}");
}

#[test]
fn a_new_object_gets_a_file_of_its_own() {
    let (folder, mut objects) = folder();
    let (object, text) =
        input("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop} # a comment\n");
    assert_eq!(objects.put(&object, &text).expect("put"), Change::Created);
    let file = std::fs::read_to_string(folder.path().join("namespace.shop.yaml")).expect("file");
    assert_eq!(file, text);
    assert!(objects.get(&object.key()).is_some());
}

#[test]
fn removing_the_last_object_removes_the_file() {
    let (folder, mut objects) = folder();
    assert!(objects.remove(&account("web")).expect("removed"));
    let file = std::fs::read_to_string(folder.path().join("two.yaml")).expect("file");
    assert!(file.starts_with("# The client."), "{file}");
    assert!(objects.remove(&account("client")).expect("removed"));
    assert!(!folder.path().join("two.yaml").exists());
    assert!(!objects.remove(&account("client")).expect("nothing"));
}

#[test]
fn an_item_of_a_list_is_edited_alone() {
    let (folder, mut objects) = folder();
    std::fs::write(
        folder.path().join("list.yaml"),
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: one}\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: two}\n",
    )
    .expect("written");
    objects = Objects::read(objects.folder).expect("read");
    assert!(
        objects
            .remove(&ObjectKey::new(Kind::Namespace, "", "one"))
            .expect("removed")
    );
    assert!(
        objects
            .get(&ObjectKey::new(Kind::Namespace, "", "two"))
            .is_some()
    );
}

#[test]
fn the_namespace_given_fills_in_where_none_is_written() {
    let text = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web}\n";
    let input = Input::parse("i.yaml", text.as_bytes(), Some("shop")).expect("well formed");
    assert_eq!(input.objects[0].0.key(), account("web"));
    assert!(input.objects[0].1.contains("shop"));
}
