//! Runs a pointwise program over N-d operands: tile by tile in L1, with the operands' strides, broadcasting and narrow
//! types dealt with where a tile is loaded and stored.

use super::GRAIN;
use super::instructions::{Source, Tile};
use super::program::{Instruction, Program};
use crate::ensure;
use crate::error::Result;
use crate::kernels::convert::{load_strided, loads, store_strided, stores};
use crate::kernels::elem::Elem;
use crate::kernels::isa::Isa;
use crate::kernels::nd::{Nest, Walk};
use crate::kernels::simd::dispatch;

/// An input or output of a program.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The element type: f32, f16, bf16; also bool and bytes, which a program sees as 0, 1..., and of inputs i32 and i64.
    pub elem: Elem,
    /// Strides over the program's shape, in elements; 0 where the operand is broadcast.
    pub strides: &'a [isize],
}

/// Bytes that the registers of a tile may fill.
const TILE_BYTES: usize = 24 * 1024;
/// Rows shorter than this are not walked one by one.
const SHORT_ROW: usize = 192;
/// Numbers a constant is repeated.
const SPLAT: usize = 16;

/// Where an instruction finds or leaves a number.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// A tile-sized part of the scratch memory.
    Slot(u16),
    /// 16 equal numbers.
    Constant(u16),
    /// Whatever the input's tile was found to be.
    Input(u16),
    /// The output's own memory.
    Output(u16),
}

#[derive(Clone, Debug)]
struct Step {
    instruction: Instruction,
    sources: [Place; 3],
    target: Place,
}

#[derive(Clone, Debug)]
struct Input {
    elem: Elem,
    walk: Walk,
    /// Every tile of it is the same but for its length.
    repeats: bool,
}

#[derive(Clone, Debug)]
struct Output {
    elem: Elem,
    walk: Walk,
    from: Place,
}

/// A program bound to a shape and strides. Task `t` of `tasks()` may run on any thread, each with its own scratch memory.
#[derive(Clone, Debug)]
pub struct Pointwise {
    isa: Isa,
    steps: Vec<Step>,
    constants: Vec<[f32; SPLAT]>,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    slots: usize,
    /// Elements of a tile, at most.
    tile: usize,
    /// Tiles end where this many elements do.
    row: usize,
    tiles_a_row: usize,
    tiles: usize,
    tiles_a_task: usize,
}

impl Pointwise {
    /// Binds `program` to operands over `shape`. An output may be the same memory as an input of the same type and strides;
    /// other overlaps are not allowed.
    pub fn new(
        isa: Isa,
        program: &Program,
        shape: &[usize],
        inputs: &[Operand],
        outputs: &[Operand],
    ) -> Result<Pointwise> {
        ensure!(
            inputs.len() == program.inputs() && outputs.len() == program.outputs().len(),
            Internal,
            "a pointwise program of {} inputs and {} outputs was given {} and {}",
            program.inputs(),
            program.outputs().len(),
            inputs.len(),
            outputs.len()
        );
        for (i, o) in inputs.iter().chain(outputs).enumerate() {
            ensure!(o.strides.len() == shape.len(), Internal, "{} strides for shape {shape:?}", o.strides.len());
            let fits = if i < inputs.len() { loads(o.elem) } else { stores(o.elem) };
            ensure!(fits, Internal, "a pointwise program over {:?}", o.elem);
        }
        let all: Vec<&[isize]> = inputs.iter().chain(outputs).map(|o| o.strides).collect();
        let nest = Nest::new(shape, &all)?;
        let walk = |o: &Operand| Walk::new(shape, o.strides);
        let ins = inputs
            .iter()
            .map(|o| Ok(Input { elem: o.elem, walk: walk(o)?, repeats: false }))
            .collect::<Result<Vec<_>>>()?;
        let outs = outputs
            .iter()
            .map(|o| Ok(Output { elem: o.elem, walk: walk(o)?, from: Place::Slot(0) }))
            .collect::<Result<Vec<_>>>()?;
        let mut this = Pointwise {
            isa,
            steps: vec![],
            constants: vec![],
            inputs: ins,
            outputs: outs,
            slots: 0,
            tile: 0,
            row: 0,
            tiles_a_row: 0,
            tiles: 0,
            tiles_a_task: 0,
        };
        this.place(program);
        let tile = (TILE_BYTES / 4 / (this.slots + 2)).clamp(256, 1024) / 64 * 64;
        let len = nest.len();
        this.row = if nest.inner() < SHORT_ROW { len.max(1) } else { nest.inner() };
        // A short row that repeats (a bias, say) is laid out once a task, if tiles end where it does.
        let periods = this.inputs.iter().filter_map(|i| i.walk.period());
        let period = periods.filter(|p| nest.inner() < SHORT_ROW && *p <= tile).max();
        for input in &mut this.inputs {
            let divides = |p: usize| period.is_some_and(|q| q % p == 0);
            input.repeats = input.walk.period().is_some_and(divides);
        }
        let unit = period.unwrap_or(SPLAT);
        this.tiles_a_row = this.row.div_ceil(tile / unit * unit);
        // Equal parts, so that the last of a row is not a scrap.
        this.tile = this.row.div_ceil(this.tiles_a_row).next_multiple_of(unit);
        this.tiles_a_row = this.row.div_ceil(this.tile);
        this.tiles = len / this.row * this.tiles_a_row;
        this.tiles_a_task = (GRAIN / this.tile.min(this.row)).max(1);
        Ok(this)
    }

