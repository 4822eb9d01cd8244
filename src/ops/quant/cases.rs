//! Cases of the quantised operators.

use super::CONTRIB;
use crate::ir::parse::Attr;
use crate::ops::case::{Case, CaseInput, random};
use crate::tensor::{DType, Tensor};

fn x(d: DType, shape: &[usize], lo: f64, hi: f64) -> CaseInput {
    CaseInput::Random(d, shape.to_vec(), lo, hi)
}
/// Random bytes over their whole range.
fn bytes(d: DType, shape: &[usize]) -> CaseInput {
    if d == DType::I8 { x(d, shape, -128.0, 127.0) } else { x(d, shape, 0.0, 255.0) }
}
/// A constant, as weights are.
fn constant(d: DType, shape: &[usize], lo: f64, hi: f64) -> CaseInput {
    random(d, shape, lo, hi, 9).map_or(CaseInput::Absent, CaseInput::Constant)
}
fn weights(d: DType, shape: &[usize]) -> CaseInput {
    if d == DType::I8 { constant(d, shape, -128.0, 127.0) } else { constant(d, shape, 0.0, 255.0) }
}
fn scale() -> CaseInput {
    x(DType::F32, &[], 0.01, 0.02)
}
fn zero(d: DType) -> CaseInput {
    x(d, &[], 1.0, 9.0)
}
fn given<T: crate::tensor::Element>(shape: &[usize], v: &[T]) -> CaseInput {
    Tensor::from_slice(shape, v).map_or(CaseInput::Absent, CaseInput::Given)
}
/// An operator of the contrib domain.
fn extra(op: &'static str, name: &'static str, inputs: Vec<CaseInput>) -> Case {
    Case { domain: CONTRIB, ..Case::new(op, 1, name, inputs) }
}

fn products() -> Vec<Case> {
    let mut v = Vec::new();
    for (a, b) in [(DType::U8, DType::I8), (DType::I8, DType::I8), (DType::U8, DType::U8), (DType::I8, DType::U8)] {
        let int = |name, inputs| Case::new("MatMulInteger", 10, name, inputs).exact();
        v.push(int("plain", vec![bytes(a, &[5, 130]), weights(b, &[130, 70])]));
        v.push(int("vector", vec![bytes(a, &[33]), bytes(b, &[33, 9])]));
        v.push(int("zero_points", vec![bytes(a, &[2, 3, 17]), weights(b, &[17, 20]), zero(a), zero(b)]));
        let by_row = vec![bytes(a, &[6, 19]), bytes(b, &[19, 35]), bytes(a, &[6]), bytes(b, &[35])];
        v.push(int("by_row_and_column", by_row));
        v.push(int("broadcast", vec![bytes(a, &[2, 1, 4, 9]), bytes(b, &[3, 9, 5]), zero(a), zero(b)]));
        v.push(int("nothing", vec![bytes(a, &[0, 9]), bytes(b, &[9, 5]), zero(a), zero(b)]));
        v.push(int("no_steps", vec![bytes(a, &[4, 0]), bytes(b, &[0, 5])]));
        for y in [DType::U8, DType::I8] {
            let q = vec![
                bytes(a, &[2, 7, 30]),
                scale(),
                zero(a),
                weights(b, &[30, 41]),
                scale(),
                zero(b),
                x(DType::F32, &[], 0.2, 0.3),
                zero(y),
            ];
            v.push(Case::new("QLinearMatMul", 21, "tensor", q).exact());
            let q = vec![
                bytes(a, &[7, 30]),
                scale(),
                zero(a),
                weights(b, &[30, 41]),
                x(DType::F32, &[41], 0.01, 0.02),
                bytes(b, &[41]),
                x(DType::F32, &[], 0.2, 0.3),
                zero(y),
            ];
            v.push(Case::new("QLinearMatMul", 21, "by_column", q).exact());
            let q = vec![
                bytes(a, &[30, 7]),
                scale(),
                zero(a),
                weights(b, &[41, 30]),
                x(DType::F32, &[41], 0.01, 0.02),
                bytes(b, &[41]),
                x(DType::I32, &[41], -1e4, 1e4),
                x(DType::F32, &[], 0.2, 0.3),
                zero(y),
            ];
            let q = extra("QGemm", "transposed", q).attr("transA", Attr::Int(1)).attr("transB", Attr::Int(1));
            v.push(q.attr("alpha", Attr::Float(0.5)).exact());
        }
        let q = vec![
            bytes(a, &[7, 30]),
            scale(),
            zero(a),
            weights(b, &[30, 41]),
            scale(),
            zero(b),
            x(DType::I32, &[1], -99.0, 99.0),
        ];
        v.push(extra("QGemm", "to_float", q));
        let f = vec![
            bytes(a, &[7, 30]),
            weights(b, &[30, 41]),
            scale(),
            x(DType::F32, &[41], 0.01, 0.02),
            zero(a),
            bytes(b, &[41]),
            x(DType::F32, &[41], -1.0, 1.0),
        ];
        v.push(extra("MatMulIntegerToFloat", "by_column", f));
        let d = vec![
            x(DType::F32, &[2, 7, 30], -1.0, 3.0),
            weights(b, &[30, 41]),
            x(DType::F32, &[41], 0.01, 0.02),
            bytes(b, &[41]),
            x(DType::F32, &[41], -1.0, 1.0),
        ];
        v.push(extra("DynamicQuantizeMatMul", "by_column", d));
    }
    v
}

