//! Facts: what is known of a value before it exists.

use super::Dim;
use crate::tensor::{DType, Dims, Tensor};
use std::fmt;

/// What is known of one value; always logical, never about layout or place.
#[derive(Clone, Default)]
pub enum Fact {
    /// A tensor.
    Tensor(TensorFact),
    /// A sequence whose elements satisfy the fact.
    Sequence(Box<Fact>),
    /// Something that may be missing.
    Optional(Box<Fact>),
    /// A map from keys to values.
    Map(DType, Box<Fact>),
    /// An optional input or output that is not there.
    Absent,
    /// Nothing at all is known, not even what kind of value it is.
    #[default]
    Unknown,
}

/// What is known of a tensor.
#[derive(Clone)]
pub struct TensorFact {
    /// Element type.
    pub dtype: DType,
    /// Axis sizes, or `None` where even the rank is unknown.
    pub dims: Option<Vec<Dim>>,
    /// The elements, where known.
    pub contents: Contents,
}

/// What is known of a tensor's elements.
#[derive(Clone, Default)]
pub enum Contents {
    /// Nothing.
    #[default]
    Unknown,
    /// All of them: a constant.
    Known(Tensor),
    /// Integers that are sizes or come from sizes, in row-major order: the shape arithmetic of exported models.
    Dims(Vec<Dim>),
}

/// Longest integer tensor whose contents are followed.
pub const MAX_CONTENTS: usize = 1024;

impl TensorFact {
    /// A tensor of unknown rank.
    pub fn any(dtype: DType) -> Self {
        TensorFact { dtype, dims: None, contents: Contents::Unknown }
    }
    /// A tensor of these axes.
    pub fn new(dtype: DType, dims: Vec<Dim>) -> Self {
        TensorFact { dtype, dims: Some(dims), contents: Contents::Unknown }
    }
    /// A tensor of known axes.
    pub fn sized(dtype: DType, shape: &[usize]) -> Self {
        TensorFact::new(dtype, shape.iter().map(|&n| Dim::of(n)).collect())
    }
    /// A constant.
    pub fn constant(t: Tensor) -> Self {
        let mut f = TensorFact::sized(t.dtype(), t.shape());
        f.contents = Contents::Known(t);
        f
    }
    /// Rank, if known.
    pub fn rank(&self) -> Option<usize> {
        self.dims.as_ref().map(Vec::len)
    }
    /// The shape, if every axis is known.
    pub fn shape(&self) -> Option<Dims> {
        self.dims.as_ref()?.iter().map(Dim::size).collect()
    }
    /// The number of elements.
    pub fn count(&self) -> Dim {
        self.dims.as_ref().map_or(Dim::Unknown, Dim::product)
    }
    /// The constant, if it is one.
    pub fn tensor(&self) -> Option<&Tensor> {
        match &self.contents {
            Contents::Known(t) => Some(t),
            _ => None,
        }
    }
    /// Integer elements as sizes, where anything is known of them.
    pub fn int_dims(&self) -> Option<Vec<Dim>> {
        match &self.contents {
            Contents::Dims(d) => Some(d.clone()),
            Contents::Known(t) if t.len() <= MAX_CONTENTS => {
                t.to_i64s().ok().map(|v| v.into_iter().map(Dim::Known).collect())
            }
            _ => None,
        }
    }
    /// Integer elements, where all are numbers.
    pub fn ints(&self) -> Option<Vec<i64>> {
        match &self.contents {
            Contents::Known(t) => t.to_i64s().ok(),
            Contents::Dims(d) => d.iter().map(Dim::known).collect(),
            Contents::Unknown => None,
        }
    }
}

