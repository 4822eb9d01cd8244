//! Ensembles of decision trees: TreeEnsemble, and its forerunners TreeEnsembleClassifier and TreeEnsembleRegressor.

use super::{Labels, ML, PostTransform, doubles, logistic, row_dim, rows};
use crate::backend::cpu::{Arg, CpuBindings, EagerCtx, Values};
use crate::base::alloc::{emptied, refill};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::elem::Narrow;
use crate::ops::case::to_f64s;
use crate::tensor::{DType, Value};
use crate::{bail, ensure, err};
use half::f16;
use smallvec::smallvec;
use std::collections::HashMap;
use std::iter::repeat_n;
use std::sync::{Arc, Mutex, PoisonError};

pub(super) const OPS: [OpDef; 3] = [
    OpDef { domain: ML, name: "TreeEnsemble", versions: &[5], parse: parse_ensemble },
    OpDef { domain: ML, name: "TreeEnsembleClassifier", versions: &[1, 3, 5], parse: |cx| parse_old(cx, true) },
    OpDef { domain: ML, name: "TreeEnsembleRegressor", versions: &[1, 3, 5], parse: |cx| parse_old(cx, false) },
];

/// How an element is compared with a node's value, in the order of ONNX's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Test {
    Leq,
    Lt,
    Gte,
    Gt,
    Eq,
    Neq,
    Member,
}

/// More targets than any model has: a bound on what a file can ask for.
const MAX_TARGETS: usize = 1 << 20;

const TESTS: [Test; 7] = [Test::Leq, Test::Lt, Test::Gte, Test::Gt, Test::Eq, Test::Neq, Test::Member];

/// Where a branch leads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Next {
    Node(u32),
    Leaf(u32),
}

