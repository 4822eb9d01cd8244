//! How many threads this process can run at full speed.

/// The cores that this process may use: those of its affinity mask, counted without their second hardware threads, and
/// no more than its container's CPU quota. At least 1.
///
/// Hardware threads of one core share its vector units, so that a second one adds little to dense arithmetic.
pub fn available_cores() -> usize {
    // Affinity mask, and the quota of cgroup v2 or v1, rounded down.
    let logical = std::thread::available_parallelism().map_or(1, |n| n.get());
    physical_cores().map_or(logical, |cores| cores.min(logical)).max(1)
}

/// Cores in the affinity mask, each counted once; none if the system does not tell.
#[cfg(target_os = "linux")]
fn physical_cores() -> Option<usize> {
    // SAFETY: a cpu_set_t is plain bits, for which zero is valid; the call writes at most the size given.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return None;
        }
        set
    };
    // SAFETY: the index is below the number of bits in the set.
    let allowed = (0..8 * size_of::<libc::cpu_set_t>()).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) });
    let mut cores = std::collections::BTreeSet::new();
    for cpu in allowed {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        // The list of a core's threads is the same text for each of them.
        cores.insert(std::fs::read_to_string(path).ok()?);
    }
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(not(target_os = "linux"))]
fn physical_cores() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_core() {
        let cores = available_cores();
        assert!((1..=std::thread::available_parallelism().unwrap().get()).contains(&cores));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_narrow_affinity_mask_counts() {
        std::thread::spawn(|| {
            // SAFETY: plain bits; the calls read and write the set given, for this thread alone.
            unsafe {
                let mut set: libc::cpu_set_t = std::mem::zeroed();
                assert_eq!(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set), 0);
                let first = (0..1024).find(|&cpu| libc::CPU_ISSET(cpu, &set)).unwrap();
                let mut one: libc::cpu_set_t = std::mem::zeroed();
                libc::CPU_SET(first, &mut one);
                assert_eq!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &one), 0);
            }
            assert_eq!(available_cores(), 1);
        })
        .join()
        .unwrap();
    }
}
