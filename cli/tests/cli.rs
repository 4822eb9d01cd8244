//! The command, as people and scripts call it.

use ortx::proto::onnx::*;
use prost::Message;
use serde_json::Value;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/digits.onnx");

/// An empty folder of the test's own.
fn folder(test: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn ortx(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ortx")).args(args).env_remove("CLICOLOR_FORCE").output().unwrap()
}

fn stdout(o: &Output) -> String {
    String::from_utf8(o.stdout.clone()).unwrap()
}

fn stderr(o: &Output) -> String {
    String::from_utf8(o.stderr.clone()).unwrap()
}

/// The output of a call that must go well.
fn good(args: &[&str]) -> String {
    let o = ortx(args);
    assert!(o.status.success(), "{args:?}: {}", stderr(&o));
    stdout(&o)
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&good(args)).unwrap()
}

/// What a call that must fail with this code says.
fn bad(code: i32, args: &[&str]) -> String {
    let o = ortx(args);
    assert_eq!(o.status.code(), Some(code), "{args:?}: {}{}", stdout(&o), stderr(&o));
    stderr(&o)
}

/// A float32 `.npy` file in row-major order.
fn npy(shape: &str, data: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut f = b"\x93NUMPY\x01\x00".to_vec();
    f.extend_from_slice(&(header.len() as u16).to_le_bytes());
    f.extend_from_slice(header.as_bytes());
    data.iter().for_each(|x| f.extend_from_slice(&x.to_le_bytes()));
    f
}

fn stroke() -> Vec<f32> {
    (0..64).map(|i| if i % 8 == 3 || i % 8 == 4 { 1.0 } else { 0.0 }).collect()
}

fn node(op: &str, name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let own = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
    NodeProto {
        op_type: Some(op.into()),
        name: Some(name.into()),
        input: own(inputs),
        output: own(outputs),
        ..Default::default()
    }
}

/// A float tensor of axes that are numbers or names.
fn value(name: &str, dims: &[&str]) -> ValueInfoProto {
    use tensor_shape_proto::dimension::Value as D;
    let dim = |d: &&str| tensor_shape_proto::Dimension {
        value: Some(d.parse().map_or_else(|_| D::DimParam(d.to_string()), D::DimValue)),
        ..Default::default()
    };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let ty = type_proto::Value::TensorType(type_proto::Tensor { elem_type: Some(1), shape });
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto { value: Some(ty), ..Default::default() }),
        ..Default::default()
    }
}

fn save(path: &Path, nodes: Vec<NodeProto>, inputs: Vec<ValueInfoProto>, outputs: Vec<ValueInfoProto>) {
    let graph =
        GraphProto { name: Some("g".into()), node: nodes, input: inputs, output: outputs, ..Default::default() };
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
    let model = ModelProto { ir_version: Some(8), opset_import: vec![opset], graph: Some(graph), ..Default::default() };
    std::fs::write(path, model.encode_to_vec()).unwrap();
}

