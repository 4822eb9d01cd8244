//! Tensors whose bytes lie in files beside the model. A file is mapped once and shared; none outside the model's folder
//! is ever opened.

use super::{
    onnx::TensorProto,
    source::{Mode, Source},
};
use crate::{
    bail, ensure,
    error::{Context, Result},
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
    sync::Mutex,
};

/// Where a model's external data may come from. Shared by the threads that load it.
#[derive(Debug, Default)]
pub struct External {
    /// Folders, made canonical. Locations are relative to the first; what they lead to lies in one of them.
    roots: Vec<PathBuf>,
    mode: Mode,
    model: Option<Source>,
    /// By canonical path.
    files: Mutex<HashMap<PathBuf, Source>>,
    /// By location, as the model names it.
    given: HashMap<String, Source>,
}

/// Where a tensor says that its bytes are.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    location: &'a str,
    offset: u64,
    /// None: to the end of the file.
    length: Option<u64>,
}

impl External {
    /// For a model from memory without a folder: only what [`External::provide`] gives is found.
    pub fn none() -> Self {
        Self::default()
    }

    /// For the model file at `model`: its folder. If it is a link, also the folder of the file it leads to, since
    /// download caches keep a model and its data as links into one store.
    pub fn beside(model: &Path, mode: Mode) -> Result<Self> {
        let parent = |p: &Path| match p.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let mut roots = vec![canonical(&parent(model))?];
        let real = parent(&canonical(model)?);
        if real != roots[0] {
            roots.push(real);
        }
        Ok(External { roots, mode, ..Self::default() })
    }

    /// For a model from memory whose data files lie in `folder`.
    pub fn in_folder(folder: &Path, mode: Mode) -> Result<Self> {
        ensure!(folder.is_dir(), InvalidArgument, "'{}' is not a folder", folder.display());
        Ok(External { roots: vec![canonical(folder)?], mode, ..Self::default() })
    }

    /// Gives the contents of the file that the model calls `location`; no file is looked for then.
    pub fn provide(&mut self, location: impl Into<String>, bytes: Bytes) {
        self.given.insert(location.into(), Source::from_bytes(bytes));
    }

    /// The bytes of a tensor that says it keeps them elsewhere: a slice of the file's bytes.
    pub fn load(&self, tensor: &TensorProto) -> Result<Bytes> {
        let place = Place::of(tensor)?;
        self.slice(&place).context(|| format!("external data '{}'", place.location))
    }

    /// The model's own file, so that [`External::maps`] knows it.
    pub fn with_model(mut self, model: Source) -> Self {
        self.model = Some(model);
        self
    }

    /// Whether `part` is a part of a mapped file: the model's, or one that was loaded here.
    pub fn maps(&self, part: &[u8]) -> bool {
        self.model.as_ref().is_some_and(|m| m.maps(part)) || self.lock().values().any(|source| source.maps(part))
    }

    /// The files that tensors were loaded from, by canonical path, in order.
    pub fn files(&self) -> Vec<(PathBuf, Source)> {
        let mut all: Vec<_> = self.lock().iter().map(|(path, source)| (path.clone(), source.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn slice(&self, place: &Place) -> Result<Bytes> {
        let source = match self.given.get(place.location) {
            Some(source) => source.clone(),
            None => self.file(place.location)?,
        };
        let bytes = source.bytes();
        let len = bytes.len() as u64;
        let end = match place.length {
            Some(length) => place.offset.checked_add(length),
            None => Some(len.max(place.offset)),
        };
        let range = end.filter(|&end| end <= len).and_then(|end| {
            let (start, end) = (usize::try_from(place.offset).ok()?, usize::try_from(end).ok()?);
            Some(start..end)
        });
        match (range, place.length) {
            (Some(range), _) => Ok(bytes.slice(range)),
            (None, Some(n)) => {
                bail!(InvalidModel, "{n} bytes at offset {} are wanted, the file has {len}", place.offset)
            }
            (None, None) => bail!(InvalidModel, "offset {} is wanted, the file has {len} bytes", place.offset),
        }
    }

    fn file(&self, location: &str) -> Result<Source> {
        let Some(first) = self.roots.first() else {
            bail!(
                InvalidArgument,
                "the model was given as bytes and keeps tensors in files: name the folder that has them"
            );
        };
        let path = Path::new(location);
        ensure!(!location.is_empty(), InvalidModel, "the file's name is empty");
        ensure!(!location.contains('\0'), InvalidModel, "the file's name has a zero byte");
        for part in path.components() {
            match part {
                Component::Normal(_) | Component::CurDir => {}
                Component::ParentDir => bail!(InvalidModel, "'..' would lead out of the model's folder"),
                Component::RootDir | Component::Prefix(_) => {
                    bail!(InvalidModel, "an absolute path would lead out of the model's folder")
                }
            }
        }
        let real = canonical(&first.join(path))?;
        ensure!(
            self.roots.iter().any(|root| real.starts_with(root)),
            InvalidModel,
            "it is a link that leads out of the model's folder, to '{}'",
            real.display()
        );
        let mut files = self.lock();
        if let Some(source) = files.get(&real) {
            return Ok(source.clone());
        }
        let source = Source::open(&real, self.mode)?;
        files.insert(real, source.clone());
        Ok(source)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Source>> {
        // A thread that panicked left the map whole: entries go in complete.
        self.files.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn canonical(path: &Path) -> Result<PathBuf> {
    path.canonicalize().context(|| format!("'{}'", path.display()))
}

impl<'a> Place<'a> {
    fn of(tensor: &'a TensorProto) -> Result<Self> {
        let mut place = Place { location: "", offset: 0, length: None };
        let mut found = false;
        for entry in &tensor.external_data {
            let number = || match entry.value().trim().parse::<u64>() {
                Ok(n) => Ok(n),
                Err(_) => bail!(InvalidModel, "external data: {} '{}' is not a size", entry.key(), entry.value()),
            };
            match entry.key() {
                "location" => {
                    place.location = entry.value();
                    found = true;
                }
                "offset" => place.offset = number()?,
                "length" => place.length = Some(number()?),
                _ => {} // a checksum, or a writer's own
            }
        }
        ensure!(found, InvalidModel, "external data without a location");
        Ok(place)
    }
}

#[cfg(test)]
#[path = "external_tests.rs"]
mod tests;
