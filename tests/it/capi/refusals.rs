//! Models and inputs that are wrong: the status names the cause and the place.

use super::*;
use crate::tiny::Tiny;
use ortx::proto::onnx::{StringStringEntryProto, TensorProto};
use std::ffi::CString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The error of loading a model in memory.
fn refused(model: &[u8]) -> (ortx_code, String) {
    session_with(model, null()).map(|_| ()).unwrap_err()
}

fn says(got: (ortx_code, String), code: ortx_code, words: &[&str]) {
    assert_eq!(got.0, code, "{}", got.1);
    words.iter().for_each(|w| assert!(got.1.contains(w), "'{w}' is not in: {}", got.1));
}

#[test]
fn unknown_operators_are_named_all_at_once() {
    let g = Tiny::new("g")
        .input("x", 1, &["2"])
        .node("Frobnicate", &["x"], &["a"])
        .node("Relu", &["a"], &["b"])
        .node("Defenestrate", &["b"], &["y"])
        .output("y");
    let words = ["Frobnicate", "make_a", "Defenestrate", "make_y", "model from memory"];
    says(refused(&g.bytes()), ORTX_ERROR_UNSUPPORTED, &words);
}

#[test]
fn a_cycle_is_named() {
    let g = Tiny::new("g")
        .input("x", 1, &["2"])
        .node("Add", &["x", "b"], &["a"])
        .node("Relu", &["a"], &["b"])
        .node("Neg", &["b"], &["y"])
        .output("y");
    says(refused(&g.bytes()), ORTX_ERROR_INVALID_MODEL, &["cycle", "make_a"]);
    let g = Tiny::new("g").input("x", 1, &["2"]).node("Relu", &["nobody"], &["y"]).output("y");
    says(refused(&g.bytes()), ORTX_ERROR_INVALID_MODEL, &["make_y", "'nobody'"]);
    let g = Tiny::new("g").input("x", 1, &["2"]).node("Relu", &["x"], &["a"]).output("y");
    says(refused(&g.bytes()), ORTX_ERROR_INVALID_MODEL, &["output 'y'"]);
}

/// A model whose weights are at `location`.
fn external(location: &str) -> Vec<u8> {
    let entry = |k: &str, v: &str| StringStringEntryProto { key: Some(k.into()), value: Some(v.into()) };
    let w = TensorProto {
        name: Some("w".into()),
        dims: vec![3, 2],
        data_type: Some(1),
        data_location: Some(1),
        external_data: vec![entry("location", location), entry("offset", "4"), entry("length", "24")],
        ..Default::default()
    };
    let g = Tiny::new("external").input("x", 1, &["n", "3"]).initializer(w).node("MatMul", &["x", "w"], &["y"]);
    g.output("y").bytes()
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.join("inside")).unwrap();
    folder
}

fn from_file(path: &Path) -> Result<*mut ortx_session, (ortx_code, String)> {
    let (path, mut s) = (CString::new(path.to_str().unwrap()).unwrap(), null_mut());
    // SAFETY: live pointers.
    let status = unsafe { ortx_session_create_from_file(null(), path.as_ptr(), null(), &mut s) };
    if status.is_null() { Ok(s) } else { Err(failed(status)) }
}

#[test]
fn external_data_stays_in_the_folder() {
    let root = folder("external");
    let inside = root.join("inside");
    let floats_at_four: Vec<u8> = [0f32, 1., 2., 3., 4., 5., 6.].iter().flat_map(|x| x.to_le_bytes()).collect();
    for file in [root.join("secret.bin"), inside.join("w.bin")] {
        std::fs::write(file, &floats_at_four).unwrap();
    }
    symlink(root.join("secret.bin"), inside.join("link.bin")).unwrap();
    symlink(&root, inside.join("up")).unwrap();
    let at = |location: &str| {
        let from_memory = {
            let (model, folder) = (external(location), CString::new(inside.to_str().unwrap()).unwrap());
            let mut s = null_mut();
            // SAFETY: live pointers.
            unsafe {
                let (data, size) = (model.as_ptr().cast(), model.len());
                let status = ortx_session_create_from_memory(null(), data, size, folder.as_ptr(), null(), &mut s);
                if status.is_null() { Ok(s) } else { Err(failed(status)) }
            }
        };
        std::fs::write(inside.join("m.onnx"), external(location)).unwrap();
        [from_memory, from_file(&inside.join("m.onnx"))]
    };
    for s in at("w.bin") {
        let (s, x, mut y) = (s.unwrap(), floats(&[1, 3], &[1., 0., 0.]), null_mut());
        // SAFETY: live handles.
        unsafe {
            ok(ortx_session_run(s, null(), null(), &x.cast_const(), 1, null(), &mut y, 1));
            assert_eq!(read(y), [1., 2.]);
            ortx_session_destroy(s);
            [x, y].iter().for_each(|&v| ortx_value_destroy(v));
        }
    }
    let absolute = root.join("secret.bin");
    let out = [
        "../secret.bin",
        "up/secret.bin",
        "link.bin",
        "./x/../../secret.bin",
        absolute.to_str().unwrap(),
        "/etc/passwd",
    ];
    for location in out {
        for got in at(location) {
            let (code, said) = got.unwrap_err();
            assert_eq!(code, ORTX_ERROR_INVALID_MODEL, "{said}");
            assert!(said.contains("'w'") && said.contains(location), "{said}");
        }
    }
    for got in at("nowhere.bin") {
        says(got.map(|_| ()).unwrap_err(), ORTX_ERROR_NOT_FOUND, &["'w'", "nowhere.bin"]);
    }
    // Without a folder there is nowhere to look.
    says(refused(&external("w.bin")), ORTX_ERROR_INVALID_ARGUMENT, &["'w'", "w.bin", "name the folder"]);
    std::fs::write(inside.join("w.bin"), [0; 8]).unwrap();
    for got in at("w.bin") {
        says(got.map(|_| ()).unwrap_err(), ORTX_ERROR_INVALID_MODEL, &["'w'", "w.bin", "24"]);
    }
}

