//! Cases of Einsum.

use crate::ir::parse::Attr;
use crate::ops::case::{Case, CaseInput};
use crate::tensor::{DType, Tensor};

pub(super) fn cases() -> Vec<Case> {
    let of = |name: &'static str, equation: &str, dtype: DType, shapes: &[&[usize]]| {
        let inputs = shapes.iter().map(|s| CaseInput::Random(dtype, s.to_vec(), -3.0, 3.0)).collect();
        Case::new("Einsum", 12, name, inputs).attr("equation", Attr::String(equation.as_bytes().to_vec()))
    };
    let f = |name, equation: &str, shapes: &[&[usize]]| of(name, equation, DType::F32, shapes);
    let mut all = vec![
        f("matmul", "ij,jk->ik", &[&[5, 17], &[17, 33]]),
        f("turned", "ij,jk->ki", &[&[5, 7], &[7, 3]]),
        f("batch", "bij,bjk->bik", &[&[3, 4, 5], &[3, 5, 6]]),
        f("heads", "bqhd,bkhd->bhqk", &[&[2, 5, 3, 8], &[2, 7, 3, 8]]),
        f("values", "bhqk,bkhd->bqhd", &[&[2, 3, 5, 7], &[2, 7, 3, 8]]),
        f("trace", "ii", &[&[4, 4]]),
        f("diagonal", "...ii->...i", &[&[2, 4, 4]]),
        f("outer", "i,j", &[&[3], &[4]]),
        f("pointwise", "ij,ij->ij", &[&[3, 40], &[3, 40]]),
        f("three", "ij,jk,kl->il", &[&[3, 4], &[4, 5], &[5, 6]]),
        f("four_scalars", ",,,->", &[&[], &[], &[], &[]]),
        f("alone", "i,j->", &[&[3], &[4]]),
        f("hidden", "...ij,...jk", &[&[2, 1, 3, 4], &[5, 4, 6]]),
        f("one", "ij,jk->ik", &[&[3, 1], &[4, 5]]),
        f("two_k", "abcd,cdbe->ae", &[&[2, 3, 4, 5], &[4, 5, 3, 6]]),
        f("odd_k", "abcd,dcbe->ae", &[&[2, 3, 4, 5], &[5, 4, 3, 6]]),
        f("five_batches", "abcdeij,ebcdajk->edcbaik", &[&[2, 1, 3, 2, 2, 3, 2], &[2, 1, 3, 2, 2, 2, 4]]),
        f("two_batches", "abij,abjk->abik", &[&[2, 3, 4, 5], &[2, 3, 5, 6]]),
        f("merged_batches", "abcdeij,abcdejk->abcdeik", &[&[2, 1, 3, 2, 2, 3, 2], &[2, 1, 3, 2, 2, 2, 4]]),
        f("empty_k", "ij,jk->ik", &[&[3, 0], &[0, 4]]),
        f("empty", "ij,jk->ik", &[&[0, 3], &[3, 4]]),
        of("f64", "bij,bjk->bki", DType::F64, &[&[3, 4, 5], &[3, 5, 6]]),
        of("i64", "ij,jk,kj->i", DType::I64, &[&[3, 4], &[4, 5], &[5, 4]]).exact(),
        of("u8", "ij->j", DType::I8, &[&[3, 4]]).exact(),
        // f16 rounds once, from the same f32.
        Case { rtol: 1e-3, ..of("f16", "ij,jk->ik", DType::F16, &[&[3, 4], &[4, 5]]) },
    ];
    let two = |x: [f32; 4]| Tensor::from_slice(&[2, 2], &x).ok();
    if let (Some(a), Some(b), Some(c)) =
        (two([1.0, 2.0, 3.0, 4.0]), two([5.0, 6.0, 7.0, 8.0]), two([19.0, 43.0, 22.0, 50.0]))
    {
        let case = Case::new("Einsum", 12, "known", vec![CaseInput::Given(a), CaseInput::Given(b)]);
        all.push(case.attr("equation", Attr::String(b"ij,jk->ki".to_vec())).expect(c));
    }
    all
}
