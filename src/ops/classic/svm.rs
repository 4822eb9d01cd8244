//! Support vector machines: SVMClassifier, SVMRegressor.

use super::{Labels, ML, PostTransform, doubles, logistic, row_dim, rows};
use crate::backend::cpu::{Arg, CpuBindings, EagerCtx, Values};
use crate::base::alloc::{emptied, refill};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::tensor::{DType, Value};
use crate::{bail, ensure, err};
use smallvec::smallvec;
use std::iter::repeat_n;
use std::sync::Arc;

pub(super) const OPS: [OpDef; 2] = [
    OpDef { domain: ML, name: "SVMClassifier", versions: &[1], parse: parse_classifier },
    OpDef { domain: ML, name: "SVMRegressor", versions: &[1], parse: parse_regressor },
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Linear,
    Poly,
    Rbf,
    Sigmoid,
}

/// A measure of how alike two rows are.
#[derive(Clone, Copy, Debug)]
struct Kernel {
    shape: Shape,
    gamma: f64,
    offset: f64,
    degree: f64,
}

impl Kernel {
    fn parse(cx: &ParseCtx<'_>) -> Result<Kernel> {
        let shape = match cx.string_or("kernel_type", "LINEAR")?.as_str() {
            "LINEAR" => Shape::Linear,
            "POLY" => Shape::Poly,
            "RBF" => Shape::Rbf,
            "SIGMOID" => Shape::Sigmoid,
            x => bail!(InvalidModel, "kernel_type '{x}'"),
        };
        let (gamma, offset, degree) = match cx.floats_opt("kernel_params")?.as_deref() {
            None | Some([]) => (0.0, 0.0, 0.0),
            Some([g, c, d]) => (f64::from(*g), f64::from(*c), f64::from(d.trunc())),
            Some(p) => bail!(InvalidModel, "kernel_params has {} values, not three", p.len()),
        };
        Ok(Kernel { shape, gamma, offset, degree })
    }
    fn of(&self, a: &[f64], b: &[f64]) -> f64 {
        let dot = || a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        match self.shape {
            Shape::Linear => dot(),
            Shape::Poly => (dot() * self.gamma + self.offset).powf(self.degree),
            Shape::Sigmoid => (dot() * self.gamma + self.offset).tanh(),
            Shape::Rbf => (-self.gamma * a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f64>()).exp(),
        }
    }
}

fn wide(cx: &ParseCtx<'_>, name: &str) -> Result<Vec<f64>> {
    Ok(cx.floats_opt(name)?.unwrap_or_default().into_iter().map(f64::from).collect())
}

/// A weighted sum of kernels (ai.onnx.ml SVMRegressor).
#[derive(Debug)]
pub struct SvmRegressor {
    kernel: Kernel,
    coefficients: Vec<f64>,
    /// Rows, one after another; none for a linear machine.
    vectors: Vec<f64>,
    supports: usize,
    rho: f64,
    one_class: bool,
    post: PostTransform,
}

fn parse_regressor(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let supports = cx.int_or("n_supports", 0)?;
    let supports = usize::try_from(supports).map_err(|_| err!(InvalidModel, "n_supports is {supports}"))?;
    let (coefficients, vectors) = (wide(cx, "coefficients")?, wide(cx, "support_vectors")?);
    ensure!(
        supports == 0 || coefficients.len() >= supports && vectors.len() % supports == 0,
        InvalidModel,
        "{supports} support vectors of {} numbers with {} coefficients",
        vectors.len(),
        coefficients.len()
    );
    let mut kernel = Kernel::parse(cx)?;
    if supports == 0 {
        kernel.shape = Shape::Linear;
    }
    let rho = wide(cx, "rho")?.first().copied().unwrap_or(0.0);
    let (one_class, post) = (cx.flag("one_class", false)?, PostTransform::parse(cx)?);
    Ok(Arc::new(SvmRegressor { kernel, coefficients, vectors, supports, rho, one_class, post }))
}

impl Op for SvmRegressor {
    named!(SvmRegressor, "SVMRegressor");
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![Fact::tensor(DType::F32, vec![row_dim(cx)?, Dim::Known(1)])])
    }
}

