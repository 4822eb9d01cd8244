//! Built programs: kept in the process, and as binaries on disk.
//!
//! An entry on disk is named by a hash of everything that it was made of, and carries that text itself, so that neither
//! a collision nor a damaged file is ever taken for a program. Entries live in `${ORTX_CACHE:-~/.cache/ortx}/opencl`.
//!
//! FPGAs take bitstreams made offline: `ORTX_OPENCL_DUMP=dir` writes each source as `<hash>.cl` (its options are in the
//! first line), and a `<hash>.bin`, `.aocx` or `.xclbin` in the folder `ORTX_OPENCL_BITSTREAMS` is used in its place.

use super::driver::{Context, DeviceInfo, Program};
use crate::base::file;
use crate::error::Result;
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

const MAGIC: &[u8; 8] = b"ortxcl\0\x01";

/// The programs of one device. Each is built once, however many threads ask.
pub struct ProgramCache {
    /// Device and driver, the part of the key that all programs share.
    target: String,
    built: Mutex<HashMap<u128, Slot>>,
    dir: Option<PathBuf>,
    bitstreams: Option<PathBuf>,
    dump: Option<PathBuf>,
}

type Slot = Arc<Mutex<Option<Arc<Program>>>>;

impl ProgramCache {
    /// The cache of a device, with its folders taken from the environment.
    pub fn new(device: &DeviceInfo) -> Self {
        let folder = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = || folder("HOME").map(|h| h.join(".cache").join("ortx"));
        Self::with_folders(
            device,
            folder("ORTX_CACHE").or_else(home).map(|d| d.join("opencl")),
            folder("ORTX_OPENCL_BITSTREAMS"),
            folder("ORTX_OPENCL_DUMP"),
        )
    }

    fn with_folders(
        device: &DeviceInfo,
        dir: Option<PathBuf>,
        bitstreams: Option<PathBuf>,
        dump: Option<PathBuf>,
    ) -> Self {
        let d = device;
        let target = format!("{}\n{}\n{}\n{}\n{}", d.platform, d.vendor, d.name, d.version, d.driver);
        ProgramCache { target, built: Mutex::default(), dir, bitstreams, dump }
    }

    /// The program of a source and its options.
    pub fn get(&self, context: &Context, source: &str, options: &str) -> Result<Arc<Program>> {
        let key = hash(&[source, options]);
        let slot = {
            let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(built.entry(key).or_default())
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = &*slot {
            return Ok(Arc::clone(program));
        }
        let program = Arc::new(self.make(context, key, source, options)?);
        *slot = Some(Arc::clone(&program));
        Ok(program)
    }

    fn make(&self, context: &Context, key: u128, source: &str, options: &str) -> Result<Program> {
        let name = format!("{key:032x}");
        if let Some(dump) = &self.dump {
            // What cannot be written is only not exported.
            let _ = write_entry(dump, &format!("{name}.cl"), &[format!("// {options}\n{source}").as_bytes()]);
        }
        for file in ["bin", "aocx", "xclbin"].into_iter().filter_map(|e| Some((self.bitstreams.as_ref()?, e))) {
            let path = file.0.join(format!("{name}.{}", file.1));
            if let Ok(binary) = fs::read(&path) {
                let place = |e: crate::Error| e.context(format!("bitstream {}", path.display()));
                return context.program_from_binary(&binary, options).map_err(place);
            }
        }
        let identity = format!("{}\n{options}\n{source}", self.target);
        let entry = format!("{:032x}.clbin", hash(&[&identity]));
        if let Some(program) = self.dir.as_deref().and_then(|d| read_entry(&d.join(&entry), &identity))
            && let Ok(program) = context.program_from_binary(&program, options)
        {
            return Ok(program);
        }
        let program = context.program(source, options)?;
        if let Some(dir) = &self.dir
            && let Ok(binary) = program.binary()
        {
            let length = (identity.len() as u64).to_le_bytes();
            let check = xxh3_128(&binary).to_le_bytes();
            // A cache that cannot be written costs the next process a build, and nothing else.
            let _ = write_entry(dir, &entry, &[MAGIC, &length, &check, identity.as_bytes(), &binary]);
        }
        Ok(program)
    }
}

/// The binary in an entry, if the entry is whole and belongs to `identity`.
fn read_entry(path: &Path, identity: &str) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let (check, rest) = rest.split_first_chunk::<16>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (text, binary) = rest.split_at_checked(length)?;
    let whole = magic == MAGIC && text == identity.as_bytes() && u128::from_le_bytes(*check) == xxh3_128(binary);
    let start = bytes.len() - binary.len();
    whole.then(|| bytes.split_off(start))
}

