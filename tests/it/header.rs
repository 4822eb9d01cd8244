//! `include/ortx.h` is what cbindgen makes of `src/capi/`, and libortx.so exports its functions and nothing else.
//! `ORTX_BLESS=1` writes the header and the symbol list anew.

use crate::hosts::library;
use std::path::PathBuf;
use std::process::Command;

/// The files that have something for the header, in its order.
const FILES: [&str; 14] = [
    "types",
    "info",
    "status",
    "pool",
    "environment",
    "options",
    "session",
    "optimize",
    "metadata",
    "memory",
    "value",
    "tensor",
    "run",
    "binding",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn generate() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for f in FILES {
        builder = builder.with_src(root().join(format!("src/capi/{f}.rs")));
    }
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    String::from_utf8(text).unwrap()
}

/// Compares a checked-in file with what it should be, or writes it.
fn compare(file: &str, want: &str) {
    let path = root().join(file);
    if std::env::var_os("ORTX_BLESS").is_some_and(|v| v == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, want).unwrap();
        return;
    }
    let have = std::fs::read_to_string(&path).unwrap_or_default();
    let line = have.lines().zip(want.lines()).position(|(a, b)| a != b).unwrap_or(have.lines().count());
    assert!(
        have == want,
        "{file} is out of date at line {} (should be: {:?}): run `make header` and look at what changed",
        line + 1,
        want.lines().nth(line)
    );
}

#[test]
fn the_header_is_up_to_date() {
    let text = generate();
    assert!(!text.contains("# Safety"), "a Safety section leaked into the header");
    compare("include/ortx.h", &text);
}

/// The functions that the header declares.
fn declared(header: &str) -> Vec<String> {
    let mut names: Vec<String> = header
        .lines()
        .filter(|l| !l.starts_with([' ', '/', '#']) && !l.starts_with("typedef"))
        .filter_map(|l| l.split_once('(').map(|(head, _)| head))
        .filter_map(|head| head.rsplit([' ', '*']).next())
        .filter(|n| n.starts_with("ortx_"))
        .map(String::from)
        .collect();
    names.sort();
    names
}

#[test]
fn the_library_exports_the_header_and_nothing_else() {
    let want = declared(&generate());
    assert!(want.len() > 60, "{want:?}");
    compare("tests/abi/symbols.txt", &(want.join("\n") + "\n"));
    let out = Command::new("nm").args(["-D", "--defined-only"]).arg(library()).output();
    let Ok(out) = out else {
        println!("skipped: no nm, so the library's exported symbols were not compared");
        return;
    };
    let text = String::from_utf8(out.stdout).unwrap();
    let mut have: Vec<&str> = text.lines().filter_map(|l| l.split_whitespace().nth(2)).collect();
    have.sort();
    assert_eq!(have, want, "exported by {}", library().display());
}

#[test]
fn every_function_is_documented_in_the_fixed_order() {
    let header = generate();
    for name in declared(&header) {
        let at = header.find(&format!("{name}(")).unwrap();
        let doc = &header[..at];
        let doc = &doc[doc.rfind("/**").unwrap()..];
        assert!(doc.trim_end().lines().count() >= 4, "{name} has no documentation");
        let sections = ["Parameters:", "Returns:", "Ownership:", "Thread safety:", "Errors:", "Since:"];
        let found: Vec<usize> = sections.iter().filter_map(|s| doc.find(s)).collect();
        assert!(found.is_sorted(), "{name}: the sections are out of order");
        for must in ["Thread safety:", "Since:"] {
            assert!(doc.contains(must), "{name} does not say '{must}'");
        }
        if header[..at].ends_with("ortx_status *") {
            assert!(doc.contains("Errors:"), "{name} does not say its errors");
            assert!(doc.contains("Parameters:"), "{name} does not say its parameters");
        }
    }
}