fn run_regressor(op: &SvmRegressor, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let t = args[0].tensor()?;
    let (n, c) = rows(t.shape())?;
    let want = op.vectors.len().checked_div(op.supports).unwrap_or(op.coefficients.len());
    ensure!(c == want, Run, "{c} features for a machine of {want}");
    let mut lists = cx.lists::<(Vec<f64>, Vec<f32>)>();
    let (x, y) = &mut *lists;
    doubles(t, x)?;
    emptied(y, n)?;
    for i in 0..n {
        let row = &x[i * c..][..c];
        let sum: f64 = match op.supports {
            0 => op.kernel.of(row, &op.coefficients),
            m => (0..m).map(|j| op.coefficients[j] * op.kernel.of(row, &op.vectors[j * c..][..c])).sum(),
        };
        let mut s = [sum + op.rho];
        if op.one_class {
            s[0] = if s[0] > 0.0 { 1.0 } else { -1.0 };
        }
        op.post.apply(&mut s);
        y.push(s[0] as f32);
    }
    let y = cx.gathered(&[n, 1], y.iter().copied())?;
    cx.keep(lists);
    Ok(smallvec![Value::Tensor(y)])
}

/// One machine for each pair of classes, or one linear function for each class (ai.onnx.ml SVMClassifier).
#[derive(Debug)]
pub struct SvmClassifier {
    kernel: Kernel,
    coefficients: Vec<f64>,
    vectors: Vec<f64>,
    /// Support vectors of each class; empty for a linear machine.
    per_class: Vec<usize>,
    supports: usize,
    rho: Vec<f64>,
    /// What turns scores into probabilities, for each pair.
    prob: Option<(Vec<f64>, Vec<f64>)>,
    labels: Labels,
    post: PostTransform,
}

fn parse_classifier(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let labels = Labels::parse(cx, "classlabels_ints", "classlabels_strings")?;
    let sizes = cx.ints_opt("vectors_per_class")?.unwrap_or_default();
    let per_class = sizes.iter().map(|&n| usize::try_from(n).map_err(|_| err!(InvalidModel, "vectors_per_class {n}")));
    let mut per_class = per_class.collect::<Result<Vec<_>>>()?;
    let supports = per_class.iter().fold(0usize, |a, &b| a.saturating_add(b));
    let (coefficients, vectors) = (wide(cx, "coefficients")?, wide(cx, "support_vectors")?);
    let (rho, classes) = (wide(cx, "rho")?, labels.len());
    let mut kernel = Kernel::parse(cx)?;
    ensure!(classes > 0 && !rho.is_empty(), InvalidModel, "{classes} classes and {} values of rho", rho.len());
    let pairs = classes * (classes - 1) / 2;
    let (a, b) = (wide(cx, "prob_a")?, wide(cx, "prob_b")?);
    let mut prob = None;
    if supports == 0 {
        per_class.clear();
        kernel.shape = Shape::Linear;
        ensure!(coefficients.len() % classes == 0, InvalidModel, "{} coefficients", coefficients.len());
    } else {
        let fits = per_class.len() == classes
            && vectors.len() % supports == 0
            && (classes - 1).checked_mul(supports).is_some_and(|n| coefficients.len() >= n)
            && rho.len() >= pairs;
        ensure!(
            fits,
            InvalidModel,
            "{supports} support vectors of {} classes (of {classes}) with {} coefficients and {} values of rho",
            per_class.len(),
            coefficients.len(),
            rho.len()
        );
        if !a.is_empty() {
            ensure!(a.len() >= pairs && b.len() >= pairs, InvalidModel, "prob_a and prob_b for {pairs} pairs");
            prob = Some((a, b));
        }
    }
    let post = PostTransform::parse(cx)?;
    Ok(Arc::new(SvmClassifier { kernel, coefficients, vectors, per_class, supports, rho, prob, labels, post }))
}

/// What a row's classes are found with.
#[derive(Default)]
struct Work {
    kernels: Vec<f64>,
    starts: Vec<usize>,
    votes: Vec<f64>,
    scores: Vec<f64>,
    r: Vec<f64>,
    q: Vec<f64>,
    p: Vec<f64>,
    qp: Vec<f64>,
}

