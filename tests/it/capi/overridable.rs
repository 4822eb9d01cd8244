//! Initialisers that the model also lists as inputs: defaults since IR version 4, constants before.

use super::*;
use crate::tiny::Tiny;
use ortx::{Environment, ModelSource, Session, Tensor};
use prost::Message;

/// `y = reshape(x * w + b, to)`, with w and `to` listed as inputs too; w = 2, b = 1, to = [3, 2].
fn model(ir: i64) -> Vec<u8> {
    let g = Tiny::new("defaults")
        .input("w", 1, &["1"])
        .input("x", 1, &["6"])
        .input("to", 7, &["2"])
        .constant("w", &[1], &[2.])
        .constant("b", &[1], &[1.])
        .numbers("to", &[2], &[3, 2])
        .node("Mul", &["x", "w"], &["scaled"])
        .node("Add", &["scaled", "b"], &["sum"])
        .node("Reshape", &["sum", "to"], &["y"])
        .output("y");
    let mut m = g.model();
    m.ir_version = Some(ir);
    m.encode_to_vec()
}

#[test]
fn defaults_can_be_overridden() {
    for optimize in [true, false] {
        let options = ortx_session_options { disable_optimization: i32::from(!optimize), ..super::options::zeroed() };
        let s = session_with(&model(8), &options).unwrap();
        let (mut n, mut open, mut name, mut index, mut ty, mut dtype) = (0, 0, null(), 0, null(), 0);
        let x = floats(&[6], &[0., 1., 2., 3., 4., 5.]);
        // SAFETY: live handles and pointers throughout.
        unsafe {
            ok(ortx_session_input_count(s, &mut n));
            ok(ortx_session_overridable_count(s, &mut open));
            assert_eq!((n, open), (1, 2));
            for (i, want) in ["x", "w", "to"].iter().enumerate() {
                ok(ortx_session_input_name(s, i, &mut name));
                assert_eq!(text(name), *want);
                ok(ortx_session_input_index(s, name, &mut index));
                assert_eq!(index, i);
            }
            ok(ortx_session_input_type(s, 2, &mut ty));
            ok(ortx_type_dtype(ty, &mut dtype));
            assert_eq!(dtype, ORTX_DTYPE_INT64);
            fails(ortx_session_input_name(s, 3, &mut name), ORTX_ERROR_INVALID_ARGUMENT, &["index 3"]);
            // What the caller may set decides the sizes.
            ok(ortx_session_output_type(s, 0, &mut ty));
            let mut size = 0;
            ok(ortx_type_dim(ty, 0, &mut size, null_mut()));
            assert_eq!(size, -1);

            let run = |indices: &[usize], inputs: &[*mut ortx_value]| {
                let mut y = null_mut();
                let (i, v) = (indices.as_ptr(), inputs.as_ptr().cast());
                let status = ortx_session_run(s, null(), i, v, inputs.len(), null(), &mut y, 1);
                if !status.is_null() {
                    return Err(failed(status));
                }
                let result = (shape(y), read(y));
                ortx_value_destroy(y);
                Ok(result)
            };
            let default = (vec![3, 2], vec![1., 3., 5., 7., 9., 11.]);
            let (w, mut to) = (floats(&[1], &[10.]), null_mut());
            let sizes = [2i64, 3];
            ok(ortx_tensor_create_from_copy(ORTX_DTYPE_INT64, &2, 1, sizes.as_ptr().cast(), 16, &mut to));
            assert_eq!(run(&[0], &[x]).unwrap(), default);
            assert_eq!(run(&[1, 0], &[w, x]).unwrap(), (vec![3, 2], vec![1., 11., 21., 31., 41., 51.]));
            assert_eq!(run(&[0, 2], &[x, to]).unwrap(), (vec![2, 3], default.1.clone()));
            assert_eq!(run(&[0, 1, 2], &[x, w, to]).unwrap().1[5], 51.);
            assert_eq!(run(&[0], &[x]).unwrap(), default, "the default is there again");
            let (_, said) = run(&[1, 2], &[w, to]).unwrap_err();
            assert!(said.contains("input 'x'") && said.contains("not set"), "{said}");
            let (_, said) = run(&[0, 1], &[x, to]).unwrap_err();
            assert!(said.contains("input 'w'") && said.contains("int64"), "{said}");

            let (mut b, mut y) = (null_mut(), null_mut());
            ok(ortx_binding_create(s, &mut b));
            ok(ortx_binding_set_input(b, 0, x));
            for (value, want) in [(null_mut(), 11.), (w, 51.), (null_mut(), 11.)] {
                ok(ortx_binding_set_input(b, 1, value));
                ok(ortx_binding_run(b, null()));
                ok(ortx_binding_output(b, 0, &mut y));
                assert_eq!(read(y)[5], want);
                ortx_value_destroy(y);
            }
            ortx_binding_destroy(b);
            [x, w, to].iter().for_each(|&v| ortx_value_destroy(v));
            ortx_session_destroy(s);
        }
    }
}