#[test]
fn run_takes_arrays_and_saves_arrays() {
    let dir = folder("run");
    let (input, inputs, out) = (dir.join("image.npy"), dir.join("in.npz"), dir.join("out.npz"));
    let bytes = npy("(1, 1, 8, 8)", &stroke());
    std::fs::write(&input, &bytes).unwrap();
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&inputs).unwrap());
    zip.start_file("image.npy", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&bytes).unwrap();
    zip.finish().unwrap();

    let (input, inputs, out) =
        (format!("image={}", input.display()), inputs.display().to_string(), out.display().to_string());
    let a = json(&["run", DIGITS, "--input", &input, "--json"]);
    let b = json(&["run", DIGITS, "--npz", &inputs, "--out", &out, "--compress", "--json"]);
    assert_eq!(a["outputs"], b["outputs"]);
    let o = &a["outputs"][0];
    assert_eq!(
        (&o["name"], &o["dtype"], &o["shape"]),
        (&"probabilities".into(), &"float".into(), &Value::from(vec![1, 10]))
    );
    let p: Vec<f64> = o["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let best = (0..10).max_by(|&i, &j| p[i].total_cmp(&p[j]));
    assert_eq!((p.len(), best), (10, Some(1)), "a stroke is a one");

    let mut zip = zip::ZipArchive::new(std::fs::File::open(&out).unwrap()).unwrap();
    let mut saved = Vec::new();
    zip.by_name("probabilities.npy").unwrap().read_to_end(&mut saved).unwrap();
    let header = 10 + u16::from_le_bytes([saved[8], saved[9]]) as usize;
    assert!(
        String::from_utf8_lossy(&saved[..header]).contains("'descr': '<f4', 'fortran_order': False, 'shape': (1, 10)")
    );
    let values: Vec<f32> = saved[header..].chunks(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
    let p: Vec<f32> = p.iter().map(|&x| x as f32).collect();
    assert_eq!(values, p);
    assert!(!Path::new(&format!("{out}.part")).exists());
}

#[test]
fn run_compares_with_test_data() {
    let dir = folder("data");
    let tensor = |dims: &[i64], data: Vec<f32>| TensorProto {
        data_type: Some(1),
        dims: dims.to_vec(),
        float_data: data,
        ..Default::default()
    };
    std::fs::write(dir.join("input_0.pb"), tensor(&[1, 1, 8, 8], stroke()).encode_to_vec()).unwrap();
    let path = dir.display().to_string();
    let call = || json(&["run", DIGITS, "--test-data", &path, "--json"])["outputs"][0].clone();
    let first = call();
    assert_eq!(first["difference"], Value::Null);
    let mut p: Vec<f32> = first["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
    p[3] += 0.25;
    std::fs::write(dir.join("output_0.pb"), tensor(&[1, 10], p.clone()).encode_to_vec()).unwrap();
    let d = call()["difference"].as_f64().unwrap();
    assert!((d - 0.25).abs() < 1e-6, "{d}");
    assert!(good(&["run", DIGITS, "--test-data", &path]).contains("0.2500"));
    std::fs::write(dir.join("output_0.pb"), tensor(&[10], p).encode_to_vec()).unwrap();
    assert_eq!(call()["difference"], "float[10] is expected");
    std::fs::remove_file(dir.join("input_0.pb")).unwrap();
    bad(1, &["run", DIGITS, "--test-data", &path]);
}

#[test]
fn run_makes_inputs_up_the_same_each_time() {
    let values = |args: &[&str]| json(&[&["run", DIGITS, "--random", "--json"], args].concat())["outputs"].clone();
    let one = values(&["--shape", "image=3,1,8,8"]);
    assert_eq!(one[0]["shape"], Value::from(vec![3, 10]));
    assert_eq!(one, values(&["--dim", "N=3", "--threads", "1"]), "neither threads nor the way to say a size matter");
    assert_ne!(one, values(&["--shape", "3,1,8,8", "--seed", "1"]));
    let text = good(&["run", DIGITS, "--random"]);
    assert!(text.contains("probabilities") && text.contains("float[1, 10]") && !text.contains('\x1b'), "{text}");
}

#[test]
fn run_says_what_is_wrong_and_what_to_do() {
    let dir = folder("errors");
    let e = bad(1, &["run", DIGITS]);
    assert!(e.contains("input is missing: 'image' (float[N,1,8,8])") && e.contains("--random"), "{e}");
    let e = bad(14, &["run", "/nowhere/model.onnx", "--random"]);
    assert!(e.contains("/nowhere/model.onnx"), "{e}");
    let e = bad(12, &["run", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "--random"]);
    assert!(e.contains("error:"), "{e}");
    let file = dir.join("flat.npy");
    std::fs::write(&file, npy("(64,)", &stroke())).unwrap();
    let arg = format!("image={}", file.display());
    let e = bad(11, &["run", DIGITS, "--input", &arg]);
    assert!(e.contains("input 'image'") && e.contains("hint:"), "{e}");
    let e = bad(1, &["run", DIGITS, "--input", &arg, "--input", &arg.replace("image=", "picture=")]);
    assert!(e.contains("image"), "{e}");
    let e = bad(1, &["run", DIGITS, "--npz", &file.display().to_string()]);
    assert!(e.contains("no .npz") && e.contains("--input"), "{e}");
    bad(1, &["run", DIGITS, "--random", "--dim", "M=2"]);
    bad(2, &["run", DIGITS, "--isa", "sse9"]);
    bad(2, &["walk", DIGITS]);
    let e = bad(14, &["run", DIGITS, "--random", "--device", "abacus:0!"]);
    assert!(e.contains("abacus:0") && e.contains("ortx devices"), "{e}");

    let o = ortx(&["run", "/nowhere/model.onnx", "--random", "--json"]);
    let v: Value = serde_json::from_slice(&o.stdout).unwrap();
    assert_eq!((&v["error"]["kind"], &v["error"]["code"]), (&"not found".into(), &14.into()));
}

#[test]
fn open_sizes_are_asked_for() {
    let dir = folder("open");
    let model = dir.join("m.onnx");
    let (x, y) = (value("x", &["batch", "length", "4"]), value("y", &["batch", "length", "4"]));
    save(&model, vec![node("Identity", "copy", &["x"], &["y"])], vec![x], vec![y]);
    let model = model.display().to_string();
    let e = bad(1, &["run", &model, "--random"]);
    assert!(e.contains("--dim batch=N --dim length=N") && e.contains("--shape x=N,N,4"), "{e}");
    let v = json(&["run", &model, "--random", "--dim", "length=2", "--json"]);
    assert_eq!(v["outputs"][0]["shape"], Value::from(vec![1, 2, 4]));
    let v = json(&["run", &model, "--random", "--shape", "1,2,4", "--range", "5..6", "--json"]);
    assert!(v["outputs"][0]["min"].as_f64() >= Some(5.0) && v["outputs"][0]["max"].as_f64() <= Some(6.0));
}

#[test]
fn inspect_describes_a_model() {
    let v = json(&["inspect", DIGITS, "--check", "--json"]);
    assert_eq!(v["support"]["supported"], true);
    assert_eq!(v["inputs"][0]["shape"], serde_json::json!(["N", 1, 8, 8]));
    assert_eq!((&v["outputs"][0]["name"], &v["outputs"][0]["dtype"]), (&"probabilities".into(), &"float".into()));
    let convs = v["operators"].as_array().unwrap().iter().find(|o| o["op"] == "Conv").unwrap();
    assert_eq!((&convs["nodes"], &convs["supported"]), (&2.into(), &true.into()));
    let floats = v["parameters"].as_array().unwrap().iter().find(|w| w["dtype"] == "float").unwrap();
    // 3x3x1x32+32, 3x3x32x64+64, 256x128+128, 128x10+10
    assert_eq!((&floats["elements"], &floats["bytes"]), (&53002.into(), &212_008.into()));
    let text = good(&["inspect", DIGITS]);
    for part in ["float[N,1,8,8]", "Conv", "53,002", "Everything is supported"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn inspect_tells_all_gaps_at_once() {
    let dir = folder("gaps");
    let model = dir.join("m.onnx");
    let attribute = |name: &str, nodes: Vec<NodeProto>, out: &str| AttributeProto {
        name: Some(name.into()),
        r#type: Some(attribute_proto::AttributeType::Graph as i32),
        g: Some(Box::new(GraphProto { node: nodes, output: vec![value(out, &["4"])], ..Default::default() })),
        ..Default::default()
    };
    let mut choose = node("If", "choose", &["a"], &["b"]);
    choose.attribute = vec![
        attribute("then_branch", vec![node("Lost", "inner", &["x"], &["t"])], "t"),
        attribute("else_branch", vec![node("Identity", "keep", &["x"], &["e"])], "e"),
    ];
    let nodes = vec![node("Nowhere", "first", &["x"], &["a"]), choose, node("Nowhere", "last", &["b"], &["y"])];
    save(&model, nodes, vec![value("x", &["4"])], vec![value("y", &["4"])]);
    let model = model.display().to_string();

    let text = good(&["inspect", &model]);
    for part in ["ai.onnx::Nowhere (opset 17)", "ai.onnx::Lost (opset 17)", "first", "inner", "last", "Identity"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let v = json(&["inspect", &model, "--json"]);
    assert_eq!(v["support"]["supported"], false);
    let gaps = v["support"]["gaps"].as_array().unwrap();
    let names: Vec<&str> = gaps.iter().filter_map(|g| g["node"].as_str()).collect();
    assert_eq!(names, ["first", "inner", "last"]);
    assert_eq!(ortx(&["inspect", &model, "--check"]).status.code(), Some(13));
    let e = bad(13, &["run", &model, "--random"]);
    assert!(e.contains("ai.onnx::Lost") && e.contains("ortx inspect"), "{e}");
    bad(1, &["inspect", &model, "--plan"]);
}

#[test]
fn inspect_shows_the_plan() {
    let v = json(&["inspect", DIGITS, "--plan", "--shape", "image=4,1,8,8", "--json"]);
    let segments = v["plan"]["segments"].as_array().unwrap();
    assert_eq!(segments.len(), 1);
    let steps = segments[0]["steps"].as_array().unwrap();
    assert!(steps.len() >= 4);
    for s in steps {
        assert_ne!(s["kernel"], "", "{s}");
        assert_eq!(s["backend"], "cpu");
    }
    let last = &steps[steps.len() - 1]["results"][0];
    assert_eq!(
        (&last["type"], &last["place"], &last["bytes"]),
        (&"float[4,10]".into(), &"output 0".into(), &160.into())
    );
    let text = good(&["inspect", DIGITS, "--plan"]);
    assert!(text.contains("arena") && text.contains("output 0"), "{text}");
}

#[test]
fn bench_measures() {
    let v = json(&["bench", DIGITS, "--seconds", "0.2", "--min-runs", "10", "--threads", "1", "--profile", "--json"]);
    let n = |k: &str| v[k].as_f64().unwrap_or_else(|| panic!("{k} in {v}"));
    assert!(n("runs") >= 10.0 && n("load_ms") > 0.0 && n("first_ms") > 0.0);
    let order = ["min_ms", "median_ms", "p90_ms", "p99_ms", "max_ms"].map(n);
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!((n("threads"), &v["device"]), (1.0, &"cpu".into()));
    if cfg!(target_os = "linux") {
        assert!(n("peak_rss_bytes") >= n("base_rss_bytes") && n("base_rss_bytes") > 0.0);
    }
    let items = v["profile"]["items"].as_array().unwrap();
    assert!(items.iter().any(|i| i["op"] == "Conv"), "{items:?}");
    let text = good(&["bench", DIGITS, "--seconds", "0.1", "--profile"]);
    for part in ["median", "p99", "peak", "Profile", "Conv"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_missing_device_is_a_warning() {
    let o = ortx(&["run", DIGITS, "--random", "--device", "opencl:no such device"]);
    let said = String::from_utf8_lossy(&o.stderr);
    assert!(o.status.success() && said.contains("warning:") && said.contains("no such device"), "{said}");
    let e = bad(11, &["run", DIGITS, "--random", "--device", "opencl:"]);
    assert!(e.contains("opencl:<index>"), "{e}");
}

#[test]
fn runs_on_the_device_that_is_named() {
    let v = json(&["devices", "--json"]);
    if v["devices"][1].is_null() {
        println!("skipped: no OpenCL device");
        return;
    }
    assert_eq!(v["devices"][1]["name"], "opencl:0");
    assert!(good(&["devices"]).contains("opencl:0"));
    let values = |device: &[&str]| {
        let run = [&["run", DIGITS, "--random", "--dim", "N=1", "--json"], device].concat();
        json(&run)["outputs"][0]["values"].clone()
    };
    let (cpu, device) = (values(&[]), values(&["--device", "opencl:0!"]));
    let pairs = cpu.as_array().unwrap().iter().zip(device.as_array().unwrap());
    // Probabilities, after some hundred f32 roundings.
    assert!(pairs.into_iter().all(|(a, b)| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-5), "{cpu} {device}");
}

#[test]
fn devices_begin_with_the_processor() {
    let v = json(&["devices", "--json"]);
    assert_eq!(v["devices"][0]["name"], "cpu");
    assert!(good(&["devices"]).contains("cpu"));
}

#[test]
fn colours_are_for_those_who_want_them() {
    let call = |env: &[(&str, &str)]| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_ortx"));
        c.args(["inspect", DIGITS]).env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").envs(env.iter().copied());
        stdout(&c.output().unwrap())
    };
    assert!(!call(&[]).contains('\x1b'), "a pipe");
    assert!(call(&[("CLICOLOR_FORCE", "1")]).contains('\x1b'));
    assert!(!call(&[("NO_COLOR", "1")]).contains('\x1b'));
}
