//! Compiled models: an optimised graph, its weights, and what kernels made of them, in one file that is mapped and used
//! where it lies.
//!
//! ```text
//! header (a page)   magic, format, length of the file, place and checksum of the index
//! data              weights, packed constants; each at a multiple of 64
//! index             what made it and of what; the graph as an ONNX model whose weights lie in `data`; where the packs lie
//! ```
//!
//! Header and index are checked whenever the file is opened, whole, and the graph goes through the ordinary importer, so
//! nothing in the file is trusted. Weights and packs are numbers to kernels: their lengths are checked, their
//! checksum only by [`Compiled::verify`], since reading them all would be most of the time that loading takes.

use super::keep::{self, PAGE};
use super::{Environment, ModelSource, Session, SessionOptions};
use crate::backend::packed::Kept;
use crate::base::alloc::{ALIGN, round_up};
use crate::base::budget::Budget;
use crate::base::file;
use crate::error::{Context, Result};
use crate::export::{externalise, write};
use crate::kernels::isa::Isa;
use crate::proto::external::External;
use crate::proto::onnx::ModelProto;
use crate::proto::read;
use crate::proto::source::{Mode, Source};
use crate::{bail, ensure, err};
use bytes::Bytes;
use prost::Message;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// No ONNX model begins so: the first byte would be a field of number 17 and a type that it cannot have.
const MAGIC: [u8; 8] = *b"\x8bortx\r\n\x1a";
/// Of this very layout.
const FORMAT: u32 = 2;
/// What the index calls the file's own data.
const DATA: &str = "data";
/// Smaller weights stand in the index.
const LARGE: usize = 1024;

/// What makes packed constants: the library's version, and a checksum of the sources that say how they lie.
const LIBRARY: &str = concat!(env!("CARGO_PKG_VERSION"), " (kernels ", env!("ORTX_KERNELS"), ")");

/// Lists are flat, so that decoding takes little more memory than the index has bytes.
#[derive(Clone, PartialEq, Message)]
struct Index {
    #[prost(string, tag = "1")]
    library: String,
    #[prost(string, tag = "2")]
    isa: String,
    /// Those of the optimiser.
    #[prost(string, tag = "3")]
    options: String,
    /// A line a file: length, time of change, checksum, path from the model's folder.
    #[prost(string, tag = "4")]
    sources: String,
    #[prost(bytes = "bytes", tag = "5")]
    model: Bytes,
    /// Four numbers a pack: place and length of what it was made of, its own place and length.
    #[prost(uint64, repeated, tag = "6")]
    places: Vec<u64>,
    /// A line a pack.
    #[prost(string, tag = "7")]
    formats: String,
    #[prost(uint64, tag = "8")]
    checksum: u64,
}

/// An opened file.
pub(super) struct Compiled {
    index: Index,
    source: Source,
    data: Bytes,
}

impl Compiled {
    /// The compiled model that `source` is, if it is one.
    pub fn of(source: &ModelSource, mode: Mode) -> Result<Option<Compiled>> {
        match source {
            ModelSource::Path(p) => {
                // What else is wrong with the file is for the reader of models to say.
                if begins(p) { Compiled::open(Source::open(p, mode)?).map(Some) } else { Ok(None) }
            }
            ModelSource::Bytes(b, _) if b.starts_with(&MAGIC) => {
                Compiled::open(Source::from_bytes(b.clone())).map(Some)
            }
            ModelSource::Bytes(..) => Ok(None),
        }
    }

    fn open(source: Source) -> Result<Compiled> {
        let bytes = source.bytes();
        let number = |at: usize| {
            let field = bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
            field.ok_or_else(|| err!(InvalidModel, "the compiled model is cut off in its header"))
        };
        let format = number(8)?;
        ensure!(
            format == u64::from(FORMAT),
            Unsupported,
            "the compiled model has format {format}, this version of ortx reads {FORMAT}"
        );
        let (len, at, size, checksum) = (number(16)?, number(24)?, number(32)?, number(40)?);
        let there = bytes.len() as u64;
        ensure!(
            len == there,
            InvalidModel,
            "the compiled model has {there} bytes instead of {len}: it is cut off or damaged"
        );
        let whole = at >= PAGE as u64 && at.checked_add(size) == Some(len);
        ensure!(whole, InvalidModel, "the compiled model's header is damaged");
        // Both are at most `len`, which is a length in memory.
        let index = bytes.slice(at as usize..);
        ensure!(
            xxh3_64(&index) == checksum,
            InvalidModel,
            "the compiled model's index is damaged: its checksum differs"
        );
        let data = bytes.slice(PAGE..at as usize);
        let index =
            Index::decode(index).map_err(|e| err!(InvalidModel, "the compiled model's index is damaged: {e}"))?;
        Ok(Compiled { index, source, data })
    }

