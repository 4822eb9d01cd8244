//! Compiles `proto/onnx.proto` to Rust and to the table that the scan reads, and the OpenCL shim; sets the soname of
//! the C library.

use std::{
    collections::HashMap,
    env,
    error::Error,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::Xxh3;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libortx.so.0");
    }
    println!("cargo:rustc-env=ORTX_KERNELS={:016x}", kernels()?);
    compile_opencl_shim();
    compile_proto()
}

/// A checksum of the sources that say how packed constants lie in memory: compiled models are of one such version.
fn kernels() -> Result<u64, Box<dyn Error>> {
    let mut folders = ["src/kernels", "src/ops", "src/backend/cpu"].map(PathBuf::from).to_vec();
    folders.iter().for_each(|f| println!("cargo:rerun-if-changed={}", f.display()));
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let mut sum = Xxh3::new();
    for file in files {
        sum.update(&fs::read(file)?);
    }
    Ok(sum.digest())
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
    let files = protox::compile(["proto/onnx.proto"], ["proto"])?;

    let mut messages = Vec::new();
    for file in &files.file {
        for m in &file.message_type {
            collect(m, &format!(".{}", file.package()), "onnx", &mut messages);
        }
    }
    fs::write(Path::new(&env::var("OUT_DIR")?).join("schema.rs"), table(&messages)?)?;

    prost_build::Config::new()
        // `Bytes` fields are slices of the file's own memory: a constant is never copied.
        .bytes(["."])
        // Rare and large: unboxed, they make each attribute take 1,712 bytes.
        .boxed(".onnx.AttributeProto.t")
        .boxed(".onnx.AttributeProto.g")
        .boxed(".onnx.AttributeProto.tp")
        .boxed(".onnx.AttributeProto.sparse_tensor")
        .compile_fds(files)?;
    Ok(())
}

/// One message of the schema.
struct Message {
    /// `.onnx.TensorProto.Segment`, as other fields refer to it.
    full_name: String,
    /// `onnx::tensor_proto::Segment`, the generated type.
    rust_path: String,
    /// Number, name, numeric field type, whether repeated, and the type's name where it is a message.
    fields: Vec<(i32, String, i32, bool, String)>,
}

fn collect(m: &prost_types::DescriptorProto, scope: &str, module: &str, out: &mut Vec<Message>) {
    use prost_types::field_descriptor_proto::Label;
    let full_name = format!("{scope}.{}", m.name());
    let mut fields: Vec<_> = m
        .field
        .iter()
        .map(|f| {
            let repeated = f.label() == Label::Repeated;
            (f.number(), f.name().to_string(), f.r#type() as i32, repeated, f.type_name().to_string())
        })
        .collect();
    fields.sort();
    out.push(Message { full_name: full_name.clone(), rust_path: format!("{module}::{}", m.name()), fields });
    for nested in &m.nested_type {
        collect(nested, &full_name, &format!("{module}::{}", snake_case(m.name())), out);
    }
}

/// The table of `src/proto/scan.rs`.
fn table(messages: &[Message]) -> Result<String, Box<dyn Error>> {
    use prost_types::field_descriptor_proto::Type;
    let index: HashMap<&str, usize> = messages.iter().enumerate().map(|(i, m)| (m.full_name.as_str(), i)).collect();
    let mut out = String::new();
    writeln!(out, "pub(super) static MESSAGES: [Message; {}] = [", messages.len())?;
    for m in messages {
        writeln!(out, "    Message {{ size: size_of::<{}>(), fields: &[", m.rust_path)?;
        for (number, name, kind, repeated, type_name) in &m.fields {
            let kind = match Type::try_from(*kind)? {
                Type::Double | Type::Fixed64 | Type::Sfixed64 => "Fixed64".to_string(),
                Type::Float | Type::Fixed32 | Type::Sfixed32 => "Fixed32".to_string(),
                Type::Int64 | Type::Uint64 | Type::Sint64 => "Varint(8)".to_string(),
                Type::Int32 | Type::Uint32 | Type::Sint32 | Type::Enum => "Varint(4)".to_string(),
                Type::Bool => "Varint(1)".to_string(),
                Type::String => "Text".to_string(),
                Type::Bytes => "Bytes".to_string(),
                Type::Message => format!("Message({})", index[type_name.as_str()]),
                Type::Group => return Err(format!("{name}: groups are not supported").into()),
            };
            writeln!(
                out,
                "        Field {{ number: {number}, name: {name:?}, kind: Kind::{kind}, repeated: {repeated} }},"
            )?;
        }
        writeln!(out, "    ] }},")?;
    }
    writeln!(out, "];")?;
    for (i, m) in messages.iter().enumerate() {
        let name = m.full_name.trim_start_matches(".onnx.");
        writeln!(out, "impl Scanned for {} {{ const NAME: &str = {name:?}; const INDEX: usize = {i}; }}", m.rust_path)?;
    }
    Ok(out)
}

/// `TensorShapeProto` to `tensor_shape_proto`: how prost names the modules of nested messages.
fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
