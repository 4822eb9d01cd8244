//! Reads `tests/opsets.txt`; `scripts/opsets/lines.py`, which writes it, says what a line is.

use crate::tiny::message;
use ortx::proto::onnx::attribute_proto::AttributeType;
use ortx::proto::onnx::{
    AttributeProto, GraphProto, NodeProto, TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};
use ortx::tensor::{DType, MapValue, Tensor, Value, write_packed};

/// A node in a graph of its own, its inputs, and what must come out.
#[derive(Default)]
pub struct Case {
    pub name: String,
    pub operator: String,
    pub version: i64,
    pub domain: String,
    pub graph: GraphProto,
    pub inputs: Vec<Value>,
    pub outputs: Vec<Want>,
}

/// What must come out.
pub enum Want {
    Value(Value),
    /// Anything of this type and shape.
    Any(DType, Vec<usize>),
}

pub fn s(text: &str) -> Option<String> {
    Some(text.to_string())
}

/// Text, written as in a URL.
fn text(word: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), word.bytes());
    while let Some(b) = rest.next() {
        if b != b'%' {
            bytes.push(b);
        } else if let (Some(a), Some(b)) = (rest.next(), rest.next()) {
            let digit = |c: u8| (c as char).to_digit(16).expect("a hexadecimal digit") as u8;
            bytes.push(digit(a) * 16 + digit(b));
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn dtype(name: &str) -> DType {
    let mut all = DType::ALL.into_iter();
    all.find(|d| d.name() == name).unwrap_or_else(|| panic!("tests/opsets.txt: type {name}"))
}

/// Words, read one after the other.
struct Words<'a>(std::str::Split<'a, char>);

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        Words(line.split(' '))
    }
    fn next(&mut self) -> &'a str {
        self.0.next().expect("another word")
    }
    fn shape(&mut self) -> Vec<usize> {
        match self.next() {
            "-" => vec![],
            "0" => vec![0],
            sizes => sizes.split(',').map(|n| n.parse().unwrap()).collect(),
        }
    }
    fn tensor(&mut self, name: &str) -> Tensor {
        let (d, shape) = (dtype(name), self.shape());
        let n: usize = shape.iter().product();
        macro_rules! of {
            ($t:ty, $n:expr) => {
                (0..$n).flat_map(|_| self.next().parse::<$t>().unwrap().to_le_bytes()).collect()
            };
        }
        let bytes: Vec<u8> = match d {
            DType::String => {
                return Tensor::from_strings(&shape, (0..n).map(|_| text(self.next())).collect()).unwrap();
            }
            DType::F32 => of!(f32, n),
            DType::F64 => of!(f64, n),
            DType::F16 => of!(half::f16, n),
            DType::BF16 => of!(half::bf16, n),
            DType::C64 => of!(f32, 2 * n),
            DType::C128 => of!(f64, 2 * n),
            DType::I8 => of!(i8, n),
            DType::I16 => of!(i16, n),
            DType::U16 => of!(u16, n),
            DType::I32 => of!(i32, n),
            DType::U32 => of!(u32, n),
            DType::I64 => of!(i64, n),
            DType::U64 => of!(u64, n),
            d if d.is_packed() => {
                let bits: Vec<u8> = of!(u8, n);
                let mut bytes = vec![0; d.byte_len(n).unwrap()];
                write_packed(d, &mut bytes, n, |i| bits[i]);
                bytes
            }
            _ => of!(u8, n),
        };
        // A copy, since the bytes may lie askew.
        let mut t = Tensor::zeroed(d, &shape).unwrap();
        let to = t.data_mut_ptr().expect("memory of its own");
        assert_eq!(t.byte_len(), bytes.len());
        // SAFETY: a tensor of as many bytes, which nobody else knows yet.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        t
    }
    /// A value and its type.
    fn value(&mut self) -> (Value, TypeProto) {
        match self.next() {
            "seq" => {
                let ty = typed(&format!("seq({})", self.next()), None);
                let n = self.next().parse().unwrap();
                (Value::Sequence((0..n).map(|_| self.value().0).collect::<Vec<_>>().into()), ty)
            }
            "optional" => {
                let ty = typed(&format!("optional({})", self.next()), None);
                let held = (self.next() == "1").then(|| Box::new(self.value().0));
                (Value::Optional(held), ty)
            }
            "map" => {
                let ((keys, _), (values, ty)) = (self.value(), self.value());
                let keys = keys.as_tensor().unwrap().clone();
                let ty = map(keys.dtype(), ty);
                (Value::Map(MapValue { keys, values: Box::new(values) }), ty)
            }
            name => {
                let t = self.tensor(name);
                let ty = typed(name, Some(t.shape()));
                (Value::Tensor(t), ty)
            }
        }
    }
}

