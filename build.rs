//! Compiles `proto/onnx.proto` to Rust and the OpenCL shim, and sets the soname of the C library.

use std::{env, error::Error};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libortx.so.0");
    }
    compile_opencl_shim();
    compile_proto()
}

/// Compiles the stand-in for libOpenCL, which `ocl` would otherwise make a hard dependency of everything linked with
/// us. It is named as the real library, and found first.
fn compile_opencl_shim() {
    const SHIM: &str = "src/backend/opencl/shim.c";
    println!("cargo:rerun-if-changed={SHIM}");
    // On macOS OpenCL is a framework that every system has.
    let macos = env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("macos");
    if env::var_os("CARGO_FEATURE_OPENCL").is_some() && !macos {
        cc::Build::new().file(SHIM).std("c99").compile("OpenCL");
    }
}

/// protox parses the schema in Rust, so that no protoc need be installed.
fn compile_proto() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/onnx.proto");
    let schema = protox::compile(["proto/onnx.proto"], ["proto"])?;
    prost_build::Config::new()
        // `Bytes` fields are slices of the file's own memory: a constant is never copied.
        .bytes(["."])
        // Rare and large: unboxed, they make each attribute take 1,712 bytes.
        .boxed(".onnx.AttributeProto.t")
        .boxed(".onnx.AttributeProto.g")
        .boxed(".onnx.AttributeProto.tp")
        .boxed(".onnx.AttributeProto.sparse_tensor")
        .compile_fds(schema)?;
    Ok(())
}