fn convolutions() -> Vec<Case> {
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let mut v = Vec::new();
    for (a, b) in [(DType::U8, DType::I8), (DType::I8, DType::I8), (DType::U8, DType::U8)] {
        let q = |name, sx: &[usize], sw: &[usize], each: bool| {
            let n: &[usize] = if each { &sw[..1] } else { &[] };
            let inputs = vec![
                bytes(a, sx),
                scale(),
                zero(a),
                weights(b, sw),
                x(DType::F32, n, 0.01, 0.02),
                if each { bytes(b, n) } else { zero(b) },
                x(DType::F32, &[], 0.5, 0.7),
                zero(DType::U8),
                x(DType::I32, &sw[..1], -1e4, 1e4),
            ];
            Case::new("QLinearConv", 10, name, inputs).exact()
        };
        v.push(q("first_layer", &[1, 3, 15, 17], &[32, 3, 3, 3], true).attr("pads", ints(&[1; 4])));
        v.push(q("strided", &[2, 16, 9, 9], &[70, 16, 3, 3], false).attr("strides", ints(&[2; 2])));
        v.push(q("pointwise", &[1, 24, 7, 7], &[40, 24, 1, 1], false));
        v.push(q("one_place", &[1, 24, 1, 1], &[40, 24, 1, 1], true));
        let pads = |c: Case| c.attr("pads", ints(&[1; 4]));
        v.push(pads(q("depthwise", &[2, 70, 9, 8], &[70, 1, 3, 3], true)).attr("group", Attr::Int(70)));
        v.push(q("groups", &[1, 12, 6, 6], &[9, 4, 3, 3], false).attr("group", Attr::Int(3)));
        v.push(q("line", &[1, 8, 40], &[16, 8, 5], true).attr("dilations", ints(&[2])));
        let i = vec![bytes(a, &[2, 5, 7, 8]), bytes(b, &[6, 5, 3, 3]), zero(a), bytes(b, &[6])];
        v.push(pads(Case::new("ConvInteger", 10, "padded", i).exact()));
        v.push(
            Case::new("ConvInteger", 10, "plain", vec![bytes(a, &[1, 2, 5, 5, 5]), weights(b, &[3, 2, 2, 2, 2])])
                .exact(),
        );
    }
    v
}

