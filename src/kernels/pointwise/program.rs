//! Pointwise programs: a chain of elementwise operations in register form, over f32. The CPU runs it tile by tile
//! ([`Pointwise`](super::Pointwise)); a device's backend prints it as kernel source.

use crate::error::Result;
use crate::{bail, ensure};

/// The number of a register. Instruction `i` writes register `i`, and nothing else does.
pub type Register = u16;

/// Operations of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnaryOp {
    /// -a
    Neg,
    /// |a|
    Abs,
    /// -1, 0 or 1; NaN stays.
    Sign,
    /// To the integer below.
    Floor,
    /// To the integer above.
    Ceil,
    /// To the nearest integer, ties to even.
    Round,
    /// To the integer towards zero.
    Trunc,
    /// √a
    Sqrt,
    /// 1 / √a
    Rsqrt,
    /// 1 / a
    Reciprocal,
    /// e^a
    Exp,
    /// 2^a
    Exp2,
    /// e^a - 1
    Expm1,
    /// ln a
    Log,
    /// ln(1 + a)
    Log1p,
    /// sin a
    Sin,
    /// cos a
    Cos,
    /// tan a
    Tan,
    /// asin a
    Asin,
    /// acos a
    Acos,
    /// atan a
    Atan,
    /// sinh a
    Sinh,
    /// cosh a
    Cosh,
    /// tanh a
    Tanh,
    /// asinh a
    Asinh,
    /// acosh a
    Acosh,
    /// atanh a
    Atanh,
    /// erf a
    Erf,
    /// 1 / (1 + e^-a)
    Sigmoid,
    /// ln(1 + e^a)
    Softplus,
    /// a / 2 (1 + erf(a / √2))
    Gelu,
    /// a / 2 (1 + tanh(√(2/π) (a + 0.044715 a³)))
    GeluTanh,
    /// a tanh(ln(1 + e^a))
    Mish,
    /// max(a, 0); NaN stays.
    Relu,
    /// 1 if a is zero, else 0.
    Not,
    /// 1 if a is NaN, else 0.
    IsNan,
    /// 1 if a is infinite, else 0.
    IsInf,
}

impl UnaryOp {
    /// Every operation.
    pub const ALL: [UnaryOp; 37] = {
        use UnaryOp::*;
        [
            Neg, Abs, Sign, Floor, Ceil, Round, Trunc, Sqrt, Rsqrt, Reciprocal, Exp, Exp2, Expm1, Log, Log1p, Sin, Cos,
            Tan, Asin, Acos, Atan, Sinh, Cosh, Tanh, Asinh, Acosh, Atanh, Erf, Sigmoid, Softplus, Gelu, GeluTanh, Mish,
            Relu, Not, IsNan, IsInf,
        ]
    };
}

/// Operations of two operands. Truth is 1, and anything but 0 is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BinaryOp {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a * b
    Mul,
    /// a / b
    Div,
    /// The lesser; NaN if either is.
    Min,
    /// The greater; NaN if either is.
    Max,
    /// a to the power b.
    Pow,
    /// The remainder with the sign of a, as C has it.
    Fmod,
    /// The remainder with the sign of b, as Python has it.
    Mod,
    /// a / (1 + e^-(a b))
    Swish,
    /// a < b
    Less,
    /// a <= b
    LessOrEqual,
    /// a == b
    Equal,
    /// Both true.
    And,
    /// One or both true.
    Or,
    /// One of both true.
    Xor,
}

impl BinaryOp {
    /// Every operation.
    pub const ALL: [BinaryOp; 16] = {
        use BinaryOp::*;
        [Add, Sub, Mul, Div, Min, Max, Pow, Fmod, Mod, Swish, Less, LessOrEqual, Equal, And, Or, Xor]
    };
    /// Whether the operands may change places.
    pub fn commutes(self) -> bool {
        use BinaryOp::*;
        matches!(self, Add | Mul | Min | Max | Equal | And | Or | Xor)
    }
}

/// Operations of three operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TernaryOp {
    /// a * b + c, rounded once or twice as suits the processor.
    MultiplyAdd,
    /// (a - b) * c: integers with a zero point and a scale.
    Dequantize,
    /// a / b, rounded to even, + c: with a scale and a zero point.
    Quantize,
    /// a, rounded to even, no less than b and no more than c; b for NaN.
    Limit,
}

/// One step of a program.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Instruction {
    /// The current element of an input.
    Load {
        /// Which input.
        input: u16,
    },
    /// The same number for every element.
    Constant {
        /// The number.
        value: f32,
    },
    /// One operand.
    Unary {
        /// What to do.
        op: UnaryOp,
        /// Its operand.
        a: Register,
    },
    /// Two operands.
    Binary {
        /// What to do.
        op: BinaryOp,
        /// Its left operand.
        a: Register,
        /// Its right operand.
        b: Register,
    },
    /// Three operands.
    Ternary {
        /// What to do.
        op: TernaryOp,
        /// Its first operand.
        a: Register,
        /// Its second.
        b: Register,
        /// Its third.
        c: Register,
    },
    /// `yes` where the condition is not 0, else `no`.
    Select {
        /// The condition.
        condition: Register,
        /// What is given where it holds.
        yes: Register,
        /// What is given elsewhere.
        no: Register,
    },
}

