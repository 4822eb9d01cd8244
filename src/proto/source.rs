//! A file's bytes, mapped or read.

use crate::{
    bail,
    base::alloc::Buffer,
    error::{Context, Result},
};
use bytes::Bytes;
use std::{fs::File, io::Read, path::Path};

/// How a file's bytes come into memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Mapped: pages are read when touched, shared between processes, and can be given back. Whoever shortens the file
    /// while it is mapped makes the process die of SIGBUS; whoever overwrites it changes the weights.
    #[default]
    Map,
    /// Read into memory at once: safe against later changes of the file.
    Read,
}

/// The bytes of a file, shared by clones.
#[derive(Clone, Debug)]
pub struct Source {
    bytes: Bytes,
    mapped: bool,
}

/// A `Buffer` that is all written.
struct Filled(Buffer);

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `read` wrote all of the buffer's bytes before it made this; nobody writes to them again.
        unsafe { std::slice::from_raw_parts(self.0.ptr(), self.0.len()) }
    }
}

impl Source {
    /// The bytes of the regular file at `path`; none if it is empty.
    pub fn open(path: &Path, mode: Mode) -> Result<Self> {
        Self::open_inner(path, mode).context(|| format!("'{}'", path.display()))
    }

    fn open_inner(path: &Path, mode: Mode) -> Result<Self> {
        // Before opening: to open a pipe would wait for its other end.
        let kind = std::fs::metadata(path)?.file_type();
        if kind.is_dir() {
            bail!(InvalidArgument, "this is a folder, where a file is wanted");
        }
        if !kind.is_file() {
            bail!(InvalidArgument, "this is not a regular file (a pipe or a device?)");
        }
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        let Ok(len) = usize::try_from(len) else {
            bail!(OutOfMemory, "its {len} bytes do not fit the address space");
        };
        if len == 0 {
            return Ok(Source { bytes: Bytes::new(), mapped: false });
        }
        match mode {
            Mode::Map => Self::map(&file),
            Mode::Read => Ok(Source { bytes: read(&mut file, len)?, mapped: false }),
        }
    }

    /// The bytes that an open file, which is not empty, has now.
    pub fn map(file: &File) -> Result<Self> {
        // SAFETY: the mapping is read-only. That nobody shortens or changes the file meanwhile is the caller's part, told
        // in `Mode::Map`; `Mode::Read` does without.
        let map = unsafe { memmap2::Mmap::map(file)? };
        Ok(Source { bytes: Bytes::from_owner(map), mapped: true })
    }

    /// Bytes that are in memory already.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Source { bytes, mapped: false }
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether `part` is a part of this file's mapping.
    pub fn maps(&self, part: &[u8]) -> bool {
        let (all, part) = (self.bytes.as_ptr_range(), part.as_ptr_range());
        self.mapped && all.start <= part.start && part.end <= all.end
    }
}

fn read(file: &mut File, len: usize) -> Result<Bytes> {
    let buffer = Buffer::zeroed(len)?;
    // SAFETY: the buffer has `len` initialised bytes, and this is the only reference to them.
    let all = unsafe { std::slice::from_raw_parts_mut(buffer.ptr(), len) };
    file.read_exact(all).context(|| "the file became shorter while it was read".to_string())?;
    Ok(Bytes::from_owner(Filled(buffer)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn temp(name: &str, contents: &[u8]) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("ortx-source-{}-{name}", std::process::id()));
        std::fs::write(&path, contents).unwrap();
        path
    }

    #[test]
    fn both_modes_give_the_bytes() {
        let contents: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
        let path = temp("modes", &contents);
        for mode in [Mode::Map, Mode::Read] {
            let source = Source::open(&path, mode).unwrap();
            assert_eq!(source.bytes().as_ref(), &contents[..]);
            let part = source.bytes().slice(100..15_000);
            assert_eq!(source.maps(&part), mode == Mode::Map);
            assert!(!source.maps(&contents));
            if source.maps(&part) {
                // SAFETY: just asked.
                unsafe { crate::base::pages::release(&part) };
            }
            assert_eq!(source.bytes().as_ref(), &contents[..], "released pages come back");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let empty = temp("empty", b"");
        assert!(Source::open(&empty, Mode::Map).unwrap().bytes().is_empty());
        std::fs::remove_file(&empty).unwrap();
        let e = Source::open(&empty, Mode::Read).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
        assert!(e.to_string().contains("empty"), "names the path: {e}");
        let e = Source::open(&std::env::temp_dir(), Mode::Map).unwrap_err();
        assert!(e.to_string().contains("folder"), "{e}");
        #[cfg(unix)]
        assert!(Source::open(Path::new("/dev/zero"), Mode::Read).unwrap_err().to_string().contains("regular"));
    }
}
