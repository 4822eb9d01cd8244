//! Whole models on the first OpenCL device, against the CPU and the references.

use crate::{models, values};
use ortx::backend::Backend;
use ortx::backend::cpu::CpuBackend;
use ortx::base::parallel::Serial;
use ortx::ir::build::GraphBuilder;
use ortx::ir::{Fact, Graph};
use ortx::kernels::gemm::Activation;
use ortx::kernels::isa::Isa;
use ortx::kernels::pointwise::{ProgramBuilder, UnaryOp};
use ortx::ops::linear::MatMul;
use ortx::ops::pointwise::Pointwise;
use ortx::plan::{Program, RunCtx, Target, Timing};
use ortx::session::{Environment, ModelSource, RunOptions, Session, SessionOptions};
use ortx::{DType, Tensor, Value, ops};
use std::path::Path;
use std::sync::{Arc, Mutex};

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

/// Runs one set of a real model's data on the device, against onnxruntime's answers at the table's tolerances.
fn against_reference(name: &str, sets: &[usize]) -> Vec<Places> {
    if !has_device() {
        return Vec::new();
    }
    let Some(m) = models::find(name) else { return Vec::new() };
    let device = session(&m.model, &["opencl:0"]);
    let run = |k: &usize| {
        let profile = Mutex::new(Vec::new());
        let data = m.data.join(format!("test_data_set_{k}"));
        if let Err(e) = values::check_set(&device, &m.model, &data, m.rtol, m.atol, Some(&profile)) {
            panic!("{name} on the device, set {k}{e}");
        }
        let p = Places::of(&profile.into_inner().unwrap());
        println!("{name}: {} steps on the device, {} copies, on the CPU: {:?}", p.device, p.copies, p.cpu);
        p
    };
    sets.iter().map(run).collect()
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
    against_reference("ppocr_det", &[0, 1]).iter().for_each(assert_stays);
}

#[test]
fn minilm_keeps_its_products_on_the_device() {
    for p in against_reference("minilm", &[0, 1]) {
        // What is left to the CPU works on token numbers, not on what the network computes.
        let heavy =
            |c: &&String| ["MatMul", "Softmax", "LayerNorm", "Pointwise", "Transpose"].iter().any(|h| c.starts_with(h));
        assert_eq!(p.cpu.iter().filter(heavy).count(), 0, "{:?}", p.cpu);
    }
}

#[test]
fn silero_vad_keeps_its_convolutions_on_the_device() {
    for p in against_reference("silero_vad", &[0, 1]) {
        let heavy = |c: &&String| ["Conv", "MatMul", "Gemm"].iter().any(|h| c.starts_with(h));
        assert_eq!(p.cpu.iter().filter(heavy).count(), 0, "{:?}", p.cpu);
    }
}

/// A product with each activation that an epilogue knows, on both.
/// What a graph of one input makes of it on the processor, and on the device alone.
fn both(graph: Graph, x: Tensor) -> (Vec<f32>, Vec<f32>) {
    let graph = Arc::new(graph);
    let run = |devices: Vec<Arc<dyn Backend>>| {
        let cpu = Target::cpu(Arc::new(CpuBackend::new(Isa::detect(), ops::cpu_bindings())));
        let required = !devices.is_empty();
        let program = Program::new(graph.clone(), Arc::new(Target { devices, required, ..cpu })).unwrap();
        let mut out = [None];
        let cx = RunCtx { pool: &Serial, stop: Default::default(), profile: None };
        program.run(&cx, &[Value::Tensor(x.clone())], &mut out).expect("a run");
        out[0].take().unwrap().as_tensor().unwrap().as_slice::<f32>().unwrap().to_vec()
    };
    (run(Vec::new()), run(vec![Environment::new().device("opencl:0").expect("opening the device")]))
}

