//! Finding, choosing and opening devices.

use super::cache::ProgramCache;
use super::driver::{self, Arg, Buffer, Context, DeviceId, DeviceInfo, DeviceKind, Kernel, Queue};
use crate::{
    bail, ensure,
    error::{Context as _, Result},
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A device in the list, not yet opened.
#[derive(Clone)]
pub struct Listed {
    /// Its number: `opencl:<index>`.
    pub index: usize,
    /// What it says of itself.
    pub info: DeviceInfo,
    id: DeviceId,
}

impl Listed {
    /// The name that options and the command line take.
    pub fn spec(&self) -> String {
        format!("opencl:{}", self.index)
    }

    /// A line for a human.
    pub fn description(&self) -> String {
        let i = &self.info;
        let kind = match i.kind {
            DeviceKind::Cpu => "CPU",
            DeviceKind::Gpu => "GPU",
            DeviceKind::Accelerator => "accelerator",
        };
        let extras = [(i.fp16, "fp16"), (i.fp64, "fp64"), (i.sub_groups, "sub-groups"), (i.int_dot, "int dot")];
        let extras: Vec<_> = extras.into_iter().filter_map(|(has, name)| has.then_some(name)).collect();
        format!(
            "{} ({kind}, {} compute units, {:.1} GiB, OpenCL {}.{}{}{}; {} {})",
            i.name,
            i.compute_units,
            i.memory as f64 / (1u64 << 30) as f64,
            i.opencl.0,
            i.opencl.1,
            if extras.is_empty() { "" } else { ", " },
            extras.join(", "),
            i.platform,
            i.driver
        )
    }
}

/// The devices that ortx can use (OpenCL 1.2 or later), GPUs first, CPUs last; among a kind by platform name and then in
/// the platform's order. Empty where the machine has no OpenCL.
pub fn list() -> Result<Vec<Listed>> {
    // Drivers make themselves ready at the first question, and not all of them expect two threads to ask it at once.
    static ASKING: Mutex<()> = Mutex::new(());
    let _one = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Vec::new();
    for id in driver::device_ids()? {
        // A device that cannot even describe itself is no use, and must not hide the others.
        if let Ok(info) = id.info()
            && info.opencl >= (1, 2)
        {
            found.push(Listed { index: 0, info, id });
        }
    }
    let rank = |kind| match kind {
        DeviceKind::Gpu => 0,
        DeviceKind::Accelerator => 1,
        DeviceKind::Cpu => 2,
    };
    found.sort_by(|a, b| (rank(a.info.kind), &a.info.platform).cmp(&(rank(b.info.kind), &b.info.platform)));
    for (i, d) in found.iter_mut().enumerate() {
        d.index = i;
    }
    Ok(found)
}

/// The device that `spec` names: `opencl` (the first), `opencl:<index>`, or `opencl:<part of a name>`.
pub fn find(spec: &str) -> Result<Listed> {
    let wanted = match spec.split_once(':') {
        None if spec == "opencl" => "0",
        Some(("opencl", wanted)) if !wanted.is_empty() => wanted,
        _ => bail!(InvalidArgument, "'{spec}' is no OpenCL device: give opencl, opencl:<index> or opencl:<name>"),
    };
    let devices = list()?;
    let lower = wanted.to_lowercase();
    let chosen = match wanted.parse::<usize>() {
        Ok(index) => devices.get(index),
        Err(_) => devices.iter().find(|d| d.info.name.to_lowercase().contains(&lower)),
    };
    if let Some(device) = chosen {
        return Ok(device.clone());
    }
    if devices.is_empty() {
        bail!(NotFound, "no OpenCL device '{spec}': this machine has no OpenCL device (or no OpenCL driver)");
    }
    let known: Vec<_> = devices.iter().map(|d| format!("{} = {}", d.spec(), d.info.name)).collect();
    bail!(NotFound, "no OpenCL device '{spec}'; there are: {}", known.join(", "))
}

/// A device ready for work.
pub struct Device {
    /// What it says of itself.
    pub info: DeviceInfo,
    /// Its context.
    pub context: Context,
    programs: ProgramCache,
    options: String,
}

impl Device {
    /// Opens a device. The first time in a process it must pass a self-test.
    pub fn open(listed: &Listed) -> Result<Device> {
        let info = listed.info.clone();
        let place = || format!("OpenCL device '{}'", info.name);
        let context = Context::new(listed.id).context(place)?;
        let mut options = String::from("-cl-std=CL1.2");
        if info.exact_divide {
            options.push_str(" -cl-fp32-correctly-rounded-divide-sqrt");
        }
        if info.fma {
            options.push_str(" -DHAS_FMA");
        }
        let device = Device { programs: ProgramCache::new(&info), info: info.clone(), context, options };
        device.test_once().context(place)?;
        Ok(device)
    }

    /// A kernel of a source, built with `options` besides those of the device.
    pub fn kernel(&self, source: &str, options: &str, name: &str) -> Result<Kernel> {
        let options = if options.is_empty() { &self.options } else { &format!("{} {options}", self.options) };
        self.programs.get(&self.context, source, options)?.kernel(name)
    }

    /// A table of numbers that kernels read.
    pub fn table(&self, values: &[i32]) -> Result<Arc<Buffer>> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
        let buffer = self.context.buffer(bytes.len())?;
        self.context.queue(false)?.write(&buffer, 0, &bytes)?;
        Ok(Arc::new(buffer))
    }

    /// Runs the self-test, unless this process has done so for such a device.
    fn test_once(&self) -> Result<()> {
        static OUTCOMES: Mutex<Option<HashMap<String, Option<String>>>> = Mutex::new(None);
        let i = &self.info;
        let key = format!("{}\n{}\n{}\n{}", i.platform, i.name, i.driver, i.version);
        let mut outcomes = OUTCOMES.lock().unwrap_or_else(PoisonError::into_inner);
        let outcomes = outcomes.get_or_insert_default();
        let outcome = outcomes.entry(key).or_insert_with(|| self.self_test().err().map(|e| e.to_string()));
        match outcome {
            None => Ok(()),
            Some(why) => bail!(Device, "the self-test failed: {why}"),
        }
    }

    /// A small kernel that uses what the others rely on: work-groups, barriers, local memory, vectors, offsets.
    fn self_test(&self) -> Result<()> {
        const N: usize = 1000;
        const GROUP: usize = 8;
        let queue = self.context.queue(false)?;
        let kernel = self.kernel(include_str!("kernels/self_test.cl"), "", "self_test")?;
        let input: Vec<u8> = (0..N).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let buffer = self.context.buffer(2 * N * 4)?;
        queue.write(&buffer, 0, &input)?;
        queue.fill(&buffer, N * 4, N * 4, &f32::NAN.to_le_bytes())?;
        let args = [Arg::Buffer(&buffer), Arg::I64(N as i64), Arg::I32(N as i32), Arg::F32(0.5), Arg::Local(GROUP * 4)];
        // SAFETY: the arguments are those of self_test.cl, which reads and writes N floats from 0 and from N.
        unsafe { queue.launch(&kernel, &args, [N.div_ceil(GROUP) * GROUP, 1, 1], Some([GROUP, 1, 1]), None)? };
        let answer = read_f32(&queue, &buffer, N * 4, N)?;
        for (i, got) in answer.into_iter().enumerate() {
            // Each item: half its mirror image in the group (items past the end hold 0), plus the dot of (1,2,3,4) with 1.
            let mirror = i / GROUP * GROUP + (GROUP - 1 - i % GROUP);
            let want = if mirror < N { mirror as f32 * 0.5 } else { 0.0 } + 10.0;
            ensure!(got == want, Device, "element {i} is {got}, expected {want}");
        }
        Ok(())
    }
}

/// Reads floats back.
pub(super) fn read_f32(queue: &Queue, from: &driver::Buffer, offset: usize, len: usize) -> Result<Vec<f32>> {
    let mut out = vec![0f32; len];
    // SAFETY: `out` holds len * 4 bytes.
    unsafe { queue.read(from, offset, out.as_mut_ptr().cast(), len * 4)? };
    Ok(out)
}
