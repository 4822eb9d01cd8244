//! The operator trait, definitions, and the registry that the importer asks.

use super::{Fact, Graph, ParseCtx, Spelling, TensorFact};
use crate::error::Result;
use crate::tensor::{DType, Dims};
use crate::{bail, ensure};
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// A canonical operator: one typed struct an operation, a superset of every ONNX version's meaning. It knows no backend.
/// `Debug` must tell every attribute in full: two operators of one type that print alike are taken to be the same one.
pub trait Op: Any + fmt::Debug + Send + Sync {
    /// The canonical name: ONNX's where there is one.
    fn name(&self) -> &'static str;
    /// The facts of the outputs from those of the inputs. Serves load time (symbolic) and specialisation (concrete)
    /// alike. An output whose size depends on data gets an unknown dim. Errors where the inputs are impossible.
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>>;
    /// About how many operations on numbers a run takes; 0 where data only moves, or where nobody has counted. The facts
    /// are concrete.
    fn flops(&self, _cx: &InferCtx<'_>, _outputs: &[Fact]) -> u64 {
        0
    }
    /// Which memory an output may share.
    fn alias(&self) -> Alias {
        Alias::None
    }
    /// Which part of the whole is output `k` (for [`Alias::Parts`]) or input `k` (for [`Alias::Joined`]); `None` where it
    /// is no box of neighbouring elements, or that is not known.
    fn part(&self, _k: usize, _inputs: &[&Fact], _outputs: &[Fact]) -> Option<Region> {
        None
    }
    /// The graphs inside it (branches and bodies).
    fn subgraphs(&self) -> Vec<&Graph> {
        Vec::new()
    }
    /// The same operator with other graphs inside, in the order of `subgraphs`.
    fn with_subgraphs(&self, _graphs: Vec<Arc<Graph>>) -> Option<Arc<dyn Op>> {
        None
    }
    /// The node's inputs that feed the last inputs of the `k`th of those graphs.
    fn captures(&self, _k: usize) -> &[usize] {
        &[]
    }
    /// The operator as version `version` of ONNX's own operators says it, for a node of so many inputs: for what passes
    /// and compositions make. What was read from a model keeps the spelling it had there.
    fn to_onnx(&self, _version: u32, _inputs: usize) -> Option<Spelling> {
        None
    }
    /// Whether the same inputs always give the same outputs, so that it may be folded and shared.
    fn is_deterministic(&self) -> bool {
        true
    }
    /// A description of the attributes for dumps.
    fn describe(&self) -> String {
        format!("{self:?}")
    }
}

impl dyn Op {
    /// The operator as its own type.
    pub fn downcast<T: Op>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }
    /// Whether it is of type `T`.
    pub fn is<T: Op>(&self) -> bool {
        self.downcast::<T>().is_some()
    }
}

/// Which input's memory an output may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alias {
    /// None.
    None,
    /// Output 0 is input 0's bytes under another shape: no work at all.
    View,
    /// Output 0 may overwrite any of these inputs, if it has as many elements of as many bits: each element is read before the
    /// element at the same place is written.
    InPlace(&'static [usize]),
    /// The outputs are parts of input 0, as [`Op::part`] says.
    Parts,
    /// The inputs are parts of output 0, as [`Op::part`] says.
    Joined,
}

/// A box within a tensor: where it begins on each axis, and how far it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first element's coordinates.
    pub start: Dims,
    /// The sizes, of as many axes as the whole has.
    pub size: Dims,
}

/// What [`Op::infer`] sees.
pub struct InferCtx<'a> {
    /// Facts of the inputs; trailing missing ones may be cut off.
    pub inputs: &'a [&'a Fact],
    /// How many outputs the node has.
    pub outputs: usize,
}

