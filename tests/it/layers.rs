//! A module imports only from the floors below it: `docs/architecture.md` lists them.

use std::fmt::Write;
use std::path::Path;

/// From the ground up. A module may use its own floor and those before it.
const FLOORS: [&str; 14] = [
    "error", "base", "tensor", "proto", "ir", "kernels", "backend", "ops", "import", "export", "optimize", "plan",
    "session", "capi",
];
/// What of the lowest floor stands at the crate's root.
const ROOT: [&str; 6] = ["Error", "ErrorKind", "Result", "bail", "ensure", "err"];
/// What the kernels may know: no tensor, no graph.
const KERNELS_MAY_USE: [&str; 3] = ["error", "base", "kernels"];

#[test]
fn no_module_imports_from_a_higher_floor() {
    let mut wrong = String::new();
    let mut files = 0;
    super::walk(Path::new("src"), &mut |path| {
        let name = path.strip_prefix("src").unwrap().to_str().unwrap().replace('\\', "/");
        if !name.ends_with(".rs") || name == "lib.rs" {
            return;
        }
        files += 1;
        let home = name.split('/').next().unwrap().trim_end_matches(".rs");
        let Some(floor) = FLOORS.iter().position(|f| *f == home) else {
            writeln!(wrong, "src/{name}: no floor is named {home}").unwrap();
            return;
        };
        for (line, used) in imports(&std::fs::read_to_string(path).unwrap()) {
            if ROOT.contains(&used.as_str()) {
                continue;
            }
            let allowed = match FLOORS.iter().position(|f| *f == used) {
                Some(other) if home == "kernels" => other <= floor && KERNELS_MAY_USE.contains(&used.as_str()),
                Some(other) => other <= floor,
                // A name that `lib.rs` re-exports hides which floor it comes from.
                None => false,
            };
            if !allowed {
                writeln!(wrong, "src/{name}:{line}: {home} uses crate::{used}").unwrap();
            }
        }
    });
    assert!(files > 10, "only {files} files were read");
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Each `crate::NAME` in a source text outside comments, with its line; `use crate::{a::.., b}` counts once a name.
fn imports(text: &str) -> Vec<(usize, String)> {
    let code: String = text.lines().map(|l| l.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` in a macro is a path that its user's crate resolves.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => found.push((line, std::mem::take(&mut word))),
                    c if depth == 0 => word.push(c),
                    _ => {}
                }
            }
            found.push((line, word));
        } else {
            found.push((line, rest.to_string()));
        }
    }
    let name = |s: String| s.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    found.into_iter().map(|(line, s)| (line, name(s))).filter(|(_, s)| !s.is_empty()).collect()
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::a::b; // crate::no\nuse crate::{b, c::{x, y}, d};\nfn f() { crate::e::g($crate::h) }";
    let found: Vec<String> = imports(text).into_iter().map(|(line, name)| format!("{line}{name}")).collect();
    assert_eq!(found, ["1a", "2b", "2c", "2d", "3e"]);
}

#[test]
fn files_stay_short_and_say_what_they_are() {
    let mut wrong = String::new();
    for root in ["src", "cli/src", "tests"] {
        super::walk(Path::new(root), &mut |path| {
            if path.extension().is_none_or(|e| e != "rs") {
                return;
            }
            let text = std::fs::read_to_string(path).unwrap();
            let lines = text.lines().count();
            if lines >= 600 {
                writeln!(wrong, "{}: {lines} lines", path.display()).unwrap();
            }
            if !text.starts_with("//!") {
                writeln!(wrong, "{}: does not begin with a //! line", path.display()).unwrap();
            }
        });
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