fn contrib() -> Vec<Case> {
    let mut v = Vec::new();
    for d in [DType::U8, DType::I8] {
        // The functions between are f32's, whose last bits may differ from level to level: so may a result that lies between
        // two integers.
        let one = |c: Case| Case { atol: 1.0, rtol: 0.0, ..c };
        let binary = |op, name, sa: &[usize], sb: &[usize]| {
            extra(op, name, vec![bytes(d, sa), scale(), zero(d), bytes(d, sb), scale(), zero(d), scale(), zero(d)])
        };
        v.push(one(binary("QLinearAdd", "plain", &[3, 50], &[3, 50])));
        v.push(one(binary("QLinearMul", "broadcast", &[2, 3, 5], &[3, 1])));
        let unary = |op, shape: &[usize]| extra(op, "plain", vec![bytes(d, shape), scale(), zero(d), scale(), zero(d)]);
        v.push(one(unary("QLinearSigmoid", &[3, 50])));
        v.push(one(unary("QLinearLeakyRelu", &[3, 50])).attr("alpha", Attr::Float(0.2)));
        v.push(one(unary("QLinearSoftmax", &[3, 50])).attr("opset", Attr::Int(13)));
        let pool = unary("QLinearAveragePool", &[1, 3, 8, 9]).attr("kernel_shape", Attr::Ints(vec![3, 3]));
        v.push(one(pool));
        v.push(one(unary("QLinearGlobalAveragePool", &[2, 3, 8, 9])));
        let mean = unary("QLinearReduceMean", &[2, 3, 8]).attr("axes", Attr::Ints(vec![1]));
        v.push(one(mean.attr("keepdims", Attr::Int(0))));
        let part = |shape: &[usize]| [bytes(d, shape), scale(), zero(d)];
        let mut inputs = vec![scale(), zero(d)];
        inputs.extend(part(&[2, 3]).into_iter().chain(part(&[2, 5])));
        v.push(one(extra("QLinearConcat", "two", inputs)).attr("axis", Attr::Int(1)));
        let condition = given(&[4], &[true, false, true, false]);
        let mut inputs = vec![condition];
        inputs.extend(part(&[3, 4]).into_iter().chain(part(&[4])).chain([scale(), zero(d)]));
        v.push(one(extra("QLinearWhere", "broadcast", inputs)));
    }
    for (bits, block, k, n, rows) in [(4, 32, 96, 20, 1), (4, 16, 40, 7, 5), (8, 32, 64, 9, 3), (2, 16, 64, 5, 2)] {
        let (blocks, bytes) = ((k as usize).div_ceil(block as usize), (block * bits / 8) as usize);
        let (n_, k_) = (n as usize, k as usize);
        let case = |name, extra_inputs: Vec<CaseInput>| {
            let mut inputs = vec![
                x(DType::F32, &[rows, k_], -1.0, 1.0),
                constant(DType::U8, &[n_, blocks, bytes], 0.0, 255.0),
                constant(DType::F32, &[n_, blocks], 0.01, 0.1),
            ];
            inputs.extend(extra_inputs);
            let c = extra("MatMulNBits", name, inputs).attr("K", Attr::Int(k)).attr("N", Attr::Int(n));
            // Sums of K terms of either sign, in another order at each level.
            let c = Case { atol: 1e-3, ..c.attr("bits", Attr::Int(bits)) };
            c.attr("block_size", Attr::Int(block))
        };
        let zeros = constant(DType::U8, &[n_, (blocks * bits as usize).div_ceil(8)], 0.0, 255.0);
        v.push(case("plain", vec![]));
        v.push(case("zero_points", vec![zeros.clone()]));
        v.push(case("float_zero_points", vec![constant(DType::F32, &[n_, blocks], 0.0, 3.0)]));
        let groups = constant(DType::I32, &[k_], 0.0, blocks as f64 - 1.0);
        v.push(case("groups_and_bias", vec![zeros, groups, x(DType::F32, &[n_], -1.0, 1.0)]));
    }
    let at = given(&[2, 2], &[3i64, 0, -1, 2]);
    for (d, bits) in [(DType::U8, 8), (DType::U8, 4), (DType::U8, 2)] {
        let per = 8 / bits;
        let data = constant(d, &[5, 48 / per], 0.0, 255.0);
        let zeros = constant(d, &[5, 3usize.div_ceil(per)], 0.0, 255.0);
        let inputs = vec![data, at.clone(), constant(DType::F32, &[5, 3], 0.5, 1.0), zeros];
        let c = extra("GatherBlockQuantized", "bytes", inputs).attr("bits", Attr::Int(bits as i64));
        v.push(c.attr("block_size", Attr::Int(16)).exact());
    }
    v
}

