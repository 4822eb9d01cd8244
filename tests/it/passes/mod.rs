//! Every pass: the graph before and after it, near-misses, and the same answers from both.

use crate::cases::{cpu as cpu_at, run_graph};
use ortx::backend::cpu::CpuBackend;
use ortx::base::parallel::Serial;
use ortx::ir::build::GraphBuilder;
use ortx::ir::parse::Attr;
use ortx::ir::{Dim, Fact, Graph, ParseCtx, ValueId, dump};
use ortx::kernels::isa::Isa;
use ortx::ops;
use ortx::ops::case::{close, random};
use ortx::optimize::{Options, PassReport, optimize, passes};
use ortx::{DType, Tensor, Value};

mod activations;
mod algebra;
mod attention;
mod attention_given;
mod attention_masks;
mod attention_nan;
mod basic;
mod branches;
mod conv;
mod decoder;
mod fuse_norm;
mod integers;
mod matmul;
mod mha;
mod models;
mod norms;
mod pipeline;
mod quantised;
mod quantised_ends;
mod rotary;
mod rows;
mod shapes;
mod transposes;

/// A graph made line by line.
struct Draft {
    b: GraphBuilder,
    inputs: Vec<Value>,
}

/// Transpose's attribute.
fn perm(p: &[i64]) -> Vec<(&'static str, Attr)> {
    vec![("perm", ints(p))]
}