#[derive(Clone, Debug)]
struct Node {
    test: Test,
    missing_is_true: bool,
    feature: usize,
    value: f64,
    yes: Next,
    no: Next,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Aggregate {
    Average,
    Sum,
    Min,
    Max,
}

#[derive(Debug)]
struct Forest {
    nodes: Vec<Node>,
    /// By node, for tests of membership.
    members: HashMap<u32, Vec<f64>>,
    /// Targets and weights; a leaf is a piece of them.
    weights: Vec<(usize, f64)>,
    leaves: Vec<(usize, usize)>,
    roots: Vec<Next>,
    features: usize,
}

impl Forest {
    /// Checks what evaluation relies on.
    fn checked(mut self, targets: usize) -> Result<Forest> {
        ensure!(targets <= MAX_TARGETS, Unsupported, "trees of {targets} targets");
        let fits = |n: &Next| match *n {
            Next::Node(i) => (i as usize) < self.nodes.len(),
            Next::Leaf(i) => (i as usize) < self.leaves.len(),
        };
        let branches = self.nodes.iter().flat_map(|n| [&n.yes, &n.no]).chain(&self.roots);
        for n in branches {
            ensure!(fits(n), InvalidModel, "a branch leads to {n:?}, which does not exist");
        }
        if let Some((t, _)) = self.weights.iter().find(|w| w.0 >= targets) {
            bail!(InvalidModel, "a leaf of target {t} of {targets}");
        }
        self.features = self.nodes.iter().map(|n| n.feature + 1).max().unwrap_or(0);
        Ok(self)
    }
    /// The leaf that a row comes to.
    fn leaf(&self, root: Next, x: &[f64]) -> Result<&[(usize, f64)]> {
        let mut at = root;
        // A walk that is longer than there are nodes goes round in circles.
        for _ in 0..=self.nodes.len() {
            let i = match at {
                Next::Leaf(l) => {
                    let (from, to) = self.leaves[l as usize];
                    return Ok(&self.weights[from..to]);
                }
                Next::Node(i) => i,
            };
            let n = &self.nodes[i as usize];
            let v = x[n.feature];
            let yes = match n.test {
                Test::Leq => v <= n.value,
                Test::Lt => v < n.value,
                Test::Gte => v >= n.value,
                Test::Gt => v > n.value,
                Test::Eq => v == n.value,
                Test::Neq => v != n.value,
                Test::Member => self.members.get(&i).is_some_and(|m| m.contains(&v)),
            };
            at = if yes || n.missing_is_true && v.is_nan() { n.yes } else { n.no };
        }
        bail!(InvalidModel, "a tree's branches go round in circles")
    }
    /// The scores of one row, and whether each has been met.
    fn scores(&self, x: &[f64], how: Aggregate, scores: &mut [f64], met: &mut [bool]) -> Result<()> {
        scores.fill(0.0);
        met.fill(false);
        for &root in &self.roots {
            for &(target, w) in self.leaf(root, x)? {
                let s = &mut scores[target];
                *s = match how {
                    Aggregate::Sum | Aggregate::Average => *s + w,
                    _ if !met[target] => w,
                    Aggregate::Min => s.min(w),
                    Aggregate::Max => s.max(w),
                };
                met[target] = true;
            }
        }
        if how == Aggregate::Average {
            scores.iter_mut().for_each(|s| *s /= self.roots.len() as f64);
        }
        Ok(())
    }
}

/// The sum (or another aggregate) of what each tree says of a row (ai.onnx.ml TreeEnsemble, TreeEnsembleRegressor,
/// TreeEnsembleClassifier).
#[derive(Debug)]
pub struct TreeEnsemble {
    forest: Forest,
    how: Aggregate,
    targets: usize,
    base: Vec<f64>,
    post: PostTransform,
    /// The result has the input's type, else f32.
    like_input: bool,
    classes: Option<Classes>,
}

#[derive(Debug)]
struct Classes {
    labels: Labels,
    /// Two classes, of which the leaves know one: this.
    binary: bool,
    class: usize,
    positive_weights: bool,
}

impl Classes {
    /// Whether a score of two classes decides for the second one; in f32, in which weights are given and scores told.
    fn is_second(&self, score: f64) -> bool {
        score as f32 > if self.positive_weights { 0.5 } else { 0.0 }
    }
}

fn index(n: i64, what: &str) -> Result<usize> {
    usize::try_from(n).map_err(|_| err!(InvalidModel, "{what} {n}"))
}

fn at<T: Copy>(v: &[T], i: usize, what: &str) -> Result<T> {
    v.get(i).copied().ok_or_else(|| err!(InvalidModel, "{what} has {} values, number {i} is needed", v.len()))
}

fn parse_ensemble(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let modes = cx.tensor("nodes_modes")?.to_i64s()?;
    let splits = to_f64s(&cx.tensor("nodes_splits")?)?;
    let (features, roots) = (cx.ints("nodes_featureids")?, cx.ints("tree_roots")?);
    let (yes, no) = (cx.ints("nodes_truenodeids")?, cx.ints("nodes_falsenodeids")?);
    let (yes_leaf, no_leaf) = (cx.ints("nodes_trueleafs")?, cx.ints("nodes_falseleafs")?);
    let missing = cx.ints_opt("nodes_missing_value_tracks_true")?.unwrap_or_default();
    let targets = index(cx.int("n_targets")?, "n_targets")?;
    let next = |node: i64, leaf: i64| -> Result<Next> {
        let i = u32::try_from(node).map_err(|_| err!(InvalidModel, "a branch leads to {node}"))?;
        Ok(if leaf != 0 { Next::Leaf(i) } else { Next::Node(i) })
    };
    let mut nodes = Vec::with_capacity(modes.len());
    for (i, &mode) in modes.iter().enumerate() {
        let test = usize::try_from(mode).ok().and_then(|m| TESTS.get(m).copied());
        nodes.push(Node {
            test: test.ok_or_else(|| err!(InvalidModel, "mode {mode}"))?,
            missing_is_true: missing.get(i).is_some_and(|&m| m != 0),
            feature: index(at(&features, i, "nodes_featureids")?, "feature")?,
            value: at(&splits, i, "nodes_splits")?,
            yes: next(at(&yes, i, "nodes_truenodeids")?, at(&yes_leaf, i, "nodes_trueleafs")?)?,
            no: next(at(&no, i, "nodes_falsenodeids")?, at(&no_leaf, i, "nodes_falseleafs")?)?,
        });
    }
    // The sets follow each other in the nodes' order, with a NaN after each.
    let mut members = HashMap::new();
    let values = cx.tensor_opt("membership_values")?.map(|t| to_f64s(&t)).transpose()?.unwrap_or_default();
    let mut sets = values.split_inclusive(|v| v.is_nan());
    for (i, _) in nodes.iter().enumerate().filter(|(_, n)| n.test == Test::Member) {
        let set = sets.next().ok_or_else(|| err!(InvalidModel, "node {i} tests for membership in no set"))?;
        members.insert(i as u32, set.iter().copied().filter(|v| !v.is_nan()).collect());
    }
    let leaf_targets = cx.ints("leaf_targetids")?;
    let leaf_weights = to_f64s(&cx.tensor("leaf_weights")?)?;
    ensure!(leaf_targets.len() == leaf_weights.len(), InvalidModel, "leaf_targetids and leaf_weights differ in length");
    let mut weights = Vec::with_capacity(leaf_weights.len());
    for (&t, &w) in leaf_targets.iter().zip(&leaf_weights) {
        weights.push((index(t, "target")?, w));
    }
    let roots = roots.iter().map(|&r| {
        let n: &Node = nodes.get(index(r, "root")?).ok_or_else(|| err!(InvalidModel, "root {r} does not exist"))?;
        // A tree that is one leaf is a node whose branches both lead there.
        let lone = n.yes == n.no && matches!(n.yes, Next::Leaf(_));
        Ok(if lone { n.yes } else { Next::Node(r as u32) })
    });
    let roots = roots.collect::<Result<_>>()?;
    let leaves = (0..weights.len()).map(|i| (i, i + 1)).collect();
    let how = match cx.int_or("aggregate_function", 1)? {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        x => bail!(InvalidModel, "aggregate_function {x}"),
    };
    let post = match cx.int_or("post_transform", 0)? {
        0 => PostTransform::None,
        1 => PostTransform::Softmax,
        2 => PostTransform::Logistic,
        3 => PostTransform::SoftmaxZero,
        4 => PostTransform::Probit,
        x => bail!(InvalidModel, "post_transform {x}"),
    };
    let forest = Forest { nodes, members, weights, leaves, roots, features: 0 }.checked(targets)?;
    Ok(Arc::new(TreeEnsemble { forest, how, targets, base: Vec::new(), post, like_input: true, classes: None }))
}

/// A list of floats, or the tensor that took its place.
fn floats_or_tensor(cx: &ParseCtx<'_>, name: &str) -> Result<Vec<f64>> {
    if let Some(t) = cx.tensor_opt(&format!("{name}_as_tensor"))? {
        return to_f64s(&t);
    }
    Ok(cx.floats_opt(name)?.unwrap_or_default().into_iter().map(f64::from).collect())
}

fn parse_old(cx: &mut ParseCtx<'_>, classifier: bool) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let (tree_ids, node_ids) = (cx.ints("nodes_treeids")?, cx.ints("nodes_nodeids")?);
    let modes = cx.strings_opt("nodes_modes")?.unwrap_or_default();
    let values = floats_or_tensor(cx, "nodes_values")?;
    let features = cx.ints("nodes_featureids")?;
    let (yes, no) = (cx.ints("nodes_truenodeids")?, cx.ints("nodes_falsenodeids")?);
    let missing = cx.ints_opt("nodes_missing_value_tracks_true")?.unwrap_or_default();
    let name = |plain: &str| format!("{}_{plain}", if classifier { "class" } else { "target" });
    let (trees_of, nodes_of) = (cx.ints(&name("treeids"))?, cx.ints(&name("nodeids"))?);
    let (targets_of, weights_of) = (cx.ints(&name("ids"))?, floats_or_tensor(cx, &name("weights"))?);

    // Leaves and inner nodes are numbered apart.
    let mut places: HashMap<(i64, i64), Next> = HashMap::new();
    let (mut inner, mut leaves) = (0u32, 0u32);
    for (i, mode) in modes.iter().enumerate() {
        let key = (at(&tree_ids, i, "nodes_treeids")?, at(&node_ids, i, "nodes_nodeids")?);
        let count = if mode == "LEAF" { &mut leaves } else { &mut inner };
        let place = if mode == "LEAF" { Next::Leaf(*count) } else { Next::Node(*count) };
        *count += 1;
        ensure!(places.insert(key, place).is_none(), InvalidModel, "two nodes are {} of tree {}", key.1, key.0);
    }
    let place = |tree: i64, node: i64| {
        places.get(&(tree, node)).copied().ok_or_else(|| err!(InvalidModel, "tree {tree} has no node {node}"))
    };
    let (mut nodes, mut roots, mut seen) = (Vec::new(), Vec::new(), std::collections::HashSet::new());
    for (i, mode) in modes.iter().enumerate() {
        let tree = tree_ids[i];
        if seen.insert(tree) {
            roots.push(place(tree, node_ids[i])?);
        }
        let test = match mode.as_str() {
            "LEAF" => continue,
            "BRANCH_LEQ" => Test::Leq,
            "BRANCH_LT" => Test::Lt,
            "BRANCH_GTE" => Test::Gte,
            "BRANCH_GT" => Test::Gt,
            "BRANCH_EQ" => Test::Eq,
            "BRANCH_NEQ" => Test::Neq,
            x => bail!(InvalidModel, "mode '{x}'"),
        };
        nodes.push(Node {
            test,
            missing_is_true: missing.get(i).is_some_and(|&m| m != 0),
            feature: index(at(&features, i, "nodes_featureids")?, "feature")?,
            value: at(&values, i, "nodes_values")?,
            yes: place(tree, at(&yes, i, "nodes_truenodeids")?)?,
            no: place(tree, at(&no, i, "nodes_falsenodeids")?)?,
        });
    }
    let mut by_leaf: Vec<Vec<(usize, f64)>> = vec![Vec::new(); leaves as usize];
    for (i, &t) in targets_of.iter().enumerate() {
        let (tree, node) = (at(&trees_of, i, &name("treeids"))?, at(&nodes_of, i, &name("nodeids"))?);
        // Some exporters give weights to inner nodes too; no walk ends there.
        if let Next::Leaf(l) = place(tree, node)? {
            by_leaf[l as usize].push((index(t, "target")?, at(&weights_of, i, &name("weights"))?));
        }
    }
    let mut leaves = Vec::with_capacity(by_leaf.len());
    let mut weights = Vec::new();
    for l in by_leaf {
        leaves.push((weights.len(), weights.len() + l.len()));
        weights.extend(l);
    }
    let labels = if classifier { Some(Labels::parse(cx, "classlabels_int64s", "classlabels_strings")?) } else { None };
    let targets = match &labels {
        // One label stands for two classes, 0 and it.
        Some(l) => l.len().max(2),
        None => index(cx.int_or("n_targets", 1)?, "n_targets")?,
    };
    let how = match cx.string_or("aggregate_function", "SUM")?.as_str() {
        "SUM" => Aggregate::Sum,
        "AVERAGE" => Aggregate::Average,
        "MIN" => Aggregate::Min,
        "MAX" => Aggregate::Max,
        x => bail!(InvalidModel, "aggregate_function '{x}'"),
    };
    let classes = labels.map(|labels| Classes {
        binary: labels.len() <= 2 && targets_of.iter().all(|t| Some(t) == targets_of.first()),
        class: usize::from(targets_of.first() == Some(&1)),
        positive_weights: weights_of.iter().all(|&w| w >= 0.0),
        labels,
    });
    let base = floats_or_tensor(cx, "base_values")?;
    ensure!(base.len() <= targets, InvalidModel, "{} base values for {targets} targets", base.len());
    let post = PostTransform::parse(cx)?;
    let forest = Forest { nodes, members: HashMap::new(), weights, leaves, roots, features: 0 }.checked(targets)?;
    Ok(Arc::new(TreeEnsemble { forest, how, targets, base, post, like_input: false, classes }))
}

impl Op for TreeEnsemble {
    fn name(&self) -> &'static str {
        match (&self.classes, self.like_input) {
            (Some(_), _) => "TreeEnsembleClassifier",
            (None, true) => "TreeEnsemble",
            (None, false) => "TreeEnsembleRegressor",
        }
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let n = row_dim(cx)?;
        let dtype = if self.like_input { cx.dtype(0)? } else { DType::F32 };
        let scores = Fact::tensor(dtype, vec![n.clone(), Dim::of(self.targets)]);
        Ok(match &self.classes {
            Some(c) => vec![Fact::tensor(c.labels.dtype(), vec![n]), scores],
            None => vec![scores],
        })
    }
}

