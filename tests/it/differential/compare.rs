//! One graph, run in all the ways that must agree.

use super::generator::{Made, SETS, Val, fixed, texts};
use crate::properties::reference::tensor;
use crate::properties::two_threads;
use ortx::base::parallel::Parallel;
use ortx::kernels::isa::Isa;
use ortx::ops::case::{close, random, to_f64s};
use ortx::optimize::passes;
use ortx::proto::onnx::{ModelProto, tensor_shape_proto::dimension::Value as Dimension, type_proto};
use ortx::session::{compile, write_optimized};
use ortx::{Environment, ModelSource, RunOptions, Session, SessionOptions, Tensor, Value};
use prost::Message;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// A model with what is fed and what must come out: shrinking makes others of it.
#[derive(Clone)]
pub struct Subject {
    /// Its inputs have symbolic sizes where they differ from set to set.
    pub model: ModelProto,
    /// By input: its values for each set.
    pub feeds: Vec<(String, [Tensor; SETS])>,
    /// What the generator knows of each value, by name.
    pub known: BTreeMap<String, Val>,
    /// Whether numbers that are none are fed.
    pub odd: bool,
}

/// How two runs disagreed. The kind stays the same while a graph is made smaller.
#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: Kind,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The plain graph fails, or gives what it cannot: the generator or an operator is wrong.
    Plain,
    /// One side fails, the other does not.
    OneSide,
    /// Answers differ.
    Differs,
}

impl Subject {
    pub fn new(made: &Made, seed: u64) -> Subject {
        let mut graph = made.graph.clone();
        let mut names: Vec<[usize; SETS]> = Vec::new();
        let mut feeds = Vec::new();
        for (i, v) in made.inputs.iter().enumerate() {
            let dims: Vec<String> = v
                .dims
                .iter()
                .map(|d| {
                    if fixed(d) {
                        return d[0].to_string();
                    }
                    let at = names.iter().position(|n| n == d).unwrap_or_else(|| {
                        names.push(*d);
                        names.len() - 1
                    });
                    // Some exporters name nothing.
                    if seed.is_multiple_of(5) { "?".into() } else { format!("n{at}") }
                })
                .collect();
            graph = graph.input(&v.name, v.dtype as i32, &texts(&dims));
            let data = std::array::from_fn(|k| {
                let shape: Vec<usize> = v.dims.iter().map(|d| d[k]).collect();
                let at = seed.wrapping_mul(64) + (i * SETS + k) as u64;
                let t = random(v.dtype, &shape, v.low, v.high, at).unwrap();
                // The first set is always plain.
                if made.odd && k > 0 && v.dtype.is_float() { with_nan(&t, at) } else { t }
            });
            feeds.push((v.name.clone(), data));
        }
        let known = made.values.iter().map(|v| (v.name.clone(), v.clone())).collect();
        Subject { model: graph.model(), feeds, known, odd: made.odd }
    }
    pub fn dynamic(&self) -> bool {
        self.feeds.iter().any(|f| f.1.iter().any(|t| t.shape() != f.1[0].shape()))
    }
    /// The file, its inputs sized for a set or left open.
    pub fn bytes(&self, set: Option<usize>) -> Vec<u8> {
        let mut model = self.model.clone();
        if let (Some(k), Some(g)) = (set, &mut model.graph) {
            for (input, (_, data)) in g.input.iter_mut().zip(&self.feeds) {
                if let Some(type_proto::Value::TensorType(t)) = input.r#type.as_mut().and_then(|t| t.value.as_mut())
                    && let Some(shape) = &mut t.shape
                {
                    for (d, &n) in shape.dim.iter_mut().zip(data[k].shape()) {
                        d.value = Some(Dimension::DimValue(n as i64));
                    }
                }
            }
        }
        model.encode_to_vec()
    }
    pub fn inputs(&self, set: usize) -> Vec<Value> {
        self.feeds.iter().map(|f| Value::Tensor(f.1[set].clone())).collect()
    }
}