    /// Gives every instruction its slot. A slot is used again once nobody reads it any more.
    fn place(&mut self, program: &Program) {
        let code = program.instructions();
        let mut last_use = vec![0usize; code.len()];
        for (i, instruction) in code.iter().enumerate() {
            instruction.operands().for_each(|r| last_use[r as usize] = i);
        }
        program.outputs().iter().for_each(|&r| last_use[r as usize] = code.len());
        // An output's memory may be an input's: the last step of all may write there, an earlier one must not.
        let direct = |r: usize, outputs: &[Output]| {
            let mut wanted = program.outputs().iter().enumerate().filter(|(_, o)| **o as usize == r).map(|(k, _)| k);
            let first = wanted.next()?;
            let o = &outputs[first];
            (r + 1 == code.len() && o.elem == Elem::F32 && o.walk.is_dense()).then_some(first)
        };
        let mut places = vec![Place::Slot(0); code.len()];
        let mut free: Vec<u16> = vec![];
        let mut copies: Vec<(u16, Place)> = vec![];
        // Each input may need a slot of its own: they come first.
        self.slots = self.inputs.len();
        for (i, instruction) in code.iter().enumerate() {
            match *instruction {
                Instruction::Load { input } => {
                    places[i] = Place::Input(input);
                    // An input given out beside other outputs is copied first: another output may be its memory.
                    if program.outputs().len() > 1 && program.outputs().contains(&(i as u16)) {
                        let target = Place::Slot(self.slots as u16);
                        self.slots += 1;
                        let sources = [places[i], Place::Slot(0), Place::Slot(0)];
                        self.steps.push(Step { instruction: *instruction, sources, target });
                        copies.push((i as u16, target));
                    }
                }
                Instruction::Constant { value } => {
                    self.constants.push([value; SPLAT]);
                    places[i] = Place::Constant((self.constants.len() - 1) as u16);
                }
                _ => {
                    let mut sources = [Place::Slot(0); 3];
                    let mut freed: smallvec::SmallVec<[u16; 3]> = Default::default();
                    for (k, r) in instruction.operands().enumerate() {
                        sources[k] = places[r as usize];
                        if let Place::Slot(s) = sources[k]
                            && last_use[r as usize] == i
                            && !freed.contains(&s)
                        {
                            freed.push(s);
                        }
                    }
                    // A target may be a source: each vector is read before it is written.
                    free.extend(freed);
                    places[i] = match direct(i, &self.outputs) {
                        Some(o) => Place::Output(o as u16),
                        None => Place::Slot(free.pop().unwrap_or_else(|| {
                            self.slots += 1;
                            (self.slots - 1) as u16
                        })),
                    };
                    self.steps.push(Step { instruction: *instruction, sources, target: places[i] });
                }
            }
        }
        for (o, &r) in self.outputs.iter_mut().zip(program.outputs()) {
            let copy = copies.iter().find(|c| c.0 == r);
            o.from = copy.map_or(places[r as usize], |c| c.1);
        }
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.tiles.div_ceil(self.tiles_a_task)
    }
    /// Bytes of scratch memory a running task needs, 64-byte aligned.
    pub fn scratch_bytes(&self) -> usize {
        // One splat an input, then the slots.
        4 * (self.inputs.len() * SPLAT + self.slots * self.slot_len())
    }
    fn slot_len(&self) -> usize {
        self.tile.next_multiple_of(SPLAT)
    }
    /// Runs one task.
    /// # Safety
    /// `inputs` and `outputs` point to the operands' first elements (offset 0), of the types, and valid over the shape
    /// with the strides, given to `new`; `scratch` is aligned for f32 and has `scratch_bytes()` bytes that nobody else uses.
    pub unsafe fn run(&self, task: usize, inputs: &[*const u8], outputs: &[*mut u8], scratch: *mut u8) {
        let scratch = scratch.cast::<f32>();
        for t in task * self.tiles_a_task..((task + 1) * self.tiles_a_task).min(self.tiles) {
            let (row, part) = (t / self.tiles_a_row, t % self.tiles_a_row);
            let start = row * self.row + part * self.tile;
            let len = self.tile.min(self.row - part * self.tile);
            // SAFETY: the caller's contract; the tile lies within the shape.
            unsafe { self.run_tile(start, len, t % self.tiles_a_task == 0, inputs, outputs, scratch) }
        }
    }

