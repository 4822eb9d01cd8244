//! Test data in the layout of the ONNX backend suite: reading values, comparing answers by the suite's rules.

use bytes::Bytes;
use half::{bf16, f16};
use ortx::import::{tensor_from_proto, value_from_optional, value_from_sequence};
use ortx::plan::Timing;
use ortx::proto::external::External;
use ortx::proto::onnx::{ModelProto, OptionalProto, SequenceProto, TensorProto, TypeProto, type_proto};
use ortx::proto::read;
use ortx::proto::source::Mode;
use ortx::session::{Environment, ModelSource, RunOptions, Session, SessionOptions};
use ortx::tensor::{DType, Tensor, Value, decode_narrow, unpack_bits};
use std::path::Path;
use std::sync::Mutex;

/// Runs the model on each of the `test_data_set_K` in `data`; the error says which set and what differs.
pub fn check_model(model: &Path, data: &Path, sets: usize, rtol: f64, atol: f64) -> Result<(), String> {
    // Cases run side by side already: one thread each.
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let source = ModelSource::Path(model.into());
    let session = Session::new(&Environment::new(), source, &options).map_err(|e| format!("{e:#}"))?;
    for k in 0..sets {
        check_set(&session, model, &data.join(format!("test_data_set_{k}")), rtol, atol, None)
            .map_err(|e| format!("set {k}{e}"))?;
    }
    Ok(())
}

/// The inputs and outputs of one set of data.
pub fn read_set(model: &Path, data: &Path) -> Result<(Vec<Value>, Vec<Value>), String> {
    let say = |e: ortx::Error| format!(": {e:#}");
    let (input_types, output_types) = edge_types(&read::open_path(model, Mode::default()).map_err(say)?.0);
    let read_all = |side: &str, types: &[Option<TypeProto>]| -> Result<Vec<Value>, String> {
        let mut found = Vec::new();
        while let Ok(file) = std::fs::read(data.join(format!("{side}_{}.pb", found.len()))) {
            let kind = types.get(found.len()).cloned().flatten();
            found.push(read_value(file.into(), kind.as_ref()).map_err(say)?);
        }
        Ok(found)
    };
    Ok((read_all("input", &input_types)?, read_all("output", &output_types)?))
}

/// Runs a session of the model on one set of data, and adds what ran to `profile`.
pub fn check_set(
    session: &Session,
    model: &Path,
    data: &Path,
    rtol: f64,
    atol: f64,
    profile: Option<&Mutex<Vec<Timing>>>,
) -> Result<(), String> {
    let say = |e: ortx::Error| format!(": {e:#}");
    let (inputs, wanted) = read_set(model, data)?;
    let mut outputs = vec![None; session.outputs().len()];
    session.run_profiled(&inputs, &mut outputs, &RunOptions::default(), profile).map_err(say)?;
    if outputs.len() != wanted.len() {
        return Err(format!(": {} outputs instead of {}", outputs.len(), wanted.len()));
    }
    for ((got, want), io) in outputs.iter().zip(&wanted).zip(session.outputs()) {
        let place = format!(", output '{}'", io.name);
        let got = got.as_ref().ok_or_else(|| format!("{place} was not made"))?;
        compare(got, want, rtol, atol).map_err(|e| format!("{place}: {e}"))?;
    }
    Ok(())
}

/// For random results, which no standard fixes: each element must be 0 or 1, and 1 with the probability that `chance` makes of
/// the input's; type and shape are the given output's. `seeded`: every run gives the same.
pub fn check_bernoulli(model: &Path, data: &Path, seeded: bool, chance: fn(f64) -> f64) -> Result<(), String> {
    const RUNS: usize = 400;
    let say = |e: ortx::Error| format!("{e:#}");
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let session = Session::new(&Environment::new(), ModelSource::Path(model.into()), &options).map_err(say)?;
    let read = |name: &str| {
        let file = std::fs::read(data.join("test_data_set_0").join(name)).map_err(|e| e.to_string())?;
        read_value(file.into(), None).map_err(say)
    };
    let (input, want) = (read("input_0.pb")?, read("output_0.pb")?);
    let want = want.as_tensor().map_err(say)?;
    let chances: Vec<f64> = numbers(input.as_tensor().map_err(say)?).iter().map(|x| chance(x.0)).collect();
    let (mut ones, mut first) = (vec![0.0; chances.len()], None);
    for _ in 0..RUNS {
        let mut outputs = vec![None; 1];
        session.run_values(std::slice::from_ref(&input), &mut outputs, &RunOptions::default()).map_err(say)?;
        let got = outputs.remove(0).ok_or("no output")?;
        let got = got.as_tensor().map_err(say)?;
        if got.dtype() != want.dtype() || got.shape() != want.shape() {
            return Err(format!("{got:?} instead of {want:?}"));
        }
        let values: Vec<f64> = match got.dtype() {
            d if d.is_int() || d == DType::Bool => integers(got).iter().map(|&x| x as f64).collect(),
            _ => numbers(got).iter().map(|x| x.0).collect(),
        };
        if let Some(x) = values.iter().find(|&&x| x != 0.0 && x != 1.0) {
            return Err(format!("{x} is neither 0 nor 1"));
        }
        if seeded && *first.get_or_insert_with(|| values.clone()) != values {
            return Err("two runs with one seed differ".into());
        }
        ones.iter_mut().zip(&values).for_each(|(n, x)| *n += x);
    }
    // Six standard deviations: fewer than one run of the suite in ten million is off by chance. One seed's numbers are as good
    // as one run of all elements.
    let far = |n: f64, mean: f64, variance: f64| (n - mean).abs() > 6.0 * variance.sqrt() + 1e-9;
    if seeded {
        let (sum, mean) = (ones.iter().sum::<f64>() / RUNS as f64, chances.iter().sum());
        let variance = chances.iter().map(|p| p * (1.0 - p)).sum();
        return if far(sum, mean, variance) { Err(format!("{sum} ones, {mean} expected")) } else { Ok(()) };
    }
    for (i, (&n, &p)) in ones.iter().zip(&chances).enumerate() {
        let (mean, variance) = (p * RUNS as f64, p * (1.0 - p) * RUNS as f64);
        if far(n, mean, variance) {
            return Err(format!("element {i} was 1 in {n} of {RUNS} runs, its probability is {p}"));
        }
    }
    Ok(())
}

