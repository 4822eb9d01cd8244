//! Boxes that overlap: the greedy choice behind non-maximum suppression.

use super::isa::Isa;
use super::simd::{F32, Kernel, Mask, dispatch};
use crate::base::alloc::emptied;
use crate::error::Result;

/// Boxes as one list a side.
#[derive(Clone, Debug, Default)]
pub struct Boxes {
    x0: Vec<f32>,
    x1: Vec<f32>,
    y0: Vec<f32>,
    y1: Vec<f32>,
    area: Vec<f32>,
}

impl Boxes {
    fn empty(&mut self, n: usize) -> Result<()> {
        for v in [&mut self.x0, &mut self.x1, &mut self.y0, &mut self.y1, &mut self.area] {
            emptied(v, n)?;
        }
        Ok(())
    }
    /// Other boxes in the same memory, from four numbers a box: centre (x, y), width and height if `center`, else any two
    /// opposite corners (y, x).
    pub fn fill(&mut self, numbers: &[f32], center: bool) -> Result<()> {
        self.empty(numbers.len() / 4)?;
        for b in numbers.chunks_exact(4) {
            self.push(if center {
                let (w, h) = (b[2] / 2.0, b[3] / 2.0);
                [b[0] - w, b[0] + w, b[1] - h, b[1] + h]
            } else {
                let sorted = |p: f32, q: f32| if p >= q { (q, p) } else { (p, q) };
                let ((x0, x1), (y0, y1)) = (sorted(b[1], b[3]), sorted(b[0], b[2]));
                [x0, x1, y0, y1]
            });
        }
        Ok(())
    }
    fn push(&mut self, [x0, x1, y0, y1]: [f32; 4]) {
        self.x0.push(x0);
        self.x1.push(x1);
        self.y0.push(y0);
        self.y1.push(y1);
        self.area.push((x1 - x0) * (y1 - y0));
    }
    fn get(&self, i: usize) -> [f32; 4] {
        [self.x0[i], self.x1[i], self.y0[i], self.y1[i]]
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.x0.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.x0.is_empty()
    }
}

/// Boxes from the best to the worst, equals in their order; those that score too low are left out.
#[derive(Clone, Debug, Default)]
pub struct Order(Vec<u64>);

impl Order {
    /// Another order in the same memory; `lowest` is the score that a box must pass.
    pub fn fill(&mut self, scores: &[f32], lowest: Option<f32>) -> Result<()> {
        let keys = &mut self.0;
        emptied(keys, scores.len())?;
        for (i, &s) in scores.iter().enumerate() {
            if lowest.is_none_or(|t| s > t) {
                // The bits of a float as an integer of the same order, -0 like 0, NaN last; then downwards.
                let bits = if s.is_nan() { f32::NEG_INFINITY } else { s + 0.0 }.to_bits();
                let rising = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
                keys.push(u64::from(!rising) << 32 | i as u64);
            }
        }
        keys.sort_unstable();
        Ok(())
    }
    /// The boxes.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().map(|k| *k as u32)
    }
}

/// What a thread chooses with.
#[derive(Clone, Debug, Default)]
pub struct Chooser {
    /// Boxes in the order in which they are looked at.
    pub order: Order,
    taken: Boxes,
}

impl Chooser {
    /// Fills `chosen` with at most `most` boxes in the order, each of which overlaps none before it by more than `overlap`
    /// (the area they share over the area they cover together).
    pub fn choose(&mut self, isa: Isa, boxes: &Boxes, most: usize, overlap: f32, chosen: &mut Vec<u32>) -> Result<()> {
        emptied(chosen, most.min(self.order.0.len()))?;
        self.taken.empty(most.min(boxes.len()))?;
        dispatch(isa, Choose { boxes, most, overlap, with: self, chosen });
        Ok(())
    }
}

struct Choose<'a> {
    boxes: &'a Boxes,
    most: usize,
    overlap: f32,
    with: &'a mut Chooser,
    chosen: &'a mut Vec<u32>,
}

impl Kernel for Choose<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let Chooser { order, taken } = self.with;
        for i in order.iter() {
            if self.chosen.len() >= self.most {
                break;
            }
            let b = self.boxes.get(i as usize);
            if !overlaps::<V>(b, self.boxes.area[i as usize], taken, self.overlap) {
                taken.push(b);
                self.chosen.push(i);
            }
        }
    }
}

