//! Optimised models in files: what is written is read again, and gives the answers of the model it was made of.

use crate::{conformance, models, values};
use ortx::kernels::isa::{Isa, Level};
use ortx::session::{Io, compile, inspect, write_optimized};
use ortx::{Environment, ErrorKind, ModelSource, RunOptions, Session, SessionOptions, Tensor, Value};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use xxhash_rust::xxh3::xxh3_64;

/// A folder of one test's own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ortx-keep-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn optimized(model: &Path, to: &Path) -> ortx::Result<()> {
    let source = ModelSource::Path(model.to_path_buf());
    write_optimized(&Environment::new(), &source, &SessionOptions::default(), to).map(drop)
}

#[test]
fn models_of_the_suite_as_optimised_onnx_files_give_the_same_answers() {
    let folder = Folder::new();
    let failures = conformance::failures(&|model| {
        let case = model.parent().and_then(Path::file_name).unwrap_or_default();
        let to = folder.0.join(case).with_extension("onnx");
        optimized(model, &to).map_err(|e| format!("{e:#}"))?;
        Ok(to)
    });
    // What the importer makes many operators of, or derives: ONNX has no one operator for each of them.
    let unsaid = |name: &str| name.contains("flexattention") || name.contains("gradient_of");
    let mut report: Vec<String> = Vec::new();
    for (name, e) in &failures {
        if !(unsaid(name) && e.contains("has no one operator for: node")) {
            report.push(format!("{name}: {e}"));
        }
    }
    report.sort();
    assert!(report.is_empty(), "{} cases:\n{}", report.len(), report.join("\n"));
}

