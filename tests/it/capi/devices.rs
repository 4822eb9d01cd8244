//! Devices as a C program lists and chooses them.

use super::*;

const DIGITS: &[u8] = include_bytes!("../../../models/digits.onnx");

fn warnings(s: *mut ortx_session) -> Vec<String> {
    let (mut n, mut p) = (9, null());
    // SAFETY: a live session.
    unsafe {
        ok(ortx_session_warning_count(s, &mut n));
        fails(ortx_session_warning(s, n, &mut p), ORTX_ERROR_INVALID_ARGUMENT, &["no warning"]);
        (0..n)
            .map(|i| {
                ok(ortx_session_warning(s, i, &mut p));
                text(p)
            })
            .collect()
    }
}

/// The digits model on a device, or the error.
fn on(name: &CStr, required: i32) -> Result<*mut ortx_session, (ortx_code, String)> {
    let choice = ortx_device_choice { name: name.as_ptr(), required, reserved: 0 };
    // SAFETY: all zero is what the header asks for.
    let mut options: ortx_session_options = unsafe { std::mem::zeroed() };
    options.struct_size = size_of::<ortx_session_options>();
    (options.devices, options.device_count) = (&choice, 1);
    session_with(DIGITS, &options)
}

fn answer(s: *mut ortx_session) -> Vec<f32> {
    let pixels: Vec<f32> = (0..64).map(|i| (i % 9) as f32 / 8.0).collect();
    let x = floats(&[1, 1, 8, 8], &pixels);
    let mut y = null_mut();
    // SAFETY: live handles throughout.
    unsafe {
        ok(ortx_session_run(s, null(), null(), &x.cast_const(), 1, null(), &mut y, 1));
        let result = read(y);
        ortx_value_destroy(x);
        ortx_value_destroy(y);
        result
    }
}

#[test]
fn a_preferred_device_may_be_missing_a_required_one_not() {
    let s = on(c"opencl:no such device", 0).unwrap();
    let said = warnings(s);
    assert!(said.len() == 1 && said[0].contains("no such device") && said[0].contains("CPU"), "{said:?}");
    assert_eq!(answer(s).len(), 10);
    // SAFETY: a live session.
    unsafe { ortx_session_destroy(s) };
    let (code, said) = on(c"opencl:no such device", 1).unwrap_err();
    assert!(code == ORTX_ERROR_NOT_FOUND && said.contains("is required"), "{said}");
    let (code, said) = on(c"opencl:", 0).unwrap_err();
    assert!(code == ORTX_ERROR_INVALID_ARGUMENT && said.contains("opencl:<index>"), "{said}");
}

#[test]
fn devices_are_listed_and_chosen() {
    let (mut env, mut count, mut name, mut description, mut kind, mut memory) = (null_mut(), 99, null(), null(), 0, 0);
    // SAFETY: live handles and pointers throughout.
    unsafe {
        ok(ortx_environment_create(&mut env));
        ok(ortx_environment_device_count(env, &mut count));
        fails(ortx_environment_device_name(env, count, &mut name), ORTX_ERROR_INVALID_ARGUMENT, &["no device"]);
        if count == 0 {
            println!("skipped: no OpenCL device");
            return ortx_environment_destroy(env);
        }
        ok(ortx_environment_device_name(env, 0, &mut name));
        ok(ortx_environment_device_description(env, 0, &mut description));
        ok(ortx_environment_device_type(env, 0, &mut kind));
        ok(ortx_environment_device_memory(env, 0, &mut memory));
        assert_eq!(text(name), "opencl:0");
        assert!(text(description).contains("OpenCL") && memory > 0);
        assert!([ORTX_DEVICE_CPU, ORTX_DEVICE_GPU, ORTX_DEVICE_ACCELERATOR].contains(&kind));
        let s = on(CStr::from_ptr(name), 1).unwrap();
        assert!(warnings(s).is_empty());
        let plain = session(DIGITS);
        // Probabilities, after some hundred f32 roundings.
        assert!(answer(s).iter().zip(answer(plain)).all(|(a, b)| (a - b).abs() < 1e-5));
        ortx_session_destroy(s);
        ortx_session_destroy(plain);
        ortx_environment_destroy(env);
    }
}