impl SvmClassifier {
    /// Scores a row comes with before the last transform.
    fn scores(&self) -> usize {
        let classes = self.labels.len();
        if self.supports == 0 || self.prob.is_some() { classes } else { classes * (classes - 1) / 2 }
    }
    /// One score of two classes becomes two.
    fn width(&self) -> usize {
        if self.scores() == 1 && self.labels.len() == 2 && self.rho.len() == 1 { 2 } else { self.scores() }
    }
    /// The votes and scores of the machines, a pair of classes each.
    fn pairs(&self, row: &[f64], Work { kernels, starts, votes, scores, .. }: &mut Work) -> Result<()> {
        let (m, c, classes) = (self.supports, row.len(), self.labels.len());
        refill(kernels, (0..m).map(|j| self.kernel.of(row, &self.vectors[j * c..][..c])))?;
        refill(starts, self.per_class.iter().scan(0, |s, n| Some(std::mem::replace(s, *s + n))))?;
        refill(votes, repeat_n(0.0, classes))?;
        scores.clear();
        for i in 0..classes {
            for j in i + 1..classes {
                // The coefficients that class `of` has in the machine against another are in row `line`.
                let part = |line: usize, of: usize| -> f64 {
                    let range = starts[of]..starts[of] + self.per_class[of];
                    let w = &self.coefficients[line * m..][range.clone()];
                    w.iter().zip(&kernels[range]).map(|(w, k)| w * k).sum()
                };
                let s = self.rho[scores.len()] + part(j - 1, i) + part(i, j);
                votes[if s > 0.0 { i } else { j }] += 1.0;
                scores.push(s);
            }
        }
        Ok(())
    }
    /// Probabilities of the classes from those of pairs (Wu, Lin and Weng 2004).
    fn probabilities(&self, work: &mut Work, (a, b): &(Vec<f64>, Vec<f64>)) -> Result<()> {
        let Work { scores, r, q, p, qp, .. } = work;
        let n = self.labels.len();
        refill(r, repeat_n(0.0, n * n))?;
        let mut pair = 0;
        for i in 0..n {
            for j in i + 1..n {
                let p = (1.0 - logistic(scores[pair] * a[pair] + b[pair])).clamp(1e-7, 1.0 - 1e-7);
                r[i * n + j] = p;
                r[j * n + i] = 1.0 - p;
                pair += 1;
            }
        }
        refill(q, repeat_n(0.0, n * n))?;
        for t in 0..n {
            for j in (0..n).filter(|&j| j != t) {
                q[t * n + t] += r[j * n + t] * r[j * n + t];
                q[t * n + j] = -r[j * n + t] * r[t * n + j];
            }
        }
        refill(p, repeat_n(1.0 / n as f64, n))?;
        for _ in 0..n.max(100) {
            refill(qp, (0..n).map(|t| (0..n).map(|j| q[t * n + j] * p[j]).sum()))?;
            let mut pqp: f64 = p.iter().zip(&*qp).map(|(p, q)| p * q).sum();
            if qp.iter().all(|x| (x - pqp).abs() < 0.005 / n as f64) {
                break;
            }
            for t in 0..n {
                let own = q[t * n + t];
                let diff = (pqp - qp[t]) / own;
                p[t] += diff;
                pqp = (pqp + diff * (diff * own + 2.0 * qp[t])) / (1.0 + diff) / (1.0 + diff);
                for j in 0..n {
                    qp[j] = (qp[j] + diff * q[t * n + j]) / (1.0 + diff);
                    p[j] /= 1.0 + diff;
                }
            }
        }
        refill(scores, p.iter().copied())
    }
}

impl Op for SvmClassifier {
    named!(SvmClassifier, "SVMClassifier");
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let n = row_dim(cx)?;
        let labels = Fact::tensor(self.labels.dtype(), vec![n.clone()]);
        Ok(vec![labels, Fact::tensor(DType::F32, vec![n, Dim::of(self.width())])])
    }
}

fn run_classifier(op: &SvmClassifier, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let t = args[0].tensor()?;
    let (n, c) = rows(t.shape())?;
    let classes = op.labels.len();
    let want = op.vectors.len().checked_div(op.supports).unwrap_or(op.coefficients.len() / classes);
    ensure!(c == want, Run, "{c} features for a machine of {want}");
    let mut lists = cx.lists::<(Vec<f64>, Vec<f32>, Vec<usize>, Work)>();
    let (x, out, best, work) = &mut *lists;
    doubles(t, x)?;
    emptied(out, product(&[n, op.width()])?)?;
    emptied(best, n)?;
    for i in 0..n {
        let row = &x[i * c..][..c];
        if op.supports == 0 {
            let score = |k: usize| op.rho[0] + op.kernel.of(row, &op.coefficients[k * c..][..c]);
            refill(&mut work.scores, (0..classes).map(score))?;
            refill(&mut work.votes, work.scores.iter().copied())?;
        } else {
            op.pairs(row, work)?;
        }
        if let Some(prob) = &op.prob {
            op.probabilities(work, prob)?;
        }
        let Work { votes, scores: s, .. } = work;
        best.push((1..votes.len()).fold(0, |b, i| if votes[i] > votes[b] { i } else { b }));
        if op.width() > s.len() {
            ensure!(op.post != PostTransform::Probit, Unsupported, "PROBIT of two classes with one score");
            let first = s[0];
            refill(s, [-first, first].into_iter())?;
        }
        op.post.apply(s);
        out.extend(s.iter().map(|&s| s as f32));
    }
    let labels = op.labels.pick(best, cx)?;
    let scores = cx.gathered(&[n, op.width()], out.iter().copied())?;
    cx.keep(lists);
    Ok(smallvec![Value::Tensor(labels), Value::Tensor(scores)])
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.eager::<SvmRegressor>(run_regressor);
    b.eager::<SvmClassifier>(run_classifier);
}
