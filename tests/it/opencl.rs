//! Whole models on the first OpenCL device, against the CPU and the references.

use ortx::plan::Item;
use ortx::session::{Environment, ModelSource, Session, SessionOptions};
use ortx::{DType, Tensor, Value};
use std::path::Path;

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

/// Runs a model of one f32 input on the CPU and the device; the largest difference may be `tolerance`. Gives the number of
/// steps on the device, on the CPU, and of copies between them.
fn compare(path: &Path, shape: &[usize], tolerance: f32) -> [usize; 3] {
    let (cpu, device) = (session(path, &[]), session(path, &["opencl:0"]));
    assert_eq!(cpu.inputs()[0].fact.dtype(), Some(DType::F32));
    for seed in 0..2 {
        let x = random(shape, seed);
        let name = cpu.inputs()[0].name.clone();
        let run = |s: &Session| -> Vec<Value> { s.run(&[(&name, x.clone())]).expect("a run") };
        for (want, got) in run(&cpu).iter().zip(&run(&device)) {
            let (want, got) = (want.as_tensor().unwrap(), got.as_tensor().unwrap());
            assert_eq!(want.shape(), got.shape());
            let pairs = want.as_slice::<f32>().unwrap().iter().zip(got.as_slice::<f32>().unwrap());
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= tolerance, "the device is off by {worst}");
        }
    }
    let segment = device.program().first_segment(&[Value::Tensor(random(shape, 0))]).unwrap();
    let mut count = [0; 3];
    for item in &segment.items {
        match item {
            Item::Step(s) if s.space != 0 => count[0] += 1,
            Item::CopyIn { .. } | Item::CopyOut { .. } => count[2] += 1,
            _ => count[1] += 1,
        }
    }
    println!("{}: {} steps on the device, {} on the CPU, {} copies", path.display(), count[0], count[1], count[2]);
    count
}

#[test]
fn digits_stays_on_the_device() {
    if !has_device() {
        return;
    }
    // Probabilities; some hundred f32 roundings on the way.
    let [_, cpu, copies] = compare(Path::new("models/digits.onnx"), &[3, 1, 8, 8], 1e-5);
    assert_eq!((cpu, copies), (0, 2), "everything but the way in and out stays on the device");
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
    // Logits of size 1 after 53 convolutions of up to 4608 products.
    let [_, cpu, copies] = compare(&model, &[1, 3, 224, 224], 1e-3);
    assert_eq!((cpu, copies), (0, 2), "everything but the way in and out stays on the device");
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
    // `ocl` by itself would wait ten seconds for a driver to appear.
    assert!(start.elapsed().as_secs() < 5);
}
