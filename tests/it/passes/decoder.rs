//! A whole layer of a decoder as torch exports it: root mean square norms, rotary embeddings, key heads for groups of query
//! heads, a past, a triangle of run-time size, a gated layer. All passes together leave one step for each of them.

use super::*;
use ortx::base::parallel::Serial;
use std::collections::BTreeMap;

const HEADS: i64 = 4;
const KEY_HEADS: i64 = 2;
const SIZE: i64 = 8;
const WIDTH: usize = 32;

struct Layer(Draft);

impl Layer {
    fn op(&mut self, name: &str, op: &str, inputs: &[ValueId]) -> ValueId {
        self.0.op(name, op, inputs, vec![])
    }
    fn linear(&mut self, name: &str, x: ValueId, from: usize, to: usize) -> ValueId {
        let w = self.0.constant(&format!("{name}.w"), &[from, to], -0.3, 0.3);
        self.op(name, "MatMul", &[x, w])
    }
    /// w * (x * (1 / sqrt(mean(x^2) + epsilon)))
    fn norm(&mut self, name: &str, x: ValueId) -> ValueId {
        let w = self.0.constant(&format!("{name}.w"), &[WIDTH], 0.5, 1.5);
        let (two, eps, last) = (self.0.number(2.0), self.0.number(1e-6), self.0.ints("last", &[-1]));
        let s = self.op(&format!("{name}.pow"), "Pow", &[x, two]);
        let s = self.op(&format!("{name}.mean"), "ReduceMean", &[s, last]);
        let s = self.op(&format!("{name}.eps"), "Add", &[s, eps]);
        let s = self.op(&format!("{name}.sqrt"), "Sqrt", &[s]);
        let s = self.op(&format!("{name}.rsqrt"), "Reciprocal", &[s]);
        let x = self.op(&format!("{name}.n"), "Mul", &[x, s]);
        self.op(name, "Mul", &[w, x])
    }
    fn heads(&mut self, name: &str, x: ValueId, heads: i64) -> ValueId {
        let shape = self.0.ints(&format!("{name}.shape"), &[0, 0, heads, SIZE]);
        let r = self.op(&format!("{name}.r"), "Reshape", &[x, shape]);
        self.0.op(&format!("{name}.t"), "Transpose", &[r], vec![("perm", ints(&[0, 2, 1, 3]))])
    }
    fn rotary(&mut self, name: &str, x: ValueId, [cos, sin]: [ValueId; 2]) -> ValueId {
        let (zero, half, end, last) =
            (self.0.ints("zero", &[0]), self.0.ints("half", &[SIZE / 2]), self.0.ints("end", &[i64::MAX]), {
                self.0.ints("axis3", &[3])
            });
        let a = self.op(&format!("{name}.a"), "Slice", &[x, zero, half, last]);
        let b = self.op(&format!("{name}.b"), "Slice", &[x, half, end, last]);
        let b = self.op(&format!("{name}.neg"), "Neg", &[b]);
        let turned = self.0.op(&format!("{name}.cat"), "Concat", &[b, a], vec![("axis", Attr::Int(-1))]);
        let x = self.op(&format!("{name}.xc"), "Mul", &[x, cos]);
        let turned = self.op(&format!("{name}.rs"), "Mul", &[turned, sin]);
        self.op(name, "Add", &[x, turned])
    }
    /// The length of an axis, as a list of one.
    fn length(&mut self, name: &str, x: ValueId, axis: i64) -> ValueId {
        self.0.op(name, "Shape", &[x], vec![("start", Attr::Int(axis)), ("end", Attr::Int(axis + 1))])
    }
    /// Each key head for the query heads of its group.
    fn repeated(&mut self, name: &str, x: ValueId, batch: ValueId, total: ValueId) -> ValueId {
        let two = self.0.ints("axis2", &[2]);
        let group = HEADS / KEY_HEADS;
        let (g, h, d) = (self.0.ints("g", &[KEY_HEADS]), self.0.ints("h", &[group]), self.0.ints("d", &[SIZE]));
        let all = self.0.ints("all", &[HEADS]);
        let join = vec![("axis", Attr::Int(0))];
        let wide = self.0.op(&format!("{name}.wide"), "Concat", &[batch, g, h, total, d], join.clone());
        let flat = self.0.op(&format!("{name}.flat"), "Concat", &[batch, all, total, d], join);
        let u = self.op(&format!("{name}.u"), "Unsqueeze", &[x, two]);
        let e = self.op(&format!("{name}.e"), "Expand", &[u, wide]);
        self.op(name, "Reshape", &[e, flat])
    }
}

