//! Rotary embeddings that are written out.

use super::*;

/// cos and sin of angles that each half has: `[items, rows, size]` without the heads' axis.
fn angles(d: &mut Draft, items: usize, doubled: bool, unsqueeze: i64) -> [ValueId; 2] {
    let f = d.named_input("f", &["", "rows", ""], &[items, 5, 4]);
    let f = if doubled { d.op("ff", "Concat", &[f, f], vec![("axis", Attr::Int(-1))]) } else { f };
    let axis = d.ints("axis", &[unsqueeze]);
    [("cos", "Cos"), ("sin", "Sin")].map(|(name, op)| {
        let x = d.op(name, op, &[f], vec![]);
        d.op(&format!("{name}.u"), "Unsqueeze", &[x, axis], vec![])
    })
}

/// The first and the second half of the last axis.
fn halves(d: &mut Draft, x: ValueId, split: bool) -> [ValueId; 2] {
    if split {
        let sizes = d.ints("sizes", &[4, 4]);
        let parts = d.split("parts", x, sizes, -1, 2);
        return [parts[0], parts[1]];
    }
    [("h1", 0, 4), ("h2", 4, i64::MAX)].map(|(name, start, end)| {
        let (start, end) = (d.ints(&format!("{name}.s"), &[start]), d.ints(&format!("{name}.e"), &[end]));
        let axis = d.ints("last", &[3]);
        d.op(name, "Slice", &[x, start, end, axis], vec![])
    })
}

/// x cos + rotate_half(x) sin, as transformers' models are exported.
fn by_halves(d: &mut Draft, x: ValueId, [cos, sin]: [ValueId; 2], split: bool) -> ValueId {
    let [first, second] = halves(d, x, split);
    let neg = d.op("neg", "Neg", &[second], vec![]);
    let turned = d.op("turned", "Concat", &[neg, first], vec![("axis", Attr::Int(-1))]);
    let a = d.op("a", "Mul", &[x, cos], vec![]);
    let b = d.op("b", "Mul", &[turned, sin], vec![]);
    d.op("y", "Add", &[a, b], vec![])
}

fn only(after: &[String], wanted: &[&str]) {
    let ops = |l: &String| l.split(" = ").nth(1).unwrap_or_default().split('(').next().unwrap_or_default().to_string();
    let movers: Vec<String> = after.iter().map(ops).collect();
    for w in wanted {
        assert!(movers.iter().any(|m| m == w), "no {w}: {after:#?}");
    }
    assert!(!movers.iter().any(|m| ["Neg", "Mul", "Add", "Sub"].contains(&m.as_str())), "{after:#?}");
}

#[test]
pub fn heads_that_were_turned_before() {
    for (items, split) in [(1, false), (2, true)] {
        let mut d = Draft::new();
        let x = d.named_input("x", &["", "rows", ""], &[2, 5, 24]);
        let shape = d.ints("shape", &[0, 0, 3, 8]);
        let r = d.op("r", "Reshape", &[x, shape], vec![]);
        let t = d.op("t", "Transpose", &[r], vec![("perm", ints(&[0, 2, 1, 3]))]);
        let cs = angles(&mut d, items, true, 1);
        let y = by_halves(&mut d, t, cs, split);
        let (_, after, report) = d.check("rotary", vec![y]);
        assert_eq!(report.fired, 1, "{after:#?} {:?}", report.misses);
        only(&after, &["RotaryEmbedding", "Transpose"]);
        // The transposition comes last: attention sees through it.
        assert!(after.last().is_some_and(|l| l.starts_with("y = Transpose(")), "{after:#?}");
    }
}

#[test]
fn heads_as_they_come() {
    // Heads first, whose number is not known; and rows first.
    for (axes, unsqueeze) in [(["", "heads", "rows", ""], 1), (["", "rows", "", ""], 2)] {
        let mut d = Draft::new();
        let sizes = if unsqueeze == 1 { [2, 3, 5, 8] } else { [2, 5, 3, 8] };
        let x = d.named_input("x", &axes, &sizes);
        let cs = angles(&mut d, 2, true, unsqueeze);
        let y = by_halves(&mut d, x, cs, true);
        let (_, after, report) = d.check("rotary", vec![y]);
        assert_eq!(report.fired, 1, "{after:#?} {:?}", report.misses);
        only(&after, &["RotaryEmbedding"]);
    }
}