    /// The graph, and its weights.
    pub fn model(&self) -> Result<(ModelProto, External)> {
        let mut external = External::none().with_model(self.source.clone());
        external.provide(DATA, self.data.clone());
        Ok((read::open_bytes(self.index.model.clone())?, external))
    }

    /// Fails if this library on this machine cannot use what the kernels made.
    pub fn check(&self, isa: Isa) -> Result<()> {
        let (made, here) = (&self.index.library, LIBRARY);
        ensure!(made == here, Unsupported, "the compiled model was made by ortx {made}, this is {here}");
        let (made, here) = (&self.index.isa, isa.level().name());
        ensure!(
            made == here,
            Unsupported,
            "the compiled model was made for {made} instructions, this session uses {here}"
        );
        Ok(())
    }

    /// What the kernels made of the weights.
    pub fn kept(&self) -> Result<Kept> {
        let (places, rest) = self.index.places.as_chunks::<4>();
        let damaged = || err!(InvalidModel, "the compiled model's list of packed constants is damaged");
        let formats: Vec<&str> = self.index.formats.lines().collect();
        if !rest.is_empty() || formats.len() != places.len() {
            return Err(damaged());
        }
        let part = |at: u64, len: u64| -> Option<Bytes> {
            let (at, len) = (usize::try_from(at).ok()?, usize::try_from(len).ok()?);
            let end = at.checked_add(len).filter(|&e| e <= self.data.len())?;
            Some(self.data.slice(at..end))
        };
        let mut kept = Kept::with_capacity(places.len());
        for (&[from, len, at, size], format) in places.iter().zip(formats) {
            let (source, pack) = part(from, len).zip(part(at, size)).ok_or_else(damaged)?;
            kept.insert((source.as_ptr() as usize, source.len(), format.to_string()), pack);
        }
        Ok(kept)
    }

    /// Fails if it was not made of `source`, as that is now, with these options.
    fn is_current(&self, source: &ModelSource, options: &SessionOptions) -> Result<()> {
        let (made, now) = (&self.index.options, text_of(options));
        ensure!(*made == now, Unsupported, "the compiled model was made with {made}, this session wants {now}");
        let mut lines = self.index.sources.lines();
        let unreadable = || err!(InvalidModel, "the compiled model does not say what it was made of");
        let first = Stamp::parse(lines.next().ok_or_else(unreadable)?).ok_or_else(unreadable)?;
        let folder = match source {
            ModelSource::Path(p) => {
                ensure!(
                    p.file_name().is_some_and(|n| *n == *first.path),
                    Unsupported,
                    "the compiled model was made of '{}'",
                    first.path.display()
                );
                first.check(p)?;
                folder_of(p)
            }
            ModelSource::Bytes(b, folder) => {
                let same =
                    first.path.as_os_str().is_empty() && first.len == b.len() as u64 && first.checksum == xxh3_64(b);
                ensure!(same, Unsupported, "the compiled model was made of another model");
                folder.clone().unwrap_or_default()
            }
        };
        for line in lines {
            let stamp = Stamp::parse(line).ok_or_else(unreadable)?;
            stamp.check(&folder.join(&stamp.path))?;
        }
        Ok(())
    }

    /// Reads all weights and packed constants, and fails if they are damaged.
    pub fn verify(&self) -> Result<()> {
        let whole = xxh3_64(&self.data) == self.index.checksum;
        ensure!(whole, InvalidModel, "the compiled model's weights are damaged: their checksum differs");
        Ok(())
    }
}

/// Whether there is a file that begins as a compiled model.
fn begins(path: &Path) -> bool {
    let mut head = [0; MAGIC.len()];
    // Asked before opening: to open a pipe would wait for its other end.
    std::fs::metadata(path).is_ok_and(|m| m.is_file())
        && std::fs::File::open(path).is_ok_and(|mut f| f.read_exact(&mut head).is_ok())
        && head == MAGIC
}

/// A file as it was when a model was compiled.
struct Stamp {
    len: u64,
    changed: u128,
    checksum: u64,
    path: PathBuf,
}

