//! Whole models on the first OpenCL device, against the CPU and the references.

use ortx::plan::Timing;
use ortx::session::{Environment, ModelSource, RunOptions, Session, SessionOptions};
use ortx::{DType, Tensor, Value};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Whether there is a device; says so where there is none.
fn has_device() -> bool {
    let found = !Environment::new().devices().expect("listing devices").is_empty();
    if !found {
        println!("skipped: no OpenCL device");
    }
    found
}

fn session(path: &Path, devices: &[&str]) -> Session {
    let devices = devices.iter().map(|d| d.to_string()).collect();
    let options = SessionOptions { threads: 1, devices, ..SessionOptions::default() };
    Session::new(&Environment::new(), ModelSource::Path(path.into()), &options).expect("opening the model")
}

/// Evenly spread numbers in 0..1, the same in every run.
fn random(shape: &[usize], mut seed: u64) -> Tensor {
    let n: usize = shape.iter().product();
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as f32 / (1u64 << 24) as f32
    };
    Tensor::from_slice(shape, &(0..n).map(|_| next()).collect::<Vec<_>>()).unwrap()
}

/// What ran where: steps on the device, the names of those on the CPU, copies between them.
#[derive(Default)]
struct Places {
    device: usize,
    cpu: Vec<String>,
    copies: usize,
}

impl Places {
    /// Of the items that a run went through, those of inner graphs included.
    fn of(timings: &[Timing]) -> Places {
        let mut p = Places::default();
        for t in timings {
            match &*t.kernel {
                "copy_in" | "copy_out" => p.copies += 1,
                "control" => {}
                k if k.starts_with("cl_") => p.device += 1,
                k => p.cpu.push(format!("{} '{}' ({k})", t.op, t.node)),
            }
        }
        p
    }
}

/// Runs a model on the CPU and the device; the largest difference of an f32 output may be `tolerance`, others must be equal.
fn compare(path: &Path, inputs: &[(&str, Tensor)], tolerance: f32) -> Places {
    let (cpu, device) = (session(path, &[]), session(path, &["opencl:0"]));
    assert!(device.warnings().is_empty());
    let want = cpu.run(inputs).expect("a run on the CPU");
    let values: Vec<Value> = device
        .inputs()
        .iter()
        .map(|io| inputs.iter().find(|i| i.0 == &*io.name).expect("an input for each").1.clone().into())
        .collect();
    let mut got = vec![None; device.outputs().len()];
    let profile = Mutex::new(Vec::new());
    device.run_profiled(&values, &mut got, &RunOptions::default(), Some(&profile)).expect("a run on the device");
    for ((want, got), io) in want.iter().zip(&got).zip(device.outputs()) {
        let (want, got) = (want.as_tensor().unwrap(), got.as_ref().unwrap().as_tensor().unwrap());
        assert_eq!((want.shape(), want.dtype()), (got.shape(), got.dtype()));
        if want.dtype() != DType::F32 {
            assert_eq!(want.bytes(), got.bytes(), "{}", io.name);
            continue;
        }
        let pairs = want.as_slice::<f32>().unwrap().iter().zip(got.as_slice::<f32>().unwrap());
        let worst = pairs
            .map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() })
            .fold(0.0, |a: f32, b| if b > a || b.is_nan() { b } else { a });
        println!("{} {}: off by {worst}", path.display(), io.name);
        assert!(worst <= tolerance, "output '{}' of the device is off by {worst}", io.name);
    }
    let p = Places::of(&profile.into_inner().unwrap());
    println!("{}: {} steps on the device, {} copies, on the CPU: {:?}", path.display(), p.device, p.copies, p.cpu);
    p
}

#[track_caller]
fn assert_stays(p: &Places) {
    assert!(p.cpu.is_empty(), "on the CPU: {:?}", p.cpu);
    assert_eq!(p.copies, 2, "only the way in and out leaves the device");
}

/// A model of `tests/models.toml`, if it was fetched.
fn fetched(name: &str) -> Option<PathBuf> {
    let model = crate::cache::root().join("models").join(name).join("model.onnx");
    let found = model.is_file();
    if !found {
        println!("skipped: {} is not there (make data fetches it)", model.display());
    }
    (found && has_device()).then_some(model)
}

#[test]
fn digits_stays_on_the_device() {
    if !has_device() {
        return;
    }
    // Probabilities; some hundred f32 roundings on the way.
    assert_stays(&compare(Path::new("models/digits.onnx"), &[("image", random(&[3, 1, 8, 8], 0))], 1e-5));
}

#[test]
fn resnet50_stays_on_the_device() {
    let model =
        Path::new(&std::env::var("HOME").unwrap_or_default()).join(".cache/ortx-bench/models/resnet50/model.onnx");
    if !has_device() {
        return;
    }
    if !model.is_file() {
        println!("skipped: {} is not there (the benchmark's set-up makes it)", model.display());
        return;
    }
    let name = session(&model, &[]).inputs()[0].name.clone();
    // Logits of size 1 after 53 convolutions of up to 4608 products.
    assert_stays(&compare(&model, &[(&name, random(&[1, 3, 224, 224], 0))], 1e-3));
}

#[test]
fn ppocr_det_stays_on_the_device() {
    let Some(model) = fetched("ppocr_det") else { return };
    for (h, w) in [(96, 160), (64, 64)] {
        // Probabilities after a sigmoid, some 60 convolutions deep: what onnxruntime's own two ways differ by, and room.
        assert_stays(&compare(&model, &[("x", random(&[1, 3, h, w], 0))], 1e-4));
    }
}

#[test]
fn no_library_means_no_device() {
    // A process of its own, since the library is looked up once.
    let me = std::env::current_exe().unwrap();
    let out = std::process::Command::new(me)
        .args(["--exact", "opencl::lists_nothing", "--nocapture", "--ignored"])
        .env("ORTX_OPENCL_LIB", "/nonexistent/libOpenCL.so")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("devices: 0"), "{text}");
}

#[test]
#[ignore = "run by no_library_means_no_device"]
fn lists_nothing() {
    let start = std::time::Instant::now();
    let env = Environment::new();
    println!("devices: {}", env.devices().unwrap().len());
    assert!(env.device("opencl:0").is_err());
    // Preferred, it is passed over; required, it is an error.
    let preferred = session(Path::new("models/digits.onnx"), &["opencl:0"]);
    assert_eq!(preferred.warnings().len(), 1);
    assert!(preferred.run(&[("image", random(&[1, 1, 8, 8], 0))]).is_ok());
    let options = SessionOptions { devices: vec!["opencl!".into()], ..SessionOptions::default() };
    let e = Session::new(&env, ModelSource::Path("models/digits.onnx".into()), &options).err().unwrap();
    assert_eq!(e.kind(), ortx::ErrorKind::NotFound, "{e}");
    // `ocl` by itself would wait ten seconds for a driver to appear.
    assert!(start.elapsed().as_secs() < 5);
}
