//! A worker for side-by-side benchmarks: loads a model, runs it on given inputs again and again, prints times and memory.
//!
//! `peer_worker MODEL IODIR THREADS WARMUP MIN_ITERS MAX_ITERS MAX_SECONDS [OUTDIR]`
//!
//! `IODIR/manifest.txt` has a line an input: name, numpy dtype, sizes with commas, offset and length in bytes in
//! `IODIR/data.bin` (raw, little-endian), all separated by tabs. With `OUTDIR`, the first run's outputs go there in the
//! same form. One line of JSON is printed: `load_ms`, `first_ms`, `times_ms`, `base_rss_kb`, `load_rss_kb`,
//! `peak_rss_kb`; or `error`, with exit code 3. `ORTX_DEVICE` names a device to prefer. `ORTX_API` has the values `session` and
//! `binding`: then the runs that are timed go through those functions of the C API, those before them through Rust's.

mod c;

use ortx::{DType, Environment, ModelSource, RunOptions, Session, SessionOptions, Tensor, Value};
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() {
    match work() {
        Ok(line) => println!("{line}"),
        Err(e) => {
            println!("{{\"error\": {}}}", quote(&e.to_string()));
            std::process::exit(3);
        }
    }
}

fn work() -> Result<String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, io, threads, warmup, min_iters, max_iters, max_seconds, rest @ ..] = &args[..] else {
        return Err("usage: peer_worker MODEL IODIR THREADS WARMUP MIN_ITERS MAX_ITERS MAX_SECONDS [OUTDIR]".into());
    };
    let (warmup, min_iters, max_iters): (usize, usize, usize) =
        (warmup.parse()?, min_iters.parse()?, max_iters.parse()?);
    let max_seconds: f64 = max_seconds.parse()?;
    let given = read_io(Path::new(io))?;
    let base = status_kb("VmRSS");

    let t = Instant::now();
    let options = SessionOptions {
        threads: threads.parse()?,
        devices: std::env::var("ORTX_DEVICE").into_iter().collect(),
        ..SessionOptions::default()
    };
    let session = Session::new(&Environment::new(), ModelSource::Path(model.into()), &options)?;
    let load_ms = ms(t);
    let load_rss = status_kb("VmRSS");

    let mut inputs = Vec::new();
    for io in session.inputs() {
        let found = given.iter().find(|(name, _)| **name == *io.name);
        inputs.push(Value::Tensor(found.ok_or_else(|| format!("no data for input '{}'", io.name))?.1.clone()));
    }
    let mut outputs: Vec<Option<Value>> = vec![None; session.outputs().len()];
    let run = |outputs: &mut Vec<Option<Value>>| -> Result<()> {
        Ok(session.run_values(&inputs, outputs, &RunOptions::default())?)
    };

    let t = Instant::now();
    run(&mut outputs)?;
    let first_ms = ms(t);
    if let Some(dir) = rest.first() {
        let names = session.outputs().iter().map(|o| &*o.name);
        write_io(Path::new(dir), names.zip(&outputs).filter_map(|(n, v)| Some((n, v.as_ref()?.as_tensor().ok()?))))?;
    }
    let call = match std::env::var("ORTX_API").as_deref() {
        Ok("session") => Some(c::Call::Session),
        Ok("binding") => Some(c::Call::Binding),
        Ok(other) => return Err(format!("ORTX_API is '{other}', neither 'session' nor 'binding'").into()),
        Err(_) => None,
    };
    let mut c_worker = call.map(|call| c::Worker::new(model, threads.parse()?, call)).transpose()?;
    if let Some(w) = &mut c_worker {
        w.set(&given)?;
    }
    // From here on the same outputs are written again in place.
    let mut run = || match &mut c_worker {
        Some(w) => w.run(),
        None => run(&mut outputs),
    };
    let start = Instant::now();
    for _ in 0..warmup {
        run()?;
        if start.elapsed().as_secs_f64() > max_seconds {
            break;
        }
    }
    let mut times = Vec::with_capacity(max_iters.min(1 << 20));
    let start = Instant::now();
    while times.len() < max_iters && (times.len() < min_iters || start.elapsed().as_secs_f64() < max_seconds) {
        let t = Instant::now();
        run()?;
        times.push(ms(t));
    }
    let times: Vec<String> = times.iter().map(|t| format!("{t:.5}")).collect();
    Ok(format!(
        "{{\"load_ms\": {load_ms:.3}, \"first_ms\": {first_ms:.3}, \"times_ms\": [{}], \"base_rss_kb\": {base}, \
         \"load_rss_kb\": {load_rss}, \"peak_rss_kb\": {}}}",
        times.join(","),
        status_kb("VmHWM")
    ))
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// numpy's names of the types that can stand in a manifest.
const DTYPES: [(&str, DType); 15] = [
    ("bool", DType::Bool),
    ("int8", DType::I8),
    ("int16", DType::I16),
    ("int32", DType::I32),
    ("int64", DType::I64),
    ("uint8", DType::U8),
    ("uint16", DType::U16),
    ("uint32", DType::U32),
    ("uint64", DType::U64),
    ("float16", DType::F16),
    ("bfloat16", DType::BF16),
    ("float32", DType::F32),
    ("float64", DType::F64),
    ("complex64", DType::C64),
    ("complex128", DType::C128),
];