impl Instruction {
    /// The registers it reads.
    pub fn operands(&self) -> impl Iterator<Item = Register> {
        let (a, n) = match *self {
            Instruction::Load { .. } | Instruction::Constant { .. } => ([0; 3], 0),
            Instruction::Unary { a, .. } => ([a, 0, 0], 1),
            Instruction::Binary { a, b, .. } => ([a, b, 0], 2),
            Instruction::Ternary { a, b, c, .. } => ([a, b, c], 3),
            Instruction::Select { condition, yes, no } => ([condition, yes, no], 3),
        };
        a.into_iter().take(n)
    }
    /// The same instruction with its registers renamed.
    fn renamed(self, to: impl Fn(Register) -> Register) -> Instruction {
        match self {
            Instruction::Load { .. } | Instruction::Constant { .. } => self,
            Instruction::Unary { op, a } => Instruction::Unary { op, a: to(a) },
            Instruction::Binary { op, a, b } => Instruction::Binary { op, a: to(a), b: to(b) },
            Instruction::Ternary { op, a, b, c } => Instruction::Ternary { op, a: to(a), b: to(b), c: to(c) },
            Instruction::Select { condition, yes, no } => {
                Instruction::Select { condition: to(condition), yes: to(yes), no: to(no) }
            }
        }
    }
    /// Whether both are the same step: constants are compared by their bits.
    fn same(&self, other: &Instruction) -> bool {
        match (self, other) {
            (Instruction::Constant { value: a }, Instruction::Constant { value: b }) => a.to_bits() == b.to_bits(),
            _ => self == other,
        }
    }
}

/// A checked program: operands come before their use, each input and output exists, nothing is computed in vain.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    instructions: Vec<Instruction>,
    inputs: usize,
    outputs: Vec<Register>,
}

impl Program {
    /// The steps, in order.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }
    /// How many instructions compute.
    pub fn operations(&self) -> usize {
        let moves = |i: &&Instruction| matches!(i, Instruction::Load { .. } | Instruction::Constant { .. });
        self.instructions.len() - self.instructions.iter().filter(moves).count()
    }
    /// How many inputs there are; not all need be read.
    pub fn inputs(&self) -> usize {
        self.inputs
    }
    /// The registers given out, one an output.
    pub fn outputs(&self) -> &[Register] {
        &self.outputs
    }
    /// The outputs for one element: the plain meaning of the program, one number at a time.
    pub fn evaluate(&self, inputs: &[f32]) -> Vec<f32> {
        let mut values: Vec<f32> = Vec::with_capacity(self.instructions.len());
        for i in &self.instructions {
            values.push(super::instructions::evaluate(i, inputs, &values));
        }
        self.outputs.iter().map(|&r| values[r as usize]).collect()
    }
    /// The program of one unary operation.
    pub fn unary(op: UnaryOp) -> Program {
        let mut b = ProgramBuilder::new(1);
        let x = b.load(0);
        let y = b.unary(op, x);
        b.finish_unchecked(&[y])
    }
    /// The program of one binary operation.
    pub fn binary(op: BinaryOp) -> Program {
        let mut b = ProgramBuilder::new(2);
        let (x, y) = (b.load(0), b.load(1));
        let z = b.binary(op, x, y);
        b.finish_unchecked(&[z])
    }
}

/// Writes a program. Equal instructions become one, and operations on constants are done here.
#[derive(Clone, Debug)]
pub struct ProgramBuilder {
    instructions: Vec<Instruction>,
    inputs: usize,
}

