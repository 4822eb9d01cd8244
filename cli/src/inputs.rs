//! The values a model is fed: from files, or made up; and the sizes of its inputs' axes.

use crate::args::{Dim, InputArgs, Range, Shape};
use crate::fail::{Failure, Result};
use crate::npy::{self, Array};
use crate::{npz, testdata, ui};
use ortx::ir::Fact;
use ortx::session::Io;
use ortx::tensor::{MapValue, write_packed};
use ortx::{DType, Session, Tensor, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The values of all inputs, in the model's order. Where nothing is given: made up if `random`, else an error that
/// names all that is missing.
pub fn gather(session: &Session, args: &InputArgs, random: bool) -> Result<Vec<Value>> {
    let mut given = given(args)?;
    let sizes = Sizes::new(session.inputs(), args)?;
    let ranges = by_input(session, &args.range, |r: &Range| &r.name)?;
    let mut rng = Rng(args.seed);
    let stored = args.test_data.as_ref().map(|dir| testdata::read(dir, "input", session.inputs())).transpose()?;
    let mut stored = stored.unwrap_or_default().into_iter();
    let (mut values, mut missing) = (Vec::new(), Vec::new());
    for (i, io) in session.inputs().iter().enumerate() {
        let stored = stored.next();
        if let Some(v) = take(&mut given, &io.name, &io.fact).map_err(|e| e.into_failure(&io.name))? {
            values.push(v);
        } else if let Some(v) = stored {
            values.push(v);
        } else if let Fact::Optional(_) = io.fact {
            values.push(Value::Optional(None));
        } else if random {
            values.push(make_up(io, &sizes.complete(i, io)?, ranges[i].map(|r| (r.low, r.high)), &mut rng)?);
        } else {
            missing.push(format!("'{}' ({})", io.name, io.fact));
        }
    }
    if !missing.is_empty() {
        let what = if missing.len() == 1 { "input is" } else { "inputs are" };
        return Err(Failure::new(format!("{what} missing: {}", missing.join(", ")))
            .hint("give arrays with --npz FILE.npz or --input NAME=FILE.npy, or have them made up with --random"));
    }
    // Where one that has a default is given, all of them are.
    let open = session.overridable_inputs();
    if open.iter().any(|io| given.contains_key(&*io.name)) {
        for (io, default) in open.iter().zip(session.defaults()) {
            let v = take(&mut given, &io.name, &io.fact).map_err(|e| e.into_failure(&io.name))?;
            values.push(v.unwrap_or_else(|| default.clone()));
        }
    }
    if let Some(name) = given.keys().next() {
        let names: Vec<&str> = session.inputs().iter().chain(open).map(|io| &*io.name).collect();
        return Err(Failure::new(format!("the model has no input '{name}'; it has {}", names.join(", "))));
    }
    for (v, io) in values.iter().zip(session.inputs().iter().chain(open)) {
        io.check(v)?;
    }
    Ok(values)
}

/// The shapes that the options say, by input; `None` for what they leave open.
pub fn shapes(inputs: &[Io], args: &InputArgs) -> Result<Vec<Option<Vec<usize>>>> {
    let sizes = Sizes::new(inputs, args)?;
    Ok(inputs.iter().enumerate().map(|(i, io)| sizes.of(i, io).ok()).collect())
}

fn given(args: &InputArgs) -> Result<BTreeMap<String, Array>> {
    let mut all = BTreeMap::new();
    for file in &args.npz {
        all.extend(npz::read(file)?);
    }
    for i in &args.input {
        all.insert(i.name.clone(), npz::read_npy(&i.file)?);
    }
    Ok(all)
}

/// Options by input index; the name may be left out where there is one input.
fn by_input<'a, T>(session: &Session, list: &'a [T], name: fn(&T) -> &Option<String>) -> Result<Vec<Option<&'a T>>> {
    let mut found: Vec<Option<&T>> = vec![None; session.inputs().len()];
    for x in list {
        found[input_index(session.inputs(), name(x).as_deref())?] = Some(x);
    }
    Ok(found)
}

