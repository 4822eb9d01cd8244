//! Test cases of operators, as data: each runs on every backend and at every ISA level against the scalar path, and
//! against an expected result where one is given. `tests/it/cases.rs` runs them.

use crate::base::alloc::{filled, gathered};
use crate::error::{Context, Result};
use crate::ir::build::GraphBuilder;
use crate::ir::parse::Attr;
use crate::ir::{Fact, Graph, ParseCtx, Registry};
use crate::tensor::{DType, Tensor, Value};
use crate::{bail, err};
use half::{bf16, f16};

/// One application of one operator.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is special about it; the operator's name goes before it.
    pub name: &'static str,
    /// Domain of the operator set.
    pub domain: &'static str,
    /// ONNX's name of the operator.
    pub op: &'static str,
    /// Operator set version.
    pub version: u32,
    /// Attributes.
    pub attrs: Vec<(&'static str, Attr)>,
    /// Inputs.
    pub inputs: Vec<CaseInput>,
    /// For each output whether it is asked for.
    pub outputs: Vec<bool>,
    /// What must come out; empty where only the paths are compared with each other.
    pub expect: Vec<Tensor>,
    /// Allowed relative error. 0 asks for the same bits.
    pub rtol: f64,
    /// Allowed absolute error.
    pub atol: f64,
}

/// An input of a case.
#[derive(Clone, Debug)]
pub enum CaseInput {
    /// Seeded values, evenly spread over `lo..hi` (rounded for integers, 0 or 1 for bool).
    Random(DType, Vec<usize>, f64, f64),
    /// A tensor that is an input of the graph.
    Given(Tensor),
    /// A tensor that is a constant of the graph.
    Constant(Tensor),
    /// Left out.
    Absent,
}

impl Case {
    /// A case of one output in the default domain. Tolerance: `1e-5`, some ten roundings of f32, for both bounds.
    pub fn new(op: &'static str, version: u32, name: &'static str, inputs: Vec<CaseInput>) -> Case {
        Case {
            name,
            domain: "",
            op,
            version,
            attrs: Vec::new(),
            inputs,
            outputs: vec![true],
            expect: Vec::new(),
            rtol: 1e-5,
            atol: 1e-5,
        }
    }
    /// With an attribute.
    pub fn attr(mut self, name: &'static str, value: Attr) -> Case {
        self.attrs.push((name, value));
        self
    }
    /// With an expected result.
    pub fn expect(mut self, t: Tensor) -> Case {
        self.expect.push(t);
        self
    }
    /// The same bits are asked for.
    pub fn exact(mut self) -> Case {
        (self.rtol, self.atol) = (0.0, 0.0);
        self
    }
    /// `Op-version/name`.
    pub fn title(&self) -> String {
        format!("{}-{}/{}", self.op, self.version, self.name)
    }
    /// The graph of the one operator, and the values of its inputs.
    pub fn build(&self, registry: &Registry) -> Result<(Graph, Vec<Value>)> {
        let def = registry.find(self.domain, self.op).ok_or_else(|| err!(NotFound, "no operator {}", self.op))?;
        let mut b = GraphBuilder::new(self.op);
        let (mut ids, mut values) = (Vec::new(), Vec::new());
        for (i, input) in self.inputs.iter().enumerate() {
            let name = format!("x{i}");
            ids.push(match input {
                CaseInput::Absent => None,
                CaseInput::Constant(t) => Some(b.constant(&name, t.clone())),
                CaseInput::Given(t) => {
                    values.push(Value::Tensor(t.clone()));
                    Some(b.input(&name, Fact::sized(t.dtype(), t.shape())))
                }
                CaseInput::Random(d, shape, lo, hi) => {
                    values.push(Value::Tensor(random(*d, shape, *lo, *hi, i as u64)?));
                    Some(b.input(&name, Fact::sized(*d, shape)))
                }
            });
        }
        let mut cx = ParseCtx::new(&mut b, "case", self.op, self.version, ids, &self.outputs, self.attrs.clone());
        let op = (def.parse)(&mut cx)?;
        let inputs = std::mem::take(&mut cx.inputs);
        let names: Vec<String> = (0..self.outputs.len()).map(|i| format!("y{i}")).collect();
        let names: Vec<Option<&str>> =
            names.iter().zip(&self.outputs).map(|(n, &on)| on.then_some(n.as_str())).collect();
        let outputs = b.node("case", op, inputs, &names).context(|| self.title())?;
        Ok((b.finish(outputs.into_iter().flatten().collect())?, values))
    }
    /// Fails unless `got` is `want` within the tolerance: the same types and shapes, NaN where NaN is.
    pub fn compare(&self, want: &Tensor, got: &Tensor) -> Result<()> {
        close(want, got, self.rtol, self.atol)
    }
}

