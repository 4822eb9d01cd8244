//! Scores of NaN under masks: those that take a score's place, and those that are added.

use super::*;

/// Queries, keys and values of two items and three heads; the third key of the second item is no number.
fn with_a_key_of_nan(d: &mut Draft, dtype: DType) -> [ValueId; 3] {
    let all = ["q", "k", "v"].map(|n| d.input_of(dtype, n, &[2, 3, 5, 8]));
    let Value::Tensor(k) = &d.inputs[1] else { panic!() };
    let size = dtype.size().unwrap();
    let mut bytes = k.bytes().to_vec();
    for head in 3..6 {
        // All bits: NaN in every type.
        bytes[(head * 5 + 2) * 8 * size..][..8 * size].fill(0xff);
    }
    d.inputs[1] = Value::Tensor(Tensor::from_bytes(dtype, &[2, 3, 5, 8], bytes.into()).unwrap());
    all
}

/// What a Where puts in the place of scores is there whatever they were, beside a bias or another mask, and evenly spread over a
/// row that sees nothing.
#[test]
fn a_mask_of_where_takes_the_place_of_nan() {
    type Masks = fn(&mut Draft, ValueId, [ValueId; 3], DType) -> ValueId;
    let low = |d: &mut Draft, dtype: DType| match dtype {
        DType::F16 => d.b.constant("low", Tensor::scalar(half::f16::from_f32(-6e4)).unwrap()),
        DType::F64 => d.b.constant("low", Tensor::scalar(-1e6f64).unwrap()),
        _ => d.number(-1e6),
    };
    let cases: [(&str, Masks, usize); 4] = [
        ("alone", |d, s, [on, _, low], _| d.op("m", "Where", &[on, s, low], vec![]), 4),
        (
            "after a bias",
            |d, s, [on, bias, low], _| {
                let s = d.op("biased", "Add", &[s, bias], vec![]);
                d.op("m", "Where", &[on, s, low], vec![])
            },
            8,
        ),
        (
            "before a bias",
            |d, s, [on, bias, low], _| {
                let s = d.op("m", "Where", &[on, s, low], vec![]);
                d.op("biased", "Add", &[bias, s], vec![])
            },
            8,
        ),
        (
            "two of a kind, one turned round",
            |d, s, [on, _, low], _| {
                let off = d.op("off", "Not", &[on], vec![]);
                let s = d.op("m1", "Where", &[on, s, low], vec![]);
                d.op("m", "Where", &[off, low, s], vec![])
            },
            4,
        ),
    ];
    for dtype in [DType::F32, DType::F16, DType::F64] {
        for (what, masks, inputs) in cases {
            let mut d = Draft::new();
            let [q, k, v] = with_a_key_of_nan(&mut d, dtype);
            // Row 4 of item 0 sees nothing (which f16 rounds away with all of a bias), rows of item 1 not its third key.
            let blind = if dtype == DType::F16 && what == "before a bias" { 5 } else { 4 };
            let seen = |b: usize, r: usize, j: usize| if b == 0 { r != blind } else { j != 2 };
            let on: Vec<u8> = (0..50).map(|i| u8::from(seen(i / 25, i / 5 % 5, i % 5))).collect();
            d.inputs.push(Value::Tensor(Tensor::from_bytes(DType::Bool, &[2, 1, 5, 5], on.into()).unwrap()));
            let on = d.b.input("on", Fact::sized(DType::Bool, &[2, 1, 5, 5]));
            let bias = d.input_of(dtype, "bias", &[1, 3, 5, 5]);
            let low = low(&mut d, dtype);
            let kt = d.op("kt", "Transpose", &[k], perm(&[0, 1, 3, 2]));
            let s = d.op("s", "MatMul", &[q, kt], vec![]);
            let s = masks(&mut d, s, [on, bias, low], dtype);
            let p = d.op("p", "Softmax", &[s], vec![]);
            let y = d.op("y", "MatMul", &[p, v], vec![]);
            // Scores of f16 are rounded where they are written out, to 1 in 2048 of ten and less.
            let (_, after, report) =
                d.check_within(if dtype == DType::F16 { 2e-2 } else { 1e-5 }, "attention", vec![y]);
            assert_eq!(report.fired, 1, "{what}: {:?}", report.misses);
            let call = after.iter().find(|l| l.contains("= Attention(")).unwrap();
            assert_eq!(call.matches(',').count() + 1, inputs, "{what}: {call}");
        }
    }
}

/// A mask that is added hides no NaN, not even one of minus infinity; nor does it in the operator itself.
#[test]
fn a_mask_that_is_added_leaves_nan() {
    for dtype in [DType::F32, DType::F16, DType::F64] {
        let mut d = Draft::new();
        let [q, k, v] = with_a_key_of_nan(&mut d, dtype);
        let kt = d.op("kt", "Transpose", &[k], perm(&[0, 1, 3, 2]));
        let s = d.op("s", "MatMul", &[q, kt], vec![]);
        let mask: Vec<f32> = (0..25).map(|i| if i % 5 == 2 { f32::NEG_INFINITY } else { 0.0 }).collect();
        let mask = d.b.constant("mask", Tensor::from_slice(&[5, 5], &mask).unwrap());
        let mask = d.op("narrow", "CastLike", &[mask, q], vec![]);
        let s = d.op("masked", "Add", &[s, mask], vec![]);
        let p = d.op("p", "Softmax", &[s], vec![]);
        let y = d.op("y", "MatMul", &[p, v], vec![]);
        let (_, _, report) = d.check_within(if dtype == DType::F16 { 2e-2 } else { 1e-5 }, "attention", vec![y]);
        assert_eq!(report.fired, 1, "{:?}", report.misses);
    }
}
