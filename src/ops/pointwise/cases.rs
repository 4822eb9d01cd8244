//! Test cases of the elementwise operators.

use crate::ir::parse::Attr;
use crate::ops::case::{Case, CaseInput};
use crate::tensor::{DType, Element, Tensor};

/// Random numbers of a type.
fn x(d: DType, shape: &[usize]) -> CaseInput {
    CaseInput::Random(d, shape.to_vec(), -3.0, 3.0)
}

fn given<T: Element>(shape: &[usize], v: &[T]) -> CaseInput {
    Tensor::from_slice(shape, v).map_or(CaseInput::Absent, CaseInput::Given)
}

fn expect<T: Element>(case: Case, shape: &[usize], v: &[T]) -> Case {
    match Tensor::from_slice(shape, v) {
        Ok(t) => case.expect(t),
        Err(_) => case,
    }
}

/// Functions of one operand.
pub fn unary() -> Vec<Case> {
    let mut v = Vec::new();
    // Shapes of less, as much, and more than a vector and a tile; none at all; a scalar.
    let shapes: [&[usize]; 5] = [&[5], &[16], &[3, 1031], &[0, 4], &[]];
    for op in ["Relu", "Sigmoid", "Tanh", "Exp", "Neg", "Abs", "Erf", "Floor", "Sign", "Softplus", "Softsign"] {
        v.extend(shapes.map(|s| Case::new(op, 13, "float", vec![x(DType::F32, s)])));
        // Computed in f32 and rounded once: a rounding of the type may fall either way.
        for (d, name, tol) in [(DType::F16, "half", 1e-3), (DType::BF16, "bfloat", 8e-3), (DType::F64, "double", 1e-5)]
        {
            let mut c = Case::new(op, 13, name, vec![x(d, &[3, 37])]);
            (c.rtol, c.atol) = (tol, tol);
            v.push(c);
        }
    }
    for (op, version) in [
        ("LeakyRelu", 16),
        ("Elu", 22),
        ("Selu", 22),
        ("Celu", 12),
        ("Gelu", 20),
        ("HardSigmoid", 22),
        ("HardSwish", 22),
        ("Mish", 22),
        ("Swish", 24),
        ("ThresholdedRelu", 22),
        ("Shrink", 9),
    ] {
        v.push(Case::new(op, version, "float", vec![x(DType::F32, &[7, 33])]));
    }
    v.push(
        Case::new("Gelu", 20, "tanh", vec![x(DType::F32, &[33])]).attr("approximate", Attr::String(b"tanh".to_vec())),
    );
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1.0];
    let nan = Case::new("IsNaN", 20, "special", vec![given(&[5], &special)]).exact();
    v.push(expect(nan, &[5], &[true, false, false, false, false]));
    let inf = Case::new("IsInf", 20, "negative_only", vec![given(&[5], &special)]).exact();
    v.push(expect(inf.attr("detect_positive", Attr::Int(0)), &[5], &[false, false, true, false, false]));
    let relu = Case::new("Relu", 14, "special", vec![given(&[5], &special)]).exact();
    v.push(expect(relu, &[5], &[f32::NAN, f32::INFINITY, 0.0, 0.0, 1.0]));
    let relu = Case::new("Relu", 14, "integers", vec![given(&[3], &[-2i32, 0, 5])]).exact();
    v.push(expect(relu, &[3], &[0i32, 0, 5]));
    let round = Case::new("Round", 22, "ties_to_even", vec![given(&[4], &[0.5f32, 1.5, -2.5, 2.6])]).exact();
    v.push(expect(round, &[4], &[0f32, 2.0, -2.0, 3.0]));
    v
}

