//! Every kernel of the table, at every level, against its scalar twin.

use super::KERNELS;
use crate::kernels::isa::Isa;

/// Larger samples are for the bench: the scalar twin is slow, and the shapes of this size add nothing.
const MOST_FLOPS: f64 = 3e8;

#[test]
fn every_level_agrees_with_the_scalar_twin() {
    let mut compared = 0;
    for kind in KERNELS {
        for sample in (kind.samples)().iter().filter(|s| s.flops <= MOST_FLOPS) {
            let what = format!("{} {}", kind.name, sample.label);
            let mut wanted = None;
            for isa in Isa::detect().levels() {
                let mut work = (sample.ready)(isa).unwrap_or_else(|e| panic!("{what}: {e}"));
                (work.run)().unwrap_or_else(|e| panic!("{what}: {e}"));
                let got = (work.output)();
                assert!(work.kernel.starts_with(kind.name), "{what} is done by {}", work.kernel);
                assert!(work.kernel.contains("__"), "{} does not tell its level", work.kernel);
                let wanted: &Vec<f32> = wanted.get_or_insert_with(|| got.clone());
                assert_eq!(got.len(), wanted.len(), "{what}");
                for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
                    let close = (g - w).abs() <= sample.bound || g.to_bits() == w.to_bits();
                    assert!(close, "{what} by {}: [{i}] = {g}, the scalar twin has {w}", work.kernel);
                }
                compared += 1;
            }
        }
    }
    println!("{compared} runs");
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = KERNELS.iter().map(|k| k.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), KERNELS.len());
}