pub fn input_index(inputs: &[Io], name: Option<&str>) -> Result<usize> {
    let names: Vec<&str> = inputs.iter().map(|io| &*io.name).collect();
    match name {
        None if inputs.len() == 1 => Ok(0),
        None => Err(Failure::new("the model has several inputs: say which one, as NAME=...")
            .hint(format!("its inputs are {}", names.join(", ")))),
        Some(n) => names
            .iter()
            .position(|x| *x == n)
            .ok_or_else(|| Failure::new(format!("the model has no input '{n}'; it has {}", names.join(", ")))),
    }
}

/// What the options say of sizes.
struct Sizes<'a> {
    shapes: Vec<Option<&'a Shape>>,
    dims: BTreeMap<&'a str, usize>,
}

impl<'a> Sizes<'a> {
    fn new(inputs: &[Io], args: &'a InputArgs) -> Result<Self> {
        let mut shapes = vec![None; inputs.len()];
        for s in &args.shape {
            shapes[input_index(inputs, s.name.as_deref())?] = Some(s);
        }
        let dims: BTreeMap<&str, usize> = args.dim.iter().map(|d: &Dim| (&*d.name, d.size)).collect();
        let mut known: Vec<&str> = inputs.iter().flat_map(axes).flat_map(|d| d.symbols()).collect();
        if let Some(d) = dims.keys().find(|d| !known.contains(d)) {
            known.dedup();
            let hint = if known.is_empty() {
                "no axis has a name".into()
            } else {
                format!("axes are named {}", known.join(", "))
            };
            return Err(Failure::new(format!("no input has an axis named '{d}'")).hint(hint));
        }
        Ok(Sizes { shapes, dims })
    }

    fn size(&self, d: &ortx::ir::Dim) -> Option<usize> {
        d.substitute(&|s| self.dims.get(s).map_or_else(|| ortx::ir::Dim::symbol(s), |&n| n.into())).size()
    }

    /// The shape of input `i`, or the axes that stay open.
    fn of(&self, i: usize, io: &Io) -> std::result::Result<Vec<usize>, Vec<usize>> {
        if let Some(s) = self.shapes[i] {
            return Ok(s.sizes.clone());
        }
        let Some(t) = io.fact.as_tensor() else { return Err(Vec::new()) };
        let Some(dims) = &t.dims else { return Err(Vec::new()) };
        let sizes: Vec<Option<usize>> = dims.iter().map(|d| self.size(d)).collect();
        let open: Vec<usize> = (0..sizes.len()).filter(|&a| sizes[a].is_none()).collect();
        if open.is_empty() { Ok(sizes.into_iter().flatten().collect()) } else { Err(open) }
    }

    /// The shape of input `i`. An open first axis (the batch) counts 1; other open axes are an error.
    fn complete(&self, i: usize, io: &Io) -> Result<Vec<usize>> {
        let open = match self.of(i, io) {
            Ok(shape) => return Ok(shape),
            Err(open) => open,
        };
        let dims: Vec<&ortx::ir::Dim> = axes(io).collect();
        if open == [0] {
            ui::note(format_args!("input '{}' ({}): axis {} is taken as 1", io.name, io.fact, dims[0]));
            let rest = dims[1..].iter().map(|d| self.size(d));
            return Ok([Some(1)].into_iter().chain(rest).flatten().collect());
        }
        let mut names: Vec<&str> = open.iter().flat_map(|&a| dims[a].symbols()).collect();
        names.dedup();
        let example: Vec<String> = dims.iter().map(|d| d.size().map_or("N".into(), |n| n.to_string())).collect();
        let example = if example.is_empty() { "1,3,224,224".into() } else { example.join(",") };
        let mut hint = format!("--shape {}={example}", io.name);
        if open.iter().all(|&a| !dims[a].symbols().is_empty()) {
            let each: Vec<String> = names.iter().map(|n| format!("--dim {n}=N")).collect();
            hint = format!("{}, or {hint}", each.join(" "));
        }
        Err(Failure::new(format!("the sizes of input '{}' ({}) are open", io.name, io.fact)).hint(hint))
    }
}