/// The declared types of inputs (those that no initialiser fills) and outputs.
fn edge_types(model: &ModelProto) -> (Vec<Option<TypeProto>>, Vec<Option<TypeProto>>) {
    let graph = model.graph.as_ref().expect("the reader checked it");
    let held = |name: &str| graph.initializer.iter().any(|i| i.name() == name);
    let inputs = graph.input.iter().filter(|i| !held(i.name())).map(|i| i.r#type.clone()).collect();
    (inputs, graph.output.iter().map(|o| o.r#type.clone()).collect())
}

/// A value from its message, which the declared type tells apart.
fn read_value(file: Bytes, declared: Option<&TypeProto>) -> ortx::Result<Value> {
    match declared.and_then(|t| t.value.as_ref()) {
        Some(type_proto::Value::SequenceType(_)) => value_from_sequence(&read::decode::<SequenceProto>(file)?),
        Some(type_proto::Value::OptionalType(_)) => value_from_optional(&read::decode::<OptionalProto>(file)?),
        _ => Ok(Value::Tensor(tensor_from_proto(&read::decode::<TensorProto>(file)?, &External::none())?)),
    }
}

/// The suite's rules: same kind, type and shape; strings equal; numbers |got - want| <= atol + rtol * |want|, NaN and
/// infinities in the same places.
pub fn compare(got: &Value, want: &Value, rtol: f64, atol: f64) -> Result<(), String> {
    match (got, want) {
        (Value::Tensor(g), Value::Tensor(w)) => compare_tensors(g, w, rtol, atol),
        (Value::Sequence(g), Value::Sequence(w)) => {
            if g.len() != w.len() {
                return Err(format!("a sequence of {} instead of {}", g.len(), w.len()));
            }
            let mut each = g.iter().zip(w.iter()).enumerate();
            each.try_for_each(|(i, (g, w))| compare(g, w, rtol, atol).map_err(|e| format!("element {i}: {e}")))
        }
        (Value::Optional(None), Value::Optional(None)) => Ok(()),
        (Value::Optional(Some(g)), Value::Optional(Some(w))) => compare(g, w, rtol, atol),
        (Value::Map(g), Value::Map(w)) => {
            compare_tensors(&g.keys, &w.keys, 0.0, 0.0).map_err(|e| format!("keys: {e}"))?;
            compare(&g.values, &w.values, rtol, atol).map_err(|e| format!("values: {e}"))
        }
        (g, w) => Err(format!("{} instead of {}", g.kind(), w.kind())),
    }
}

fn compare_tensors(got: &Tensor, want: &Tensor, rtol: f64, atol: f64) -> Result<(), String> {
    if got.dtype() != want.dtype() || got.shape() != want.shape() {
        return Err(format!("{got:?} instead of {want:?}"));
    }
    if let Ok(strings) = want.as_strings() {
        let differs = got.as_strings().unwrap().iter().zip(strings).position(|(g, w)| g != w);
        return differs.map_or(Ok(()), |i| {
            Err(format!("element {i} is {:?} instead of {:?}", got.as_strings().unwrap()[i], strings[i]))
        });
    }
    if want.dtype().is_int() || want.dtype() == DType::Bool {
        // Stricter than the suite, which lets large integers be off by rtol.
        let (g, w) = (integers(got), integers(want));
        // Whole steps are for lossy pictures.
        let differs = |g: &i128, w: &i128| g.abs_diff(*w) > atol as u128;
        let wrong = g.iter().zip(&w).filter(|(g, w)| differs(g, w)).count();
        let most = g.iter().zip(&w).map(|(g, w)| g.abs_diff(*w)).max().unwrap_or(0);
        return g.iter().zip(&w).position(|(g, w)| differs(g, w)).map_or(Ok(()), |i| {
            Err(format!(
                "{wrong} of {} elements differ, by at most {most}, first {i}: {} instead of {} in {want:?}",
                g.len(),
                g[i],
                w[i]
            ))
        });
    }
    // The suite gives bfloat16 at least two of its units in the last place.
    let rtol = if got.dtype() == DType::BF16 { rtol.max(2f64.powi(-6)) } else { rtol };
    let (g, w) = (numbers(got), numbers(want));
    let mut wrong = 0;
    let mut worst = (0.0, 0);
    for (i, (&(gr, gi), &(wr, wi))) in g.iter().zip(&w).enumerate() {
        let same = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan();
        if same(gr, wr) && same(gi, wi) {
            continue;
        }
        let excess = (gr - wr).hypot(gi - wi) - atol - rtol * wr.hypot(wi);
        // Also true where it is no number.
        if excess > 0.0 || excess.is_nan() || !gr.is_finite() || !wr.is_finite() {
            wrong += 1;
            if wrong == 1 || excess > worst.0 {
                worst = (excess, i);
            }
        }
    }
    if wrong == 0 {
        return Ok(());
    }
    let i = worst.1;
    Err(format!("{wrong} of {} elements differ, most at {i}: {} instead of {} in {want:?}", g.len(), g[i].0, w[i].0))
}

/// The elements of floating-point and complex tensors as (real, imaginary).
pub fn numbers(t: &Tensor) -> Vec<(f64, f64)> {
    macro_rules! of {
        ($t:ty, $f:expr) => {
            t.bytes().chunks_exact(size_of::<$t>()).map(|c| $f(<$t>::from_le_bytes(c.try_into().unwrap()))).collect()
        };
    }
    let real = |x: f64| (x, 0.0);
    let complex = |parts: Vec<f64>| parts.chunks_exact(2).map(|p| (p[0], p[1])).collect();
    match t.dtype() {
        DType::F32 => of!(f32, |x| real(f64::from(x))),
        DType::F64 => of!(f64, real),
        DType::F16 => of!(u16, |x| real(f16::from_bits(x).to_f64())),
        DType::BF16 => of!(u16, |x| real(bf16::from_bits(x).to_f64())),
        DType::C64 => complex(of!(f32, f64::from)),
        DType::C128 => complex(of!(f64, |x: f64| x)),
        d => {
            let mut found = vec![(0.0, 0.0); t.len()];
            unpack_bits(d, t.bytes(), t.len(), |i, bits| found[i] = real(f64::from(decode_narrow(d, bits))));
            found
        }
    }
}

/// The elements of integer and bool tensors.
pub fn integers(t: &Tensor) -> Vec<i128> {
    if t.dtype() == DType::U64 {
        return t.as_slice::<u64>().unwrap().iter().map(|&x| i128::from(x)).collect();
    }
    if t.dtype().is_packed() {
        let mut found = vec![0; t.len()];
        unpack_bits(t.dtype(), t.bytes(), t.len(), |i, bits| found[i] = decode_narrow(t.dtype(), bits) as i128);
        return found;
    }
    t.to_i64s().unwrap().into_iter().map(i128::from).collect()
}

#[test]
fn comparison_finds_what_differs() {
    let t = |v: &[f32]| Value::Tensor(Tensor::from_slice(&[v.len()], v).unwrap());
    assert!(compare(&t(&[1.0, f32::NAN, f32::INFINITY]), &t(&[1.0005, f32::NAN, f32::INFINITY]), 1e-3, 0.0).is_ok());
    assert!(compare(&t(&[1.0]), &t(&[1.01]), 1e-3, 0.0).unwrap_err().contains("1 of 1"));
    assert!(compare(&t(&[f32::INFINITY]), &t(&[1.0]), 1e-3, 0.0).is_err());
    assert!(compare(&t(&[f32::NEG_INFINITY]), &t(&[f32::INFINITY]), 1e-3, 1.0).is_err());
    assert!(compare(&t(&[0.0]), &t(&[f32::NAN]), 1e-3, 1.0).is_err());
    assert!(compare(&t(&[f32::NAN]), &t(&[0.0]), 1e-3, 1.0).is_err());
    assert!(compare(&t(&[1.0]), &t(&[1.0, 2.0]), 1e-3, 1.0).is_err());
    let i = |v: i64| Value::Tensor(Tensor::from_slice(&[1], &[v]).unwrap());
    assert!(compare(&i(i64::MAX), &i(i64::MAX - 1), 0.0, 0.0).is_err(), "f64 alone would call these equal");
    assert!(compare(&i(5), &t(&[5.0]), 1e-3, 1.0).is_err(), "types differ");
}
