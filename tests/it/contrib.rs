//! The operators that onnxruntime added, against its answers: `scripts/dump_contrib.py` makes the cases. `ORTX_CASE=name` runs those whose name has it.

use crate::{cache, values};

#[test]
fn contrib() {
    let Some(folder) = cache::folder(&format!("contrib/{:016x}", key()), "data") else { return };
    let rows = cache::index(&folder);
    let only = std::env::var("ORTX_CASE").unwrap_or_default();
    let rows: Vec<_> = rows.into_iter().filter(|r| r[0].contains(&only)).collect();
    let failed: Vec<String> = rows
        .iter()
        .filter_map(|r| {
            let (data, number) = (folder.join(&r[0]), |i: usize| r[i].parse::<f64>().unwrap());
            let result = values::check_model(&data.join("model.onnx"), &data, 1, number(1), number(2));
            result.err().map(|e| format!("{}: {e}", r[0]))
        })
        .collect();
    println!("contrib: {} of {} pass", rows.len() - failed.len(), rows.len());
    assert!(failed.is_empty(), "{} of {} cases fail:\n{}", failed.len(), rows.len(), failed.join("\n"));
}

/// The 64-bit FNV-1a hash of the files that hold the cases, as the script names the folder itself.
fn key() -> u64 {
    let mut files: Vec<_> = std::fs::read_dir("scripts/contrib").unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "py"));
    files.sort();
    let bytes = files.iter().flat_map(|p| std::fs::read(p).unwrap());
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}