impl TreeEnsemble {
    /// One row's scores into `y`; the class it is.
    fn row(&self, x: &[f64], met: &mut [bool], scores: &mut [f64], y: &mut [f64]) -> Result<usize> {
        self.forest.scores(x, self.how, scores, met)?;
        let first_greatest = |s: &[f64]| (1..s.len()).fold(0, |b, i| if s[i] > s[b] { i } else { b });
        let binary = self.classes.as_ref().filter(|c| c.binary);
        if let Some(c) = binary.filter(|c| c.class == 0 && self.base.len() < 2) {
            // The leaves know the score of the second class alone, and say it is of the first.
            let s = scores[0] + self.base.first().copied().unwrap_or(0.0);
            y.copy_from_slice(&match self.post {
                PostTransform::Logistic => [logistic(-s), logistic(s)],
                PostTransform::Probit => bail!(Unsupported, "PROBIT of two classes with one score"),
                _ if c.positive_weights => [1.0 - s, s],
                _ => [-s, s],
            });
            return Ok(usize::from(c.is_second(s)));
        }
        // A target that no leaf knows stays zero; a class gets its base value all the same.
        for (i, b) in self.base.iter().enumerate() {
            if met[i] || self.classes.is_some() {
                scores[i] += b;
            }
        }
        y.copy_from_slice(scores);
        // As in onnxruntime: one target alone is only ever transformed by PROBIT.
        if self.targets > 1 || self.post == PostTransform::Probit {
            self.post.apply(y);
        }
        Ok(match binary {
            Some(c) => usize::from(c.is_second(scores[c.class])),
            None => first_greatest(scores),
        })
    }
}