fn write_entry(dir: &Path, name: &str, parts: &[&[u8]]) -> Result<()> {
    fs::create_dir_all(dir)?;
    file::replace(&dir.join(name), |f| Ok(parts.iter().try_for_each(|p| f.write_all(p))?))
}

/// The hash of texts, each with its length, so that no two lists run into one. The same in every build of ortx, as names on
/// disk must be.
fn hash(texts: &[&str]) -> u128 {
    let mut hash = Xxh3::new();
    for t in texts {
        hash.update(&(t.len() as u64).to_le_bytes());
        hash.update(t.as_bytes());
    }
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::opencl::tests::device;

    const SOURCE: &str = "__kernel void one(__global float *x) { x[get_global_id(0)] = VALUE; }";

    /// A folder of this test's own, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ortx-cl-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Folder(path)
        }
        fn files(&self) -> Vec<PathBuf> {
            fs::read_dir(&self.0).map(|d| d.map(|e| e.unwrap().path()).collect()).unwrap_or_default()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn builds_once_and_keeps_binaries() {
        let Some(device) = device() else { return };
        let folder = Folder::new("entries");
        let cache = || ProgramCache::with_folders(&device.info, Some(folder.0.clone()), None, None);
        let first = cache();
        let a = first.get(&device.context, SOURCE, "-DVALUE=1").unwrap();
        let b = first.get(&device.context, SOURCE, "-DVALUE=1").unwrap();
        assert!(Arc::ptr_eq(&a, &b));
        let files = folder.files();
        assert_eq!(files.len(), 1, "one entry, and no temporary file: {files:?}");
        first.get(&device.context, SOURCE, "-DVALUE=2").unwrap();
        assert_eq!(folder.files().len(), 2, "other options, another entry");
        cache().get(&device.context, SOURCE, "-DVALUE=1").unwrap().kernel("one").unwrap();
    }

    #[test]
    fn rebuilds_damaged_entries() {
        let Some(device) = device() else { return };
        let folder = Folder::new("damaged");
        let get = || {
            let cache = ProgramCache::with_folders(&device.info, Some(folder.0.clone()), None, None);
            cache.get(&device.context, SOURCE, "-DVALUE=3").unwrap().kernel("one").unwrap();
        };
        get();
        let path = folder.files().remove(0);
        let whole = fs::read(&path).unwrap();
        let identity = |bytes: &[u8]| usize::try_from(u64::from_le_bytes(bytes[8..16].try_into().unwrap())).unwrap();
        let text = String::from_utf8(whole[32..32 + identity(&whole)].to_vec()).unwrap();
        assert!(read_entry(&path, &text).is_some());
        assert!(read_entry(&path, "another program").is_none());
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let mut long = whole.clone();
        long[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        for damaged in [&whole[..whole.len() - 1], &whole[..20], &[], &flipped, &long] {
            fs::write(&path, damaged).unwrap();
            assert!(read_entry(&path, &text).is_none());
            get();
            assert!(read_entry(&path, &text).is_some(), "the entry was not written anew");
        }
    }

    #[test]
    fn exports_sources_and_takes_bitstreams() {
        let Some(device) = device() else { return };
        let (dump, streams) = (Folder::new("dump"), Folder::new("streams"));
        let cache = ProgramCache::with_folders(&device.info, None, None, Some(dump.0.clone()));
        let program = cache.get(&device.context, SOURCE, "-DVALUE=4").unwrap();
        let exported = dump.files().remove(0);
        let text = fs::read_to_string(&exported).unwrap();
        assert_eq!(text, format!("// -DVALUE=4\n{SOURCE}"));

        fs::create_dir_all(&streams.0).unwrap();
        let stream = streams.0.join(exported.file_stem().unwrap()).with_extension("xclbin");
        fs::write(&stream, program.binary().unwrap()).unwrap();
        let offline = || ProgramCache::with_folders(&device.info, None, Some(streams.0.clone()), None);
        offline().get(&device.context, SOURCE, "-DVALUE=4").unwrap().kernel("one").unwrap();
        fs::write(&stream, b"no bitstream").unwrap();
        let error = offline().get(&device.context, SOURCE, "-DVALUE=4").err().expect("a broken bitstream is an error");
        assert!(error.to_string().contains("bitstream"), "{error}");
    }

    #[test]
    fn a_build_error_carries_the_log() {
        let Some(device) = device() else { return };
        let error = device.context.program("__kernel void f() { undeclared = 1; }", "").err().expect("a build error");
        assert_eq!(error.kind(), crate::ErrorKind::Device);
        assert!(error.to_string().contains("undeclared"), "{error}");
    }
}