impl Stamp {
    fn of(path: &Path, name: PathBuf, bytes: &[u8]) -> Result<Stamp> {
        Ok(Stamp { len: bytes.len() as u64, changed: changed(path)?, checksum: xxh3_64(bytes), path: name })
    }
    fn parse(line: &str) -> Option<Stamp> {
        let mut parts = line.splitn(4, ' ');
        let (len, changed, checksum) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
        let checksum = u64::from_str_radix(checksum, 16).ok()?;
        Some(Stamp { len, changed, checksum, path: PathBuf::from(parts.next()?) })
    }
    fn line(&self) -> Result<String> {
        let path = self.path.to_str().filter(|p| !p.contains(['\n', '\r']));
        let path = path.ok_or_else(|| err!(Unsupported, "a compiled model of a file whose name is no plain text"))?;
        Ok(format!("{} {} {:016x} {path}\n", self.len, self.changed, self.checksum))
    }
    /// Fails if the file is another one now. One of the same length that was only copied or touched is the same.
    fn check(&self, path: &Path) -> Result<()> {
        let now = std::fs::metadata(path)
            .context(|| format!("'{}', of which the compiled model was made", path.display()))?;
        let same = now.len() == self.len
            && (changed(path)? == self.changed || xxh3_64(Source::open(path, Mode::Map)?.bytes()) == self.checksum);
        ensure!(same, Unsupported, "'{}' has changed since the model was compiled", path.display());
        Ok(())
    }
}

/// When the file was changed last, in nanoseconds since 1970.
fn changed(path: &Path) -> Result<u128> {
    let time = std::fs::metadata(path)?.modified()?;
    Ok(time.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos()))
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The options that a compiled graph depends on.
fn text_of(options: &SessionOptions) -> String {
    match options.passes() {
        None => "no optimisation".into(),
        Some(o) => format!("all passes but {:?}, the last {:?}", o.disabled, o.stop_after),
    }
}

/// The compiled model in `path` if there is one, it can be used here, and it was made of `source` with these options.
/// `None` if there is no such file; an error that says why it is refused.
pub(super) fn current(path: &Path, source: &ModelSource, options: &SessionOptions) -> Result<Option<Compiled>> {
    let check = || -> Result<Option<Compiled>> {
        if !path.try_exists()? {
            return Ok(None);
        }
        let file = ModelSource::Path(path.to_path_buf());
        let Some(compiled) = Compiled::of(&file, options.mode)? else {
            bail!(InvalidModel, "this is no compiled model")
        };
        compiled.check(options.isa())?;
        compiled.is_current(source, options)?;
        Ok(Some(compiled))
    };
    check().context(|| format!("'{}'", path.display()))
}

/// Compiles a model into `path`, unless it holds the same, current, already. A file there that is stale, damaged or another
/// library's is refused, or with `rebuild` replaced. Weights are packed for the input sizes that the model tells, or `shapes`
/// by input, or else for a few that are guessed: what other sizes want in another form is packed when they come.
/// Returns whether it was written.
///
/// # Errors
/// What opening a session meets; `Unsupported` or `InvalidModel` with the reason for which the file is refused, or for
/// nodes that ONNX has no operator for; `InvalidArgument` for shapes of no input; `Io`.
pub fn compile(
    env: &Environment,
    source: &ModelSource,
    options: &SessionOptions,
    path: &Path,
    rebuild: bool,
    shapes: &[(String, Vec<usize>)],
) -> Result<bool> {
    if !rebuild && current(path, source, options)?.is_some() {
        return Ok(false);
    }
    build(env, source, options, path, shapes).map(|()| true)
}

/// The compiled model to open for `source`: itself, or the one in the options' cache, which is made if it must be. The texts
/// say why that was so, or why there is none.
pub(super) fn find(
    env: &Environment,
    source: &ModelSource,
    options: &SessionOptions,
) -> Result<(Option<Compiled>, Vec<String>)> {
    let mut warnings = Vec::new();
    if let Some(compiled) = Compiled::of(source, options.mode).context(|| source.describe())? {
        return Ok((Some(compiled), warnings));
    }
    let Some(path) = &options.cache else { return Ok((None, warnings)) };
    let old = if options.rebuild { Ok(None) } else { current(path, source, options) };
    let mut found = old.unwrap_or_else(|e| {
        warnings.push(format!("the compiled model is made anew: {e:#}"));
        None
    });
    if found.is_none() {
        let made = build(env, source, options, path, &[]).and_then(|()| current(path, source, options));
        found = made.unwrap_or_else(|e| {
            warnings.push(format!("the model is not kept compiled: {e:#}"));
            None
        });
    }
    Ok((found, warnings))
}