    /// Computes `len` elements from `start` on, counted as in a dense array of the shape, whatever task they would be of.
    /// # Safety
    /// As for `run`; the elements lie within the shape.
    pub unsafe fn span(&self, start: usize, len: usize, inputs: &[*const u8], outputs: &[*mut u8], scratch: *mut u8) {
        let (mut at, end) = (start, start + len);
        while at < end {
            let n = self.tile.min(self.row - at % self.row).min(end - at);
            // SAFETY: the caller's contract. What repeats lies as in the first tile: all tiles but the last are of whole periods.
            unsafe { self.run_tile(at, n, at == start, inputs, outputs, scratch.cast()) };
            at += n;
        }
    }

    unsafe fn run_tile(
        &self,
        start: usize,
        len: usize,
        first: bool,
        inputs: &[*const u8],
        outputs: &[*mut u8],
        scratch: *mut f32,
    ) {
        // SAFETY: slot `i` lies within the scratch memory (`scratch_bytes`).
        let slot = |i: u16| unsafe { scratch.add(self.inputs.len() * SPLAT + i as usize * self.slot_len()) };
        let mut found: smallvec::SmallVec<[Source; 8]> = Default::default();
        for (i, input) in self.inputs.iter().enumerate() {
            if input.repeats && !first {
                // The task's first tile, no shorter than this one, has laid it out.
                found.push(Source { at: slot(i as u16), scalar: false });
                continue;
            }
            // SAFETY: the caller's inputs, a walk within their shape, and this input's own splat and slot.
            found.push(unsafe { find(self.isa, input, inputs[i], start, len, scratch.add(i * SPLAT), slot(i as u16)) });
        }
        let source = |p: Place| match p {
            Place::Slot(s) => Source { at: slot(s), scalar: false },
            Place::Constant(c) => Source { at: self.constants[c as usize].as_ptr(), scalar: true },
            Place::Input(i) => found[i as usize],
            // SAFETY: only dense f32 outputs are written directly.
            Place::Output(o) => Source { at: unsafe { outputs[o as usize].cast::<f32>().add(start) }, scalar: false },
        };
        for step in &self.steps {
            dispatch(
                self.isa,
                Tile {
                    instruction: &step.instruction,
                    sources: step.sources.map(source),
                    target: source(step.target).at.cast_mut(),
                    len,
                },
            );
        }
        for (o, output) in self.outputs.iter().enumerate() {
            let from = source(output.from);
            if matches!(output.from, Place::Output(k) if k as usize == o) {
                continue;
            }
            let mut done = 0;
            output.walk.pieces(start, len, |offset, stride, count| {
                // SAFETY: the piece lies within the output, and the tile has `len` numbers.
                unsafe {
                    let at = outputs[o].offset(offset * output.elem.size() as isize);
                    let step = isize::from(!from.scalar);
                    store_strided(self.isa, from.at.offset(step * done as isize), step, output.elem, at, stride, count);
                }
                done += count;
            });
        }
    }
}

/// An input's tile: its own memory where that is f32 in a line, a splat where it is one number, or else its slot, filled.
unsafe fn find(
    isa: Isa,
    input: &Input,
    base: *const u8,
    start: usize,
    len: usize,
    splat: *mut f32,
    slot: *mut f32,
) -> Source {
    let size = input.elem.size() as isize;
    let mut done = 0;
    let mut source = Source { at: slot, scalar: false };
    input.walk.pieces(start, len, |offset, stride, count| {
        // SAFETY: the piece lies within the input; splat and slot belong to this input.
        unsafe {
            let at = base.offset(offset * size);
            if count == len && stride == 0 && !input.repeats {
                load_strided(isa, input.elem, at, 0, splat, SPLAT);
                source = Source { at: splat, scalar: true };
            } else if count == len && stride == 1 && input.elem == Elem::F32 && !input.repeats {
                source = Source { at: at.cast(), scalar: false };
            } else {
                load_strided(isa, input.elem, at, stride, slot.add(done), count);
            }
        }
        done += count;
    });
    source
}
