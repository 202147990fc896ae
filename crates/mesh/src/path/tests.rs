//! Paths in every spelling, each to its one form or to its refusal.

use http::Method;
use proptest::prelude::*;

use super::PathError::{Character, Escape, Form, Fragment, HiddenDotSegment};
use super::PathNormalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None as Untouched};
use super::{PathError, PathNormalization, without_parameters};

const ALL: [PathNormalization; 4] = [Untouched, Base, MergeSlashes, DecodeAndMergeSlashes];

#[track_caller]
fn check(normalization: PathNormalization, path: &str, expected: Result<&str, PathError>) {
    let actual = normalization.path(path);
    assert_eq!(
        actual.as_deref().map_err(|error| *error),
        expected,
        "{normalization:?} of {path:?}"
    );
}

#[track_caller]
fn check_all(path: &str, expected: [Result<&str, PathError>; 4]) {
    for (normalization, expected) in ALL.into_iter().zip(expected) {
        check(normalization, path, expected);
    }
}

#[test]
fn each_option_makes_more_spellings_equal() {
    let table = [
        ("/", ["/", "/", "/", "/"]),
        ("/a/b", ["/a/b", "/a/b", "/a/b", "/a/b"]),
        ("/a/./b", ["/a/./b", "/a/b", "/a/b", "/a/b"]),
        ("/a/../b", ["/a/../b", "/b", "/b", "/b"]),
        ("/a/b/..", ["/a/b/..", "/a/", "/a/", "/a/"]),
        ("/a/b/.", ["/a/b/.", "/a/b/", "/a/b/", "/a/b/"]),
        ("/../../x", ["/../../x", "/x", "/x", "/x"]),
        ("/..", ["/..", "/", "/", "/"]),
        ("/...", ["/...", "/...", "/...", "/..."]),
        ("/.well-known", ["/.well-known"; 4]),
        ("/%41%2D%7e", ["/%41%2D%7e", "/A-~", "/A-~", "/A-~"]),
        ("/a%20b%3F", ["/a%20b%3F"; 4]),
        ("/a\\b", ["/a\\b", "/a/b", "/a/b", "/a/b"]),
        ("\\a", ["\\a", "/a", "/a", "/a"]),
        ("//a///b/", ["//a///b/", "//a///b/", "/a/b/", "/a/b/"]),
        ("/a//../b", ["/a//../b", "/a/b", "/a/b", "/a/b"]),
        (
            "/a%2Fb%5cc",
            ["/a%2Fb%5cc", "/a%2Fb%5cc", "/a%2Fb%5cc", "/a/b/c"],
        ),
        ("/%252e%252e/", ["/%252e%252e/"; 4]),
        ("/é", ["/é"; 4]),
        ("/a;x=1/b", ["/a;x=1/b"; 4]),
    ];
    for (path, expected) in table {
        check_all(path, expected.map(Ok));
    }
}

#[test]
fn what_no_path_may_contain_is_refused_by_every_option() {
    for path in ["/a b", "/a\tb", "/a\0", "/a\r\n", "/\u{7f}"] {
        check_all(path, [Err(Character); 4]);
    }
    for path in ["", "a", "a/b", "?x", ";/a", "%2fa"] {
        check_all(path, [Err(Form); 4]);
    }
}

#[test]
fn escapes_that_are_none_are_refused() {
    for path in [
        "/%", "/%2", "/%zz", "/%+1", "/%2%65", "/%é", "/%00", "/a%00b",
    ] {
        check(Untouched, path, Ok(path));
        check(Base, path, Err(Escape));
        check(DecodeAndMergeSlashes, path, Err(Escape));
    }
}

#[test]
fn cve_2019_9901_dot_segments_do_not_hide_a_path() {
    for path in ["/public/../admin", "/public/%2e%2E/admin", "/./admin"] {
        check(Base, path, Ok("/admin"));
    }
}

#[test]
fn cve_2020_8595_query_is_no_part_of_the_path() {
    let target = Base.target(&Method::GET, "/admin?x=/public").unwrap();
    assert_eq!((&*target.path, target.query), ("/admin", Some("x=/public")));
    let refused = Base.target(&Method::GET, "/admin#x");
    assert_eq!(refused, Err(Fragment));
}

#[test]
fn cve_2021_29492_escaped_slashes_do_not_hide_a_path() {
    for path in [
        "/public%2f..%2fadmin",
        "/public%5C..%5Cadmin",
        "/public/..%2Fadmin",
    ] {
        check(DecodeAndMergeSlashes, path, Ok("/admin"));
        check(Base, path, Err(HiddenDotSegment));
    }
}