/// With a number that is none in some place.
fn with_nan(t: &Tensor, at: u64) -> Tensor {
    let mut all = to_f64s(t).unwrap();
    let n = all.len().max(1);
    if let Some(x) = all.get_mut(at as usize % n) {
        *x = f64::NAN;
    }
    tensor(t.dtype(), t.shape(), &all)
}

/// Which way a session goes.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    pub optimize: bool,
    pub isa: Isa,
    pub threads: usize,
    /// Passes that are left out.
    pub without: &'a [String],
}

impl Way<'_> {
    /// The graph as it is, on the scalar path.
    pub const PLAIN: Way<'static> = Way { optimize: false, isa: Isa::SCALAR, threads: 1, without: &[] };
}

fn caught<T>(f: impl FnOnce() -> ortx::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(r) => r.map_err(|e| format!("{e:#}")),
        Err(e) => {
            let text = e.downcast_ref::<String>().cloned().or_else(|| e.downcast_ref::<&str>().map(|s| s.to_string()));
            Err(format!("panic: {}", text.unwrap_or_default()))
        }
    }
}

pub fn session(bytes: Vec<u8>, way: Way<'_>) -> Result<Session, String> {
    opened(&ModelSource::Bytes(bytes.into(), None), way)
}

fn options(way: Way<'_>) -> SessionOptions {
    let pool = (way.threads > 1).then(|| -> Arc<dyn Parallel> { two_threads().clone() });
    SessionOptions {
        threads: 1,
        pool,
        isa: Some(way.isa.level()),
        optimize: way.optimize,
        disabled_passes: way.without.to_vec(),
        ..SessionOptions::default()
    }
}

fn opened(source: &ModelSource, way: Way<'_>) -> Result<Session, String> {
    let session = caught(|| Session::new(&Environment::new(), source.clone(), &options(way)))?;
    // A pass that failed, say.
    if session.warnings().is_empty() { Ok(session) } else { Err(session.warnings().join("; ")) }
}

/// Runs with outputs that the session makes, or with tensors to write into, full of what was there.
pub fn run(s: &Session, inputs: &[Value], into: Option<&[Tensor]>) -> Result<Vec<Tensor>, String> {
    let mut outputs: Vec<Option<Value>> = match into {
        None => vec![None; s.outputs().len()],
        Some(all) => all.iter().map(|t| random(t.dtype(), t.shape(), 90.0, 99.0, 7).ok().map(Value::Tensor)).collect(),
    };
    caught(|| {
        s.run_values(inputs, &mut outputs, &RunOptions::default())?;
        outputs.iter().flatten().map(|v| v.as_tensor().cloned()).collect()
    })
}

fn fail<T>(kind: Kind, text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { kind, text: text.into() })
}

/// What the passes did, by name.
pub type Fired = BTreeMap<&'static str, usize>;

