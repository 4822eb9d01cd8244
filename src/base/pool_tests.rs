//! The pool under stress: every task once, any caller, any panic.

use super::super::park::Condition;
use super::*;
use std::sync::{Barrier, atomic::AtomicU8};

fn pools() -> Vec<Box<dyn Parallel>> {
    struct Portable(Inner<Condition>);
    impl Parallel for Portable {
        fn width(&self) -> usize {
            self.0.width()
        }
        fn run(&self, n: usize, task: &(dyn Fn(usize, usize) + Sync)) {
            self.0.run(n, task);
        }
    }
    let us = Duration::from_micros;
    vec![
        Box::new(Pool::new(1, us(0)).unwrap()),
        Box::new(Pool::new(2, us(0)).unwrap()),
        Box::new(Pool::new(2, us(50)).unwrap()),
        Box::new(Pool::new(5, us(0)).unwrap()),
        Box::new(Pool::new(5, us(3)).unwrap()),
        Box::new(Portable(Inner::new(3, us(0)).unwrap())),
    ]
}

/// Runs a job of `n` tasks and checks that each ran once, and no worker two at a time.
fn check(pool: &dyn Parallel, n: usize) {
    let ran: Vec<AtomicU8> = (0..n).map(|_| AtomicU8::new(0)).collect();
    let working: Vec<AtomicBool> = (0..pool.width()).map(|_| AtomicBool::new(false)).collect();
    pool.run(n, &|worker, i| {
        assert!(!working[worker].swap(true, Ordering::Relaxed), "worker {worker} runs two tasks");
        ran[i].fetch_add(1, Ordering::Relaxed);
        working[worker].store(false, Ordering::Relaxed);
    });
    assert!(ran.iter().all(|r| r.load(Ordering::Relaxed) == 1));
}

#[test]
fn every_task_runs_once() {
    for pool in pools() {
        for n in [0, 1, 2, 3, 7, 64, 1000] {
            (0..50).for_each(|_| check(&*pool, n));
        }
        // Plain memory written by tasks is seen by the caller.
        let mut data = vec![0u64; 4096];
        let base = data.as_mut_ptr() as usize;
        for round in 1..200u64 {
            pool.run(64, &|_, i| {
                // SAFETY: each task has 64 elements of its own.
                let part = unsafe { std::slice::from_raw_parts_mut((base as *mut u64).add(64 * i), 64) };
                part.iter_mut().for_each(|v| *v += round);
            });
            assert!(data.iter().all(|&v| v == round * (round + 1) / 2));
        }
    }
}

#[test]
fn many_short_jobs() {
    let pools = pools();
    for (k, pool) in pools.iter().enumerate() {
        let sum = AtomicUsize::new(0);
        let jobs = if k == 0 { 1000 } else { 20_000 };
        for n in 0..jobs {
            pool.run(2 + n % 3, &|_, i| {
                sum.fetch_add(i + 1, Ordering::Relaxed);
            });
        }
        let expected: usize = (0..jobs).map(|n| (1..=2 + n % 3).sum::<usize>()).sum();
        assert_eq!(sum.into_inner(), expected);
    }
}

#[test]
fn workers_help() {
    // Two tasks that each wait for the other end only if two threads run them.
    let pool = Pool::new(2, Duration::ZERO).unwrap();
    for _ in 0..100 {
        let meet = Barrier::new(2);
        pool.run(2, &|_, _| {
            meet.wait();
        });
    }
}

#[test]
fn nested_jobs_run_in_their_task() {
    for pool in pools() {
        let total = AtomicUsize::new(0);
        pool.run(20, &|_, _| {
            let me = std::thread::current().id();
            pool.run(10, &|worker, _| {
                assert!(worker < pool.width());
                if pool.width() > 1 {
                    assert_eq!((worker, std::thread::current().id()), (0, me));
                }
                total.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(total.into_inner(), 200);
    }
}

#[test]
fn several_callers_at_once() {
    for pool in pools() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..300).for_each(|n| check(&*pool, n % 40)));
            }
        });
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_stays_usable() {
    for pool in pools() {
        for round in 0..100 {
            let n = 30;
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(n, &|_, i| {
                    if i == round % n || (round % 3 == 0 && i > 20) {
                        // Without the hook's message: a hundred of them would hide the others.
                        resume_unwind(Box::new(format!("task {i}")));
                    }
                });
            }));
            let payload = outcome.expect_err("the panic arrives");
            assert!(payload.downcast_ref::<String>().unwrap().starts_with("task "));
            check(&*pool, 25);
        }
        // From a worker alone, where the caller's tasks all end well.
        if pool.width() == 2 {
            let meet = Barrier::new(2);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(2, &|worker, _| {
                    meet.wait();
                    if worker == 1 {
                        resume_unwind(Box::new(7u8));
                    }
                });
            }));
            assert_eq!(outcome.unwrap_err().downcast_ref::<u8>(), Some(&7));
        }
    }
}

#[test]
fn a_run_allocates_nothing() {
    let pool = Pool::new(2, Duration::ZERO).unwrap();
    let ran = AtomicUsize::new(0);
    let task = |_: usize, _: usize| {
        ran.fetch_add(1, Ordering::Relaxed);
    };
    pool.run(100, &task);
    let ((), counts) = crate::base::counting::counted(|| (0..100).for_each(|_| pool.run(100, &task)));
    assert_eq!(counts.calls, 0);
}

#[test]
fn threads_are_named_joined_and_bounded() {
    let pool = Pool::new(3, Duration::ZERO).unwrap();
    let meet = Barrier::new(3);
    pool.run(3, &|worker, _| {
        meet.wait();
        if worker > 0 {
            assert_eq!(std::thread::current().name(), Some(format!("ortx-worker-{worker}").as_str()));
        }
    });
    let shared = Arc::downgrade(&pool.0.shared);
    drop(pool);
    assert!(shared.upgrade().is_none(), "the workers have ended");
    for width in [0, MAX_WIDTH + 1] {
        assert!(Pool::new(width, Duration::ZERO).is_err());
    }
    for _ in 0..200 {
        drop(Pool::new(4, Duration::from_micros(5)).unwrap());
    }
}

/// A child process has no workers: jobs still end, and so does dropping the pool.
#[cfg(target_os = "linux")]
#[test]
fn a_forked_child_works_alone() {
    let pool = Pool::new(3, Duration::ZERO).unwrap();
    check(&pool, 100);
    let fork_and_use = |pool: Pool| {
        // SAFETY: the child touches no lock that another thread may have held: the pool allocates nothing in `run`,
        // and it leaves by _exit.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let sum = AtomicUsize::new(0);
            for _ in 0..10 {
                pool.run(50, &|_, i| {
                    sum.fetch_add(i, Ordering::Relaxed);
                });
            }
            let shared = pool.0.shared.clone();
            drop(pool);
            std::mem::forget(shared); // nothing is freed: another thread may have held the allocator's lock
            let good = sum.load(Ordering::Relaxed) == 10 * 49 * 50 / 2;
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if good { 42 } else { 1 }) };
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut status = 0;
        // SAFETY: our own child; the status is written to the place given.
        while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
            if Instant::now() > deadline {
                // SAFETY: our own child, not yet waited for.
                unsafe { libc::kill(child, libc::SIGKILL) };
                panic!("the child hangs");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 42, "status {status}");
        check(&pool, 100);
    };
    fork_and_use(pool);
}
