//! Changes of scale that elementwise operators and normalisations take in.

use super::fuse_norm::{NORMS, lists};
use super::*;
use ortx::base::parallel::Serial;

const PASS: &str = "quantised_ends";

/// An input of bytes.
fn bytes(d: &mut Draft, name: &str, shape: &[usize]) -> ValueId {
    d.inputs.push(Value::Tensor(random(DType::U8, shape, 0.0, 255.0, name.len() as u64).unwrap()));
    d.b.input(name, Fact::sized(DType::U8, shape))
}

/// What all passes make of it, whose answers differ by as much, an output each, at every level.
fn optimised(d: Draft, outputs: &[(ValueId, f64)]) -> Vec<String> {
    let before = d.b.finish(outputs.iter().map(|o| o.0).collect()).unwrap();
    let mut after = before.clone();
    let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
    optimize(&mut after, &cpu, &Serial, &Options { strict: true, ..Options::default() }).unwrap();
    for isa in Isa::detect().levels() {
        let run = |g: &Graph| run_graph(g.clone(), cpu_at(isa), &d.inputs).unwrap();
        for ((want, got), (_, most)) in run(&before).iter().zip(&run(&after)).zip(outputs) {
            close(want, got, *most, *most).unwrap_or_else(|e| panic!("{}: {e}", isa.level().name()));
        }
    }
    lines(&after)
}

#[test]
fn norms_between_bytes_read_and_write_them() {
    for (name, norm) in NORMS.into_iter().take(6) {
        // Rows as short as a vector, and longer than a tile.
        for n in [7, 16, 1500] {
            let mut d = Draft::new();
            let q = bytes(&mut d, "q", &[2, 6, 5, n]);
            let x = d.dequantise("x", q, 0.02, 120);
            let y = norm(&mut d, x, n);
            let y = d.quantise("y", y, if name == "FusedSoftmax" { 0.002 } else { 0.05 }, 150);
            // The same numbers, through the same kernels.
            let after = optimised(d, &[(y, 0.0)]);
            assert_eq!(after.len(), 1, "{after:#?}");
            assert!(after[0].starts_with(&format!("y = {name}(%q")), "{after:#?}");
        }
    }
}

#[test]
fn a_sum_before_a_norm_that_ends_in_bytes_is_kept() {
    let mut d = Draft::new();
    let q = bytes(&mut d, "q", &[2, 5, 8]);
    let (x, r) = (d.dequantise("x", q, 0.02, 120), d.input("r", &[2, 5, 8]));
    let [w, b] = lists(&mut d, 8);
    let s = d.op("s", "Add", &[x, r], vec![]);
    let n = d.op("n", "LayerNormalization", &[s, w, b], vec![]);
    let a = d.op("a", "Relu", &[n], vec![]);
    let y = d.quantise("y", a, 0.02, 0);
    // One step, where a last digit decides.
    let after = optimised(d, &[(y, 1.0), (s, 1e-6)]);
    assert_eq!(after.len(), 1, "{after:#?}");
    assert!(after[0].contains("FusedLayerNormalization(%q, %r, #w, #b)"), "{after:#?}");
}

#[test]
pub(super) fn changes_of_scale_go_into_programs_of_floats() {
    let make = || {
        let mut d = Draft::new();
        let (q, r) = (bytes(&mut d, "q", &[2, 5, 8]), d.input("r", &[2, 5, 8]));
        let x = d.dequantise("x", q, 0.02, 120);
        let s = d.op("s", "Add", &[x, r], vec![]);
        let t = d.op("t", "Tanh", &[s], vec![]);
        let (_, y) = d.through("y", t, 0.01, 100);
        let z = d.op("z", "Mul", &[y, r], vec![]);
        (d, z)
    };
    let (d, z) = make();
    let (before, after, report) = d.check_within(0.0, PASS, vec![z]);
    assert_eq!((before.len(), after.len(), report.fired), (6, 6, 3));
    assert_eq!((&after[0][..], &after[3][..]), ("x = Pointwise(%q)", "y_q = Pointwise(%t)"));
    let (d, z) = make();
    // A step of the bytes between, times 2.
    assert_eq!(optimised(d, &[(z, 0.02)]), ["z = Pointwise(%q, %r)"]);
}

#[test]
pub(super) fn changes_of_scale_stay_that_nothing_takes_in() {
    // A scale that only the run knows.
    let mut d = Draft::new();
    let (q, s) = (bytes(&mut d, "q", &[2, 8]), d.input("s", &[]));
    let x = d.op("x", "DequantizeLinear", &[q, s], vec![]);
    let y = d.op("y", "Softmax", &[x], vec![]);
    assert_eq!(d.check(PASS, vec![y]).2.fired, 0);
    // Others read it, or are neither elementwise nor a normalisation.
    for also in [true, false] {
        let mut d = Draft::new();
        let q = bytes(&mut d, "q", &[2, 8]);
        let x = d.dequantise("x", q, 0.02, 120);
        let y = d.op("y", if also { "Softmax" } else { "Transpose" }, &[x], vec![]);
        assert_eq!(d.check(PASS, if also { vec![y, x] } else { vec![y] }).2.fired, 0);
    }
}