/// Seeded values; see [`CaseInput::Random`].
pub fn random(dtype: DType, shape: &[usize], lo: f64, hi: f64, seed: u64) -> Result<Tensor> {
    let n = crate::base::checked::product(shape)?;
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    let mut next = move || {
        // splitmix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let v: Vec<f64> = (0..n).map(|_| lo + (hi - lo) * next()).collect();
    macro_rules! ints {
        ($t:ty) => {
            Tensor::from_slice(shape, &v.iter().map(|x| x.round() as $t).collect::<Vec<_>>())
        };
    }
    match dtype {
        DType::F32 => Tensor::from_slice(shape, &v.iter().map(|&x| x as f32).collect::<Vec<_>>()),
        DType::F64 => Tensor::from_slice(shape, &v),
        DType::F16 => Tensor::from_slice(shape, &v.iter().map(|&x| f16::from_f64(x)).collect::<Vec<_>>()),
        DType::BF16 => Tensor::from_slice(shape, &v.iter().map(|&x| bf16::from_f64(x)).collect::<Vec<_>>()),
        DType::Bool => Tensor::from_slice(shape, &v.iter().map(|&x| x > (lo + hi) / 2.0).collect::<Vec<_>>()),
        DType::I8 => ints!(i8),
        DType::I16 => ints!(i16),
        DType::I32 => ints!(i32),
        DType::I64 => ints!(i64),
        DType::U8 => ints!(u8),
        DType::U16 => ints!(u16),
        DType::U32 => ints!(u32),
        DType::U64 => ints!(u64),
        d => bail!(Unsupported, "random values of type {d}"),
    }
}

/// The elements of a real or integer tensor as f64.
pub fn to_f64s(t: &Tensor) -> Result<Vec<f64>> {
    Ok(match t.dtype() {
        DType::F32 => gathered(t.as_slice::<f32>()?.iter().map(|&x| f64::from(x)))?,
        DType::F64 => gathered(t.as_slice::<f64>()?.iter().copied())?,
        DType::F16 => gathered(t.as_slice::<f16>()?.iter().map(|x| x.to_f64()))?,
        DType::BF16 => gathered(t.as_slice::<bf16>()?.iter().map(|x| x.to_f64()))?,
        DType::U64 => gathered(t.as_slice::<u64>()?.iter().map(|&x| x as f64))?,
        d if d.is_narrow_float() => {
            let mut v = filled(t.len(), 0.0)?;
            crate::tensor::unpack_bits(d, t.bytes(), t.len(), |i, b| {
                v[i] = f64::from(crate::tensor::decode_narrow(d, b))
            });
            v
        }
        _ => gathered(t.to_i64s()?.into_iter().map(|x| x as f64))?,
    })
}

/// Fails unless the tensors agree: same type and shape; each |got - want| at most `atol + rtol * |want|`; NaN where NaN is.
pub fn close(want: &Tensor, got: &Tensor, rtol: f64, atol: f64) -> Result<()> {
    if want.dtype() != got.dtype() || want.shape() != got.shape() {
        bail!(Run, "{want:?} was expected, it is {got:?}");
    }
    if want.dtype() == DType::String {
        return if want.as_strings()? == got.as_strings()? { Ok(()) } else { Err(err!(Run, "the strings differ")) };
    }
    if matches!(want.dtype(), DType::C64 | DType::C128) {
        let parts = |t: &Tensor| -> Result<Tensor> {
            let d = if t.dtype() == DType::C64 { DType::F32 } else { DType::F64 };
            Tensor::from_bytes(d, &[t.len() * 2], bytes::Bytes::copy_from_slice(t.bytes()))
        };
        return close(&parts(want)?, &parts(got)?, rtol, atol);
    }
    let (w, g) = (to_f64s(want)?, to_f64s(got)?);
    let mut worst: Option<(usize, f64)> = None;
    for (i, (&a, &b)) in w.iter().zip(&g).enumerate() {
        let same = a == b || a.is_nan() && b.is_nan();
        if !same
            && ((a - b).abs() > atol + rtol * a.abs() || a.is_nan() || b.is_nan() || a.is_infinite() || b.is_infinite())
        {
            let d = if (a - b).is_nan() { f64::INFINITY } else { (a - b).abs() };
            if worst.is_none_or(|(_, x)| d > x) {
                worst = Some((i, d));
            }
        }
    }
    match worst {
        None => Ok(()),
        Some((i, d)) => {
            bail!(Run, "element {i} of {} differs by {d:e}: {} was expected, it is {}", w.len(), w[i], g[i])
        }
    }
}