#[test]
fn broken_files_are_told() {
    let root = folder("broken");
    let model = std::fs::read("models/digits.onnx").unwrap();
    let path = root.join("half.onnx");
    for len in [1, 7, 100, model.len() / 2, model.len() - 1] {
        std::fs::write(&path, &model[..len]).unwrap();
        says(from_file(&path).map(|_| ()).unwrap_err(), ORTX_ERROR_INVALID_MODEL, &["half.onnx", "byte "]);
    }
    std::fs::write(&path, b"").unwrap();
    says(from_file(&path).map(|_| ()).unwrap_err(), ORTX_ERROR_INVALID_MODEL, &["half.onnx"]);
    std::fs::write(&path, b"<html>not found</html>").unwrap();
    says(from_file(&path).map(|_| ()).unwrap_err(), ORTX_ERROR_INVALID_MODEL, &["half.onnx"]);
    says(from_file(&root).map(|_| ()).unwrap_err(), ORTX_ERROR_INVALID_ARGUMENT, &["broken", "folder"]);
    says(from_file(&root.join("none")).map(|_| ()).unwrap_err(), ORTX_ERROR_NOT_FOUND, &["none"]);
}

#[test]
fn wrong_inputs_are_told() {
    let s = session(&crate::tiny::product());
    let good = floats(&[2, 3], &[0.; 6]);
    let (mut y, mut ints) = (null_mut(), null_mut());
    let bad = ORTX_ERROR_INVALID_ARGUMENT;
    // SAFETY: live handles.
    unsafe {
        ok(ortx_tensor_create(ORTX_DTYPE_INT64, [2i64, 3].as_ptr(), 2, &mut ints));
        let run = |inputs: &[*mut ortx_value], y: &mut *mut ortx_value| {
            ortx_session_run(s, null(), null(), inputs.as_ptr().cast(), inputs.len(), null(), y, 1)
        };
        fails(run(&[ints], &mut y), bad, &["input 'x'", "takes float", "int64"]);
        let (flat, wide) = (floats(&[6], &[0.; 6]), floats(&[2, 4], &[0.; 8]));
        fails(run(&[flat], &mut y), bad, &["input 'x'", "rank 2", "[6]"]);
        fails(run(&[wide], &mut y), bad, &["input 'x'", "[2, 4]", "axis 1 must be 3"]);
        fails(run(&[], &mut y), bad, &["1 inputs (x), 0 are given"]);
        fails(run(&[good, good], &mut y), bad, &["1 inputs (x), 2 are given"]);
        let mut list = null_mut();
        ok(ortx_sequence_create(&good.cast_const(), 1, &mut list));
        fails(run(&[list], &mut y), bad, &["input 'x'", "a sequence"]);
        let mut index = 5;
        fails(ortx_session_input_index(s, c"X".as_ptr(), &mut index), bad, &["'X'", "it has x"]);
        assert!(y.is_null() && index != 5, "an index that is no input");
        let (one, two) = ([7usize], [0usize, 0]);
        let status = ortx_session_run(s, null(), one.as_ptr(), &good.cast_const(), 1, null(), &mut y, 1);
        fails(status, bad, &["no input of index 7"]);
        let mut both = [null_mut(); 2];
        let status = ortx_session_run(s, null(), null(), &good.cast_const(), 1, two.as_ptr(), both.as_mut_ptr(), 2);
        fails(status, bad, &["1 outputs (y), 2 are asked for"]);
        // The session is none the worse.
        ok(run(&[good], &mut y));
        [good, ints, flat, wide, list, y].iter().for_each(|&v| ortx_value_destroy(v));
        ortx_session_destroy(s);
    }
}
