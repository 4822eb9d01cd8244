//! The operators that onnxruntime added, against its answers: `scripts/dump_contrib.py` makes the cases.

use crate::{cache, values};

#[test]
fn contrib() {
    let Some(folder) = cache::folder(&format!("contrib/{:016x}", key()), "data") else { return };
    let rows = cache::index(&folder);
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

/// The 64-bit FNV-1a hash of the script, as it names the folder itself.
fn key() -> u64 {
    let bytes = std::fs::read("scripts/dump_contrib.py").unwrap();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}