impl Draft {
    fn new() -> Draft {
        Draft { b: GraphBuilder::new("g"), inputs: Vec::new() }
    }
    /// An input of seeded f32 values.
    fn input(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let seed = self.inputs.len() as u64;
        self.inputs.push(Value::Tensor(random(DType::F32, shape, -2.0, 2.0, seed).unwrap()));
        self.b.input(name, Fact::sized(DType::F32, shape))
    }
    /// An input of a narrower type.
    fn input_of(&mut self, dtype: DType, name: &str, shape: &[usize]) -> ValueId {
        let seed = self.inputs.len() as u64;
        self.inputs.push(Value::Tensor(random(dtype, shape, -2.0, 2.0, seed).unwrap()));
        self.b.input(name, Fact::sized(dtype, shape))
    }
    /// The same, whose axes have names where a text is given: the pass sees those, the run the sizes.
    fn named_input(&mut self, name: &str, axes: &[&str], shape: &[usize]) -> ValueId {
        let seed = self.inputs.len() as u64;
        self.inputs.push(Value::Tensor(random(DType::F32, shape, -2.0, 2.0, seed).unwrap()));
        let dims = axes.iter().zip(shape).map(|(a, &n)| if a.is_empty() { Dim::of(n) } else { Dim::named(a) });
        self.b.input(name, Fact::tensor(DType::F32, dims.collect()))
    }
    /// A constant of integers.
    fn ints(&mut self, name: &str, v: &[i64]) -> ValueId {
        self.b.constant(name, Tensor::from_slice(&[v.len()], v).unwrap())
    }
    /// A constant number.
    fn number(&mut self, x: f32) -> ValueId {
        self.b.constant(&format!("{x}"), Tensor::scalar(x).unwrap())
    }
    /// A constant of seeded f32 values.
    fn constant(&mut self, name: &str, shape: &[usize], low: f64, high: f64) -> ValueId {
        self.b.constant(name, random(DType::F32, shape, low, high, name.len() as u64 + 7).unwrap())
    }
    /// `name = op(inputs)`, in operator set 20.
    fn op(&mut self, name: &str, op: &str, inputs: &[ValueId], attrs: Vec<(&'static str, Attr)>) -> ValueId {
        let registry = ops::registry();
        let def = registry.find("", op).unwrap();
        let ids = inputs.iter().map(|&v| Some(v)).collect();
        let mut cx = ParseCtx::new(&mut self.b, name, op, 20, ids, &[true], attrs);
        let parsed = (def.parse)(&mut cx).unwrap();
        let inputs = std::mem::take(&mut cx.inputs);
        self.b.node(name, parsed, inputs, &[Some(name)]).unwrap()[0].unwrap()
    }
    /// `Split` in the lengths given, along an axis.
    fn split(&mut self, name: &str, x: ValueId, lengths: ValueId, axis: i64, parts: usize) -> Vec<ValueId> {
        let registry = ops::registry();
        let def = registry.find("", "Split").unwrap();
        let asked = vec![true; parts];
        let ids = vec![Some(x), Some(lengths)];
        let mut cx = ParseCtx::new(&mut self.b, name, "Split", 18, ids, &asked, vec![("axis", Attr::Int(axis))]);
        let parsed = (def.parse)(&mut cx).unwrap();
        let inputs = std::mem::take(&mut cx.inputs);
        let names: Vec<String> = (0..parts).map(|i| format!("{name}.{i}")).collect();
        let names: Vec<Option<&str>> = names.iter().map(|n| Some(n.as_str())).collect();
        self.b.node(name, parsed, inputs, &names).unwrap().into_iter().flatten().collect()
    }
    /// Runs the pass alone, and holds the answers of both graphs against each other at every ISA level. Returns the operators
    /// before and after it (with what they were given), and the pass's report.
    fn check(self, pass: &str, outputs: Vec<ValueId>) -> (Vec<String>, Vec<String>, PassReport) {
        // Other roundings in another order: some ten of f32, for values of a few units.
        self.check_within(1e-5, pass, outputs)
    }
    /// The same with another tolerance, absolute and relative.
    fn check_within(self, most: f64, pass: &str, outputs: Vec<ValueId>) -> (Vec<String>, Vec<String>, PassReport) {
        let before = self.b.finish(outputs).unwrap();
        let mut after = before.clone();
        let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
        let others = passes::all().iter().map(|p| p.name().to_string()).filter(|n| n != pass).collect();
        let options = Options { disabled: others, strict: true, ..Options::default() };
        let reports = optimize(&mut after, &cpu, &Serial, &options).unwrap();
        for isa in Isa::detect().levels() {
            let run = |g: &Graph| run_graph(g.clone(), cpu_at(isa), &self.inputs).unwrap();
            for (want, got) in run(&before).iter().zip(&run(&after)) {
                close(want, got, most, most).unwrap_or_else(|e| panic!("{pass} at {}: {e}", isa.level().name()));
            }
        }
        let report = reports.into_iter().find(|r| r.pass == pass).unwrap();
        (lines(&before), lines(&after), report)
    }
}

/// `y = Op(a, b)` for each node.
fn lines(g: &Graph) -> Vec<String> {
    let text = dump::dump(g);
    let nodes = text.lines().filter(|l| l.contains(" = "));
    nodes
        .map(|l| {
            let (left, right) = l.trim().split_once(" = ").unwrap();
            let name = left.split(' ').next().unwrap().trim_start_matches('%');
            let call = &right[..right.find(')').unwrap() + 1];
            format!("{name} = {call}")
        })
        .collect()
}

fn ints(v: &[i64]) -> Attr {
    Attr::Ints(v.to_vec())
}

/// For each pass a test that holds the graph after it against what is expected, and one of what it must leave alone. Both run
/// the graphs before and after it, and compare the numbers.
type Tested = (&'static str, fn(), fn());

const TESTED: &[Tested] = &[
    ("activations", activations::gelu_in_its_orders, activations::what_is_nearly_an_activation_stays),
    ("algebra", algebra::what_changes_nothing_goes, algebra::what_broadcasts_or_turns_round_stays),
    ("attention", attention::bert_with_named_axes, attention::what_is_nearly_attention_stays),
    ("branches", branches::one_branch_is_left, branches::an_open_condition_stays),
    (
        "channels_last",
        quantised::channels_of_integer_images_stay_together,
        quantised::images_of_floats_keep_their_layout,
    ),
    ("common", algebra::common_subexpressions_are_computed_once, algebra::what_is_not_the_same_is_computed_each_time),
    ("conv_affine", conv::conv_takes_a_batch_norm, conv::conv_keeps_away_from_a_batch_norm_that_others_look_past),
    ("conv_epilogue", conv::conv_takes_a_residual_and_an_activation, conv::conv_leaves_a_residual_of_another_shape),
    ("einsum", shapes::einsum_of_two_is_a_product, shapes::einsum_that_is_no_product_stays),
    ("fold", basic::fold_computes_constants, basic::fold_does_not_grow_a_model),
    ("fold_scales", quantised::what_groups_read_is_computed, quantised::constants_of_floats_are_left_to_fold),
    ("fuse_norm", fuse_norm::rows_between_programs, fuse_norm::rows_that_others_need_stay_apart),
    ("fuse_pointwise", basic::pointwise_chains_become_one, basic::pointwise_leaves_what_would_be_computed_twice),
    ("identity", basic::identity_goes, basic::what_is_no_identity_stays),
    ("integer_products", integers::sums_are_scaled_by_the_product, integers::what_scales_rows_stays),
    ("l2_norm", rows::normalize_of_torch, rows::what_is_nearly_a_norm_of_rows_stays),
    ("matmul_bias", basic::matmul_takes_a_row, basic::matmul_leaves_what_is_no_row_or_is_used_twice),
    (
        "matmul_epilogue",
        matmul::matmul_takes_a_residual_and_an_activation,
        matmul::matmul_leaves_what_is_broadcast_or_used_twice,
    ),
    ("narrow", norms::narrow_rows_need_no_casts, norms::rows_that_do_not_fit_keep_their_casts),
    ("norms", norms::layer_norm_in_its_forms, norms::what_is_nearly_a_norm_stays),
    ("products", matmul::products_of_one_operand_are_one_step, matmul::products_of_other_kinds_stay_apart),
    (
        "quantised",
        quantised::quantised_convolutions_are_of_integers,
        quantised::a_relu_is_kept_where_a_products_integers_go_below_zero,
    ),
    (
        "quantised_ends",
        quantised_ends::changes_of_scale_go_into_programs_of_floats,
        quantised_ends::changes_of_scale_stay_that_nothing_takes_in,
    ),
    ("rotary", rotary::heads_that_were_turned_before, rotary::what_is_nearly_rotary_stays),
    ("shapes", shapes::shapes_that_copy_axes_are_constants, shapes::shapes_that_move_axes_stay),
    ("softmax", rows::softmax_of_its_parts, rows::what_is_nearly_a_softmax_stays),
    ("transposes", transposes::transpositions_meet, transposes::a_transposition_that_meets_none_stays),
    ("window_pad", conv::conv_pads_by_itself, conv::conv_leaves_other_borders),
];

#[test]
fn every_pass_is_tested_here() {
    let mut all: Vec<_> = passes::all().iter().map(|p| p.name()).collect();
    all.sort_unstable();
    assert_eq!(all, TESTED.iter().map(|t| t.0).collect::<Vec<_>>());
    assert!(TESTED.iter().all(|t| !std::ptr::fn_addr_eq(t.1, t.2)));
}
