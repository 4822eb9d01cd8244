//! Recurrent layers: RNN, GRU, LSTM.

mod cell;
mod run;

pub use cell::{Activation, ActivationFn, CellKind};

use super::Family;
use super::case::{Case, CaseInput};
use crate::backend::cpu::CpuBindings;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure, err};
use std::sync::Arc;

pub(super) const FAMILY: Family = Family { name: "recurrent", ops: OPS, cpu, cases, ..Family::EMPTY };

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "RNN", versions: &[1, 7, 14, 22], parse },
    OpDef { domain: "", name: "GRU", versions: &[1, 3, 7, 14, 22], parse },
    OpDef { domain: "", name: "LSTM", versions: &[1, 7, 14, 22], parse },
];

/// A layer over a sequence. Inputs X, W, R, B, sequence lengths, first hidden state, first cell state, peepholes; outputs all
/// hidden states, the last one, the last cell state.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    /// Which cell.
    pub kind: CellKind,
    /// By direction: whether it runs backwards.
    pub backwards: Vec<bool>,
    /// By direction: the cell's functions.
    pub activations: Vec<Vec<Activation>>,
    /// What goes into a function is kept within plus and minus this.
    pub clip: Option<f32>,
    /// Size of the state, if given.
    pub hidden: Option<i64>,
    /// Batch comes before time.
    pub batch_first: bool,
    /// LSTM: the forget gate is one minus the input gate.
    pub coupled: bool,
    /// GRU: the reset gate acts after the product.
    pub linear_before_reset: bool,
    /// LSTM: the states are rounded to 8 bits of their extent before each product.
    pub quantised_state: bool,
}

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let (kind, most) = match cx.op_type {
        "RNN" => (CellKind::Rnn, 6),
        "GRU" => (CellKind::Gru, 6),
        _ => (CellKind::Lstm, 8),
    };
    cx.expect_inputs(3, most)?;
    let backwards = match cx.string_or("direction", "forward")?.as_str() {
        "forward" => vec![false],
        "reverse" => vec![true],
        "bidirectional" => vec![false, true],
        d => bail!(InvalidModel, "direction is '{d}'"),
    };
    let names = cx.strings_opt("activations")?.filter(|a| !a.is_empty());
    let (alphas, betas) = (cx.floats_opt("activation_alpha")?, cx.floats_opt("activation_beta")?);
    let (alphas, betas) = (alphas.unwrap_or_default(), betas.unwrap_or_default());
    let count = kind.functions().len();
    let names: Vec<String> = match names {
        Some(n) => n,
        None => (0..backwards.len()).flat_map(|_| kind.functions()).map(|s| s.to_string()).collect(),
    };
    ensure!(
        names.len() >= count * backwards.len(),
        InvalidModel,
        "{} activations, {} are needed",
        names.len(),
        count * backwards.len()
    );
    // Each function that has parameters takes the next of the lists, or its defaults.
    let (mut alphas, mut betas) = (alphas.into_iter(), betas.into_iter());
    let all = names.iter().map(|n| Activation::parse(n, &mut alphas, &mut betas)).collect::<Result<Vec<_>>>()?;
    let clip = cx.float_opt("clip")?.filter(|&c| c > 0.0);
    Ok(Arc::new(Recurrent {
        kind,
        activations: all.chunks(count).take(backwards.len()).map(<[_]>::to_vec).collect(),
        backwards,
        clip,
        hidden: cx.int_opt("hidden_size")?,
        batch_first: cx.flag("layout", false)?,
        coupled: cx.flag("input_forget", false)?,
        linear_before_reset: cx.flag("linear_before_reset", false)?,
        quantised_state: false,
    }))
}

/// Known sizes of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub steps: usize,
    pub batch: usize,
    pub input: usize,
    pub hidden: usize,
}

impl Recurrent {
    /// Checks the shapes of all operands against each other.
    pub(super) fn sizes(&self, shape: &dyn Fn(usize) -> Option<Vec<usize>>) -> Result<Sizes> {
        let need = |i: usize| shape(i).ok_or_else(|| err!(InvalidModel, "input {i} is missing"));
        let (x, _w, r) = (need(0)?, need(1)?, need(2)?);
        ensure!(x.len() == 3 && r.len() == 3, InvalidModel, "X {x:?} and R {r:?} must have three axes");
        let (steps, batch) = if self.batch_first { (x[1], x[0]) } else { (x[0], x[1]) };
        let (input, hidden, dirs, gates) = (x[2], r[2], self.backwards.len(), self.kind.gates());
        ensure!(self.hidden.is_none_or(|h| h == hidden as i64), InvalidModel, "hidden_size differs from R {r:?}");
        let state = if self.batch_first { [batch, dirs, hidden] } else { [dirs, batch, hidden] };
        let wide = hidden.checked_mul(2 * gates).ok_or_else(|| err!(InvalidModel, "R {r:?} is out of range"))?;
        let want: [(usize, &[usize]); 7] = [
            (1, &[dirs, wide / 2, input]),
            (2, &[dirs, wide / 2, hidden]),
            (3, &[dirs, wide]),
            (4, &[batch]),
            (5, &state),
            (6, &state),
            (7, &[dirs, 3 * hidden]),
        ];
        for (i, w) in want {
            if let Some(s) = shape(i) {
                ensure!(s == w, InvalidModel, "input {i} has shape {s:?}, not {w:?}");
            }
        }
        Ok(Sizes { steps, batch, input, hidden })
    }
}