/// The halves on their own: join(a cos - b sin, b cos + a sin).
#[test]
fn halves_on_their_own() {
    let mut d = Draft::new();
    let x = d.named_input("x", &["", "", "rows", ""], &[2, 3, 5, 8]);
    let [cos, sin] = angles(&mut d, 1, false, 1);
    let [a, b] = halves(&mut d, x, true);
    let [ac, bs, bc, asn] = [("ac", a, cos), ("bs", b, sin), ("bc", b, cos), ("as", a, sin)]
        .map(|(name, x, y)| d.op(name, "Mul", &[x, y], vec![]));
    let low = d.op("low", "Sub", &[ac, bs], vec![]);
    let high = d.op("high", "Add", &[asn, bc], vec![]);
    let y = d.op("y", "Concat", &[low, high], vec![("axis", Attr::Int(3))]);
    let (_, after, report) = d.check("rotary", vec![y]);
    assert_eq!(report.fired, 1, "{after:#?} {:?}", report.misses);
    only(&after, &["RotaryEmbedding"]);
}

/// A constant table, of which positions choose rows.
#[test]
fn rows_of_a_table() {
    let mut d = Draft::new();
    let x = d.named_input("x", &["batch", "", "rows", ""], &[2, 3, 5, 8]);
    let at: Vec<i64> = vec![3, 1, 4, 1, 5, 9, 2, 6, 5, 3];
    d.inputs.push(Value::Tensor(Tensor::from_slice(&[2, 5], &at).unwrap()));
    let at = d.b.input("at", Fact::tensor(DType::I64, vec![Dim::symbol("batch"), Dim::symbol("rows")]));
    let one = d.ints("one", &[1]);
    let table = |d: &mut Draft, name: &str| {
        let half = random(DType::F32, &[10, 4], -1.0, 1.0, name.len() as u64).unwrap();
        let rows: Vec<f32> = half.as_slice::<f32>().unwrap().chunks(4).flat_map(|r| [r, r].concat()).collect();
        let t = d.b.constant(name, Tensor::from_slice(&[10, 8], &rows).unwrap());
        let g = d.op(&format!("{name}.g"), "Gather", &[t, at], vec![]);
        d.op(&format!("{name}.u"), "Unsqueeze", &[g, one], vec![])
    };
    let cs = [table(&mut d, "cos"), table(&mut d, "sines")];
    let y = by_halves(&mut d, x, cs, false);
    let (_, after, report) = d.check("rotary", vec![y]);
    assert_eq!(report.fired, 1, "{after:#?} {:?}", report.misses);
    only(&after, &["RotaryEmbedding"]);
}

#[test]
pub fn what_is_nearly_rotary_stays() {
    // Angles that differ between the halves.
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3, 5, 8]);
    let cs = ["cos", "sin"].map(|n| d.input(n, &[1, 1, 5, 8]));
    let y = by_halves(&mut d, x, cs, false);
    let (before, after, report) = d.check("rotary", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("CheckFailed: ") && report.misses[0].contains("halves of the angles"));

    // A half that is asked for.
    let mut d = Draft::new();
    let x = d.named_input("x", &["", "", "rows", ""], &[2, 3, 5, 8]);
    let cs = angles(&mut d, 1, true, 1);
    let y = by_halves(&mut d, x, cs, true);
    let g = d.b.graph();
    let half = (0..g.value_count() as u32).map(ValueId).find(|&v| *g.value(v).name == *"parts.0").unwrap();
    let (before, after, report) = d.check("rotary", vec![y, half]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("other users"), "{:?}", report.misses);
}

