//! Matrix products of types that have no tiled kernel: f64, and integers, which wrap.

use super::elem::Number;
use super::gemm::Strides;

/// One product of strided matrices.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Columns of the right operand.
    pub n: usize,
    /// Columns of the left operand.
    pub k: usize,
    /// Strides of the left operand.
    pub a: Strides,
    /// Strides of the right operand.
    pub b: Strides,
}

impl Product {
    /// Computes `rows` dense rows of the product into `c`.
    /// # Safety
    /// `a` points to the first of the rows, `b` to the whole right operand, `c` is valid for writing `rows * n` values; `c`
    /// overlaps neither.
    pub unsafe fn run<T: Number>(&self, rows: usize, a: *const T, b: *const T, c: *mut T) {
        for i in 0..rows {
            // SAFETY: the caller's rows.
            unsafe {
                let (a, c) = (a.add(i * self.a.row), c.add(i * self.n));
                if self.b.col == 1 {
                    for j in 0..self.n {
                        *c.add(j) = T::ZERO;
                    }
                    for p in 0..self.k {
                        let (x, row) = (*a.add(p * self.a.col), b.add(p * self.b.row));
                        for j in 0..self.n {
                            *c.add(j) = (*c.add(j)).add(x.mul(*row.add(j)));
                        }
                    }
                } else {
                    for j in 0..self.n {
                        let column = b.add(j * self.b.col);
                        let mut sum = T::ZERO;
                        for p in 0..self.k {
                            sum = sum.add((*a.add(p * self.a.col)).mul(*column.add(p * self.b.row)));
                        }
                        *c.add(j) = sum;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders_give_the_product_and_integers_wrap() {
        // [1 2; 3 4] * [5 6; 7 8], B by rows and by columns, A transposed.
        let want = [19, 22, 43, 50u8];
        for (a, sa) in [([1, 2, 3, 4], Strides::rows_of(2)), ([1, 3, 2, 4], Strides::transposed(2))] {
            for (b, sb) in [([5, 6, 7, 8], Strides::rows_of(2)), ([5, 7, 6, 8], Strides::transposed(2))] {
                let mut c = [0u8; 4];
                // SAFETY: all are two by two.
                unsafe { Product { n: 2, k: 2, a: sa, b: sb }.run(2, a.as_ptr(), b.as_ptr(), c.as_mut_ptr()) };
                assert_eq!(c, want);
            }
        }
        let mut c = [0i32];
        let p = Product { n: 1, k: 1, a: Strides::rows_of(1), b: Strides::rows_of(1) };
        // SAFETY: one value each.
        unsafe { p.run(1, [i32::MAX].as_ptr(), [2].as_ptr(), c.as_mut_ptr()) };
        assert_eq!(c, [-2]);
    }
}