pub(super) fn all() -> Vec<Case> {
    let (quantize, dequantize) = ("QuantizeLinear", "DequantizeLinear");
    let mut v = Vec::new();
    for d in [DType::U8, DType::I8, DType::U16, DType::I16] {
        let (lo, hi) = if d.is_signed() { (-100.0, 100.0) } else { (20.0, 200.0) };
        let scale = |shape: &[usize]| x(DType::F32, shape, 0.5, 2.0);
        for (name, shape, scales) in [
            ("tensor", vec![3, 1501], vec![]),
            ("last_axis", vec![5, 70], vec![70]),
            ("middle_axis", vec![3, 5, 7], vec![5]),
            ("nothing", vec![0, 4], vec![4]),
        ] {
            let q = vec![x(DType::F32, &shape, -200.0, 200.0), scale(&scales), x(d, &scales, lo, hi)];
            v.push(Case::new(quantize, 21, name, q).exact());
            v.push(Case::new(dequantize, 21, name, vec![x(d, &shape, lo, hi), scale(&scales), x(d, &scales, lo, hi)]));
        }
        for (name, axis, shape, scales) in [
            ("blocks_along_the_last_axis", -1, vec![3, 100], vec![3, 4]),
            ("blocks_along_the_first_axis", 0, vec![50, 37], vec![2, 37]),
        ] {
            let q = vec![x(DType::F32, &shape, -200.0, 200.0), scale(&scales), x(d, &scales, lo, hi)];
            let with = |c: Case| c.attr("axis", Attr::Int(axis)).attr("block_size", Attr::Int(32));
            v.push(with(Case::new(quantize, 21, name, q)).exact());
            let q = vec![x(d, &shape, lo, hi), scale(&scales), x(d, &scales, lo, hi)];
            v.push(with(Case::new(dequantize, 21, name, q)));
        }
    }
    for d in [DType::F16, DType::BF16] {
        let q = vec![x(d, &[3, 33], -200.0, 200.0), x(d, &[33], 0.5, 2.0), x(DType::I8, &[33], -5.0, 5.0)];
        v.push(Case::new(quantize, 23, "narrow_scales", q).exact());
        let q = vec![x(DType::U8, &[3, 33], 0.0, 200.0), x(d, &[33], 0.5, 2.0), x(DType::U8, &[33], 0.0, 5.0)];
        v.push(Case { rtol: 1e-2, ..Case::new(dequantize, 23, "narrow_scales", q) });
    }
    for d in [DType::U4, DType::I4, DType::U2, DType::I2, DType::F8E4M3FN, DType::F8E5M2, DType::F4E2M1, DType::F6E3M2]
    {
        let q = vec![x(DType::F32, &[3, 701], -20.0, 20.0), x(DType::F32, &[3], 0.5, 2.0)];
        let with = |c: Case| c.attr("axis", Attr::Int(0)).attr("output_dtype", Attr::Int(d as i64));
        v.push(with(Case::new(quantize, 28, "few_bits", q)).exact());
    }
    let ints = vec![x(DType::I32, &[4, 5], -1e6, 1e6), x(DType::F32, &[5], 0.5, 2.0)];
    v.push(Case::new(dequantize, 21, "i32", ints));
    v.extend(super::dynamic::cases());
    v.extend(products());
    v.extend(convolutions());
    v.extend(contrib());
    v
}