fn read_io(dir: &Path) -> Result<Vec<(String, Tensor)>> {
    let manifest = fs::read_to_string(dir.join("manifest.txt"))?;
    let data = bytes::Bytes::from(fs::read(dir.join("data.bin"))?);
    let mut all = Vec::new();
    for line in manifest.lines().filter(|l| !l.is_empty()) {
        let [name, dtype, shape, offset, len] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(format!("manifest.txt: not five fields: {line:?}").into());
        };
        let found = DTYPES.iter().find(|d| d.0 == dtype);
        let dtype = found.ok_or_else(|| format!("manifest.txt: input '{name}' has the unknown type {dtype}"))?.1;
        let shape =
            shape.split(',').filter(|s| !s.is_empty()).map(str::parse).collect::<std::result::Result<Vec<_>, _>>()?;
        let (offset, len): (usize, usize) = (offset.parse()?, len.parse()?);
        let end = offset.checked_add(len).filter(|&e| e <= data.len());
        let end = end.ok_or_else(|| format!("data.bin ends before input '{name}' does"))?;
        all.push((name.to_string(), Tensor::from_bytes(dtype, &shape, data.slice(offset..end))?));
    }
    Ok(all)
}

fn write_io<'a>(dir: &Path, arrays: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Result<()> {
    fs::create_dir_all(dir)?;
    let (mut manifest, mut data) = (String::new(), Vec::new());
    for (name, t) in arrays {
        // Strings and types that numpy has not are left out.
        let Some((dtype, _)) = DTYPES.iter().find(|d| d.1 == t.dtype()) else { continue };
        let shape: Vec<String> = t.shape().iter().map(usize::to_string).collect();
        writeln!(manifest, "{name}\t{dtype}\t{}\t{}\t{}", shape.join(","), data.len(), t.bytes().len())?;
        data.extend_from_slice(t.bytes());
    }
    fs::write(dir.join("data.bin"), data)?;
    fs::write(dir.join("manifest.txt"), manifest)?;
    Ok(())
}

/// A number of kilobytes that the system keeps of this process; 0 where it does not.
fn status_kb(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with(key));
    line.and_then(|l| l.split_whitespace().nth(1)).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// A JSON string.
fn quote(s: &str) -> String {
    let mut q = String::from("\"");
    for c in s.chars() {
        match c {
            '"' | '\\' => q.extend(['\\', c]),
            c if u32::from(c) < 32 => q.push(' '),
            c => q.push(c),
        }
    }
    q.push('"');
    q
}