/// Whether the box overlaps one of the others too much.
#[inline(always)]
fn overlaps<V: F32>([x0, x1, y0, y1]: [f32; 4], area: f32, others: &Boxes, limit: f32) -> bool {
    let (zero, n) = (V::zero(), others.len());
    for at in (0..n).step_by(V::LANES) {
        let lanes = V::LANES.min(n - at);
        // SAFETY: each list has n numbers.
        let load = |v: &Vec<f32>| unsafe { V::load_n(v.as_ptr().add(at), lanes) };
        let w = V::splat(x1).min(load(&others.x1)) - V::splat(x0).max(load(&others.x0));
        let h = V::splat(y1).min(load(&others.y1)) - V::splat(y0).max(load(&others.y0));
        let (shared, other) = (w * h, load(&others.area));
        let both = V::splat(area) + other - shared;
        let real = w.gt(zero) & h.gt(zero) & shared.gt(zero) & V::splat(area).gt(zero) & other.gt(zero) & both.gt(zero);
        if (real & (shared / both).gt(V::splat(limit)) & V::M::first(lanes)).any() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::Rng;

    fn order_of(scores: &[f32], lowest: Option<f32>) -> Order {
        let mut o = Order::default();
        o.fill(scores, lowest).unwrap();
        o
    }

    fn boxes_of(numbers: &[f32], center: bool) -> Boxes {
        let mut b = Boxes::default();
        b.fill(numbers, center).unwrap();
        b
    }

    fn choose(isa: Isa, boxes: &Boxes, order: &Order, most: usize, overlap: f32) -> Vec<u32> {
        let (mut with, mut chosen) = (Chooser { order: order.clone(), ..Chooser::default() }, vec![9; 5]);
        with.choose(isa, boxes, most, overlap, &mut chosen).unwrap();
        chosen
    }

    /// One pair of boxes at a time, sorted corners, in f64: products of these numbers are exact in both.
    fn naive(boxes: &[[f64; 4]], scores: &[f32], most: usize, overlap: f64) -> Vec<u32> {
        let mut order: Vec<usize> = (0..boxes.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut chosen: Vec<usize> = Vec::new();
        for i in order {
            let too_much = chosen.iter().any(|&j| {
                let (a, b) = (boxes[i], boxes[j]);
                let w = a[3].min(b[3]) - a[1].max(b[1]);
                let h = a[2].min(b[2]) - a[0].max(b[0]);
                let area = |b: [f64; 4]| (b[3] - b[1]) * (b[2] - b[0]);
                w > 0.0 && h > 0.0 && w * h / (area(a) + area(b) - w * h) > overlap
            });
            if !too_much && chosen.len() < most {
                chosen.push(i);
            }
        }
        chosen.into_iter().map(|i| i as u32).collect()
    }

    #[test]
    fn the_choice_is_that_of_the_naive_loop() {
        let mut rng = Rng::new(5);
        for n in [0, 1, 15, 16, 17, 300] {
            let mut wide = Vec::new();
            for _ in 0..n {
                let (y, x) = (rng.below(64) as f64, rng.below(64) as f64);
                wide.push([y, x, y + 1.0 + rng.below(32) as f64, x + 1.0 + rng.below(32) as f64]);
            }
            let scores = rng.floats(n);
            // Half of them by their other corners.
            let corners: Vec<f32> = wide
                .iter()
                .enumerate()
                .flat_map(|(i, b)| if i % 2 == 0 { *b } else { [b[2], b[1], b[0], b[3]] })
                .map(|x| x as f32)
                .collect();
            let centers: Vec<f32> = wide
                .iter()
                .flat_map(|b| [(b[1] + b[3]) / 2.0, (b[0] + b[2]) / 2.0, b[3] - b[1], b[2] - b[0]])
                .map(|x| x as f32)
                .collect();
            for most in [0, 3, 1000] {
                for isa in Isa::detect().levels() {
                    let order = order_of(&scores, None);
                    let want = naive(&wide, &scores, most, 0.25);
                    for (numbers, center) in [(&corners, false), (&centers, true)] {
                        let boxes = boxes_of(numbers, center);
                        assert_eq!(choose(isa, &boxes, &order, most, 0.25), want, "{n} boxes");
                    }
                }
            }
        }
    }

    #[test]
    fn order_is_by_score_then_by_place_with_nan_last() {
        let o = order_of(&[0.5, -0.0, f32::NAN, 0.0, 0.5, f32::INFINITY, -3.0], None);
        assert_eq!(o.iter().collect::<Vec<_>>(), [5, 0, 4, 1, 3, 6, 2]);
        let o = order_of(&[0.5, 0.25, f32::NAN, 0.75], Some(0.25));
        assert_eq!(o.iter().collect::<Vec<_>>(), [3, 0]);
    }

    #[test]
    fn boxes_without_area_suppress_nothing() {
        let boxes = boxes_of(&[0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, f32::NAN, 1.0], false);
        let order = order_of(&[3.0, 2.0, 1.0], None);
        for isa in Isa::detect().levels() {
            assert_eq!(choose(isa, &boxes, &order, 9, 0.0), [0, 1, 2]);
        }
    }
}
