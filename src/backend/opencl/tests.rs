//! What the tests of the OpenCL kernels share: a device, or the word that there is none.

use super::call::{Call, Place};
use super::device::{self, Device};
use std::sync::OnceLock;

/// The first device, opened once; `None`, and said so, where there is none.
pub(super) fn device() -> Option<&'static Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let device = DEVICE.get_or_init(|| {
        let listed = device::list().expect("listing devices").into_iter().next()?;
        Some(Device::open(&listed).expect("opening the device"))
    });
    if device.is_none() {
        println!("skipped: no OpenCL device");
    }
    device.as_ref()
}

/// A small generator of floats in -1..1.
pub(super) struct Rng(pub u64);

impl Rng {
    pub(super) fn float(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
    pub(super) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

pub(super) fn bytes_of<T: Copy>(values: &[T]) -> &[u8] {
    // SAFETY: the tests call it for plain numbers.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// Runs calls over the inputs and outputs of so many elements, in this order of places. All lie in one buffer, at odd
/// offsets, and the outputs are NaN before; what lies around an output must stay as it was.
pub(super) fn run(device: &Device, calls: &[&Call], inputs: &[&[f32]], outputs: &[usize]) -> Vec<Vec<f32>> {
    const GAP: usize = 5;
    let total =
        GAP + inputs.iter().map(|i| i.len() + GAP).sum::<usize>() + outputs.iter().map(|n| n + GAP).sum::<usize>();
    let queue = device.context.queue(false).unwrap();
    let buffer = device.context.buffer(total * 4).unwrap();
    queue.fill(&buffer, 0, total * 4, &f32::NAN.to_le_bytes()).unwrap();
    let mut places = Vec::new();
    let mut at = GAP;
    for input in inputs {
        queue.write(&buffer, at * 4, bytes_of(input)).unwrap();
        places.push(Place { buffer: &buffer, offset: at * 4 });
        at += input.len() + GAP;
    }
    let first = at;
    for n in outputs {
        places.push(Place { buffer: &buffer, offset: at * 4 });
        at += n + GAP;
    }
    for call in calls {
        // SAFETY: the test made the calls for these tensors.
        unsafe { call.enqueue(&queue, &places).unwrap() };
    }
    let all = device::read_f32(&queue, &buffer, 0, total).unwrap();
    let mut at = first;
    let mut answers = Vec::new();
    assert!(all[first - GAP..first].iter().all(|x| x.is_nan()), "a kernel wrote before its output");
    for n in outputs {
        answers.push(all[at..at + n].to_vec());
        at += n;
        assert!(all[at..at + GAP].iter().all(|x| x.is_nan()), "a kernel wrote past its output");
        at += GAP;
    }
    answers
}

/// The least time that calls take over tensors of so many elements, in seconds.
pub(super) fn time(device: &Device, calls: &[&Call], sizes: &[usize]) -> f64 {
    let queue = device.context.queue(false).unwrap();
    let buffers: Vec<_> = sizes.iter().map(|n| device.context.buffer(n * 4).unwrap()).collect();
    for b in &buffers {
        queue.fill(b, 0, b.len(), &0.5f32.to_le_bytes()).unwrap();
    }
    let places: Vec<_> = buffers.iter().map(|buffer| Place { buffer, offset: 0 }).collect();
    let once = || {
        let start = std::time::Instant::now();
        for call in calls {
            // SAFETY: the test made the calls for these tensors.
            unsafe { call.enqueue(&queue, &places).unwrap() };
        }
        queue.finish().unwrap();
        start.elapsed().as_secs_f64()
    };
    (0..20).map(|_| once()).fold(f64::INFINITY, f64::min)
}

/// An activation on the host.
pub(super) fn activated(act: crate::kernels::gemm::Activation, x: f32) -> f32 {
    let mut y = x;
    // SAFETY: one row of one number.
    unsafe { crate::kernels::gemm::epilogue::activate(crate::kernels::isa::Isa::SCALAR, act, &mut y, 1, 1, 1) };
    y
}

/// Compares with a tolerance relative to values of size 1 and more.
#[track_caller]
pub(super) fn assert_close(got: &[f32], want: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let same = g == w || (g.is_nan() && w.is_nan());
        assert!(same || (g - w).abs() <= tolerance * w.abs().max(1.0), "{what}: element {i} is {g}, expected {w}");
    }
}

#[test]
fn lists_and_finds() {
    let Some(_) = device() else { return };
    let all = device::list().unwrap();
    println!("{}", all[0].description());
    assert_eq!(device::find("opencl").unwrap().index, 0);
    assert_eq!(device::find("opencl:0").unwrap().info.name, all[0].info.name);
    let part = all[0].info.name.split(['-', ' ']).next().unwrap().to_uppercase();
    assert_eq!(device::find(&format!("opencl:{part}")).unwrap().index, 0);
    for (spec, kind) in [
        ("opencl:99", crate::ErrorKind::NotFound),
        ("opencl:no such device", crate::ErrorKind::NotFound),
        ("opencl:", crate::ErrorKind::InvalidArgument),
        ("cuda:0", crate::ErrorKind::InvalidArgument),
    ] {
        assert_eq!(device::find(spec).err().map(|e| e.kind()), Some(kind), "{spec}");
    }
}
