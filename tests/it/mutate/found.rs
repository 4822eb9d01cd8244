//! What damaged models have found, one by one.

use crate::capi::{failed, floats, ok, read, session_with, shape};
use crate::tiny::Tiny;
use ortx::capi::{options::*, run::*, session::*, types::*, value::*};
use std::ptr::{null, null_mut};

fn refused(model: Tiny, words: &[&str]) {
    let (code, said) = session_with(&model.bytes(), null()).map(|_| ()).unwrap_err();
    assert_eq!(code, ORTX_ERROR_INVALID_MODEL, "{said}");
    words.iter().for_each(|w| assert!(said.contains(w), "'{w}' is not in: {said}"));
}

/// A result whose elements nobody reads, of which only the shape is needed, once had a place beyond the arena.
#[test]
fn a_result_that_nobody_reads_needs_no_place() {
    let model = Tiny::new("g")
        .input("x", 1, &["n"])
        .node("Exp", &["x"], &["e"])
        .node("Shape", &["e"], &["s"])
        .node("ConstantOfShape", &["s"], &["y"])
        .output("y")
        .bytes();
    // SAFETY: integers and pointers, for which zero is valid; live handles throughout.
    unsafe {
        let mut options: ortx_session_options = std::mem::zeroed();
        (options.struct_size, options.disable_optimization) = (size_of_val(&options), 1);
        let s = session_with(&model, &options).unwrap();
        let (x, mut y) = (floats(&[3], &[1., 2., 3.]), null_mut());
        ok(ortx_session_run(s, null(), null(), &x.cast_const(), 1, null(), &mut y, 1));
        assert_eq!((shape(y), read(y)), (vec![3], vec![0.; 3]));
        [x, y].iter().for_each(|&v| ortx_value_destroy(v));
        ortx_session_destroy(s);
    }
}

/// An input that is left out where the operator needs it reached the kernels as NULL, or made results that are not there.
#[test]
fn inputs_that_are_needed_are_asked_for() {
    let g = || Tiny::new("g").input("x", 1, &["4", "2", "3"]);
    let layer = g().weights("r", &[1, 16, 4]).node("LSTM", &["x", "", "r"], &["y"]).output("y");
    refused(layer, &["make_y", "LSTM", "input 1 is missing"]);
    refused(g().node("Clip", &["", ""], &["y"]).output("y"), &["Clip", "input 0 is missing"]);
    refused(g().node("Mean", &[""], &["y"]).output("y"), &["Mean", "input 0 is missing"]);
    let list = g().node("SequenceConstruct", &["x", "", "x"], &["s"]).node("SequenceLength", &["s"], &["y"]);
    refused(list.output("y"), &["SequenceConstruct", "input 1 is missing"]);
    let body = Tiny::new("b").input("s", 1, &["3"]).input("r", 1, &["3"]).node("Add", &["s", "r"], &["t"]).output("t");
    let scan = g().node("Scan", &["", "x"], &["y"]).graph("body", body).int("num_scan_inputs", 1);
    refused(scan.output("y"), &["Scan", "is missing"]);
    refused(g().node("OptionalGetElement", &[], &["y"]).output("y"), &["OptionalGetElement", "is missing"]);
}

/// Memory for as many facts as the attribute says was asked for at once.
#[test]
fn an_endless_split_is_refused() {
    let split = Tiny::new("g").input("x", 1, &["n", "m"]).node("Split", &["x"], &["y"]).int("num_outputs", 1 << 60);
    refused(split.output("y"), &["Split", "num_outputs is 1152921504606846976"]);
}

/// Sizes whose product passes the address space were multiplied unchecked.
#[test]
fn shapes_beyond_memory_are_refused() {
    let huge = i64::MAX.to_string();
    refused(Tiny::new("g").input("x", 1, &[&huge, "8"]).output("x"), &["input 'x'", "more elements than memory"]);
    let g = Tiny::new("g").input("x", 1, &["4"]).numbers("to", &[3], &[1 << 40, 1 << 40, 4]);
    refused(g.node("Expand", &["x", "to"], &["y"]).output("y"), &["Expand", "more elements than memory"]);
}

/// A table of weights was allocated without asking whether there is room.
#[test]
fn an_endless_axis_of_a_resize_is_refused() {
    for mode in ["linear", "nearest"] {
        let g = Tiny::new("g").input("x", 1, &["1", "1", "4", "4"]).numbers("to", &[4], &[1, 1, 1, 1 << 29]);
        let g = g.node("Resize", &["x", "", "", "to"], &["y"]).text("mode", mode);
        let s = session_with(&g.output("y").bytes(), null()).unwrap();
        let (x, mut y) = (floats(&[1, 1, 4, 4], &[0.; 16]), null_mut());
        // SAFETY: live handles throughout.
        unsafe {
            let (code, said) = failed(ortx_session_run(s, null(), null(), &x.cast_const(), 1, null(), &mut y, 1));
            assert_eq!(code, ORTX_ERROR_UNSUPPORTED, "{said}");
            assert!(said.contains("Resize") && said.contains("536870912 places"), "{said}");
            ortx_value_destroy(x);
            ortx_session_destroy(s);
        }
    }
}

/// A list of two axes counted as one without elements, a shape without elements as one that is not known yet.
#[test]
fn lists_have_one_axis() {
    let ops =
        ["Reshape", "Expand", "Tile", "Pad", "Squeeze", "Unsqueeze", "ReduceSum", "TopK", "Split", "CenterCropPad"];
    for op in ops {
        let g = Tiny::new("g").input("x", 1, &["0", "4"]).input("s", 7, &["0", "2"]);
        refused(g.node(op, &["x", "s"], &["y"]).output("y"), &[op, "input 1 must be a list of integers"]);
    }
    let g = Tiny::new("g").input("x", 1, &["0", "4"]).input("s", 7, &["0"]);
    refused(g.node("Reshape", &["x", "s"], &["y"]).output("y"), &["Reshape", "0 elements, the shape [] has 1"]);
}

#[test]
fn a_list_of_scales_must_fit_the_rank() {
    let g = Tiny::new("g").input("x", 1, &[]).input("s", 1, &["4"]).node("Resize", &["x", "", "s"], &["y"]);
    refused(g.output("y"), &["Resize", "a list of 4 entries for 0 axes"]);
}

#[test]
fn a_shape_is_a_list_of_integers() {
    let g = Tiny::new("g").input("x", 1, &["4"]).input("s", 1, &["2"]).node("Reshape", &["x", "s"], &["y"]);
    refused(g.output("y"), &["Reshape", "input 1 must be a list of integers, it is float[2]"]);
    // And a good one still works.
    let g = Tiny::new("g").input("x", 1, &["4"]).numbers("s", &[2], &[2, -1]).node("Reshape", &["x", "s"], &["y"]);
    let s = session_with(&g.output("y").bytes(), null()).unwrap();
    let (x, mut y) = (floats(&[4], &[1., 2., 3., 4.]), null_mut());
    // SAFETY: live handles throughout.
    unsafe {
        let (one, both) = (x.cast_const(), [x.cast_const(); 2]);
        ok(ortx_session_run(s, null(), null(), &one, 1, null(), &mut y, 1));
        assert_eq!(shape(y), [2, 2]);
        ortx_value_destroy(y);
        y = null_mut();
        let (code, said) = failed(ortx_session_run(s, null(), null(), both.as_ptr(), 2, null(), &mut y, 1));
        assert!(code == ORTX_ERROR_INVALID_ARGUMENT && said.contains("1 inputs (x), 2 are given"), "{said}");
        ortx_value_destroy(x);
        ortx_session_destroy(s);
    }
}