#[test]
fn programs_read_integers() {
    if !has_device() {
        return;
    }
    for dtype in [DType::Bool, DType::U8, DType::I8, DType::I32, DType::I64] {
        let mut p = ProgramBuilder::new(1);
        let x = p.load(0);
        let y = p.unary(UnaryOp::Neg, x);
        let op = Pointwise { program: p.finish(&[y]).unwrap(), dtypes: vec![DType::F32] };
        let mut b = GraphBuilder::new("program");
        let x = b.input("x", Fact::sized(dtype, &[3, 17]));
        let y = b.node("y", Arc::new(op), vec![Some(x)], &[Some("y")]).unwrap()[0].unwrap();
        let x = ops::case::random(dtype, &[3, 17], 0.0, 100.0, 5).unwrap();
        let (want, got) = both(b.finish(vec![y]).unwrap(), x);
        assert!(want == got && want.iter().any(|&x| x < 0.0), "{dtype}: {want:?} {got:?}");
    }
}

#[test]
fn products_and_convolutions_apply_every_activation() {
    if !has_device() {
        return;
    }
    let all = [
        Activation::None,
        Activation::Relu,
        Activation::Clip { min: -0.5, max: 0.75 },
        Activation::LeakyRelu { alpha: 0.1 },
        Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Activation::HardSwish,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Swish { alpha: 1.0 },
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Elu { alpha: 0.7 },
        Activation::Mish,
    ];
    let constant = |shape: &[usize], seed| {
        let t = random(shape, seed);
        let centred: Vec<f32> = t.as_slice::<f32>().unwrap().iter().map(|x| 2.0 * x - 1.0).collect();
        Tensor::from_slice(shape, &centred).unwrap()
    };
    for activation in all {
        let mut b = GraphBuilder::new("product");
        let x = b.input("x", Fact::sized(DType::F32, &[5, 12]));
        let (w, c) = (b.constant("w", constant(&[12, 9], 1)), b.constant("c", constant(&[9], 2)));
        let product = Arc::new(MatMul { activation, ..MatMul::default() });
        let y = b.node("product", product, vec![Some(x), Some(w), Some(c)], &[Some("y")]).unwrap()[0].unwrap();
        let (want, got) = both(b.finish(vec![y]).unwrap(), constant(&[5, 12], 3));
        // Sums of twelve products in -1..1, and a function of a few ulps.
        let close = want.iter().zip(&got).all(|(a, b)| (a - b).abs() <= 2e-6);
        assert!(close, "{activation:?}: {got:?} instead of {want:?}");
    }
}

#[test]
fn an_index_outside_its_axis_is_an_error_on_the_device_too() {
    if !has_device() {
        return;
    }
    let mut b = GraphBuilder::new("gather");
    let (x, i) = (b.input("x", Fact::sized(DType::F32, &[4, 3])), b.input("i", Fact::sized(DType::I64, &[2])));
    let gather = Arc::new(ops::movement::Gather { axis: 0 });
    let y = b.node("pick", gather, vec![Some(x), Some(i)], &[Some("y")]).unwrap()[0].unwrap();
    let cpu = Target::cpu(Arc::new(CpuBackend::new(Isa::detect(), ops::cpu_bindings())));
    let devices = vec![Environment::new().device("opencl:0").expect("opening the device")];
    let target = Arc::new(Target { devices, required: true, ..cpu });
    let program = Program::new(Arc::new(b.finish(vec![y]).unwrap()), target).unwrap();
    let run = |at: [i64; 2]| {
        let cx = RunCtx { pool: &Serial, stop: Default::default(), profile: None };
        let inputs = [random(&[4, 3], 0), Tensor::from_slice(&[2], &at).unwrap()].map(Value::Tensor);
        program.run(&cx, &inputs, &mut [None])
    };
    assert!(run([-4, 3]).is_ok());
    let e = run([1, 4]).unwrap_err();
    assert_eq!(e.kind(), ortx::ErrorKind::Run);
    assert!(e.to_string().contains("index 4"), "{e}");
    assert!(run([0, -5]).is_err());
    // The fault is told once.
    assert!(run([0, 1]).is_ok());
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
