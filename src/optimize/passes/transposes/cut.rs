//! The least cut through a network of capacities, by shortest augmenting paths (Dinic).

use std::collections::VecDeque;

/// What no cut goes through.
pub const NEVER: u64 = u64::MAX / 8;

/// Places and the capacities between them.
#[derive(Default)]
pub struct Network {
    /// The edges that leave each place.
    leaving: Vec<Vec<usize>>,
    /// Where each edge goes, and what it can still carry; an edge's opposite is its neighbour.
    edges: Vec<(usize, u64)>,
}

impl Network {
    /// A new place.
    pub fn place(&mut self) -> usize {
        self.leaving.push(Vec::new());
        self.leaving.len() - 1
    }
    /// Lets `capacity` flow from one place to another.
    pub fn edge(&mut self, from: usize, to: usize, capacity: u64) {
        if from != to {
            self.leaving[from].push(self.edges.len());
            self.edges.push((to, capacity));
            self.leaving[to].push(self.edges.len());
            self.edges.push((from, 0));
        }
    }
    /// The least capacity between source and sink, and which places lie on the source's side: as few as can.
    pub fn cut(mut self, source: usize, sink: usize) -> (u64, Vec<bool>) {
        let mut flow = 0u64;
        loop {
            let depth = self.depths(source);
            if depth[sink] == usize::MAX {
                return (flow, depth.iter().map(|&d| d != usize::MAX).collect());
            }
            let mut next = vec![0; self.leaving.len()];
            while let Some(path) = self.path(source, sink, &depth, &mut next) {
                let most = path.iter().map(|&e| self.edges[e].1).min().unwrap_or(0);
                for e in path {
                    self.edges[e].1 -= most;
                    self.edges[e ^ 1].1 += most;
                }
                flow = flow.saturating_add(most);
            }
        }
    }
    /// How many edges away each place is.
    fn depths(&self, source: usize) -> Vec<usize> {
        let mut depth = vec![usize::MAX; self.leaving.len()];
        depth[source] = 0;
        let mut todo = VecDeque::from([source]);
        while let Some(at) = todo.pop_front() {
            for &e in &self.leaving[at] {
                let (to, left) = self.edges[e];
                if left > 0 && depth[to] == usize::MAX {
                    depth[to] = depth[at] + 1;
                    todo.push_back(to);
                }
            }
        }
        depth
    }
    /// The edges of a path that goes one deeper with each; `next` keeps which edges of a place lead nowhere.
    fn path(&self, source: usize, sink: usize, depth: &[usize], next: &mut [usize]) -> Option<Vec<usize>> {
        let (mut path, mut at) = (Vec::new(), source);
        while at != sink {
            match self.leaving[at].get(next[at]) {
                Some(&e) if self.edges[e].1 > 0 && depth[self.edges[e].0] == depth[at] + 1 => {
                    path.push(e);
                    at = self.edges[e].0;
                }
                Some(_) => next[at] += 1,
                None => {
                    // Back one edge, which leads nowhere.
                    let e: usize = path.pop()?;
                    at = self.edges[e ^ 1].0;
                    next[at] += 1;
                }
            }
        }
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_cut() {
        // Two ways of 3 and 2, with a way of 1 across.
        let mut n = Network::default();
        let [s, a, b, t] = [0; 4].map(|_| n.place());
        n.edge(s, a, 3);
        n.edge(a, t, 2);
        n.edge(s, b, 2);
        n.edge(b, t, 3);
        n.edge(a, b, 1);
        let (flow, side) = n.cut(s, t);
        assert_eq!(flow, 5);
        assert_eq!(side, [true, false, false, false], "of equal cuts the one with the fewest places");
    }

    #[test]
    fn what_must_not_be_cut_is_not() {
        let mut n = Network::default();
        let [s, a, b, t] = [0; 4].map(|_| n.place());
        n.edge(s, a, 10);
        n.edge(a, b, NEVER);
        n.edge(b, t, 4);
        assert_eq!(n.cut(s, t), (4, vec![true, true, true, false]));
    }
}