impl Fact {
    /// A tensor of these axes.
    pub fn tensor(dtype: DType, dims: Vec<Dim>) -> Fact {
        Fact::Tensor(TensorFact::new(dtype, dims))
    }
    /// A tensor of unknown rank.
    pub fn any_tensor(dtype: DType) -> Fact {
        Fact::Tensor(TensorFact::any(dtype))
    }
    /// A tensor of known axes.
    pub fn sized(dtype: DType, shape: &[usize]) -> Fact {
        Fact::Tensor(TensorFact::sized(dtype, shape))
    }
    /// The tensor's fact, if it is one.
    pub fn as_tensor(&self) -> Option<&TensorFact> {
        match self {
            Fact::Tensor(t) => Some(t),
            _ => None,
        }
    }
    /// The constant, if it is one.
    pub fn constant(&self) -> Option<&Tensor> {
        self.as_tensor().and_then(TensorFact::tensor)
    }
    /// The element type, if it is a tensor.
    pub fn dtype(&self) -> Option<DType> {
        self.as_tensor().map(|t| t.dtype)
    }
    /// The elements as a tensor, if all are known.
    pub fn contents_tensor(&self) -> Option<Tensor> {
        let t = self.as_tensor()?;
        match &t.contents {
            Contents::Known(t) => Some(t.clone()),
            Contents::Unknown => None,
            Contents::Dims(d) => {
                let v: Option<Vec<i64>> = d.iter().map(Dim::known).collect();
                let (v, shape) = (v?, t.shape()?);
                match t.dtype {
                    DType::I64 => Tensor::from_slice(&shape, &v).ok(),
                    DType::I32 => {
                        let v: Option<Vec<i32>> = v.into_iter().map(|x| i32::try_from(x).ok()).collect();
                        Tensor::from_slice(&shape, &v?).ok()
                    }
                    _ => None,
                }
            }
        }
    }
    /// The shape, if it is a tensor whose axes are all known.
    pub fn shape(&self) -> Option<Dims> {
        self.as_tensor().and_then(TensorFact::shape)
    }
    /// Whether there is no value.
    pub fn is_absent(&self) -> bool {
        matches!(self, Fact::Absent)
    }
    /// Whether a kernel could be bound to it: a tensor of plain data whose axes are all known, or absent.
    pub fn is_concrete(&self) -> bool {
        match self {
            Fact::Absent => true,
            Fact::Tensor(t) => t.dtype != DType::String && t.shape().is_some(),
            _ => false,
        }
    }
    /// Whether both say the same, as far as that is cheap to tell: false may be wrong, true is not.
    pub fn is_same(&self, other: &Fact) -> bool {
        match (self, other) {
            (Fact::Absent, Fact::Absent) | (Fact::Unknown, Fact::Unknown) => true,
            (Fact::Tensor(a), Fact::Tensor(b)) => {
                let contents = || match (&a.contents, &b.contents) {
                    (Contents::Unknown, Contents::Unknown) => true,
                    (Contents::Dims(x), Contents::Dims(y)) => x == y,
                    (Contents::Known(x), Contents::Known(y)) if a.dtype != DType::String => {
                        x.identity() == y.identity() || x.len() <= MAX_CONTENTS && x.bytes() == y.bytes()
                    }
                    _ => false,
                };
                a.dtype == b.dtype && a.dims == b.dims && contents()
            }
            _ => false,
        }
    }
    /// The fact without knowledge of elements.
    pub fn without_contents(&self) -> Fact {
        match self {
            Fact::Tensor(t) => {
                Fact::Tensor(TensorFact { dtype: t.dtype, dims: t.dims.clone(), contents: Contents::Unknown })
            }
            f => f.clone(),
        }
    }
    /// The fact of a tensor of the same type but any shape; other facts as they are.
    pub fn without_sizes(&self) -> Fact {
        match self {
            Fact::Tensor(t) => Fact::any_tensor(t.dtype),
            f => f.clone(),
        }
    }
    /// The fact with each symbol of its axes and contents replaced.
    pub fn substitute(&self, f: &dyn Fn(&str) -> Dim) -> Fact {
        match self {
            Fact::Tensor(t) => Fact::Tensor(TensorFact {
                dtype: t.dtype,
                dims: t.dims.as_ref().map(|d| d.iter().map(|d| d.substitute(f)).collect()),
                contents: match &t.contents {
                    Contents::Dims(d) => Contents::Dims(d.iter().map(|d| d.substitute(f)).collect()),
                    c => c.clone(),
                },
            }),
            Fact::Sequence(x) => Fact::Sequence(Box::new(x.substitute(f))),
            Fact::Optional(x) => Fact::Optional(Box::new(x.substitute(f))),
            Fact::Map(k, v) => Fact::Map(*k, Box::new(v.substitute(f))),
            x => x.clone(),
        }
    }
}

impl fmt::Display for TensorFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dtype)?;
        match &self.dims {
            None => f.write_str("[..]"),
            Some(d) => {
                f.write_str("[")?;
                for (i, d) in d.iter().enumerate() {
                    write!(f, "{}{d}", if i > 0 { "," } else { "" })?;
                }
                f.write_str("]")
            }
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Tensor(t) => t.fmt(f),
            Fact::Sequence(x) => write!(f, "seq({x})"),
            Fact::Optional(x) => write!(f, "optional({x})"),
            Fact::Map(k, v) => write!(f, "map({k},{v})"),
            Fact::Absent => f.write_str("-"),
            Fact::Unknown => f.write_str("?"),
        }
    }
}

impl fmt::Debug for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
