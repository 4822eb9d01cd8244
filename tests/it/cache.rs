//! Where the tests' data are: generated cases and real models, outside the clone.

use std::path::PathBuf;

/// `${ORTX_CACHE:-~/.cache/ortx}`, as the scripts have it.
pub fn root() -> PathBuf {
    match std::env::var_os("ORTX_CACHE") {
        Some(path) if !path.is_empty() => path.into(),
        _ => PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/ortx"),
    }
}

/// The folder `part` of the cache if it holds `index.tsv`. Where it doesn't, the test fails with the command that makes
/// it; with `ORTX_TEST_OFFLINE` set it is skipped instead.
pub fn folder(part: &str, target: &str) -> Option<PathBuf> {
    let folder = root().join(part);
    if folder.join("index.tsv").exists() {
        return Some(folder);
    }
    let missing = format!("{} is not there: run make {target} once (it needs the network)", folder.display());
    assert!(std::env::var_os("ORTX_TEST_OFFLINE").is_some(), "{missing}");
    println!("skipped: {missing}");
    None
}

/// The rows of `index.tsv` in `folder`, split at tabs.
pub fn index(folder: &std::path::Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(folder.join("index.tsv")).unwrap();
    let rows = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    rows.map(|l| l.split('\t').map(String::from).collect()).collect()
}