impl Op for Recurrent {
    fn name(&self) -> &'static str {
        match self.kind {
            CellKind::Rnn => "RNN",
            CellKind::Gru => "GRU",
            CellKind::Lstm => "LSTM",
        }
    }
    fn flops(&self, cx: &InferCtx<'_>, _: &[Fact]) -> u64 {
        2 * (cx.elements(0) / cx.size(0, 2).max(1)) * (cx.elements(1) + cx.elements(2))
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F64, DType::F16, DType::BF16])?;
        let d = cx.dtype(0)?;
        for i in [1, 2, 3, 5, 6, 7] {
            if cx.has(i) {
                cx.expect_same_dtype(0, i)?;
            }
        }
        if cx.has(4) {
            cx.expect_dtype(4, &[DType::I32])?;
        }
        let dims = |i: usize| cx.tensor(i).ok().and_then(|t| t.dims.clone());
        let x = dims(0).unwrap_or_else(|| vec![Dim::Unknown; 3]);
        ensure!(x.len() == 3, InvalidModel, "X must have three axes, it has {}", x.len());
        let hidden = match (self.hidden, dims(2)) {
            (Some(h), _) => Dim::Known(h),
            (None, Some(r)) if r.len() == 3 => r[2].clone(),
            _ => Dim::Unknown,
        };
        let all: Vec<_> = (0..8).map(|i| cx.fact(i)).collect();
        if all.iter().all(|f| f.is_concrete()) {
            self.sizes(&|i| all[i].shape().map(|s| s.to_vec()))?;
        }
        let dirs = Dim::of(self.backwards.len());
        let (a, b) = (x[0].clone(), x[1].clone());
        let (y, state) = if self.batch_first {
            (vec![a.clone(), b, dirs.clone(), hidden.clone()], vec![a, dirs, hidden])
        } else {
            (vec![a, dirs.clone(), b.clone(), hidden.clone()], vec![dirs, b, hidden])
        };
        let mut out = vec![Fact::tensor(d, y), Fact::tensor(d, state.clone())];
        if self.kind == CellKind::Lstm {
            out.push(Fact::tensor(d, state));
        }
        Ok(out)
    }
}

fn cpu(b: &mut CpuBindings) {
    b.step::<Recurrent>(run::bind);
}

fn cases() -> Vec<Case> {
    let of = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), -1.0, 1.0);
    let constant = |shape: &[usize], seed| {
        super::case::random(DType::F32, shape, -1.0, 1.0, seed).map_or(CaseInput::Absent, CaseInput::Constant)
    };
    let lengths = || Tensor::from_slice(&[3], &[4i32, 0, 2]).map_or(CaseInput::Absent, CaseInput::Given);
    let text = |s: &str| Attr::String(s.into());
    let mut cases = Vec::new();
    for (op, gates, outputs) in [("RNN", 1, 2), ("GRU", 3, 2), ("LSTM", 4, 3)] {
        let (i, h) = (5, 19);
        let weights = |dirs: usize| {
            vec![
                of(DType::F32, &[4, 3, i]),
                constant(&[dirs, gates * h, i], 3),
                constant(&[dirs, gates * h, h], 4),
                constant(&[dirs, 2 * gates * h], 5),
            ]
        };
        let case = |name, inputs| Case { outputs: vec![true; outputs], ..Case::new(op, 22, name, inputs) };
        cases.push(case("forward", weights(1)));
        let mut both = weights(2);
        both.extend([lengths(), of(DType::F32, &[2, 3, h])]);
        cases.push(case("both_ways", both).attr("direction", text("bidirectional")));
        cases.push(case("reverse", weights(1)).attr("direction", text("reverse")).attr("clip", Attr::Float(0.5)));
        cases.push(case("batch_first", weights(1)).attr("layout", Attr::Int(1)));
        let d = DType::F64;
        cases.push(case("f64", vec![of(d, &[2, 3, i]), of(d, &[1, gates * h, i]), of(d, &[1, gates * h, h])]));
    }
    cases.push(
        Case::new(
            "GRU",
            22,
            "linear_before_reset",
            vec![
                of(DType::F32, &[3, 2, 4]),
                of(DType::F32, &[1, 15, 4]),
                of(DType::F32, &[1, 15, 5]),
                of(DType::F32, &[1, 30]),
            ],
        )
        .attr("linear_before_reset", Attr::Int(1)),
    );
    let h = 21;
    let inputs = vec![
        of(DType::F32, &[3, 2, 4]),
        of(DType::F32, &[1, 4 * h, 4]),
        constant(&[1, 4 * h, h], 6),
        of(DType::F32, &[1, 8 * h]),
        CaseInput::Absent,
        CaseInput::Absent,
        of(DType::F32, &[1, 2, h]),
        of(DType::F32, &[1, 3 * h]),
    ];
    for (name, coupled) in [("peepholes", 0), ("coupled", 1)] {
        let functions = ["HardSigmoid", "Softsign", "Elu"].map(Into::into);
        let case = Case { outputs: vec![true; 3], ..Case::new("LSTM", 22, name, inputs.clone()) };
        cases.push(case.attr("activations", Attr::Strings(functions.into())).attr("input_forget", Attr::Int(coupled)));
    }
    cases
}