/// Runs the graph in every way, without some passes. Returns how often each pass fired.
///
/// - The plain graph on the scalar path is what the others are held against. Its answers lie in the ranges that the generator
///   knows.
/// - Another level, or the optimised graph: within twice the error that the generator knows; each side is off by that at most.
///   Integers that no rounding reaches, truths and what is only moved: the same.
/// - Another run of the same session (other data and sizes in between, outputs given or not), and two threads: the same bits.
/// - Written to files, as optimised ONNX and compiled: within the same bounds.
/// - Symbolic sizes, in one session for all sets: within the same bounds, and the bits of a session that has seen no other size.
pub fn check(s: &Subject, without: &[String]) -> Result<Fired, Failure> {
    let best = Isa::detect();
    let names: Vec<String> = s.model.graph.iter().flat_map(|g| &g.output).map(|o| o.name().to_string()).collect();
    let inputs: [Vec<Value>; SETS] = std::array::from_fn(|k| s.inputs(k));
    let dynamic = s.dynamic();
    let sized = |set, way| session(s.bytes(set), way);
    let mut want = Vec::new();
    let mut old = None;
    for k in 0..SETS {
        if dynamic || old.is_none() {
            old = Some(sized(Some(k), Way::PLAIN).or_else(|e| fail(Kind::Plain, format!("plain, loading: {e}")))?);
        }
        let got = old.as_ref().map_or(Err("no session".into()), |s| run(s, &inputs[k], None));
        let got = got.or_else(|e| fail(Kind::Plain, format!("plain, set {k}: {e}")))?;
        for (name, t) in names.iter().zip(&got) {
            plausible(s, name, t, k).or_else(|e| fail(Kind::Plain, format!("plain, set {k}, output {name}: {e}")))?;
        }
        want.push(got);
    }
    let near = |what: &str, k: usize, got: &[Tensor]| -> Result<(), Failure> {
        for ((name, want), got) in names.iter().zip(&want[k]).zip(got) {
            let error = s.known.get(name).map_or(0.0, |v| v.error);
            if let Err(e) = close(want, got, 0.0, 2.0 * error) {
                return fail(
                    Kind::Differs,
                    format!("{what}, set {k}, output {name} (at most {:e} apart): {e}", 2.0 * error),
                );
            }
        }
        Ok(())
    };
    let same = |what: &str, k: usize, a: &[Tensor], b: &[Tensor]| -> Result<(), Failure> {
        for ((name, a), b) in names.iter().zip(a).zip(b) {
            if a.shape() != b.shape() || a.bytes() != b.bytes() {
                let how = close(a, b, 0.0, 0.0).err().map_or("the sign of a zero".into(), |e| e.to_string());
                return fail(Kind::Differs, format!("{what}, set {k}, output {name}: other bits: {how}"));
            }
        }
        Ok(())
    };
    let one = |what: &str, r: Result<Vec<Tensor>, String>| r.or_else(|e| fail(Kind::OneSide, format!("{what}: {e}")));
    let open = |what: &str, set, way| sized(set, way).or_else(|e| fail(Kind::OneSide, format!("{what}, loading: {e}")));
    let mut fired = Fired::new();
    for isa in best.levels() {
        for optimize in [true, false] {
            if (isa, optimize) == (Isa::SCALAR, false) {
                continue;
            }
            let what = format!("{}{}", isa.level().name(), if optimize { ", optimised" } else { "" });
            // Without symbols one session takes all data; else a set of each way, in turn.
            let k = if dynamic { usize::from(optimize) + isa.level() as usize } else { 0 } % SETS;
            let session = open(&what, Some(k), Way { optimize, isa, threads: 1, without })?;
            let got = one(&what, run(&session, &inputs[k], None))?;
            near(&what, k, &got)?;
            if isa != best || !optimize {
                continue;
            }
            session.passes().iter().for_each(|p| *fired.entry(p.pass).or_default() += p.fired);
            for j in if dynamic { k..k + 1 } else { 0..SETS } {
                near(&format!("{what}, again"), j, &one(&what, run(&session, &inputs[j], Some(&want[j])))?)?;
            }
            let what = format!("{what}, first data again");
            same(&what, k, &got, &one(&what, run(&session, &inputs[k], Some(&want[k])))?)?;
            let what = "two threads";
            let two = open(what, Some(k), Way { optimize, isa, threads: 2, without })?;
            same(what, k, &got, &one(what, run(&two, &inputs[k], None))?)?;
        }
    }
    if dynamic {
        let way = Way { optimize: true, isa: best, threads: 1, without };
        let session = open("symbolic sizes", None, way)?;
        session.passes().iter().for_each(|p| *fired.entry(p.pass).or_default() += p.fired);
        let mut first = Vec::new();
        for k in (0..SETS).chain([0]) {
            let what = "symbolic sizes, one after the other";
            let into = if k == 1 { Some(&want[k][..]) } else { None };
            let got = one(&format!("{what}, set {k}"), run(&session, &inputs[k], into))?;
            near(what, k, &got)?;
            if k == 0 && !first.is_empty() {
                same("symbolic sizes, the first again", k, &first, &got)?;
            } else if k == 0 {
                first = got;
            } else {
                let what = "symbolic sizes, in a session of its own";
                let own = open(what, None, way)?;
                same(what, k, &one(what, run(&own, &inputs[k], None))?, &got)?;
            }
        }
        let what = "symbolic sizes, not optimised";
        let session = open(what, None, Way { optimize: false, ..way })?;
        for k in 0..SETS {
            near(what, k, &one(what, run(&session, &inputs[k], None))?)?;
        }
    }
    // Something of the graph that decides what is drawn here.
    let bits = s.bytes(None).len() as u32 ^ s.feeds.len() as u32;
    // Files take their time: a graph in four.
    if without.is_empty() && bits.is_multiple_of(4) {
        let way = Way { optimize: true, isa: best, threads: 1, without };
        let (onnx, compiled) = kept(s, way).or_else(|e| fail(Kind::OneSide, e))?;
        for (what, session) in [("optimised and written", onnx), ("compiled", compiled)] {
            for k in 0..SETS {
                near(what, k, &one(what, run(&session, &inputs[k], None))?)?;
            }
        }
    }
    // Passes must not lean on each other: some of them alone.
    if without.is_empty() {
        let some = |i: usize| bits.wrapping_mul(0x9e37_79b9).rotate_left(i as u32) & 1 == 1;
        let all = passes::all();
        let left: Vec<String> = (0..all.len()).filter(|&i| some(i)).map(|i| all[i].name().to_string()).collect();
        let what = format!("optimised without {}", left.join(","));
        let way = Way { optimize: true, isa: best, threads: 1, without: &left };
        let k = bits as usize % SETS;
        let session = open(&what, if bits & 64 == 0 { Some(k) } else { None }, way)?;
        near(&what, k, &one(&what, run(&session, &inputs[k], None))?)?;
    }
    Ok(fired)
}