/// Compiles a model into `path`.
fn build(
    env: &Environment,
    source: &ModelSource,
    options: &SessionOptions,
    path: &Path,
    shapes: &[(String, Vec<usize>)],
) -> Result<()> {
    let (model, external) = source.open(options.mode)?;
    let (mut exported, _) = keep::optimized(env, &model, &external, options).context(|| source.describe())?;
    let mut index = Index {
        library: LIBRARY.into(),
        isa: options.isa().level().name().into(),
        options: text_of(options),
        sources: stamps(source, &external)?,
        ..Index::default()
    };
    drop((model, external));
    let placed = externalise(&mut exported, DATA, LARGE, ALIGN)?;
    let mut message = Vec::new();
    write(exported, &mut message)?;
    index.model = message.into();
    file::replace(path, |f| {
        let mut checksum = Xxh3::new();
        f.write_all(&[0; PAGE])?;
        let mut at = keep::write_placed(f, &placed, &mut checksum)?;
        drop(placed);
        f.flush()?;
        // The weights as they will be found: packed constants are known by the places of what they were made of.
        let source = Source::map(f.get_ref())?;
        let compiled =
            Compiled { data: source.bytes().slice(PAGE.min(source.bytes().len())..), index: index.clone(), source };
        let base = compiled.data.as_ptr() as usize;
        let session = Session::of_compiled(env, &compiled, options, Budget::new(None), Vec::new())?;
        session.plan_ahead(shapes)?;
        let mut entries = session.program().target().cache.entries();
        entries.sort_by_cached_key(|e| (e.source.identity(), e.format.clone()));
        // First what is made of weights, then what is made of that.
        let mut known: HashMap<usize, usize> = HashMap::new();
        let mut left = Vec::new();
        for round in 0..2 {
            for e in std::mem::take(&mut entries) {
                let from = e.source.identity();
                let inside = from.checked_sub(base).filter(|&o| o + e.source.byte_len() <= compiled.data.len());
                let (Some(from), Some(bytes)) = (inside.or_else(|| known.get(&from).copied()), e.bytes()) else {
                    left.push(e);
                    continue;
                };
                if e.format.contains(['\n', '\r']) {
                    continue;
                }
                let place = round_up(at, ALIGN);
                keep::pad(f, place - at, &mut checksum)?;
                f.write_all(bytes)?;
                checksum.update(bytes);
                at = place + bytes.len();
                known.extend(e.tensor().map(|t| (t.identity(), place)));
                index.places.extend([from, e.source.byte_len(), place, bytes.len()].map(|n| n as u64));
                writeln!(index.formats, "{}", e.format).map_err(|e| err!(Internal, "{e}"))?;
            }
            if round == 0 {
                entries = std::mem::take(&mut left);
            }
        }
        index.checksum = checksum.digest();
        let bytes = index.encode_to_vec();
        f.write_all(&bytes)?;
        f.seek(SeekFrom::Start(0))?;
        f.write_all(&MAGIC)?;
        let (begin, size) = (PAGE + at, bytes.len());
        for n in [u64::from(FORMAT), (begin + size) as u64, begin as u64, size as u64, xxh3_64(&bytes)] {
            f.write_all(&n.to_le_bytes())?;
        }
        Ok(())
    })
}

/// What the model was read from, a line a file.
fn stamps(source: &ModelSource, external: &External) -> Result<String> {
    let (mut lines, folder) = match source {
        ModelSource::Path(p) => {
            let name = PathBuf::from(p.file_name().unwrap_or_default());
            let own = Stamp::of(p, name, Source::open(p, Mode::Map)?.bytes())?;
            (own.line()?, folder_of(p))
        }
        ModelSource::Bytes(b, folder) => {
            let own = Stamp { len: b.len() as u64, changed: 0, checksum: xxh3_64(b), path: PathBuf::new() };
            (own.line()?, folder.clone().unwrap_or_default())
        }
    };
    // Canonical paths, as external files have them.
    let folder = folder.canonicalize().unwrap_or(folder);
    for (path, file) in external.files() {
        let name = path.strip_prefix(&folder).unwrap_or(&path).to_path_buf();
        lines += &Stamp::of(&path, name, file.bytes())?.line()?;
    }
    Ok(lines)
}