fn map(keys: DType, values: TypeProto) -> TypeProto {
    let map = type_proto::Map { key_type: Some(keys as i32), value_type: Some(Box::new(values)) };
    TypeProto { value: Some(type_proto::Value::MapType(Box::new(map))), ..Default::default() }
}

/// The type that a word names.
fn typed(word: &str, shape: Option<&[usize]>) -> TypeProto {
    use tensor_shape_proto::{Dimension, dimension};
    let inner = |head: &str| word.strip_prefix(head)?.strip_suffix(')');
    let value = if let Some(inner) = inner("seq(") {
        let elem_type = Some(Box::new(typed(inner, None)));
        type_proto::Value::SequenceType(Box::new(type_proto::Sequence { elem_type }))
    } else if let Some(inner) = inner("optional(") {
        let elem_type = Some(Box::new(typed(inner, None)));
        type_proto::Value::OptionalType(Box::new(type_proto::Optional { elem_type }))
    } else if let Some((keys, values)) = inner("map(").and_then(|w| w.split_once(',')) {
        return map(dtype(keys), typed(values, None));
    } else {
        let dim = |&n: &usize| Dimension { value: Some(dimension::Value::DimValue(n as i64)), ..Default::default() };
        let shape = shape.map(|s| TensorShapeProto { dim: s.iter().map(dim).collect() });
        type_proto::Value::TensorType(type_proto::Tensor { elem_type: Some(dtype(word) as i32), shape })
    };
    TypeProto { value: Some(value), ..Default::default() }
}

/// A shape whose sizes are numbers, names or `?`.
fn declared(dims: &str) -> TensorShapeProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |d: &str| Dimension {
        value: match (d.parse(), d) {
            (Ok(n), _) => Some(Value::DimValue(n)),
            (_, "?") => None,
            (_, name) => Some(Value::DimParam(name.into())),
        },
        ..Default::default()
    };
    TensorShapeProto { dim: if dims == "-" { vec![] } else { dims.split(',').map(dim).collect() } }
}

fn info(name: &str, r#type: Option<TypeProto>) -> ValueInfoProto {
    ValueInfoProto { name: s(name), r#type, ..Default::default() }
}

struct Lines<'a>(std::iter::Peekable<std::str::Lines<'a>>);

