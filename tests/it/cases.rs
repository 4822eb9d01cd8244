//! Every operator case at every ISA level: against what is expected, and against the scalar path.

use ortx::backend::cpu::CpuBackend;
use ortx::base::parallel::Serial;
use ortx::ir::Graph;
use ortx::kernels::isa::Isa;
use ortx::ops::case::Case;
use ortx::plan::{Program, RunCtx, Target};
use ortx::{Result, Tensor, Value, ops};
use std::sync::Arc;

/// The CPU alone, at a level.
pub fn cpu(isa: Isa) -> Target {
    Target::cpu(Arc::new(CpuBackend::new(isa, ops::cpu_bindings())))
}

/// The tensors that a graph, as it is, makes of its inputs on one thread.
pub fn run_graph(graph: Graph, target: Target, inputs: &[Value]) -> Result<Vec<Tensor>> {
    let program = Program::new(Arc::new(graph), Arc::new(target))?;
    let mut outputs = vec![None; program.graph().outputs().len()];
    let cx = RunCtx { pool: &Serial, stop: Default::default(), profile: None };
    program.run(&cx, inputs, &mut outputs)?;
    outputs.iter().flatten().map(|v: &Value| v.as_tensor().cloned()).collect()
}

fn run(case: &Case, target: Target) -> Result<Vec<Tensor>> {
    let (graph, inputs) = case.build(&ops::registry())?;
    run_graph(graph, target, &inputs)
}

fn check(case: &Case) -> Result<()> {
    let scalar = run(case, cpu(Isa::SCALAR))?;
    for (want, got) in case.expect.iter().zip(&scalar) {
        case.compare(want, got).map_err(|e| e.context("scalar"))?;
    }
    for isa in Isa::detect().levels() {
        let got = run(case, cpu(isa)).map_err(|e| e.context(isa.level().name()))?;
        for (want, got) in scalar.iter().zip(&got) {
            case.compare(want, got).map_err(|e| e.context(isa.level().name()))?;
        }
    }
    Ok(())
}

#[test]
fn every_case_at_every_isa_level() {
    let cases = ops::cases();
    let failed: Vec<String> =
        cases.iter().filter_map(|c| check(c).err().map(|e| format!("{}: {e}", c.title()))).collect();
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

/// Every case on the first OpenCL device, against the scalar path of the CPU; what the device does not claim runs on the CPU
/// and is not counted.
#[cfg(feature = "opencl")]
#[test]
fn every_case_on_opencl() {
    use ortx::backend::{Backend, Memory, NodeView, PackedCache, Step};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The device, counting what it binds.
    struct Counting(Arc<dyn Backend>, AtomicUsize);
    impl Backend for Counting {
        fn name(&self) -> &str {
            self.0.name()
        }
        fn claims(&self, node: &NodeView<'_>) -> std::result::Result<(), String> {
            self.0.claims(node)
        }
        fn bind(&self, node: &NodeView<'_>, cache: &PackedCache) -> Result<Box<dyn Step>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.bind(node, cache)
        }
        fn alloc(&self, bytes: usize) -> Result<Arc<dyn Memory>> {
            self.0.alloc(bytes)
        }
        unsafe fn copy_in(&self, src: *const u8, dst: &dyn Memory, offset: usize, bytes: usize) -> Result<()> {
            // SAFETY: the caller's promise.
            unsafe { self.0.copy_in(src, dst, offset, bytes) }
        }
        unsafe fn copy_out(&self, src: &dyn Memory, offset: usize, dst: *mut u8, bytes: usize) -> Result<()> {
            // SAFETY: the caller's promise.
            unsafe { self.0.copy_out(src, offset, dst, bytes) }
        }
        fn sync(&self) -> Result<()> {
            self.0.sync()
        }
    }

    let env = ortx::session::Environment::new();
    if env.devices().expect("listing devices").is_empty() {
        println!("skipped: no OpenCL device");
        return;
    }
    let device = Arc::new(Counting(env.device("opencl").expect("opening the device"), AtomicUsize::new(0)));
    let check = |case: &Case| -> Result<()> {
        let want = run(case, cpu(Isa::SCALAR))?;
        let both = Target { devices: vec![device.clone()], ..cpu(Isa::SCALAR) };
        for (want, got) in want.iter().zip(&run(case, both)?) {
            case.compare(want, got)?;
        }
        Ok(())
    };
    let cases = ops::cases();
    let failed: Vec<String> =
        cases.iter().filter_map(|c| check(c).err().map(|e| format!("{}: {e}", c.title()))).collect();
    println!("{} nodes of {} cases ran on {}", device.1.load(Ordering::Relaxed), cases.len(), device.name());
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}