fn axes(io: &Io) -> impl Iterator<Item = &ortx::ir::Dim> {
    io.fact.as_tensor().and_then(|t| t.dims.as_ref()).into_iter().flatten()
}

/// Which array is wrong, and why.
struct Wrong(String);

impl Wrong {
    fn into_failure(self, input: &str) -> Failure {
        Failure::new(format!("input '{input}': {}", self.0))
            .hint("`ortx inspect MODEL` shows the inputs; convert an array with numpy's astype()")
    }
}

impl From<String> for Wrong {
    fn from(s: String) -> Self {
        Wrong(s)
    }
}

/// Takes what belongs to an input. A sequence is given as NAME.0, NAME.1, ...; a map as NAME.keys and NAME.values.
fn take(given: &mut BTreeMap<String, Array>, name: &str, fact: &Fact) -> std::result::Result<Option<Value>, Wrong> {
    Ok(match fact {
        Fact::Sequence(element) => {
            let mut items = Vec::new();
            while let Some(v) = take(given, &format!("{name}.{}", items.len()), element)? {
                items.push(v);
            }
            (!items.is_empty()).then(|| Value::Sequence(Arc::new(items)))
        }
        Fact::Optional(inner) => take(given, name, inner)?.map(|v| Value::Optional(Some(Box::new(v)))),
        Fact::Map(key, inner) => {
            let keys = given.remove(&format!("{name}.keys")).map(|a| a.into_tensor(Some(*key))).transpose()?;
            match (keys, take(given, &format!("{name}.values"), inner)?) {
                (Some(keys), Some(values)) => Some(Value::Map(MapValue { keys, values: Box::new(values) })),
                (None, None) => None,
                _ => return Err(Wrong(format!("a map needs both {name}.keys and {name}.values"))),
            }
        }
        f => match given.remove(name) {
            Some(a) => Some(Value::Tensor(a.into_tensor(f.dtype())?)),
            None => None,
        },
    })
}

/// Evenly distributed numbers: floats in 0..1, bytes in 0..=255, other integers 0 or 1, unless a range says otherwise.
fn make_up(io: &Io, shape: &[usize], range: Option<(f64, f64)>, rng: &mut Rng) -> Result<Value> {
    let Some(dtype) = io.fact.dtype().filter(|d| *d != DType::String) else {
        return Err(Failure::new(format!("input '{}' ({}) cannot be made up", io.name, io.fact))
            .hint("give it with --npz FILE.npz or --input NAME=FILE.npy"));
    };
    let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n < 1 << 40);
    let n = n.ok_or_else(|| Failure::new(format!("input '{}': the shape {shape:?} is too large", io.name)))?;
    let (low, high) = range.unwrap_or(if dtype == DType::U8 { (0.0, 255.0) } else { (0.0, 1.0) });
    let mut data = Vec::new();
    if dtype.is_packed() {
        data = vec![0; dtype.byte_len(n)?];
        let mask = ((1u16 << dtype.bits()) - 1) as u8;
        write_packed(dtype, &mut data, n, |_| rng.next() as u8 & mask);
    } else {
        data.reserve_exact(dtype.byte_len(n)?);
        for _ in 0..n {
            let x = match dtype.is_int() || dtype == DType::Bool {
                true => low + (rng.unit() * (high - low + 1.0)).floor().min(high - low),
                false => low + rng.unit() * (high - low),
            };
            npy::encode(dtype, x, &mut data);
        }
    }
    Ok(Value::Tensor(Tensor::from_bytes(dtype, shape, data.into())?))
}

/// SplitMix64: small, and the same everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// In 0..1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