/// Sessions of the graph as an optimised file of ONNX and as a compiled one.
fn kept(s: &Subject, way: Way<'_>) -> Result<(Session, Session), String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("differential-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let (env, source) = (Environment::new(), ModelSource::Bytes(s.bytes(None).into(), None));
    let (onnx, compiled) = (folder.join("kept.onnx"), folder.join("kept.ortx"));
    caught(|| write_optimized(&env, &source, &options(way), &onnx)).map_err(|e| format!("writing: {e}"))?;
    caught(|| compile(&env, &source, &options(way), &compiled, true, &[])).map_err(|e| format!("compiling: {e}"))?;
    let open = |path: &Path| opened(&ModelSource::Path(path.to_path_buf()), way);
    let found =
        (open(&onnx).map_err(|e| format!("written: {e}"))?, open(&compiled).map_err(|e| format!("compiled: {e}"))?);
    // Mapped files live on until they are unmapped.
    std::fs::remove_dir_all(&folder).map_err(|e| e.to_string())?;
    Ok(found)
}

/// The passes each of which alone, left out, makes the ways agree.
pub fn blamed(s: &Subject) -> Vec<&'static str> {
    let all = passes::all();
    all.iter().map(|p| p.name()).filter(|n| check(s, &[n.to_string()]).is_ok()).collect()
}

/// Whether a plain answer is what the generator says it can be.
fn plausible(s: &Subject, name: &str, t: &Tensor, k: usize) -> Result<(), String> {
    let Some(v) = s.known.get(name) else { return Ok(()) };
    let shape: Vec<usize> = v.dims.iter().map(|d| d[k]).collect();
    if v.dtype != t.dtype() || !v.loose && shape != t.shape() {
        return Err(format!("{t:?} instead of {}{shape:?}", v.dtype));
    }
    let all = to_f64s(t).map_err(|e| e.to_string())?;
    let slack = v.error + 1e-6 * v.most();
    match all.iter().position(|&x| !(x >= v.low - slack && x <= v.high + slack || x.is_nan() && s.odd)) {
        Some(i) => Err(format!("element {i} is {}, not between {} and {}", all[i], v.low, v.high)),
        None => Ok(()),
    }
}
