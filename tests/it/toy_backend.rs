//! A third backend, with memory and bindings of its own, in one file: what the backend trait promises, shown from outside.
//! Nothing in the library knows it.

use ortx::backend::{Backend, Memory, NodeView, PackedCache, Step, StepArgs};
use ortx::error::{ErrorKind, Result};
use ortx::proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TypeProto, ValueInfoProto,
};
use ortx::proto::onnx::{TensorShapeProto, tensor_shape_proto, type_proto};
use ortx::{Environment, Error, ModelSource, Session, SessionOptions, Tensor};
use prost::Message;
use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Memory that only the toy can reach.
struct ToyMemory(Mutex<Vec<f32>>);

impl Memory for ToyMemory {
    fn len(&self) -> usize {
        self.0.lock().unwrap().len() * 4
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

type Kernel = fn(&[f32], &[f32]) -> Vec<f32>;

/// Its bindings: two operators, on equal shapes.
fn bindings() -> HashMap<&'static str, Kernel> {
    let relu: Kernel = |x, _| x.iter().map(|v| v.max(0.0)).collect();
    let add: Kernel = |x, y| x.iter().zip(y).map(|(a, b)| a + b).collect();
    HashMap::from([("Relu", relu), ("Add", add)])
}

struct Toy {
    bindings: HashMap<&'static str, Kernel>,
    steps: Arc<AtomicUsize>,
    copies: AtomicUsize,
}

fn toy(m: &dyn Memory) -> Result<&ToyMemory> {
    m.as_any().downcast_ref().ok_or_else(|| Error::new(ErrorKind::Internal, "not the toy's memory"))
}

impl Backend for Toy {
    fn name(&self) -> &str {
        "toy:0"
    }
    fn claims(&self, node: &NodeView<'_>) -> Result<(), String> {
        let known = self.bindings.contains_key(node.op.name());
        let alike = node
            .inputs
            .iter()
            .flatten()
            .all(|o| Some(&o.shape) == node.outputs[0].as_ref().map(|o| &o.shape) && o.constant.is_none());
        if known && alike { Ok(()) } else { Err(format!("the toy does not do {}", node.op.name())) }
    }
    fn bind(&self, node: &NodeView<'_>, _cache: &PackedCache) -> Result<Box<dyn Step>> {
        let len = node.output(0)?.len();
        Ok(Box::new(ToyStep { kernel: self.bindings[node.op.name()], len, steps: self.steps.clone() }))
    }
    fn alloc(&self, bytes: usize) -> Result<Arc<dyn Memory>> {
        Ok(Arc::new(ToyMemory(Mutex::new(vec![f32::NAN; bytes / 4]))))
    }
    unsafe fn copy_in(&self, src: *const u8, dst: &dyn Memory, offset: usize, bytes: usize) -> Result<()> {
        self.copies.fetch_add(1, Ordering::Relaxed);
        let mut m = toy(dst)?.0.lock().unwrap();
        // SAFETY: the trait's contract: src is valid for `bytes`; the slice below checks the other side.
        unsafe { std::ptr::copy_nonoverlapping(src, m[offset / 4..][..bytes / 4].as_mut_ptr().cast(), bytes) };
        Ok(())
    }
    unsafe fn copy_out(&self, src: &dyn Memory, offset: usize, dst: *mut u8, bytes: usize) -> Result<()> {
        self.copies.fetch_add(1, Ordering::Relaxed);
        let m = toy(src)?.0.lock().unwrap();
        // SAFETY: as above, the other way round.
        unsafe { std::ptr::copy_nonoverlapping(m[offset / 4..][..bytes / 4].as_ptr().cast(), dst, bytes) };
        Ok(())
    }
}

struct ToyStep {
    kernel: Kernel,
    len: usize,
    steps: Arc<AtomicUsize>,
}

impl Step for ToyStep {
    unsafe fn run(&self, args: &StepArgs<'_>, _phase: usize, _task: usize, _scratch: *mut u8) -> Result<()> {
        self.steps.fetch_add(1, Ordering::Relaxed);
        let read = |i: usize| -> Result<Vec<f32>> {
            match args.device_input(i) {
                None => Ok(Vec::new()),
                Some((m, at)) => Ok(toy(m)?.0.lock().unwrap()[at / 4..][..self.len].to_vec()),
            }
        };
        let result = (self.kernel)(&read(0)?, &read(1)?);
        let (m, at) =
            args.device_output(0).ok_or_else(|| Error::new(ErrorKind::Internal, "no place for the result"))?;
        toy(m)?.0.lock().unwrap()[at / 4..][..self.len].copy_from_slice(&result);
        Ok(())
    }
    fn kernel(&self) -> &str {
        "toy"
    }
}

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&n: &i64| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(n)),
        ..Default::default()
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(1), shape: Some(shape) };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(ty), ..Default::default() }
}

fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: Some(op.into()),
        name: Some(output.into()),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: vec![output.into()],
        attribute,
        ..Default::default()
    }
}

/// Relu(Relu(a + b) · w): the toy takes the pointwise nodes, the CPU the product between them.
fn model() -> Vec<u8> {
    let graph = GraphProto {
        name: Some("toy".into()),
        node: vec![
            node("Add", &["a", "b"], "sum", vec![]),
            node("Relu", &["sum"], "hidden", vec![]),
            node("MatMul", &["hidden", "w"], "product", vec![]),
            node("Relu", &["product"], "y", vec![]),
        ],
        input: vec![value("a", &[2, 3]), value("b", &[2, 3]), value("w", &[3, 3])],
        output: vec![value("y", &[2, 3])],
        ..Default::default()
    };
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
    ModelProto { ir_version: Some(8), graph: Some(graph), opset_import: vec![opset], ..Default::default() }
        .encode_to_vec()
}

#[test]
fn a_backend_from_outside_runs_what_it_claims_and_the_cpu_the_rest() {
    let steps = Arc::new(AtomicUsize::new(0));
    let backend = Arc::new(Toy { bindings: bindings(), steps: steps.clone(), copies: AtomicUsize::new(0) });
    let mut env = Environment::new();
    env.add_backend(backend.clone());
    let inputs = [
        ("a", Tensor::from_slice(&[2, 3], &[1f32, -2.0, 3.0, -4.0, 5.0, -6.0]).unwrap()),
        ("b", Tensor::from_slice(&[2, 3], &[0.5f32, 0.5, 0.5, 0.5, 0.5, 0.5]).unwrap()),
        ("w", Tensor::from_slice(&[3, 3], &[1f32, 0.0, -1.0, 0.0, 2.0, 0.0, 1.0, -1.0, 0.0]).unwrap()),
    ];
    // Unfused, so that the operators are the toy's own.
    let plain = SessionOptions { optimize: false, ..Default::default() };
    let on_toy = SessionOptions { devices: vec!["toy:0".into()], ..plain.clone() };
    let source = || ModelSource::Bytes(model().into(), None);
    let want = Session::new(&env, source(), &plain).unwrap().run(&inputs).unwrap();
    assert_eq!(steps.load(Ordering::Relaxed), 0);
    let session = Session::new(&env, source(), &on_toy).unwrap();
    for _ in 0..2 {
        let got = session.run(&inputs).unwrap();
        assert_eq!(
            want[0].as_tensor().unwrap().as_slice::<f32>().unwrap(),
            got[0].as_tensor().unwrap().as_slice::<f32>().unwrap()
        );
    }
    // Add, Relu and the last Relu, twice.
    assert_eq!(steps.load(Ordering::Relaxed), 6);
    // A run copies a and b in, hidden out, the product in, y out: between Add and Relu the values stay on the device.
    assert_eq!(backend.copies.load(Ordering::Relaxed), 10);
}

/// A required device must take every node; one that is only preferred leaves the rest to the CPU.
#[test]
fn a_required_device_takes_all_or_nothing() {
    let mut env = Environment::new();
    env.add_backend(Arc::new(Toy { bindings: bindings(), steps: Arc::default(), copies: AtomicUsize::new(0) }));
    let options = |devices| SessionOptions { optimize: false, devices, ..Default::default() };
    let source = || ModelSource::Bytes(model().into(), None);
    let square = |n: usize| Tensor::zeroed(ortx::DType::F32, &[n, 3]).unwrap();
    let inputs = [("a", square(2)), ("b", square(2)), ("w", square(3))];
    let strict = Session::new(&env, source(), &options(vec!["toy:0!".into()])).unwrap();
    let e = strict.run(&inputs).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("'product' (MatMul)") && e.to_string().contains("required"), "{e}");
    let easy = Session::new(&env, source(), &options(vec!["toy:0".into()])).unwrap();
    assert!(easy.run(&inputs).is_ok() && easy.warnings().is_empty());
}

#[test]
fn an_unknown_device_is_named() {
    let options = SessionOptions { devices: vec!["fpga:7!".into()], ..Default::default() };
    let e = Session::new(&Environment::new(), ModelSource::Bytes(model().into(), None), &options).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.to_string().contains("fpga:7"), "{e}");
}
