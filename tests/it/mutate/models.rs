//! The models that are damaged: those of the repository, tiny ones with control flow, strings, sequences, data in another
//! file; and, where they have been fetched, the cases of the ONNX backend suite and small real models.

use crate::tiny::{Tiny, product, transformer};
use ortx::proto::onnx::{StringStringEntryProto, TensorProto};
use std::path::Path;

pub struct Model {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// If, Loop and Scan, with captured values.
fn control() -> Tiny {
    let branch = |op: &str| Tiny::new(op).node(op, &["x"], &["r"]).output("r");
    let body = Tiny::new("body")
        .input("i", 7, &[])
        .input("c", 9, &[])
        .input("s", 1, &["3"])
        .node("Identity", &["c"], &["go"])
        .node("Add", &["s", "x"], &["next"])
        .node("Identity", &["next"], &["seen"])
        .output("go")
        .output("next")
        .output("seen");
    let scanned = Tiny::new("scanned")
        .input("sum", 1, &["3"])
        .input("row", 1, &["3"])
        .node("Add", &["sum", "row"], &["sum1"])
        .node("Relu", &["sum1"], &["row1"])
        .output("sum1")
        .output("row1");
    Tiny::new("control")
        .input("x", 1, &["3"])
        .input("which", 9, &[])
        .input("turns", 7, &[])
        .node("If", &["which"], &["chosen"])
        .graph("then_branch", branch("Relu"))
        .graph("else_branch", branch("Neg"))
        .node("Loop", &["turns", "which", "chosen"], &["last", "all"])
        .graph("body", body)
        .node("Scan", &["last", "all"], &["total", "rows"])
        .graph("body", scanned)
        .int("num_scan_inputs", 1)
        .output("last")
        .output("total")
        .output("rows")
}

/// Shapes that are computed, and sizes that only running tells.
fn shapes() -> Tiny {
    Tiny::new("shapes")
        .input("x", 1, &["n", "4"])
        .numbers("zero", &[1], &[0])
        .numbers("one", &[1], &[1])
        .numbers("two", &[1], &[2])
        .numbers("four", &[1], &[4])
        .numbers("pads", &[4], &[1, 0, 0, 2])
        .numbers("order", &[2], &[-1, 2])
        .node("Shape", &["x"], &["shape"])
        .node("Gather", &["shape", "zero"], &["n"])
        .int("axis", 0)
        .node("Mul", &["n", "two"], &["twice"])
        .node("Concat", &["twice", "two"], &["wanted"])
        .int("axis", 0)
        .node("Reshape", &["x", "wanted"], &["tall"])
        .node("Expand", &["one", "wanted"], &["ones"])
        .node("ConstantOfShape", &["wanted"], &["zeros"])
        .node("Add", &["tall", "zeros"], &["sum"])
        .node("Pad", &["sum", "pads"], &["padded"])
        .node("Slice", &["padded", "zero", "four", "zero", "one"], &["part"])
        .node("Tile", &["part", "wanted"], &["tiled"])
        .node("NonZero", &["x"], &["where"])
        .node("Transpose", &["where"], &["where1"])
        .ints("perm", &[1, 0])
        .node("GatherND", &["x", "where1"], &["found"])
        .node("Range", &["zero_", "count", "one_"], &["range"])
        .node("Squeeze", &["zero"], &["zero_"])
        .node("Squeeze", &["one"], &["one_"])
        .node("Squeeze", &["n"], &["count"])
        .node("TopK", &["found", "one"], &["best", "best_at"])
        .node("Split", &["padded"], &["left", "right"])
        .int("axis", 1)
        .int("num_outputs", 2)
        .output("tiled")
        .output("ones")
        .output("range")
        .output("best")
        .output("right")
}

fn pictures() -> Tiny {
    Tiny::new("pictures")
        .input("x", 1, &["n", "3", "7", "8"])
        .weights("w1", &[8, 3, 3, 3])
        .weights("b1", &[8])
        .weights("w2", &[8, 1, 3, 3])
        .weights("w3", &[8, 4, 2, 2])
        .constant("scales", &[4], &[1.0, 1.0, 2.0, 2.0])
        .node("Conv", &["x", "w1", "b1"], &["c1"])
        .ints("pads", &[1, 1, 1, 1])
        .ints("strides", &[1, 1])
        .ints("kernel_shape", &[3, 3])
        .node("Relu", &["c1"], &["r1"])
        .node("Conv", &["r1", "w2"], &["c2"])
        .int("group", 8)
        .ints("dilations", &[1, 1])
        .text("auto_pad", "SAME_UPPER")
        .node("MaxPool", &["c2"], &["p1"])
        .ints("kernel_shape", &[2, 2])
        .ints("strides", &[2, 2])
        .node("AveragePool", &["c2"], &["p2"])
        .ints("kernel_shape", &[3, 3])
        .int("ceil_mode", 1)
        .node("ConvTranspose", &["p1", "w3"], &["t1"])
        .ints("strides", &[2, 2])
        .node("Resize", &["t1", "", "scales"], &["big"])
        .text("mode", "linear")
        .node("GlobalAveragePool", &["big"], &["g"])
        .node("Flatten", &["g"], &["f"])
        .node("Softmax", &["f"], &["y"])
        .output("y")
        .output("p2")
}

fn words() -> Tiny {
    Tiny::new("words")
        .input("a", 8, &["n"])
        .input("b", 8, &["n"])
        .node("StringConcat", &["a", "b"], &["ab"])
        .node("StringNormalizer", &["ab"], &["upper"])
        .text("case_change_action", "UPPER")
        .node("StringSplit", &["ab"], &["parts", "counts"])
        .text("delimiter", "a")
        .node("Reshape", &["ab", "flat"], &["again"])
        .numbers("flat", &[1], &[-1])
        .output("upper")
        .output("parts")
        .output("counts")
        .output("again")
}

fn sequences() -> Tiny {
    Tiny::new("sequences")
        .input("x", 1, &["2", "k"])
        .numbers("at", &[], &[1])
        .node("SequenceConstruct", &["x", "x"], &["s"])
        .node("SequenceInsert", &["s", "x", "at"], &["s1"])
        .node("SequenceAt", &["s1", "at"], &["e"])
        .node("ConcatFromSequence", &["s1"], &["y"])
        .int("axis", 0)
        .node("SequenceLength", &["s1"], &["n"])
        .node("SplitToSequence", &["x"], &["s2"])
        .int("axis", 0)
        .output("e")
        .output("y")
        .output("n")
        .output("s2")
}

fn recurrent() -> Tiny {
    Tiny::new("recurrent")
        .input("x", 1, &["t", "2", "3"])
        .weights("w", &[1, 16, 3])
        .weights("r", &[1, 16, 4])
        .weights("b", &[1, 32])
        .node("LSTM", &["x", "w", "r", "b"], &["y", "h", "c"])
        .int("hidden_size", 4)
        .output("y")
        .output("h")
        .output("c")
}

/// The name of the file beside the model.
pub const BESIDE: &str = "w.bin";

fn external() -> Tiny {
    let entry = |k: &str, v: &str| StringStringEntryProto { key: Some(k.into()), value: Some(v.into()) };
    let w = TensorProto {
        name: Some("w".into()),
        dims: vec![3, 2],
        data_type: Some(1),
        data_location: Some(1),
        external_data: vec![entry("location", BESIDE), entry("offset", "8"), entry("length", "24")],
        ..Default::default()
    };
    Tiny::new("external").input("x", 1, &["n", "3"]).initializer(w).node("MatMul", &["x", "w"], &["y"]).output("y")
}

/// What is always there; all of it loads and runs as it is. `folder` receives the file that one of them needs.
pub fn own(folder: &Path) -> Vec<Model> {
    std::fs::write(folder.join(BESIDE), [7u8; 64]).unwrap();
    let model = |t: Tiny| Model { name: t.0.name().into(), bytes: t.bytes() };
    let tiny = [control(), shapes(), pictures(), words(), sequences(), recurrent(), external(), transformer()];
    let mut all: Vec<Model> = tiny.into_iter().map(model).collect();
    all.push(Model { name: "product".into(), bytes: product() });
    all.push(Model { name: "digits".into(), bytes: std::fs::read("models/digits.onnx").unwrap() });
    all
}

/// One node each: every version of every operator, then what was fetched, in order of name.
pub fn others() -> Vec<Model> {
    const SMALL: u64 = 40_000;
    let mut all: Vec<Model> = crate::opsets::models().into_iter().map(|(name, bytes)| Model { name, bytes }).collect();
    for part in ["conformance", "contrib", "models"] {
        let root = crate::cache::root().join(part);
        if !root.is_dir() {
            println!("skipped: models of {}: not fetched", root.display());
            continue;
        }
        crate::walk(&root, &mut |path| {
            if path.extension().is_some_and(|e| e == "onnx") && path.metadata().is_ok_and(|m| m.len() < SMALL) {
                let name = path.parent().and_then(Path::file_name).unwrap_or_default();
                all.push(Model { name: name.to_string_lossy().into(), bytes: std::fs::read(path).unwrap() });
            }
        });
    }
    all
}