/// Functions of two operands.
pub fn binary() -> Vec<Case> {
    let f = DType::F32;
    let mut v = Vec::new();
    for op in ["Add", "Sub", "Mul", "Div", "Pow"] {
        // The same shape, each side broadcast, both, scalars, an axis of size zero, near misses of vectors and tiles.
        let shapes: [(&[usize], &[usize]); 9] = [
            (&[3, 17], &[3, 17]),
            (&[2, 3, 33], &[33]),
            (&[5, 1], &[1, 7]),
            (&[1], &[4, 31]),
            (&[4, 31], &[]),
            (&[2, 8, 3, 5], &[1, 8, 1, 1]),
            (&[2, 8, 3, 5], &[8, 1, 1]),
            (&[0, 3], &[1, 3]),
            (&[3, 1025], &[3, 1]),
        ];
        for (a, b) in shapes {
            let low = if op == "Pow" { 0.1 } else { -3.0 };
            let left = CaseInput::Random(f, a.to_vec(), low, 3.0);
            v.push(Case::new(op, 14, "float", vec![left, x(f, b)]));
        }
    }
    for d in [DType::I64, DType::I32, DType::U8, DType::F64] {
        v.push(
            Case::new(
                "Add",
                14,
                "type",
                vec![CaseInput::Random(d, vec![3, 9], 0.0, 50.0), CaseInput::Random(d, vec![9], 0.0, 50.0)],
            )
            .exact(),
        );
        v.push(
            Case::new(
                "Less",
                13,
                "type",
                vec![CaseInput::Random(d, vec![3, 9], 0.0, 5.0), CaseInput::Random(d, vec![3, 1], 0.0, 5.0)],
            )
            .exact(),
        );
    }
    let legacy = Case::new(
        "Add",
        6,
        "axis_of_old_versions",
        vec![given(&[2, 2, 1], &[0f32, 10., 20., 30.]), given(&[2], &[1f32, 2.])],
    );
    let legacy = legacy.attr("broadcast", Attr::Int(1)).attr("axis", Attr::Int(1)).exact();
    v.push(expect(legacy, &[2, 2, 1], &[1f32, 12., 21., 32.]));
    let (n, d) = ([-7i32, 7, -7, 7, i32::MIN, 5], [3i32, -3, -3, 3, -1, 0]);
    let modulo = |fmod| {
        Case::new("Mod", 13, "signs", vec![given(&[6], &n), given(&[6], &d)]).attr("fmod", Attr::Int(fmod)).exact()
    };
    v.push(expect(modulo(0), &[6], &[2i32, -2, -1, 1, 0, 0]));
    v.push(expect(modulo(1), &[6], &[-1i32, 1, -1, 1, 0, 0]));
    // Nothing traps: the lowest number over -1 wraps, and a division by zero gives zero.
    let div = Case::new("Div", 14, "of_integers", vec![given(&[6], &n), given(&[6], &d)]).exact();
    v.push(expect(div, &[6], &[-2i32, -2, 2, 2, i32::MIN, 0]));
    let pow = Case::new("Pow", 15, "of_two_types", vec![given(&[3], &[2i64, 3, -2]), given(&[3], &[0.5f32, 2.0, 3.0])]);
    v.push(expect(pow.exact(), &[3], &[1i64, 9, -8]));
    let shift =
        Case::new("BitShift", 11, "beyond_the_width", vec![given(&[3], &[-8i32, -8, 8]), given(&[3], &[1i32, 40, 40])]);
    v.push(expect(shift.attr("direction", Attr::String(b"RIGHT".to_vec())).exact(), &[3], &[-4i32, -1, 0]));
    let slope =
        Case::new("PRelu", 16, "slopes", vec![given(&[2, 2], &[-1f32, 2., -3., 4.]), given(&[2], &[0.5f32, 9.])]);
    v.push(expect(slope.exact(), &[2, 2], &[-0.5f32, 2., -1.5, 4.]));
    v
}

/// Functions of several operands.
pub fn variadic() -> Vec<Case> {
    let f = DType::F32;
    let mut v = Vec::new();
    for op in ["Max", "Min", "Sum", "Mean"] {
        v.push(Case::new(op, 13, "three", vec![x(f, &[3, 17]), x(f, &[17]), x(f, &[3, 1])]));
        v.push(Case::new(op, 13, "one", vec![x(f, &[3])]));
        v.push(Case::new(op, 13, "double", vec![x(DType::F64, &[3, 5]), x(DType::F64, &[5]), x(DType::F64, &[])]));
    }
    let nan = Case::new("Max", 13, "nan_stays", vec![given(&[2], &[f32::NAN, 1.0]), given(&[2], &[1.0, f32::NAN])]);
    v.push(expect(nan.exact(), &[2], &[f32::NAN, f32::NAN]));
    let number = |n: f32| given(&[], &[n]);
    v.push(Case::new("Clip", 13, "both", vec![x(f, &[3, 37]), number(-1.0), number(1.0)]).exact());
    v.push(Case::new("Clip", 13, "upper", vec![x(f, &[3, 37]), CaseInput::Absent, number(1.0)]).exact());
    let crossed = Case::new("Clip", 13, "crossed_bounds", vec![given(&[2], &[0f32, 9.0]), number(5.0), number(2.0)]);
    v.push(expect(crossed.exact(), &[2], &[2f32, 2.0]));
    let ints = vec![given(&[3], &[-5i32, 0, 9]), given(&[], &[-1i32]), given(&[], &[4i32])];
    v.push(expect(Case::new("Clip", 13, "integers", ints).exact(), &[3], &[-1i32, 0, 4]));
    v.push(expect(
        Case::new("Clip", 6, "bounds_as_attributes", vec![given(&[2], &[-5f32, 5.0])])
            .attr("max", Attr::Float(2.0))
            .exact(),
        &[2],
        &[-5f32, 2.0],
    ));
    let choose = vec![given(&[2, 1], &[true, false]), given(&[2], &[1f32, 2.0]), given(&[], &[9f32])];
    v.push(expect(Case::new("Where", 16, "broadcast", choose).exact(), &[2, 2], &[1f32, 2.0, 9.0, 9.0]));
    v.push(
        Case::new(
            "Where",
            16,
            "of_integers",
            vec![x(DType::Bool, &[3, 9]), x(DType::I64, &[9]), x(DType::I64, &[3, 1])],
        )
        .exact(),
    );
    v
}