#[test]
fn real_models_as_optimised_onnx_files_give_the_same_answers() {
    let folder = Folder::new();
    for name in ["ppocr_det", "ppocr_rec", "silero_vad", "minilm", "ddddocr_det", "logreg_iris", "melspectrogram"] {
        let Some(m) = models::find(name) else { continue };
        let to = folder.0.join(format!("{name}.onnx"));
        optimized(&m.model, &to).unwrap();
        values::check_model(&to, &m.data, m.sets, m.rtol, m.atol).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// The bytes of all outputs.
fn run(session: &Session, inputs: &[Value]) -> Vec<Vec<u8>> {
    let mut outputs = vec![None; session.outputs().len()];
    session.run_values(inputs, &mut outputs, &RunOptions::default()).unwrap();
    let bytes = |v: &Option<Value>| match v {
        Some(Value::Tensor(t)) => t.bytes().to_vec(),
        v => format!("{v:?}").into_bytes(),
    };
    outputs.iter().map(bytes).collect()
}

fn open(file: &Path, options: &SessionOptions) -> ortx::Result<Session> {
    Session::new(&Environment::new(), ModelSource::Path(file.to_path_buf()), options)
}

#[test]
fn compiled_models_give_the_same_answers_and_copy_no_weights() {
    let folder = Folder::new();
    for name in
        ["ppocr_det", "ppocr_rec", "ppocr_cls", "silero_vad", "minilm", "logreg_iris", "melspectrogram", "magika"]
    {
        let Some(m) = models::find(name) else { continue };
        let to = folder.0.join(format!("{name}.ortx"));
        let (env, options) = (Environment::new(), SessionOptions::default());
        let source = ModelSource::Path(m.model.clone());
        let (inputs, _) = values::read_set(&m.model, &m.data.join("test_data_set_0")).unwrap();
        let plain = open(&m.model, &options).unwrap();
        let shape = |(io, v): (&Io, &Value)| Some((io.name.to_string(), v.as_tensor().ok()?.shape().to_vec()));
        let shapes: Vec<_> = plain.inputs().iter().zip(&inputs).filter_map(shape).collect();
        assert!(compile(&env, &source, &options, &to, false, &shapes).unwrap(), "{name}");
        assert!(!compile(&env, &source, &options, &to, false, &shapes).unwrap(), "{name}: it is current");
        let compiled = open(&to, &options).unwrap();
        // Written in two steps, weights may be scaled in another order than at once: other roundings than the model itself.
        let onnx = folder.0.join(format!("{name}.onnx"));
        optimized(&m.model, &onnx).unwrap();
        let same = open(&onnx, &options).unwrap();
        assert!(run(&same, &inputs) == run(&compiled, &inputs), "{name}: other bits");
        run(&plain, &inputs);
        plain.trim();
        compiled.trim();
        let entries = compiled.program().target().cache.entries();
        let kept = entries.iter().filter(|e| e.is_kept()).count();
        let (all, own) = (plain.memory().0, compiled.memory().0);
        println!(
            "{name}: {kept} of {} packed constants are in the file; {all} bytes of memory, compiled {own}",
            entries.len()
        );
        // Passes that ONNX has no words for may still fold weights when the file is loaded; there are none such here.
        assert!(own <= all && (name != "minilm" || 2 * kept >= entries.len()), "{name}");
        for k in 0..m.sets {
            let data = m.data.join(format!("test_data_set_{k}"));
            values::check_set(&compiled, &m.model, &data, m.rtol, m.atol, None).unwrap_or_else(|e| panic!("{name}{e}"));
        }
    }
}

/// The digits model, compiled, in a folder of its own.
fn digits(folder: &Folder) -> (PathBuf, PathBuf) {
    let (model, to) = (folder.0.join("digits.onnx"), folder.0.join("digits.ortx"));
    std::fs::copy("models/digits.onnx", &model).unwrap();
    let source = ModelSource::Path(model.clone());
    assert!(compile(&Environment::new(), &source, &SessionOptions::default(), &to, false, &[]).unwrap());
    (model, to)
}

fn picture() -> [Value; 1] {
    let pixels: Vec<f32> = (0..64).map(|i| (i * 7 % 17) as f32 / 17.0).collect();
    [Value::Tensor(Tensor::from_slice(&[1, 1, 8, 8], &pixels).unwrap())]
}

#[test]
fn stale_and_foreign_compiled_models_are_refused_with_the_reason_and_rebuilt_when_asked() {
    let folder = Folder::new();
    let (model, to) = digits(&folder);
    let (env, options, source) = (Environment::new(), SessionOptions::default(), ModelSource::Path(model.clone()));
    let refused = |options: &SessionOptions, word: &str| {
        let e = compile(&env, &source, options, &to, false, &[]).unwrap_err();
        assert!(e.to_string().contains(word) && e.to_string().contains("digits.ortx"), "'{word}' is not in: {e}");
    };
    // Other instructions.
    let scalar = SessionOptions { isa: Some(Level::Scalar), ..SessionOptions::default() };
    if Isa::detect().level() != Level::Scalar {
        refused(&scalar, "instructions");
        let e = open(&to, &scalar).err().unwrap();
        assert!(e.kind() == ErrorKind::Unsupported && e.to_string().contains("scalar"), "{e}");
    }
    // Other passes.
    refused(&SessionOptions { optimize: false, ..SessionOptions::default() }, "no optimisation");
    // Touched, but the same; then another model.
    let contents = std::fs::read(&model).unwrap();
    std::fs::write(&model, &contents).unwrap();
    assert!(!compile(&env, &source, &options, &to, false, &[]).unwrap());
    let mut other = contents.clone();
    *other.last_mut().unwrap() ^= 1;
    std::fs::write(&model, &other).unwrap();
    refused(&options, "has changed");
    assert!(compile(&env, &source, &options, &to, true, &[]).unwrap());
    assert!(!compile(&env, &source, &options, &to, false, &[]).unwrap());
    std::fs::write(&model, &contents).unwrap();
    // Another library.
    let file = std::fs::read(&to).unwrap();
    let at = file.windows(9).position(|w| w == b"(kernels ").unwrap() + 9;
    let mut foreign = file.clone();
    foreign[at] = if foreign[at] == b'0' { b'1' } else { b'0' };
    std::fs::write(&to, sealed(foreign)).unwrap();
    refused(&options, "was made by ortx");
    assert!(open(&to, &options).err().unwrap().to_string().contains("was made by ortx"));
    // A session that keeps its model there makes it anew, says why, and finds it the next time.
    let keeping = SessionOptions { cache: Some(to.clone()), ..SessionOptions::default() };
    let session = open(&model, &keeping).unwrap();
    assert!(session.warnings().iter().any(|w| w.contains("was made by ortx")), "{:?}", session.warnings());
    let again = open(&model, &keeping).unwrap();
    assert!(again.warnings().is_empty(), "{:?}", again.warnings());
    let want = run(&open(&model, &options).unwrap(), &picture());
    for s in [&session, &again, &open(&to, &options).unwrap()] {
        assert_eq!(run(s, &picture()), want);
    }
    // Where it cannot be written there is a session all the same.
    let nowhere = SessionOptions { cache: Some(folder.0.join("no/such/folder.ortx")), ..SessionOptions::default() };
    let session = open(&model, &nowhere).unwrap();
    assert!(session.warnings().iter().any(|w| w.contains("not kept")), "{:?}", session.warnings());
    assert_eq!(run(&session, &picture()), want);
}

/// The file with the checksum that its index has now: what a forger would do.
fn sealed(mut file: Vec<u8>) -> Vec<u8> {
    let number = |at: usize| usize::try_from(u64::from_le_bytes(file[at..at + 8].try_into().unwrap())).unwrap();
    let sum = file.get(number(24)..).map_or(0, xxh3_64);
    file[40..48].copy_from_slice(&sum.to_le_bytes());
    file
}

#[test]
fn damaged_and_forged_compiled_models_are_refused_or_harmless() {
    let folder = Folder::new();
    let (_, to) = digits(&folder);
    let file = std::fs::read(&to).unwrap();
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let load = |bytes: Vec<u8>| Session::new(&Environment::new(), ModelSource::Bytes(bytes.into(), None), &options);
    let want = run(&load(file.clone()).unwrap(), &picture());
    for cut in [8, 9, 40, 100, 4096, file.len() / 2, file.len() - 1] {
        let e = load(file[..cut].to_vec()).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::InvalidModel, "cut at {cut}: {e}");
    }
    let index = u64::from_le_bytes(file[24..32].try_into().unwrap()) as usize;
    let flipped = |at: usize| {
        let mut f = file.clone();
        f[at] ^= 1 << (at % 8);
        f
    };
    for at in (8..48).chain((index..file.len()).step_by(37)) {
        assert!(load(flipped(at)).is_err(), "a flip at {at} went unseen");
    }
    // Weights are not read when the file is opened, but when it is inspected.
    let broken = ModelSource::Bytes(flipped(5000).into(), None);
    let seen = inspect(&Environment::new(), &broken, Default::default()).unwrap().fault.unwrap();
    assert!(seen.to_string().contains("weights are damaged"), "{seen}");
    let whole = ModelSource::Bytes(file.clone().into(), None);
    assert!(inspect(&Environment::new(), &whole, Default::default()).unwrap().fault.is_none());
    // Forged: anything may stand in the index. It is refused, or runs, whatever the answer.
    let (mut seed, mut ran) = (7u64, 0);
    let mut random = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % n
    };
    for _ in 0..600 {
        let mut forged = file.clone();
        for _ in 0..1 + random(3) {
            let at = index + random(file.len() - index);
            forged[at] = random(256) as u8;
        }
        if let Ok(session) = load(sealed(forged)) {
            let mut outputs = vec![None; session.outputs().len()];
            ran += usize::from(session.run_values(&picture(), &mut outputs, &RunOptions::default()).is_ok());
        }
    }
    println!("{ran} of 600 forgeries ran");
    assert_eq!(run(&load(file).unwrap(), &picture()), want);
}