/// Numbers of `x` at even and odd places: slices by two, or places of a last axis of two.
fn neighbours(d: &mut Draft, x: ValueId, way: &str, wide: &[i64]) -> [ValueId; 2] {
    if way == "slices" {
        return [("even", 0), ("odd", 1)].map(|(name, start)| {
            let [s, e, a, two] = [("s", start), ("e", i64::MAX), ("a", -1), ("two", 2)]
                .map(|(what, n)| d.ints(&format!("{name}.{what}"), &[n]));
            d.op(name, "Slice", &[x, s, e, a, two], vec![])
        });
    }
    let shape = d.ints("wide", wide);
    let r = d.op("r", "Reshape", &[x, shape], vec![]);
    if way == "gathers" {
        return [("even", 0i64), ("odd", 1)].map(|(name, at)| {
            let at = d.b.constant(&format!("at{at}"), Tensor::scalar(at).unwrap());
            d.op(name, "Gather", &[r, at], vec![("axis", Attr::Int(-1))])
        });
    }
    let sizes = d.ints("sizes", &[1, 1]);
    let parts = d.split("parts", r, sizes, -1, 2);
    let last = d.ints("last", &[-1]);
    [("even", parts[0]), ("odd", parts[1])].map(|(name, p)| d.op(name, "Squeeze", &[p, last], vec![]))
}

/// stack((a, b), -1).flatten(-2)
fn stacked(d: &mut Draft, name: &str, [a, b]: [ValueId; 2], flat: &[i64]) -> ValueId {
    let last = d.ints("stack", &[-1]);
    let [a, b] = [("a", a), ("b", b)].map(|(n, x)| d.op(&format!("{name}.{n}"), "Unsqueeze", &[x, last], vec![]));
    let s = d.op(&format!("{name}.s"), "Concat", &[a, b], vec![("axis", Attr::Int(-1))]);
    let shape = d.ints(&format!("{name}.flat"), flat);
    d.op(name, "Reshape", &[s, shape], vec![])
}

/// GPT-J: x cos + stack(-odd, even) sin, where each angle stands twice, rows before heads. A table, or angles that are repeated.
#[test]
fn neighbours_by_doubled_angles() {
    for (way, angle) in [("slices", "table"), ("gathers", "expanded"), ("splits", "stacked")] {
        let mut d = Draft::new();
        let x = d.named_input("x", &["", "rows", "", ""], &[2, 5, 3, 8]);
        let f = d.named_input("f", &["", "rows", ""], &[2, 5, 4]);
        let cs = ["Cos", "Sin"].map(|op| {
            let two = d.ints("two", &[2]);
            let rows = d.op(&format!("{op}.f"), op, &[f], vec![]);
            let one = d.op(&format!("{op}.u"), "Unsqueeze", &[rows, two], vec![]);
            match angle {
                "table" => {
                    let t = random(DType::F32, &[1, 5, 1, 4], -1.0, 1.0, 3).unwrap();
                    let twice: Vec<f32> = t.as_slice::<f32>().unwrap().iter().flat_map(|&v| [v, v]).collect();
                    d.b.constant(op, Tensor::from_slice(&[1, 5, 1, 8], &twice).unwrap())
                }
                "expanded" => {
                    let (last, twice, flat) =
                        (d.ints("l", &[-1]), d.ints("t", &[1, 1, 1, 1, 2]), d.ints("fl", &[0, 0, 0, 8]));
                    let u = d.op(&format!("{op}.w"), "Unsqueeze", &[one, last], vec![]);
                    let t = d.op(&format!("{op}.t"), "Tile", &[u, twice], vec![]);
                    d.op(&format!("{op}.r"), "Reshape", &[t, flat], vec![])
                }
                _ => stacked(&mut d, op, [one, one], &[0, 0, 0, 8]),
            }
        });
        let axes: &[&str] = if angle == "table" { &["", "", "", ""] } else { &["", "rows", "", ""] };
        let x = if angle == "table" { d.named_input("y", axes, &[2, 5, 3, 8]) } else { x };
        let [even, odd] = neighbours(&mut d, x, way, &[0, 0, 3, 4, 2]);
        let neg = d.op("neg", "Neg", &[odd], vec![]);
        let turned = stacked(&mut d, "turned", [neg, even], &[0, 0, 3, 8]);
        let a = d.op("a", "Mul", &[x, cs[0]], vec![]);
        let b = d.op("b", "Mul", &[turned, cs[1]], vec![]);
        let y = d.op("y", "Add", &[a, b], vec![]);
        let (_, after, report) = d.check("rotary", vec![y]);
        assert_eq!(report.fired, 1, "{way} {angle}: {after:#?} {:?}", report.misses);
        only(&after, &["RotaryEmbedding"]);
    }
}