/// Where an operator must know a default when it is read, the default is a constant, and the session says so.
#[test]
fn defaults_that_must_be_constants_are_told() {
    let g = Tiny::new("blocked").input("x", 1, &["1", "16", "2", "2"]).input("w", 1, &["16", "16", "1", "1"]);
    let mut g = g.weights("w", &[16, 16, 1, 1]).node("Conv", &["x", "w"], &["y"]).ints("kernel_shape", &[1, 1]);
    g.0.node.last_mut().unwrap().domain = Some("com.microsoft.nchwc".into());
    let mut m = g.output("y").model();
    let domain = Some("com.microsoft.nchwc".into());
    m.opset_import.push(ortx::proto::onnx::OperatorSetIdProto { domain, version: Some(1) });
    let s = session(&m.encode_to_vec());
    let (mut n, mut open, mut said) = (0, 7, null());
    // SAFETY: a live session and places to write to.
    unsafe {
        ok(ortx_session_overridable_count(s, &mut open));
        ok(ortx::capi::metadata::ortx_session_warning_count(s, &mut n));
        assert_eq!((open, n), (0, 1));
        ok(ortx::capi::metadata::ortx_session_warning(s, 0, &mut said));
        let said = text(said);
        assert!(said.contains("(w) are constants") && said.contains("blocked weights"), "{said}");
        ortx_session_destroy(s);
    }
}

/// Before version 4 every initialiser had to be listed as an input: they are constants, as in onnxruntime.
#[test]
fn old_models_have_constants() {
    let s = session(&model(3));
    let (mut n, mut open, mut index, mut y) = (0, 7, 0, null_mut());
    let (x, w) = (floats(&[6], &[0., 1., 2., 3., 4., 5.]), floats(&[1], &[10.]));
    // SAFETY: live handles and pointers throughout.
    unsafe {
        ok(ortx_session_input_count(s, &mut n));
        ok(ortx_session_overridable_count(s, &mut open));
        assert_eq!((n, open), (1, 0));
        fails(
            ortx_session_input_index(s, c"w".as_ptr(), &mut index),
            ORTX_ERROR_INVALID_ARGUMENT,
            &["'w'", "it has x"],
        );
        ok(ortx_session_run(s, null(), null(), &x.cast_const(), 1, null(), &mut y, 1));
        assert_eq!((shape(y), read(y)[5]), (vec![3, 2], 11.));
        let (both, mut z) = ([x.cast_const(), w], null_mut());
        let status = ortx_session_run(s, null(), null(), both.as_ptr(), 2, null(), &mut z, 1);
        fails(status, ORTX_ERROR_INVALID_ARGUMENT, &["1 inputs (x), 2 are given"]);
        [x, w, y].iter().for_each(|&v| ortx_value_destroy(v));
        ortx_session_destroy(s);
    }
}

#[test]
fn rust_overrides_by_name() {
    let s = Session::from_bytes(model(9)).unwrap();
    assert_eq!(s.overridable_inputs().iter().map(|io| &*io.name).collect::<Vec<_>>(), ["w", "to"]);
    assert_eq!(s.defaults()[0].as_tensor().unwrap().as_slice::<f32>().unwrap(), [2.]);
    let (x, w) = (Tensor::from_slice(&[6], &[1f32; 6]).unwrap(), Tensor::from_slice(&[1], &[5f32]).unwrap());
    let last =
        |inputs: &[(&str, Tensor)]| s.run(inputs).map(|o| o[0].as_tensor().unwrap().as_slice::<f32>().unwrap()[5]);
    assert_eq!(last(&[("x", x.clone())]).unwrap(), 3.);
    assert_eq!(last(&[("w", w.clone()), ("x", x.clone())]).unwrap(), 6.);
    assert!(last(&[("w", w)]).unwrap_err().to_string().contains("input 'x'"));
    assert_eq!(last(&[("x", x)]).unwrap(), 3.);

    let inspect = |ir| {
        let source = ModelSource::Bytes(model(ir).into(), None);
        let found = ortx::session::inspect(&Environment::new(), &source, Default::default()).unwrap();
        assert_eq!(found.inputs.iter().map(|io| &*io.name).collect::<Vec<_>>(), ["x"]);
        found.overridable.iter().map(|io| format!("{} {}", io.name, io.fact)).collect::<Vec<_>>()
    };
    assert_eq!(inspect(8), ["w float[1]", "to int64[2]"]);
    assert!(inspect(3).is_empty());
}