/// Features, and what the rows of each task come to.
#[derive(Default)]
struct Lists {
    x: Vec<f64>,
    pieces: Vec<Mutex<Piece>>,
    best: Vec<usize>,
}

/// The scores and classes of some rows, and what they are found with.
#[derive(Default)]
struct Piece {
    y: Vec<f64>,
    best: Vec<usize>,
    met: Vec<bool>,
    sums: Vec<f64>,
}

impl Piece {
    fn run(&mut self, op: &TreeEnsemble, rows: std::slice::ChunksExact<'_, f64>) -> Result<()> {
        let Piece { y, best, met, sums } = self;
        refill(y, repeat_n(0.0, product(&[rows.len(), op.targets])?))?;
        refill(met, repeat_n(false, op.targets))?;
        refill(sums, repeat_n(0.0, op.targets))?;
        emptied(best, rows.len())?;
        for (row, y) in rows.zip(y.chunks_exact_mut(op.targets.max(1))) {
            best.push(op.row(row, met, sums, y)?);
        }
        Ok(())
    }
}

fn run(op: &TreeEnsemble, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let t = args[0].tensor()?;
    let (n, c) = rows(t.shape())?;
    ensure!(c >= op.forest.features, Run, "the trees read {} features, there are {c}", op.forest.features);
    let mut lists = cx.lists::<Lists>();
    let Lists { x, pieces, best } = &mut *lists;
    doubles(t, x)?;
    // Tasks of some 256 visits of trees.
    let per = 256usize.div_ceil(op.forest.roots.len().max(1));
    let tasks = n.div_ceil(per);
    pieces.try_reserve(tasks.saturating_sub(pieces.len())).map_err(|_| err!(OutOfMemory, "{tasks} tasks"))?;
    pieces.resize_with(pieces.len().max(tasks), Mutex::default);
    let failed = Mutex::new(None);
    cx.pool.run(tasks, &|_, task| {
        let rows = &x[task * per * c..n.min((task + 1) * per) * c];
        // Each task has its own.
        let mut piece = pieces[task].lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = piece.run(op, rows.chunks_exact(c.max(1))) {
            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)?;
    let shape = [n, op.targets];
    let mut z = cx.tensor(if op.like_input { t.dtype() } else { DType::F32 }, &shape)?;
    emptied(best, n)?;
    for (task, piece) in pieces[..tasks].iter_mut().enumerate() {
        let piece = piece.get_mut().unwrap_or_else(PoisonError::into_inner);
        best.extend_from_slice(&piece.best);
        let from = task * per * op.targets;
        macro_rules! put {
            ($t:ty, $narrow:expr) => {
                z.as_mut_slice::<$t>()?[from..].iter_mut().zip(&piece.y).for_each(|(to, &s)| *to = $narrow(s))
            };
        }
        match z.dtype() {
            DType::F64 => put!(f64, |s| s),
            DType::F16 => put!(f16, f16::narrow_f64),
            _ => put!(f32, |s| s as f32),
        }
    }
    let Some(classes) = &op.classes else {
        cx.keep(lists);
        return Ok(smallvec![Value::Tensor(z)]);
    };
    let labels = match &classes.labels {
        // The only label is the second class.
        Labels::Ints(v) if v.len() == 1 => cx.gathered(&[n], best.iter().map(|&b| if b == 0 { 0 } else { v[0] }))?,
        Labels::Strings(v) if v.len() == 1 => bail!(Unsupported, "a classifier with one label, which is a string"),
        l => l.pick(best, cx)?,
    };
    cx.keep(lists);
    Ok(smallvec![Value::Tensor(labels), Value::Tensor(z)])
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.eager::<TreeEnsemble>(run);
}
