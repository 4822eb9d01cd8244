//! Keeps optimised models in files.

use super::{Environment, ModelSource, SessionOptions};
use crate::backend::cpu::CpuBackend;
use crate::base::file;
use crate::error::{Context, Result};
use crate::export::{Exported, default_version, export, externalise, write};
use crate::import::import_to_keep;
use crate::ops;
use crate::optimize::{self, PassReport};
use crate::proto::external::External;
use crate::proto::onnx::ModelProto;
use crate::tensor::Tensor;
use std::io::Write;
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// Weights of so many bytes in all are kept in a file beside the model: a protobuf message holds no 2 GiB.
const MESSAGE: usize = 2_000_000_000;
/// Then those from this size on, each at the beginning of a page, as other readers like it.
const LARGE: usize = 1024;
pub(super) const PAGE: usize = 4096;

/// Writes a model as an ONNX file after the passes whose results ONNX's own operators can say; what they cannot (fused
/// epilogues, pointwise programs, attention over strided views) is made again, and quickly, when the file is loaded. Of
/// `options` those of the optimiser count. Weights of more than 2 GB in all go to `FILE.data` beside it.
///
/// # Errors
/// What opening a session meets; `Unsupported` with the nodes that ONNX has no operator for; `Io`.
pub fn write_optimized(
    env: &Environment,
    source: &ModelSource,
    options: &SessionOptions,
    path: &Path,
) -> Result<Vec<PassReport>> {
    let (model, external) = source.open(options.mode)?;
    let (mut exported, passes) = optimized(env, &model, &external, options).context(|| source.describe())?;
    let bytes = exported.weights.iter().map(|(_, t)| t.byte_len()).fold(0, usize::saturating_add);
    if bytes > MESSAGE {
        let mut beside = path.file_name().unwrap_or_default().to_os_string();
        beside.push(".data");
        let placed = externalise(&mut exported, &beside.to_string_lossy(), LARGE, PAGE)?;
        file::replace(&path.with_file_name(beside), |f| write_placed(f, &placed, &mut Xxh3::new()).map(drop))?;
    }
    file::replace(path, |f| write(exported, f))?;
    Ok(passes)
}

/// The model after the passes whose results ONNX can say.
pub(super) fn optimized(
    env: &Environment,
    model: &ModelProto,
    external: &External,
    options: &SessionOptions,
) -> Result<(Exported, Vec<PassReport>)> {
    let mut imported = import_to_keep(model, &env.registry, external)?;
    let cpu = CpuBackend::new(options.isa(), ops::cpu_bindings());
    let passes = match options.passes() {
        None => Vec::new(),
        Some(o) => {
            let onnx = Some(default_version(&imported.opsets));
            optimize::optimize(&mut imported.graph, &cpu, &*options.threads()?, &optimize::Options { onnx, ..o })?
        }
    };
    let exported = export(&imported.graph, &imported.defaults, &imported.opsets, model, &env.registry)?;
    Ok((exported, passes))
}

/// Writes tensors at their places, zeros between them; returns where the last one ends.
pub(super) fn write_placed(out: &mut dyn Write, placed: &[(usize, Tensor)], checksum: &mut Xxh3) -> Result<usize> {
    let mut at = 0;
    for (offset, t) in placed {
        pad(out, offset - at, checksum)?;
        out.write_all(t.bytes())?;
        checksum.update(t.bytes());
        at = offset + t.byte_len();
    }
    Ok(at)
}

/// Writes fewer than [`PAGE`] zeros.
pub(super) fn pad(out: &mut dyn Write, n: usize, checksum: &mut Xxh3) -> Result<()> {
    let zeros = &[0; PAGE][..n];
    out.write_all(zeros)?;
    checksum.update(zeros);
    Ok(())
}