impl<'a> InferCtx<'a> {
    /// The input's fact, `Absent` if it is not given.
    pub fn fact(&self, i: usize) -> &'a Fact {
        self.inputs.get(i).copied().unwrap_or(&Fact::Absent)
    }
    /// Whether the input is given.
    pub fn has(&self, i: usize) -> bool {
        !self.fact(i).is_absent()
    }
    /// The fact of an input that must be a tensor.
    pub fn tensor(&self, i: usize) -> Result<&'a TensorFact> {
        match self.fact(i) {
            Fact::Tensor(t) => Ok(t),
            Fact::Absent => bail!(InvalidModel, "input {i} is missing"),
            f => bail!(InvalidModel, "input {i} must be a tensor, it is {f}"),
        }
    }
    /// The fact of an optional tensor input.
    pub fn opt_tensor(&self, i: usize) -> Result<Option<&'a TensorFact>> {
        if self.has(i) { self.tensor(i).map(Some) } else { Ok(None) }
    }
    /// Elements of an input; 0 where that is not known.
    pub fn elements(&self, i: usize) -> u64 {
        elements(std::slice::from_ref(self.fact(i)))
    }
    /// The size of an axis (from the back where negative) of an input; 1 where there is none, 0 where it is not known.
    pub fn size(&self, i: usize, axis: isize) -> u64 {
        let Some(dims) = self.fact(i).as_tensor().and_then(|t| t.dims.as_deref()) else { return 0 };
        let axis = if axis < 0 { dims.len().checked_add_signed(axis) } else { Some(axis.unsigned_abs()) };
        axis.and_then(|a| dims.get(a)).map_or(1, |d| d.known().map_or(0, i64::unsigned_abs))
    }
    /// The element type of a tensor input.
    pub fn dtype(&self, i: usize) -> Result<DType> {
        Ok(self.tensor(i)?.dtype)
    }
    /// An input that must be a list of integers (a shape, axes, ...), or one integer.
    pub fn list(&self, i: usize) -> Result<&'a TensorFact> {
        let t = self.tensor(i)?;
        let is_list = t.dtype.is_int() && t.rank().is_none_or(|r| r <= 1);
        ensure!(is_list, InvalidModel, "input {i} must be a list of integers, it is {t}");
        Ok(t)
    }
    /// The integers in a list, if they are all known. `Ok(None)` if absent or not known.
    pub fn ints(&self, i: usize) -> Result<Option<Vec<i64>>> {
        if self.has(i) { Ok(self.list(i)?.ints()) } else { Ok(None) }
    }
    /// Fails unless the input has one of the types.
    pub fn expect_dtype(&self, i: usize, allowed: &[DType]) -> Result<()> {
        let d = self.dtype(i)?;
        ensure!(allowed.contains(&d), InvalidModel, "input {i} has type {d}, which the operator does not take");
        Ok(())
    }
    /// Fails unless the two inputs have the same element type.
    pub fn expect_same_dtype(&self, a: usize, b: usize) -> Result<()> {
        let (x, y) = (self.dtype(a)?, self.dtype(b)?);
        ensure!(x == y, InvalidModel, "inputs {a} and {b} must have one type, they have {x} and {y}");
        Ok(())
    }
    /// The common answer of shape-preserving operators: input `i`'s axes with an element type.
    pub fn like(&self, i: usize, dtype: DType) -> Result<Fact> {
        let t = self.tensor(i)?;
        Ok(Fact::Tensor(TensorFact { dtype, dims: t.dims.clone(), contents: Default::default() }))
    }
}

/// Elements of all tensors in a list; those of unknown size count as none.
pub fn elements(facts: &[Fact]) -> u64 {
    facts.iter().filter_map(|f| Some(f.as_tensor()?.count().known()?.unsigned_abs())).sum()
}

/// Makes an axis non-negative; `rank` axes exist.
pub fn resolve_axis(axis: i64, rank: usize) -> Result<usize> {
    let r = rank as i64;
    ensure!((-r..r).contains(&axis), InvalidModel, "axis {axis} is outside a tensor of rank {rank}");
    Ok(if axis < 0 { axis + r } else { axis } as usize)
}

/// How an ONNX operator becomes a canonical one.
#[derive(Clone, Copy)]
pub struct OpDef {
    /// The operator set's domain; empty for the default one.
    pub domain: &'static str,
    /// ONNX's name.
    pub name: &'static str,
    /// The versions at which the meaning changed, ascending: the first is the oldest that is understood.
    pub versions: &'static [u32],
    /// Reads the attributes into a canonical operator; may add inputs and nodes through the context.
    pub parse: fn(&mut ParseCtx<'_>) -> Result<Arc<dyn Op>>,
}

impl fmt::Debug for OpDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}{:?}", self.domain, self.name, self.versions)
    }
}

/// The operators an environment knows.
#[derive(Clone, Default, Debug)]
pub struct Registry {
    defs: HashMap<&'static str, HashMap<&'static str, OpDef>>,
}

impl Registry {
    /// Adds a definition; a later one replaces an earlier one of the same domain and name.
    pub fn add(&mut self, def: OpDef) {
        self.defs.entry(def.domain).or_default().insert(def.name, def);
    }
    /// The definition of an operator; `ai.onnx` is the default domain's other name.
    pub fn find(&self, domain: &str, name: &str) -> Option<&OpDef> {
        let domain = if domain == "ai.onnx" { "" } else { domain };
        self.defs.get(domain)?.get(name)
    }
    /// All definitions, sorted by domain and name.
    pub fn all(&self) -> Vec<&OpDef> {
        let mut v: Vec<_> = self.defs.values().flat_map(HashMap::values).collect();
        v.sort_by_key(|d| (d.domain, d.name));
        v
    }
}