fn layer() -> (Draft, Vec<ValueId>) {
    let mut l = Layer(Draft::new());
    let x = l.0.named_input("x", &["batch", "seq", ""], &[2, 3, WIDTH]);
    let [pk, pv] = ["pk", "pv"].map(|n| l.0.named_input(n, &["batch", "", "past", ""], &[2, 2, 5, 8]));
    let (batch, seq, past) = (l.length("batch", x, 0), l.length("seq", x, 1), l.length("past", pk, 2));
    let total = l.op("total", "Add", &[past, seq]);
    let first = l.0.ints("axis0", &[0]);
    let [zero, one] = [0i64, 1].map(|n| l.0.b.constant(&format!("n{n}"), Tensor::scalar(n).unwrap()));
    let [from, to] = [("from", past), ("to", total)].map(|(n, v)| l.op(n, "Squeeze", &[v, first]));
    let positions = l.op("positions", "Range", &[from, to, one]);

    // Angles of the positions, the same for both halves.
    let rates = l.0.constant("rates", &[1, 1, 4], 0.01, 1.0);
    let column = l.0.ints("column", &[1, -1, 1]);
    let at = l.op("at", "Reshape", &[positions, column]);
    let at = l.0.op("at.f", "Cast", &[at], vec![("to", Attr::Int(1))]);
    let angle = l.op("angle", "MatMul", &[at, rates]);
    let angle = l.0.op("angles", "Concat", &[angle, angle], vec![("axis", Attr::Int(-1))]);
    let heads = l.0.ints("axis1", &[1]);
    let cs = [("cos", "Cos"), ("sin", "Sin")].map(|(n, op)| {
        let v = l.op(n, op, &[angle]);
        l.op(&format!("{n}.u"), "Unsqueeze", &[v, heads])
    });

    let n = l.norm("n1", x);
    let [q, k, v] = [("q", HEADS), ("k", KEY_HEADS), ("v", KEY_HEADS)].map(|(name, heads)| {
        let p = l.linear(name, n, WIDTH, (heads * SIZE) as usize);
        l.heads(&format!("{name}.heads"), p, heads)
    });
    let (q, k) = (l.rotary("qr", q, cs), l.rotary("kr", k, cs));
    let nk = l.0.op("nk", "Concat", &[pk, k], vec![("axis", Attr::Int(2))]);
    let nv = l.0.op("nv", "Concat", &[pv, v], vec![("axis", Attr::Int(2))]);
    let (keys, values) = (l.repeated("keys", nk, batch, total), l.repeated("values", nv, batch, total));

    // Keys after a row's position are out.
    let j = l.op("j", "Range", &[zero, to, one]);
    let rows = l.0.ints("rows", &[-1, 1]);
    let i = l.op("i", "Reshape", &[positions, rows]);
    let out = l.op("out", "Greater", &[j, i]);
    let (low, none) = (l.0.number(f32::MIN), l.0.number(0.0));
    let mask = l.op("mask", "Where", &[out, low, none]);

    let scale = l.0.number((SIZE as f32).powf(-0.25));
    let kt = l.0.op("kt", "Transpose", &[keys], vec![("perm", ints(&[0, 1, 3, 2]))]);
    let (q, kt) = (l.op("q.s", "Mul", &[q, scale]), l.op("kt.s", "Mul", &[kt, scale]));
    let s = l.op("s", "MatMul", &[q, kt]);
    let s = l.op("masked", "Add", &[s, mask]);
    let p = l.op("p", "Softmax", &[s]);
    let o = l.op("o", "MatMul", &[p, values]);
    let o = l.0.op("o.t", "Transpose", &[o], vec![("perm", ints(&[0, 2, 1, 3]))]);
    let flat = l.0.ints("flat", &[0, 0, WIDTH as i64]);
    let o = l.op("o.r", "Reshape", &[o, flat]);
    let o = l.linear("proj", o, WIDTH, WIDTH);
    let x = l.op("x1", "Add", &[x, o]);

    let n = l.norm("n2", x);
    let (gate, up) = (l.linear("gate", n, WIDTH, 48), l.linear("up", n, WIDTH, 48));
    let g = l.op("sig", "Sigmoid", &[gate]);
    let g = l.op("silu", "Mul", &[gate, g]);
    let g = l.op("gated", "Mul", &[g, up]);
    let d = l.linear("down", g, 48, WIDTH);
    let y = l.op("y", "Add", &[x, d]);
    (l.0, vec![y, nk, nv])
}

#[test]
fn a_layer_of_a_decoder() {
    let (d, outputs) = layer();
    let before = d.b.finish(outputs).unwrap();
    let mut after = before.clone();
    let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
    let reports = optimize(&mut after, &cpu, &Serial, &Options::default()).unwrap();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    after.nodes().for_each(|(_, n)| *count.entry(n.op.name()).or_default() += 1);
    let left = lines(&after);
    let misses: Vec<_> = reports.iter().flat_map(|r| &r.misses).collect();
    for (op, n) in [("RMSNormalization", 2), ("Products", 2), ("RotaryEmbedding", 2), ("Attention", 1), ("MatMul", 3)] {
        assert_eq!(count.get(op), Some(&n), "{op}: {left:#?} {misses:#?}");
    }
    for op in ["Softmax", "Transpose", "Where", "Greater", "Expand", "Neg", "Add"] {
        // The sum of lengths stays.
        let most = usize::from(op == "Add");
        assert!(count.get(op).is_none_or(|&n| n <= most), "{op}: {left:#?} {misses:#?}");
    }
    for isa in Isa::detect().levels() {
        let run = |g: &Graph| run_graph(g.clone(), cpu_at(isa), &d.inputs).unwrap();
        for (want, got) in run(&before).iter().zip(&run(&after)) {
            // Two layers of sums of 48 products in another order.
            close(want, got, 2e-5, 2e-5).unwrap_or_else(|e| panic!("{}: {e}", isa.level().name()));
        }
    }
}