/// ChatGLM: stack(a cos - b sin, b cos + a sin); the axes of heads may come with the same reshape.
#[test]
fn neighbours_on_their_own() {
    for (way, flat) in [("slices", false), ("gathers", false), ("gathers", true), ("splits", true)] {
        let mut d = Draft::new();
        let x = match flat {
            true => d.named_input("x", &["", "rows", ""], &[2, 5, 24]),
            false => d.named_input("x", &["", "rows", "", ""], &[2, 5, 3, 8]),
        };
        let [cos, sin] = ["cos", "sin"].map(|n| d.named_input(n, &["", "rows", "", ""], &[1, 5, 1, 4]));
        let [a, b] = neighbours(&mut d, x, way, &[0, -1, 3, 4, 2]);
        let [ac, bs, bc, asn] = [("ac", a, cos), ("bs", b, sin), ("bc", b, cos), ("as", a, sin)]
            .map(|(name, x, y)| d.op(name, "Mul", &[x, y], vec![]));
        let low = d.op("low", "Sub", &[ac, bs], vec![]);
        let high = d.op("high", "Add", &[bc, asn], vec![]);
        let y = stacked(&mut d, "y", [low, high], &[0, 0, 3, 8]);
        let (_, after, report) = d.check("rotary", vec![y]);
        assert_eq!(report.fired, 1, "{way} {flat}: {after:#?} {:?}", report.misses);
        only(&after, &["RotaryEmbedding"]);
    }
}

#[test]
fn what_turns_neighbours_nearly_stays() {
    // The angles of halves.
    let mut d = Draft::new();
    let x = d.input("x", &[2, 5, 3, 8]);
    let half = random(DType::F32, &[5, 1, 4], -1.0, 1.0, 3).unwrap();
    let rows: Vec<f32> = half.as_slice::<f32>().unwrap().chunks(4).flat_map(|r| [r, r].concat()).collect();
    let cs = ["cos", "sin"].map(|n| d.b.constant(n, Tensor::from_slice(&[5, 1, 8], &rows).unwrap()));
    let [even, odd] = neighbours(&mut d, x, "slices", &[]);
    let neg = d.op("neg", "Neg", &[odd], vec![]);
    let turned = stacked(&mut d, "turned", [neg, even], &[2, 5, 3, 8]);
    let a = d.op("a", "Mul", &[x, cs[0]], vec![]);
    let b = d.op("b", "Mul", &[turned, cs[1]], vec![]);
    let y = d.op("y", "Add", &[a, b], vec![]);
    let (before, after, report) = d.check("rotary", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("neighbours of the angles"), "{:?}", report.misses);

    // Neighbours that are put together as halves.
    let mut d = Draft::new();
    let x = d.input("x", &[2, 5, 3, 8]);
    let [cos, sin] = ["cos", "sin"].map(|n| d.input(n, &[1, 5, 1, 4]));
    let [a, b] = neighbours(&mut d, x, "slices", &[]);
    let [ac, bs, bc, asn] = [("ac", a, cos), ("bs", b, sin), ("bc", b, cos), ("as", a, sin)]
        .map(|(name, x, y)| d.op(name, "Mul", &[x, y], vec![]));
    let low = d.op("low", "Sub", &[ac, bs], vec![]);
    let high = d.op("high", "Add", &[bc, asn], vec![]);
    let y = d.op("y", "Concat", &[low, high], vec![("axis", Attr::Int(-1))]);
    let (before, after, _) = d.check("rotary", vec![y]);
    assert_eq!(before, after);
}