impl ProgramBuilder {
    /// A program of `inputs` inputs.
    pub fn new(inputs: usize) -> Self {
        ProgramBuilder { instructions: vec![], inputs }
    }
    fn constant_of(&self, r: Register) -> Option<f32> {
        match self.instructions.get(r as usize) {
            Some(Instruction::Constant { value }) => Some(*value),
            _ => None,
        }
    }
    fn push(&mut self, instruction: Instruction) -> Register {
        let foldable = !matches!(instruction, Instruction::Load { .. } | Instruction::Constant { .. });
        if foldable && instruction.operands().all(|r| self.constant_of(r).is_some()) {
            let values: Vec<f32> =
                (0..self.instructions.len()).map(|r| self.constant_of(r as Register).unwrap_or(0.0)).collect();
            let value = super::instructions::evaluate(&instruction, &[], &values);
            return self.push(Instruction::Constant { value });
        }
        match self.instructions.iter().position(|i| i.same(&instruction)) {
            Some(i) => i as Register,
            None => {
                self.instructions.push(instruction);
                (self.instructions.len() - 1) as Register
            }
        }
    }
    /// An input's element.
    pub fn load(&mut self, input: usize) -> Register {
        self.push(Instruction::Load { input: input as u16 })
    }
    /// A number.
    pub fn constant(&mut self, value: f32) -> Register {
        self.push(Instruction::Constant { value })
    }
    /// One operand.
    pub fn unary(&mut self, op: UnaryOp, a: Register) -> Register {
        self.push(Instruction::Unary { op, a })
    }
    /// Two operands. Powers with simple constant exponents become multiplications and roots.
    pub fn binary(&mut self, op: BinaryOp, a: Register, b: Register) -> Register {
        if op == BinaryOp::Pow {
            // Each of these is at most one rounding off the true power, and has its special cases (√ of -Inf and -0
            // differ, so that one half stays a power).
            match self.constant_of(b) {
                Some(1.0) => return a,
                Some(2.0) => return self.push(Instruction::Binary { op: BinaryOp::Mul, a, b: a }),
                Some(3.0) => {
                    let square = self.push(Instruction::Binary { op: BinaryOp::Mul, a, b: a });
                    return self.push(Instruction::Binary { op: BinaryOp::Mul, a: square, b: a });
                }
                Some(-1.0) => return self.push(Instruction::Unary { op: UnaryOp::Reciprocal, a }),
                _ => {}
            }
        }
        self.push(Instruction::Binary { op, a, b })
    }
    /// a + b
    pub fn add(&mut self, a: Register, b: Register) -> Register {
        self.binary(BinaryOp::Add, a, b)
    }
    /// a - b
    pub fn sub(&mut self, a: Register, b: Register) -> Register {
        self.binary(BinaryOp::Sub, a, b)
    }
    /// a * b
    pub fn mul(&mut self, a: Register, b: Register) -> Register {
        self.binary(BinaryOp::Mul, a, b)
    }
    /// a / b
    pub fn div(&mut self, a: Register, b: Register) -> Register {
        self.binary(BinaryOp::Div, a, b)
    }
    /// a > b
    pub fn greater(&mut self, a: Register, b: Register) -> Register {
        self.binary(BinaryOp::Less, b, a)
    }
    /// a >= b
    pub fn greater_or_equal(&mut self, a: Register, b: Register) -> Register {
        self.binary(BinaryOp::LessOrEqual, b, a)
    }
    /// Three operands.
    pub fn ternary(&mut self, op: TernaryOp, a: Register, b: Register, c: Register) -> Register {
        self.push(Instruction::Ternary { op, a, b, c })
    }
    /// a * b + c
    pub fn multiply_add(&mut self, a: Register, b: Register, c: Register) -> Register {
        self.ternary(TernaryOp::MultiplyAdd, a, b, c)
    }
    /// `yes` where the condition is not 0, else `no`.
    pub fn select(&mut self, condition: Register, yes: Register, no: Register) -> Register {
        self.push(Instruction::Select { condition, yes, no })
    }
    /// Puts another program in, its inputs being these registers; gives the registers of its outputs.
    pub fn inline(&mut self, program: &Program, inputs: &[Register]) -> Result<Vec<Register>> {
        ensure!(
            program.inputs == inputs.len(),
            Internal,
            "a pointwise program of {} inputs was given {}",
            program.inputs,
            inputs.len()
        );
        let mut new: Vec<Register> = Vec::with_capacity(program.instructions.len());
        for i in &program.instructions {
            let r = match *i {
                Instruction::Load { input } => inputs[input as usize],
                i => self.push(i.renamed(|r| new[r as usize])),
            };
            new.push(r);
        }
        Ok(program.outputs.iter().map(|&r| new[r as usize]).collect())
    }
    /// The program that gives out these registers, without the instructions that none of them needs.
    pub fn finish(self, outputs: &[Register]) -> Result<Program> {
        let n = self.instructions.len();
        ensure!(n <= Register::MAX as usize, Unsupported, "a pointwise program of {n} instructions");
        for (i, instruction) in self.instructions.iter().enumerate() {
            if let Instruction::Load { input } = instruction {
                ensure!((*input as usize) < self.inputs, Internal, "instruction {i} loads the missing input {input}");
            }
            for r in instruction.operands() {
                ensure!((r as usize) < i, Internal, "instruction {i} reads the later register {r}");
            }
        }
        if let Some(r) = outputs.iter().find(|&&r| r as usize >= n) {
            bail!(Internal, "an output of the missing register {r}");
        }
        Ok(self.finish_unchecked(outputs))
    }
    fn finish_unchecked(self, outputs: &[Register]) -> Program {
        let n = self.instructions.len();
        let mut needed = vec![false; n];
        outputs.iter().for_each(|&r| needed[r as usize] = true);
        for i in (0..n).rev() {
            if needed[i] {
                self.instructions[i].operands().for_each(|r| needed[r as usize] = true);
            }
        }
        let mut place: Vec<Register> = vec![0; n];
        let mut instructions = vec![];
        for i in 0..n {
            if needed[i] {
                place[i] = instructions.len() as Register;
                instructions.push(self.instructions[i].renamed(|r| place[r as usize]));
            }
        }
        Program { instructions, inputs: self.inputs, outputs: outputs.iter().map(|&r| place[r as usize]).collect() }
    }
}
