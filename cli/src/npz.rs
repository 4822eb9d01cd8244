//! Several arrays in one file, as numpy's `savez` and `savez_compressed` write them.

use crate::fail::{Failure, Result};
use crate::npy::{self, Array};
use ortx::Tensor;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// All arrays of a file by name.
pub fn read(path: &Path) -> Result<BTreeMap<String, Array>> {
    let place = |e: String| Failure::new(format!("'{}': {e}", path.display()));
    let file = File::open(path).map_err(|e| place(e.to_string()))?;
    let mut zip = ZipArchive::new(BufReader::new(file)).map_err(|e| {
        let f = place(format!("it is no .npz file: {e}"));
        if path.extension().is_some_and(|x| x == "npy") {
            f.hint("one array is given with --input NAME=FILE.npy")
        } else {
            f
        }
    })?;
    let mut all = BTreeMap::new();
    for i in 0..zip.len() {
        let mut entry = zip.by_index(i).map_err(|e| place(e.to_string()))?;
        let name = entry.name().map_err(|e| place(e.to_string()))?.to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|e| place(format!("array '{name}': {e}")))?;
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_string();
        let array = npy::read(&bytes).map_err(|e| place(format!("array '{name}': {e}")))?;
        all.insert(name, array);
    }
    Ok(all)
}

/// Reads one array.
pub fn read_npy(path: &Path) -> Result<Array> {
    let place = |e: String| Failure::new(format!("'{}': {e}", path.display()));
    let bytes = std::fs::read(path).map_err(|e| place(e.to_string()))?;
    npy::read(&bytes).map_err(|e| {
        let f = place(e);
        if bytes.starts_with(b"PK") { f.hint("a file of several arrays is given with --npz FILE.npz") } else { f }
    })
}

/// Writes arrays by name. The file appears only when it is whole.
pub fn write(path: &Path, arrays: &[(String, &Tensor)], compress: bool) -> Result<()> {
    let place = |e: String| Failure::new(format!("'{}': {e}", path.display()));
    let mut partial = path.as_os_str().to_owned();
    partial.push(".part");
    let partial = Path::new(&partial);
    let write = || -> std::result::Result<(), String> {
        let mut zip = ZipWriter::new(BufWriter::new(File::create(partial).map_err(|e| e.to_string())?));
        let method = if compress { CompressionMethod::Deflated } else { CompressionMethod::Stored };
        for (name, t) in arrays {
            let bytes = npy::write(t).map_err(|e| format!("array '{name}': {e}"))?;
            let options = SimpleFileOptions::default()
                .compression_method(method)
                .large_file(bytes.len() as u64 > u64::from(u32::MAX) / 2);
            zip.start_file(format!("{name}.npy"), options).map_err(|e| format!("array '{name}': {e}"))?;
            zip.write_all(&bytes).map_err(|e| e.to_string())?;
        }
        let mut file = zip.finish().map_err(|e| e.to_string())?;
        file.flush().map_err(|e| e.to_string())
    };
    let done = write().and_then(|()| std::fs::rename(partial, path).map_err(|e| e.to_string()));
    done.map_err(|e| {
        let _ = std::fs::remove_file(partial);
        place(e)
    })
}
