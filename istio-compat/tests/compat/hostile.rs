//! Whatever a file holds, reading it ends in objects or in reasons, never in a panic; and
//! whatever was read can be translated.

use std::fs;

use istio_compat::parse::{Parsed, Raw, parse};
use istio_compat::view::{Context, View};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::golden;

/// Snippets that change what YAML means.
const SPLINTERS: &[&str] = &[
    "&a ",
    "*a",
    "<<: *a",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "\n---\n",
    "\t",
    "\r\n",
    "null",
    "~",
    "\"",
    "'",
    "|\n",
    ">\n",
    "!!binary ",
    "!x ",
    "? ",
    "# ",
    "%YAML 1.2\n",
    "99999999999999999999",
    "-1",
    "0x1f",
    ".nan",
    "*",
    "\u{feff}",
    "\u{0}",
    "2026-01-01",
    "true",
];

#[derive(Clone, Debug)]
enum Edit {
    Insert(Index, &'static str),
    Delete(Index, usize),
    Copy(Index, Index, usize),
    Byte(Index, u8),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<Index>(), select(SPLINTERS)).prop_map(|(at, text)| Edit::Insert(at, text)),
        (any::<Index>(), 1..40usize).prop_map(|(at, length)| Edit::Delete(at, length)),
        (any::<Index>(), any::<Index>(), 1..60usize)
            .prop_map(|(from, to, length)| Edit::Copy(from, to, length)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Byte(at, byte)),
    ]
}

fn apply(edit: &Edit, content: &mut Vec<u8>) {
    let size = content.len() + 1;
    match edit {
        Edit::Insert(at, text) => {
            let at = at.index(size);
            content.splice(at..at, text.bytes());
        }
        Edit::Delete(at, length) => {
            let at = at.index(size);
            content.drain(at..(at + length).min(content.len()));
        }
        Edit::Copy(from, to, length) => {
            let from = from.index(size);
            let copy = content[from..(from + length).min(content.len())].to_vec();
            let to = to.index(size);
            content.splice(to..to, copy);
        }
        Edit::Byte(at, byte) => {
            let at = at.index(size);
            content.insert(at, *byte);
        }
    }
}

fn read_and_translate(content: &[u8]) {
    match parse("hostile.yaml", content, Raw::Keep) {
        Ok(Parsed { objects, .. }) => {
            let mut view = View::new(Context::default());
            for object in &objects {
                view.apply(&object.key(), Some(object));
            }
            for object in &objects {
                view.translate(&object.key());
                object.to_json(&[]);
            }
        }
        Err(rejected) => {
            assert!(!rejected.errors.is_empty());
            for error in rejected.errors {
                assert!(!error.message.is_empty());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn bytes_are_read_without_panic(content in vec(any::<u8>(), 0..400)) {
        read_and_translate(&content);
    }

    #[test]
    fn broken_files_are_read_without_panic(
        case in any::<Index>(),
        edits in vec(edit(), 1..8),
    ) {
        let cases = golden::cases();
        let path = case.get(&cases).join("in.yaml");
        let mut content = fs::read(path).expect("in.yaml is readable");
        for edit in &edits {
            apply(edit, &mut content);
        }
        read_and_translate(&content);
    }
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("- ", "")] {
        let text = format!("{}1{}", open.repeat(20_000), close.repeat(20_000));
        let rejected = parse("deep.yaml", text.as_bytes(), Raw::Drop).expect_err("too deep");
        assert!(!rejected.errors.is_empty());
    }
}
