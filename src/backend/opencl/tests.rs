//! What the tests of the OpenCL kernels share: a device, or the word that there is none.

use super::device::{self, Device};
use std::sync::OnceLock;

/// The first device, opened once; `None`, and said so, where there is none.
pub(super) fn device() -> Option<&'static Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let device = DEVICE.get_or_init(|| {
        let listed = device::list().expect("listing devices").into_iter().next()?;
        Some(Device::open(&listed).expect("opening the device"))
    });
    if device.is_none() {
        println!("skipped: no OpenCL device");
    }
    device.as_ref()
}

#[test]
fn lists_and_finds() {
    let Some(_) = device() else { return };
    let all = device::list().unwrap();
    println!("{}", all[0].description());
    assert_eq!(device::find("opencl").unwrap().index, 0);
    assert_eq!(device::find("opencl:0").unwrap().info.name, all[0].info.name);
    let part = all[0].info.name.split(['-', ' ']).next().unwrap().to_uppercase();
    assert_eq!(device::find(&format!("opencl:{part}")).unwrap().index, 0);
    for (spec, kind) in [
        ("opencl:99", crate::ErrorKind::NotFound),
        ("opencl:no such device", crate::ErrorKind::NotFound),
        ("opencl:", crate::ErrorKind::InvalidArgument),
        ("cuda:0", crate::ErrorKind::InvalidArgument),
    ] {
        assert_eq!(device::find(spec).err().map(|e| e.kind()), Some(kind), "{spec}");
    }
}
