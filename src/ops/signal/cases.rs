//! Cases of the signal operators.

use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ops::case::{Case, CaseInput};
use crate::tensor::{DType, Tensor};

pub(super) fn cases() -> Vec<Case> {
    made().unwrap_or_default()
}

fn made() -> Result<Vec<Case>> {
    let x = |shape: &[usize]| CaseInput::Random(DType::F32, shape.to_vec(), -1.0, 1.0);
    let n = |n: i64| -> Result<CaseInput> { Ok(CaseInput::Constant(Tensor::scalar(n)?)) };
    let given = |n: i64| -> Result<CaseInput> { Ok(CaseInput::Given(Tensor::scalar(n)?)) };
    let dft = |name, inputs| Case::new("DFT", 20, name, inputs);
    let on = |c: Case, name| c.attr(name, Attr::Int(1));
    let f32s = |shape: &[usize], v: &[f32]| Tensor::from_slice(shape, v);
    Ok(vec![
        dft("impulse", vec![CaseInput::Given(f32s(&[1, 4, 1], &[1.0, 0.0, 0.0, 0.0])?)])
            .expect(f32s(&[1, 4, 2], &[1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0])?),
        dft("step", vec![CaseInput::Given(f32s(&[1, 2, 2], &[1.0, 2.0, 3.0, 5.0])?)])
            .expect(f32s(&[1, 2, 2], &[4.0, 7.0, -2.0, -3.0])?),
        dft("prime", vec![x(&[2, 37, 2])]),
        dft("axis", vec![x(&[2, 6, 5, 1]), CaseInput::Absent, n(1)?]),
        dft("given_axis", vec![x(&[2, 6, 5, 1]), given(8)?, given(-3)?]),
        dft("longer", vec![x(&[3, 5, 1]), n(8)?]),
        dft("shorter", vec![x(&[3, 8, 2]), n(5)?]),
        on(dft("half", vec![x(&[3, 9, 1])]), "onesided"),
        on(dft("half_of_two", vec![x(&[3, 2, 1])]), "onesided"),
        on(dft("half_of_one", vec![x(&[3, 1, 1])]), "onesided"),
        on(dft("inverse", vec![x(&[2, 12, 2])]), "inverse"),
        on(on(dft("back_to_real", vec![x(&[2, 7, 2])]), "inverse"), "onesided"),
        on(on(dft("back_to_odd", vec![x(&[2, 4, 2]), n(7)?]), "inverse"), "onesided"),
        dft("empty", vec![x(&[0, 4, 1])]),
        Case::new("STFT", 17, "window", vec![x(&[2, 40, 1]), n(7)?, x(&[16])]),
        Case::new("STFT", 17, "complex", vec![x(&[1, 33, 2]), n(4)?, CaseInput::Absent, n(10)?])
            .attr("onesided", Attr::Int(0)),
        Case::new("STFT", 17, "short_window", vec![x(&[1, 33, 1]), given(4)?, x(&[6]), given(10)?]),
        Case::new("HannWindow", 17, "given", vec![given(5)?]),
        Case::new("HannWindow", 17, "one", vec![n(1)?]).attr("periodic", Attr::Int(0)),
        Case::new("BlackmanWindow", 17, "none", vec![n(0)?]),
        Case::new("HammingWindow", 17, "double", vec![n(9)?]).attr("output_datatype", Attr::Int(11)),
    ])
}