#[test]
fn cve_2021_31920_slashes_do_not_hide_a_path() {
    check(MergeSlashes, "//admin", Ok("/admin"));
    for path in ["//admin", "/%2fadmin", "/%5cadmin", "\\admin", "/\\admin"] {
        check(DecodeAndMergeSlashes, path, Ok("/admin"));
    }
}

#[test]
fn cve_2021_39156_fragments_are_refused() {
    for normalization in ALL {
        for target in ["/admin#", "/a?b#c", "/#/admin", "http://h#x", "http://h/#"] {
            let refused = normalization.target(&Method::GET, target);
            assert_eq!(refused, Err(Fragment), "{target}");
        }
    }
}

#[test]
fn cve_2026_73551_73553_73511_parameters_hide_no_dot_segment() {
    for path in [
        "/public/..;/admin",
        "/public/..;x=y/admin",
        "/public/.;/admin",
        "/public/%2e%2e;/admin",
        "/public/..%3b/admin",
        "/public/..%3B%2fadmin",
        "/public/x%2f..;a%2fadmin",
        "/..;",
        "\\..;\\admin",
    ] {
        for normalization in [Base, MergeSlashes] {
            check(normalization, path, Err(HiddenDotSegment));
        }
        let decoded = DecodeAndMergeSlashes.path(path);
        assert_eq!(decoded, Err(HiddenDotSegment), "{path}");
    }
}

#[test]
fn parameters_can_be_seen_cut_off() {
    let table = [
        ("/admin", None),
        ("/admin;x=y", Some("/admin")),
        ("/a;b/c;d/", Some("/a/c/")),
        ("/;x/admin", Some("/admin")),
        ("/;", Some("/")),
        ("//a;", Some("//a")),
    ];
    for (path, expected) in table {
        assert_eq!(without_parameters(path).as_deref(), expected, "{path}");
    }
}

#[test]
fn targets_have_three_forms() {
    let get = |target| Base.target(&Method::GET, target);
    let absolute = get("HTTP://Example.org:80/a/../b?c").unwrap();
    assert_eq!(absolute.absolute, Some(("http", "Example.org:80")));
    assert_eq!((&*absolute.path, absolute.query), ("/b", Some("c")));
    assert_eq!(get("https://h").unwrap().path, "/");
    let empty = get("http://h?q").unwrap();
    assert_eq!((&*empty.path, empty.query), ("/", Some("q")));
    // RFC 9112 §3.2.4: an absolute URI without a path is `*` to OPTIONS.
    let options = |target| Base.target(&Method::OPTIONS, target);
    assert_eq!(options("*").unwrap().path, "*");
    assert_eq!(options("http://h").unwrap().path, "*");
    for refused in ["*", "ftp://h/", "host:80", "http://", "http:///x", "", "a"] {
        assert_eq!(get(refused), Err(Form), "{refused}");
    }
}

#[test]
fn a_normal_path_is_not_copied() {
    for path in ["/", "/a/b.c/d", "/a;b", "/a/b/"] {
        let normal = DecodeAndMergeSlashes.path(path).unwrap();
        assert!(matches!(normal, std::borrow::Cow::Borrowed(_)), "{path}");
    }
}

fn spellings() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "\\", ".", "..", "%2e", "%2F", "%5c", "%25", "%41", ";", "%3b", "a", "//", "é", "%",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #[test]
    fn normalizing_twice_is_normalizing_once(path in spellings()) {
        for normalization in ALL {
            if let Ok(once) = normalization.path(&path) {
                prop_assert_eq!(normalization.path(&once), Ok(once.clone()));
            }
        }
    }

    /// However a server reads what is forwarded, it climbs nowhere.
    #[test]
    fn no_reading_of_a_normal_path_has_dot_segments(path in spellings()) {
        for normalization in [Base, MergeSlashes, DecodeAndMergeSlashes] {
            let Ok(normal) = normalization.path(&path) else { continue };
            let read = normal
                .replace("%2F", "/").replace("%2f", "/").replace("%5C", "/").replace("%5c", "/")
                .replace("%3b", ";").replace("%3B", ";").replace('\\', "/");
            for segment in read.split('/') {
                let name = segment.split(';').next().unwrap();
                prop_assert!(name != "." && name != "..", "{} of {}", normal, path);
            }
            prop_assert!(normal.starts_with('/'));
        }
    }

    #[test]
    fn merged_paths_have_single_slashes(path in spellings()) {
        for normalization in [MergeSlashes, DecodeAndMergeSlashes] {
            if let Ok(normal) = normalization.path(&path) {
                prop_assert!(!normal.contains("//") && !normal.contains('\\'));
            }
        }
    }

    #[test]
    fn no_target_panics(target in "\\PC*") {
        for normalization in ALL {
            let _ = normalization.target(&Method::GET, &target);
            let _ = normalization.path(&target);
        }
    }
}