impl<'a> Lines<'a> {
    /// The rest of the next line, if it begins with `head`.
    fn take(&mut self, head: &str) -> Option<&'a str> {
        let rest = self.0.peek()?.strip_prefix(head)?;
        let rest = rest.strip_prefix(' ').or(rest.is_empty().then_some(rest))?;
        self.0.next();
        Some(rest)
    }

    /// The attributes that come next.
    fn attributes(&mut self, node: &mut NodeProto) {
        while let Some(rest) = self.take("attr") {
            let mut words = Words::of(rest);
            let mut a = AttributeProto { name: s(words.next()), ..Default::default() };
            macro_rules! all {
                () => {
                    words.0.by_ref().map(|w| w.parse().unwrap()).collect()
                };
            }
            let kind = match words.next() {
                "i" => {
                    a.i = Some(words.next().parse().unwrap());
                    AttributeType::Int
                }
                "f" => {
                    a.f = Some(words.next().parse().unwrap());
                    AttributeType::Float
                }
                "s" => {
                    a.s = Some(text(words.next()).into_bytes().into());
                    AttributeType::String
                }
                "ints" => {
                    a.ints = all!();
                    AttributeType::Ints
                }
                "floats" => {
                    a.floats = all!();
                    AttributeType::Floats
                }
                "strings" => {
                    a.strings = words.0.by_ref().map(|w| text(w).into_bytes().into()).collect();
                    AttributeType::Strings
                }
                "tensor" => {
                    let name = words.next();
                    a.t = Some(Box::new(message("", &words.tensor(name))));
                    AttributeType::Tensor
                }
                "type" => {
                    a.tp = Some(Box::new(typed(words.next(), None)));
                    AttributeType::TypeProto
                }
                "graph" => {
                    a.g = Some(Box::new(self.graph()));
                    AttributeType::Graph
                }
                other => panic!("tests/opsets.txt: an attribute of kind {other}"),
            };
            assert!(words.0.next().is_none(), "tests/opsets.txt: more words than needed: {rest}");
            a.r#type = Some(kind as i32);
            node.attribute.push(a);
        }
    }

    /// A subgraph, up to its `end`.
    fn graph(&mut self) -> GraphProto {
        let mut g = GraphProto { name: s("subgraph"), ..Default::default() };
        let names = |w: &str| if w == "-" { vec![] } else { w.split(',').map(str::to_string).collect() };
        while self.take("end").is_none() {
            if let Some(rest) = self.take("input") {
                let mut words = Words::of(rest);
                let (name, ty, dims) = (words.next(), words.next(), words.next());
                let mut ty = typed(ty, None);
                if let (true, Some(type_proto::Value::TensorType(t))) = (dims != "*", &mut ty.value) {
                    t.shape = Some(declared(dims));
                }
                g.input.push(info(name, Some(ty)));
            } else if let Some(rest) = self.take("init") {
                let mut words = Words::of(rest);
                let (name, ty) = (words.next(), words.next());
                g.initializer.push(message(name, &words.tensor(ty)));
            } else if let Some(rest) = self.take("node") {
                let mut words = Words::of(rest);
                let (op_type, input, output) = (s(words.next()), names(words.next()), names(words.next()));
                let mut node = NodeProto { op_type, input, output, ..Default::default() };
                self.attributes(&mut node);
                g.node.push(node);
            } else if let Some(name) = self.take("output") {
                g.output.push(info(name, None));
            } else {
                panic!("tests/opsets.txt: in a subgraph: {:?}", self.0.peek());
            }
        }
        g
    }
}

/// All cases of the file.
pub fn cases() -> Vec<Case> {
    let file = std::fs::read_to_string("tests/opsets.txt").unwrap();
    let (mut lines, mut cases) = (Lines(file.lines().peekable()), Vec::new());
    while let Some(rest) = lines.take("case") {
        let mut words = Words::of(rest);
        let (title, operator, version) = (words.next(), words.next(), words.next());
        let domain = words.0.next().unwrap_or("");
        let mut node = NodeProto { op_type: s(operator), name: s("node"), domain: s(domain), ..Default::default() };
        let mut c = Case {
            name: format!("{operator}-{version}/{title}"),
            operator: operator.into(),
            version: version.parse().unwrap(),
            domain: domain.into(),
            ..Case::default()
        };
        lines.attributes(&mut node);
        loop {
            let name = format!("x{}", node.input.len());
            if lines.take("absent").is_some() {
                node.input.push(String::new());
                continue;
            } else if let Some(rest) = lines.take("const") {
                c.graph.initializer.push(message(&name, Words::of(rest).value().0.as_tensor().unwrap()));
            } else if let Some(rest) = lines.take("in") {
                let (value, ty) = Words::of(rest).value();
                c.graph.input.push(info(&name, Some(ty)));
                c.inputs.push(value);
            } else {
                break;
            }
            node.input.push(name);
        }
        loop {
            let name = format!("y{}", node.output.len());
            if lines.take("unused").is_some() {
                node.output.push(String::new());
                continue;
            } else if let Some(rest) = lines.take("out") {
                c.outputs.push(Want::Value(Words::of(rest).value().0));
            } else if let Some(rest) = lines.take("any") {
                let mut words = Words::of(rest);
                c.outputs.push(Want::Any(dtype(words.next()), words.shape()));
            } else {
                break;
            }
            c.graph.output.push(info(&name, None));
            node.output.push(name);
        }
        c.graph.node.push(node);
        cases.push(c);
    }
    assert!(lines.0.peek().is_none(), "tests/opsets.txt: {:?}", lines.0.peek());
    cases
}
